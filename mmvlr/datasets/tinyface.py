"""TinyFace: 15,975 native low-resolution faces (Cheng et al., ACCV 2018)."""

from typing import Any

from mmvlr.registry import DATASETS

from .base import NO_IDENTITY
from .pairs_files import PairsFileDataset
from .storage import data_path


@DATASETS.register_module()
class TinyFace(PairsFileDataset):
    """TinyFace in its official layout.

    - ``split='train'``: role ``train`` with class labels, one folder a person.
    - ``split='test'``: roles ``gallery``, ``probe`` and ``distractor`` (identity -100). Identities
      come from the .mat files; where one is missing, all from the file names, with a warning.

    Args:
        data_root: Folder with ``Training_Set`` and ``Testing_Set``, or a pack of it.
        split: ``'train'`` or ``'test'``.
        with_distractors: Put the distractors into the gallery, as the protocol does.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: A folder is missing, or a .mat file names images that are not there.
        ValueError: A .mat file is damaged, or a set is empty.
    """

    METAINFO = dict(dataset_type='TinyFace')
    LAYOUT = (
        'Training_Set/<person>/*.jpg, Testing_Set/{Gallery_Match, Probe, Gallery_Distractor}/*.jpg '
        'and two .mat files in Testing_Set'
    )
    OFFICIAL = dict(
        train={'people': 2570, 'images': 7804},
        test={'gallery': 4443, 'probe': 3728, 'distractor': 153428},
    )

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        with_distractors: bool = True,
        **kwargs: Any,
    ):
        if split not in ('train', 'test'):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        self.split = split
        self.with_distractors = with_distractors
        kwargs.setdefault('test_mode', split == 'test')
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the records of the split."""
        root = self.require(data_path(self.data_root))
        if self.split == 'train':
            records = self.scan_people(self.require(root / 'Training_Set'))
            people = len({record['gt_label'] for record in records})
            self.compare_counts(self.OFFICIAL['train'], {'people': people, 'images': len(records)})
            return records
        root = self.require(root / 'Testing_Set')
        records = self.matched(
            root,
            dict(
                gallery=('Gallery_Match', 'gallery_match_img_ID_pairs.mat', 'gallery'),
                probe=('Probe', 'probe_img_ID_pairs.mat', 'probe'),
            ),
        )
        if self.with_distractors:
            records += [
                dict(img_path=str(path), identity=NO_IDENTITY, role='distractor')
                for path in self.images(root / 'Gallery_Distractor')
            ]
        found = {role: sum(r['role'] == role for r in records) for role in self.OFFICIAL['test']}
        expected = dict(self.OFFICIAL['test'])
        if not self.with_distractors:
            expected.pop('distractor')
        self.compare_counts(expected, found)
        return records
