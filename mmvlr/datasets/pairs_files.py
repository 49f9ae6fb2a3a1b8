"""Data sets whose labels stand in MATLAB files beside folders of images."""

import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from scipy.io import loadmat

from .base import FaceDataset, list_images, require_folder


def read_mat(path: Path, *keys: str) -> list[Any]:
    """Return variables of a .mat file.

    Raises:
        ValueError: The file is no .mat file or lacks a variable.
    """
    try:
        content = loadmat(io.BytesIO(path.read_bytes()))
    except Exception as error:  # scipy raises a dozen types for damaged files
        raise ValueError(
            f'{path} is not a readable .mat file ({error}); unpack it again'
        ) from error
    for key in keys:
        if key not in content:
            found = sorted(name for name in content if not name.startswith('__'))
            raise ValueError(f'{path} has no variable {key}; it has {found}')
    return [content[key] for key in keys]


def read_pairs(path: Path, names_key: str, ids_key: str) -> dict[str, int]:
    """Read an ``*_img_ID_pairs.mat`` file: file name -> identity.

    Args:
        path: The file.
        names_key: Variable with an (N, 1) cell of file names.
        ids_key: Variable with N numbers.

    Raises:
        ValueError: The file is no .mat file, lacks a variable, the lengths differ, or an image
            has two identities.
    """
    cells, numbers = read_mat(path, names_key, ids_key)
    names = [_text(cell, path, names_key) for cell in cells.ravel()]
    ids = [int(value) for value in np.ravel(numbers)]
    if len(names) != len(ids):
        raise ValueError(f'{path}: {len(names)} {names_key} but {len(ids)} {ids_key}')
    pairs: dict[str, int] = {}
    for name, identity in zip(names, ids, strict=True):
        if pairs.setdefault(name, identity) != identity:
            raise ValueError(f'{path} gives {name} two identities, {pairs[name]} and {identity}')
    return pairs


def read_name_pairs(path: Path, key: str) -> list[tuple[str, str]]:
    """Read a list of pairs of file names, as QMUL-SurvFace's verification has them.

    Args:
        path: The .mat file.
        key: Variable with an (N, 2) cell of file names.

    Raises:
        ValueError: The file is no .mat file, lacks the variable, or it has another shape.
    """
    (cells,) = read_mat(path, key)
    if cells.ndim != 2 or cells.shape[1] != 2 or not len(cells):
        raise ValueError(f'{path}: {key} has shape {cells.shape}; expected (N, 2) file names')
    return [(_text(first, path, key), _text(second, path, key)) for first, second in cells]


def _text(cell: Any, path: Path, key: str) -> str:
    value = np.squeeze(cell)
    if value.size != 1 or value.dtype.kind not in 'UO':
        raise ValueError(f'{path}: {key} holds {cell!r} where a file name is expected')
    return str(value.item())


def prefix_identity(name: str) -> int:
    """Return the identity in a file name such as ``12_3.jpg``.

    Raises:
        ValueError: The name does not start with a number and ``_``.
    """
    prefix = name.split('_')[0]
    if not prefix.isdecimal():
        raise ValueError(f'no identity in the file name {name!r}; expected <identity>_<n>.jpg')
    return int(prefix)


def has_prefix(name: str) -> bool:
    """Say whether :func:`prefix_identity` finds an identity in a file name."""
    return name.split('_')[0].isdecimal()


class PairsFileDataset(FaceDataset):
    """Base of TinyFace and QMUL-SurvFace: folders of images and .mat files with identities.

    A subclass names its ``LAYOUT``, for the messages.
    """

    LAYOUT = ''

    @property
    def name(self) -> str:
        """Name of the data set, for the messages."""
        return self.METAINFO['dataset_type']

    def require(self, folder: Path) -> Path:
        """Return ``folder`` if it is one, else raise an error with the expected layout."""
        return require_folder(folder, self.name, self.LAYOUT)

    def images(self, folder: Path) -> list[Path]:
        """Return the images of a folder; count what else is in it.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It holds no image.
        """
        images, others = list_images(self.require(folder))
        if not images:
            raise ValueError(f'{self.name}: no image in {folder}; expected {self.LAYOUT}')
        self.left_out['entries that are no images'].extend(
            f'{folder.name}/{entry.name}' for entry in others
        )
        return images

    def matched(self, root: Path, sources: Mapping[str, tuple[str, str, str]]) -> list[dict]:
        """Return the records of folders whose identities stand in .mat files.

        Where one of the files is missing, the identities of all come from the file names, with a
        warning: those of the files may be numbered otherwise.

        Args:
            root: Folder that holds folders and files.
            sources: Role to folder, name of the .mat file, and the stem of its variables
                (``<stem>_set``, ``<stem>_ids``).

        Raises:
            FileNotFoundError: A folder is missing, or a file names images that are not there.
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
        """Warn where the names' prefixes group the images otherwise than the .mat files.

        Over all files: two that number people differently would match the wrong ones.
        """
        if not all(has_prefix(name) for name, _ in named):
            return
        groups = {(prefix_identity(name), identity) for name, identity in named}
        prefixes, identities = (Counter(group[i] for group in groups) for i in (0, 1))
        if not len(groups) == len(prefixes) == len(identities):
            self.noticed['identities of the .mat files that the file names contradict'].extend(
                sorted(str(g) for g in groups if prefixes[g[0]] > 1 or identities[g[1]] > 1)
            )
