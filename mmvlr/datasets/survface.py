"""QMUL-SurvFace: 463,507 native surveillance faces (Cheng et al., arXiv 1804.09691)."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.registry import DATASETS

from .base import NO_IDENTITY
from .pairs_files import PairsFileDataset, has_prefix, prefix_identity, read_name_pairs
from .transforms import read_image

SPLITS = ('train', 'test', 'identification', 'verification')


@DATASETS.register_module()
class SurvFace(PairsFileDataset):
    """QMUL-SurvFace in its official layout.

    - ``split='train'``: role ``train`` with class labels, one folder per person.
    - ``split='identification'`` (open set): roles ``gallery``, ``probe`` (mated) and ``unmated``,
      all images of that folder. Identities come from the .mat files. Unmated people, which no
      .mat file names, get higher numbers by the prefix of their file names, and distractors -100;
      these numbers are used for confidence intervals only.
    - ``split='verification'``: role ``pair``; the pairs are in ``metainfo``: ``pairs``, (P, 2)
      sample indices, and ``same``, (P,) bool.
    - ``split='test'``: identification and verification together.

    Args:
        data_root: The folder ``QMUL-SurvFace``, or the one that holds it; or a pack of it.
        split: See above.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: A folder is missing, or a .mat file names images that do not exist.
        ValueError: A .mat file is damaged, or a set is empty.
    """

    METAINFO = dict(dataset_type='SurvFace')
    WRAPPER = 'QMUL-SurvFace'
    TRAIN = 'training_set'
    IDENTIFICATION, UNMATED = 'Face_Identification_Test_Set', 'unmated_probe'
    VERIFICATION, IMAGES = 'Face_Verification_Test_Set', 'verification_images'
    #: Folder of the lists of pairs in some copies of the data set.
    EVALUATION = 'Face_Verification_Evaluation'
    SOURCES = dict(
        gallery=('gallery', 'gallery_img_ID_pairs.mat', 'gallery'),
        probe=('mated_probe', 'mated_probe_img_ID_pairs.mat', 'mated_probe'),
    )
    FOLDERS = (
        (TRAIN,),
        (f'{IDENTIFICATION}/gallery',),
        (f'{IDENTIFICATION}/mated_probe',),
        (f'{IDENTIFICATION}/{UNMATED}',),
        (f'{VERIFICATION}/{IMAGES}',),
    )
    LAYOUT = (
        f'{TRAIN}/<person>/*.jpg, {IDENTIFICATION}/{{gallery, mated_probe, {UNMATED}}}/*.jpg with '
        f'two .mat files, {VERIFICATION}/{IMAGES}/*.jpg with {{positive,negative}}_pairs_names.mat'
    )
    OFFICIAL = dict(
        train={'people': 5319, 'images': 220890},
        identification={'people in the gallery': 3000, 'mated probes': 60423},
    )

    def __init__(self, data_root: str = '', split: str = 'train', **kwargs: Any):
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, not {split!r}')
        self.split = split
        kwargs.setdefault('test_mode', split != 'train')
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the records of the split."""
        root = self.find_root()
        if self.split == 'train':
            records = self.scan_people(self.require(root / self.TRAIN))
            people = len({record['gt_label'] for record in records})
            self.compare_counts(self.OFFICIAL['train'], {'people': people, 'images': len(records)})
            return records
        records = []
        if self.split in ('test', 'identification'):
            records += self._identification(root / self.IDENTIFICATION)
        if self.split in ('test', 'verification'):
            records += self._verification(root, first_index=len(records))
        return records

    def _identification(self, folder: Path) -> list[dict]:
        records = self.matched(self.require(folder), self.SOURCES)
        gallery = {r['identity'] for r in records if r['role'] == 'gallery'}
        mated = [r for r in records if r['role'] == 'probe']
        without = [Path(r['img_path']).name for r in mated if r['identity'] not in gallery]
        if without:
            raise ValueError(
                f'SurvFace: {len(without)} mated probes have no image of their person in the '
                f'gallery, such as {without[0]}; gallery and mated_probe of {folder} do not '
                'belong together'
            )
        self.compare_counts(
            self.OFFICIAL['identification'],
            {'people in the gallery': len(gallery), 'mated probes': len(mated)},
        )
        return records + self._unmated(folder, records)

    def _unmated(self, folder: Path, matched: list[dict]) -> list[dict]:
        """Return the records of the unmated probes."""
        files: dict[str, list[Path]] = defaultdict(list)
        identity_of: dict[int, int] = {}
        for record in matched:
            path = Path(record['img_path'])
            files[path.name].append(path)
            if has_prefix(path.name):
                identity_of[prefix_identity(path.name)] = record['identity']
        mated_people = set(identity_of)
        unused = max(r['identity'] for r in matched) + 1
        records = []
        for path in self.images(folder / self.UNMATED):
            if any(
                np.array_equal(read_image(str(same)), read_image(str(path)))
                for same in files[path.name]
            ):
                # It would match its own copy with a cosine of 1, a false alarm caused by the data.
                self.left_out['unmated images that are also in gallery or mated_probe'].append(
                    path.name
                )
                continue
            identity = NO_IDENTITY
            if has_prefix(path.name):
                prefix = prefix_identity(path.name)
                if prefix in mated_people:
                    self.noticed['unmated images named like people of the gallery'].append(
                        path.name
                    )
                identity = identity_of.setdefault(prefix, unused)
                unused = max(unused, identity + 1)
            records.append(dict(img_path=str(path), identity=identity, role='unmated'))
        if not records:
            raise ValueError(
                f'SurvFace: every image of {folder / "unmated_probe"} is also in gallery or '
                'mated_probe; unpack it again'
            )
        return records

    def _verification(self, root: Path, first_index: int) -> list[dict]:
        """Return the records of the images in pairs; store the pairs in ``metainfo``."""
        folder = root / self.VERIFICATION
        parent = folder / self.IMAGES
        images = {image.name: image for image in self.images(parent)}
        pairs: list[tuple[str, str]] = []
        same: list[bool] = []
        for kind in ('positive', 'negative'):
            file = folder / f'{kind}_pairs_names.mat'
            elsewhere = root / self.EVALUATION / file.name
            if not file.is_file() and elsewhere.is_file():
                file = elsewhere
            if not file.is_file():
                raise FileNotFoundError(f'SurvFace: {file} is missing; expected {self.LAYOUT}')
            listed = read_name_pairs(file, f'{kind}_pairs_names')
            names = dict.fromkeys(name for pair in listed for name in pair)
            self.require_named(names, images, file, parent)
            contradicted = [
                f'{first} and {second}'
                for first, second in listed
                if has_prefix(first)
                and has_prefix(second)
                and (prefix_identity(first) == prefix_identity(second)) != (kind == 'positive')
            ]
            self.noticed[f'{kind} pairs that the file names contradict'].extend(contradicted)
            pairs += listed
            same += [kind == 'positive'] * len(listed)
        used = list(dict.fromkeys(name for pair in pairs for name in pair))
        self.left_out['verification images that are in no pair'].extend(
            name for name in images if name not in set(used)
        )
        index_of = {name: first_index + index for index, name in enumerate(used)}
        self._metainfo['pairs'] = np.array([[index_of[a], index_of[b]] for a, b in pairs])
        self._metainfo['same'] = np.array(same)
        return [
            dict(
                img_path=str(images[name]),
                identity=prefix_identity(name) if has_prefix(name) else NO_IDENTITY,
                role='pair',
            )
            for name in used
        ]
