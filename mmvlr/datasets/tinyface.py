"""TinyFace: 15,975 native low-resolution faces (Cheng et al., ACCV 2018)."""

from typing import Any

from mmvlr.registry import DATASETS

from .base import NO_IDENTITY
from .pairs_files import PairsFileDataset


@DATASETS.register_module()
class TinyFace(PairsFileDataset):
    """TinyFace in its official layout.

    - ``split='train'``: role ``train`` with class labels, one folder per person.
    - ``split='test'``: roles ``gallery``, ``probe`` and ``distractor`` (identity -100). Identities
      come from the .mat files; if one is missing, all come from the file names, with a warning.

    Args:
        data_root: Folder with ``Training_Set`` and ``Testing_Set``, or a pack of it.
        split: ``'train'`` or ``'test'``.
        with_distractors: Put the distractors into the gallery, as the protocol does.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: A folder is missing, or a .mat file names images that do not exist.
        ValueError: A .mat file is damaged, or a set is empty.
    """

    METAINFO = dict(dataset_type='TinyFace')
    TRAIN, TEST, DISTRACTORS = 'Training_Set', 'Testing_Set', 'Gallery_Distractor'
    SOURCES = dict(
        gallery=('Gallery_Match', 'gallery_match_img_ID_pairs.mat', 'gallery'),
        probe=('Probe', 'probe_img_ID_pairs.mat', 'probe'),
    )
    FOLDERS = (
        (TRAIN,),
        (f'{TEST}/Gallery_Match',),
        (f'{TEST}/Probe',),
        (f'{TEST}/{DISTRACTORS}',),
    )
    LAYOUT = (
        f'{TRAIN}/<person>/*.jpg, {TEST}/{{Gallery_Match, Probe, {DISTRACTORS}}}/*.jpg '
        f'and two .mat files in {TEST}'
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
        root = self.find_root()
        if self.split == 'train':
            records = self.scan_people(self.require(root / self.TRAIN))
            people = len({record['gt_label'] for record in records})
            self.compare_counts(self.OFFICIAL['train'], {'people': people, 'images': len(records)})
            return records
        root = self.require(root / self.TEST)
        records = self.matched(root, self.SOURCES)
        if self.with_distractors:
            records += [
                dict(img_path=str(path), identity=NO_IDENTITY, role='distractor')
                for path in self.images(root / self.DISTRACTORS)
            ]
        found = {role: sum(r['role'] == role for r in records) for role in self.OFFICIAL['test']}
        expected = dict(self.OFFICIAL['test'])
        if not self.with_distractors:
            expected.pop('distractor')
        self.compare_counts(expected, found)
        return records
