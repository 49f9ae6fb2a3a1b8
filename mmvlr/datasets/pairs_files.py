"""Data sets whose labels are stored in MATLAB files beside folders of images."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from mmengine.logging import print_log

from mmvlr.utils.schema import FileFormatError
from mmvlr.utils.text import is_number

from .base import FaceDataset, alike_people
from .finding import find_images
from .storage import PackPath
from .storage.mat import MAX_BYTES, read_variables

_REMEDY = 'unpack the archive again'


def read_mat(path: Path | PackPath, *keys: str) -> list[Any]:
    """Return variables of a .mat file, see :func:`read_variables`.

    Raises:
        FileFormatError: The file is no .mat file or lacks a variable.
    """
    try:
        content = read_variables(_read(path), *keys)
    except ValueError as error:
        raise FileFormatError(path, f'not a readable .mat file: {error}', _REMEDY) from error
    for key in keys:
        if key not in content:
            told = f'no variable {key}; it has {sorted(content)}'
            raise FileFormatError(path, told, _REMEDY)
    return [content[key] for key in keys]


def _read(path: Path | PackPath) -> bytes:
    if isinstance(path, PackPath):
        return path.read_bytes()
    with path.open('rb') as file:
        # One byte above the limit is enough for the parser to refuse the file as too large.
        return file.read(min(path.stat().st_size, MAX_BYTES) + 1)


def read_pairs(path: Path | PackPath, names_key: str, ids_key: str) -> dict[str, int]:
    """Read an ``*_img_ID_pairs.mat`` file: file name -> identity.

    Args:
        path: The file.
        names_key: Variable with an (N, 1) cell of file names.
        ids_key: Variable with N whole numbers.

    Raises:
        FileFormatError: The file is no .mat file, lacks a variable, names nothing, an identity is
            no whole number, the lengths differ, or an image has two identities.
    """
    cells, numbers = read_mat(path, names_key, ids_key)
    names = [_text(cell, path, names_key) for cell in np.ravel(cells)]
    if not names:
        raise FileFormatError(path, f'{names_key}: empty; expected file names', _REMEDY)
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in 'iuf':
        raise FileFormatError(path, f'{ids_key}: no numbers', _REMEDY)
    values = np.ravel(numbers).tolist()
    for place, value in enumerate(values):
        # Double precision holds all whole numbers up to 2^53.
        if not abs(value) <= 2**53 or value != int(value):
            told = f'{ids_key}: entry {place + 1} is {value}; an identity is a whole number'
            raise FileFormatError(path, told, _REMEDY)
    ids = [int(value) for value in values]
    if len(names) != len(ids):
        told = f'{len(names)} {names_key} but {len(ids)} {ids_key}'
        raise FileFormatError(path, told, _REMEDY)
    pairs: dict[str, int] = {}
    for name, identity in zip(names, ids, strict=True):
        if pairs.setdefault(name, identity) != identity:
            told = f'{ids_key}: gives {name} two identities, {pairs[name]} and {identity}'
            raise FileFormatError(path, told, _REMEDY)
    return pairs


def read_name_pairs(path: Path, key: str) -> list[tuple[str, str]]:
    """Read a list of pairs of file names, as QMUL-SurvFace's verification has them.

    Args:
        path: The .mat file.
        key: Variable with an (N, 2) cell of file names.

    Raises:
        FileFormatError: The file is no .mat file, lacks the variable, or it has another shape.
    """
    (cells,) = read_mat(path, key)
    cells = np.asarray(cells, object)
    if cells.ndim != 2 or cells.shape[1] != 2 or not len(cells):
        told = f'{key}: has shape {cells.shape}; expected (N, 2) file names'
        raise FileFormatError(path, told, _REMEDY)
    return [(_text(first, path, key), _text(second, path, key)) for first, second in cells]


def _text(cell: Any, path: Path | PackPath, key: str) -> str:
    while isinstance(cell, np.ndarray) and cell.size == 1:
        cell = cell.item()
    if not isinstance(cell, str) or not cell:
        told = f'{key}: holds {cell!r:.99} where a file name is expected'
        raise FileFormatError(path, told, _REMEDY)
    return cell


def prefix_identity(name: str) -> int:
    """Return the identity in a file name such as ``12_3.jpg``.

    Raises:
        ValueError: The name does not start with a number and ``_``.
    """
    if not has_prefix(name):
        raise ValueError(f'no identity in the file name {name!r}; expected <identity>_<n>.jpg')
    return int(name.split('_')[0])


def has_prefix(name: str) -> bool:
    """Return whether :func:`prefix_identity` finds an identity in a file name."""
    return is_number(name.split('_')[0])


class PairsFileDataset(FaceDataset):
    """Base of TinyFace and QMUL-SurvFace: folders of images and .mat files with identities.

    Attributes:
        TRAIN: Folder of the training set, with one folder per person.
        SOURCES: See :meth:`matched`.
    """

    TRAIN = ''
    SOURCES: Mapping[str, tuple[str, str, str]] = MappingProxyType({})

    @property
    def name(self) -> str:
        """Name of the data set, for error messages."""
        return self.METAINFO['dataset_type']

    def training_images(self) -> list[str]:
        """See :class:`FaceDataset`."""
        folder = self.find_root() / self.TRAIN
        return [str(path) for path in find_images(folder).images] if folder.is_dir() else []

    def images(self, folder: Path) -> list[Path]:
        """Return the images of a folder; count the other entries.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It holds no image.
        """
        images = self.list_images(self.require(folder))
        if not images:
            raise ValueError(f'{self.name}: no image in {folder}; expected {self.LAYOUT}')
        return images

    def matched(self, root: Path, sources: Mapping[str, tuple[str, str, str]]) -> list[dict]:
        """Return the records of folders whose identities are stored in .mat files.

        If one of the files is missing, all identities come from the file names, with a warning:
        the .mat files may number people differently.

        Args:
            root: Folder that holds the image folders and .mat files.
            sources: Role to folder, name of the .mat file, and the stem of its variables
                (``<stem>_set``, ``<stem>_ids``).

        Raises:
            FileNotFoundError: A folder is missing, or a file names images that do not exist.
            ValueError: A file is damaged, or a folder is empty.
        """
        absent = [file for _, file, _ in sources.values() if not (root / file).is_file()]
        for file in absent:
            print_log(
                f'{self.name}: {root / file} is missing; identities of {" and ".join(sources)} '
                'are taken from the file names',
                logger='current',
                level=logging.WARNING,
            )
        records: list[dict] = []
        named: list[tuple[str, int]] = []
        for role, (folder, file, stem) in sources.items():
            images = {image.name: image for image in self.images(root / folder)}
            if absent:
                pairs = {name: prefix_identity(name) for name in images}
                # 1_a.jpg and 01_b.jpg give the same number, whether or not it is the same person.
                prefixes = dict.fromkeys(name.split('_')[0] for name in images)
                self.noticed['numbers in file names that are one person here'].extend(
                    alike_people([*prefixes])
                )
            else:
                pairs = read_pairs(root / file, f'{stem}_set', f'{stem}_ids')
                named.extend(pairs.items())
            self.require_named(pairs, images, root / file, root / folder)
            self.left_out[f'{role} images that {file} does not name'].extend(
                name for name in images if name not in pairs
            )
            records += [
                dict(img_path=str(images[name]), identity=identity, role=role)
                for name, identity in pairs.items()
            ]
        self.cross_check(named)
        return records

    def require_named(
        self, names: Mapping[str, Any], images: Mapping[str, Path], file: Path, folder: Path
    ) -> None:
        """Raise an error if ``file`` names images that are not among those of ``folder``."""
        missing = [name for name in names if name not in images]
        if missing:
            raise FileNotFoundError(
                f'{file} names {len(missing)} images that are not in {folder}, such as '
                f'{missing[0]}; unpack the archive again'
            )

    def cross_check(self, named: Sequence[tuple[str, int]]) -> None:
        """Warn where the prefixes of the names and the .mat files group images differently.

        All files are compared together: files that number people differently would match different
        people.
        """
        if not all(has_prefix(name) for name, _ in named):
            return
        groups = {(prefix_identity(name), identity) for name, identity in named}
        prefixes, identities = (Counter(group[i] for group in groups) for i in (0, 1))
        if not len(groups) == len(prefixes) == len(identities):
            self.noticed['identities of the .mat files that the file names contradict'].extend(
                sorted(str(g) for g in groups if prefixes[g[0]] > 1 or identities[g[1]] > 1)
            )
