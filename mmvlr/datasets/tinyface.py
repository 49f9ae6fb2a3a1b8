"""TinyFace: 15,975 native low-resolution faces (Cheng et al., ACCV 2018)."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from scipy.io import loadmat

from mmvlr.registry import DATASETS

from .base import NO_IDENTITY, FaceDataset, list_pictures, require_folder

LAYOUT = (
    'Training_Set/<person>/*.jpg, Testing_Set/{Gallery_Match, Probe, Gallery_Distractor}/*.jpg '
    'and two .mat files in Testing_Set'
)


def read_pairs(path: Path, names_key: str, ids_key: str) -> dict[str, int]:
    """Read an ``*_img_ID_pairs.mat`` file: file name -> identity.

    Args:
        path: The file.
        names_key: Variable with an (N, 1) cell of file names.
        ids_key: Variable with N numbers.

    Raises:
        ValueError: The file is no .mat file, lacks a variable, the lengths differ, or a picture
            has two identities.
    """
    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises a dozen types for damaged files
        raise ValueError(
            f'{path} is not a readable .mat file ({error}); unpack it again'
        ) from error
    for key in (names_key, ids_key):
        if key not in content:
            found = sorted(name for name in content if not name.startswith('__'))
            raise ValueError(f'{path} has no variable {key}; it has {found}')
    names = [str(np.squeeze(cell).item()) for cell in content[names_key].ravel()]
    ids = [int(value) for value in np.ravel(content[ids_key])]
    if len(names) != len(ids):
        raise ValueError(f'{path}: {len(names)} {names_key} but {len(ids)} {ids_key}')
    pairs: dict[str, int] = {}
    for name, identity in zip(names, ids, strict=True):
        if pairs.setdefault(name, identity) != identity:
            raise ValueError(f'{path} gives {name} two identities, {pairs[name]} and {identity}')
    return pairs


def prefix_identity(name: str) -> int:
    """Return the identity in a file name such as ``12_3.jpg``.

    Raises:
        ValueError: The name does not start with a number and ``_``.
    """
    prefix = name.split('_')[0]
    if not prefix.isdigit():
        raise ValueError(f'no identity in the file name {name!r}; expected <identity>_<n>.jpg')
    return int(prefix)


@DATASETS.register_module()
class TinyFace(FaceDataset):
    """TinyFace in its official layout.

    - ``split='train'``: role ``train`` with class labels, one folder a person.
    - ``split='test'``: roles ``gallery``, ``probe`` and ``distractor`` (identity -100). Identities
      come from the .mat files; where one is missing, from the file names, with a warning.

    Args:
        data_root: Folder with ``Training_Set`` and ``Testing_Set``.
        split: ``'train'`` or ``'test'``.
        with_distractors: Put the distractors into the gallery, as the protocol does.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: A folder is missing, or a .mat file names pictures that are not there.
        ValueError: A .mat file is damaged, or a set is empty.
    """

    METAINFO = dict(dataset_type='TinyFace')
    OFFICIAL = dict(
        train={'people': 2570, 'pictures': 7804},
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
        root = require_folder(Path(self.data_root), 'TinyFace', LAYOUT)
        if self.split == 'train':
            records = self.scan_people(require_folder(root / 'Training_Set', 'TinyFace', LAYOUT))
            people = len({record['gt_label'] for record in records})
            self.compare_counts(
                self.OFFICIAL['train'], {'people': people, 'pictures': len(records)}
            )
            return records
        root = require_folder(root / 'Testing_Set', 'TinyFace', LAYOUT)
        records = self._matched(root, 'Gallery_Match', 'gallery', 'gallery_match', 'gallery')
        records += self._matched(root, 'Probe', 'probe', 'probe', 'probe')
        if self.with_distractors:
            folder = require_folder(root / 'Gallery_Distractor', 'TinyFace', LAYOUT)
            records += [
                dict(img_path=str(path), identity=NO_IDENTITY, role='distractor')
                for path in self._pictures(folder)
            ]
        found = {role: sum(r['role'] == role for r in records) for role in self.OFFICIAL['test']}
        expected = dict(self.OFFICIAL['test'])
        if not self.with_distractors:
            expected.pop('distractor')
        self.compare_counts(expected, found)
        return records

    def _pictures(self, folder: Path) -> list[Path]:
        pictures, others = list_pictures(folder)
        if not pictures:
            raise ValueError(f'TinyFace: no picture in {folder}; expected {LAYOUT}')
        self.left_out['entries that are no pictures'].extend(
            f'{folder.name}/{entry.name}' for entry in others
        )
        return pictures

    def _matched(self, root: Path, folder: str, role: str, mat: str, key: str) -> list[dict]:
        pictures = {
            p.name: p for p in self._pictures(require_folder(root / folder, 'TinyFace', LAYOUT))
        }
        pairs_file = root / f'{mat}_img_ID_pairs.mat'
        if not pairs_file.is_file():
            print_log(
                f'TinyFace: {pairs_file} is missing; identities are taken from the file names',
                logger='current',
                level=logging.WARNING,
            )
            pairs = {name: prefix_identity(name) for name in pictures}
        else:
            pairs = read_pairs(pairs_file, f'{key}_set', f'{key}_ids')
            self._cross_check(pairs_file, pairs)
        absent = [name for name in pairs if name not in pictures]
        if absent:
            raise FileNotFoundError(
                f'{pairs_file} names {len(absent)} pictures that are not in {root / folder}, '
                f'such as {absent[0]}; unpack the archive again'
            )
        self.left_out[f'{role} pictures that {pairs_file.name} does not name'].extend(
            name for name in pictures if name not in pairs
        )
        return [
            dict(img_path=str(pictures[name]), identity=identity, role=role)
            for name, identity in pairs.items()
        ]

    def _cross_check(self, pairs_file: Path, pairs: dict[str, int]) -> None:
        """Warn where the names' prefixes group the pictures otherwise than the .mat file."""
        if not all(name.split('_')[0].isdigit() for name in pairs):
            return
        groups = {(prefix_identity(name), identity) for name, identity in pairs.items()}
        prefixes, identities = ({group[i] for group in groups} for i in (0, 1))
        if not len(groups) == len(prefixes) == len(identities):
            self.noticed[f'identities of {pairs_file.name} that the file names contradict'].extend(
                sorted(
                    str(g) for g in groups if sum(g[0] == o[0] or g[1] == o[1] for o in groups) > 1
                )
            )
