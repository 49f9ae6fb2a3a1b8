"""Checks of an unpacked archive against the layout that its data set reads.

:func:`check_archive` looks at every name and decodes every image of TinyFace, SCface or
QMUL-SurvFace. All problems are collected, not only the first: what is missing, unexpected,
unreadable or contradicts something else. Notes are suspicious but harmless.
"""

import os
from pathlib import Path

from .findings import COLUMNS, MANIFEST, ArchiveReport
from .image_checks import inspect_image
from .layouts import ARCHIVES

__all__ = [
    'ARCHIVES',
    'COLUMNS',
    'MANIFEST',
    'ArchiveReport',
    'check_archive',
    'check_manifest_path',
    'inspect_image',
]


def check_manifest_path(path: Path, root: Path) -> None:
    """Raise ValueError for a manifest that could be taken for data, or would replace other work.

    Args:
        path: The file to be written.
        root: Root of the archive.
    """
    path, root = path.resolve(), root.resolve()
    if path.suffix != '.csv':
        raise ValueError(f'{path}: the name of a manifest ends in .csv')
    if root in path.parents and path.parent != root:
        raise ValueError(f'{path} lies among the data; choose a file in {root} or outside it')
    if path.is_dir():
        raise ValueError(f'{path} is a folder; choose another name for the manifest')
    if path.exists():
        with open(path, encoding='utf-8', errors='replace') as file:
            if file.readline(1000).strip() != ','.join(COLUMNS):
                raise ValueError(f'{path} is no manifest; choose another name, or delete it')
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ValueError(f'{parent} cannot be written to; choose another place: --manifest FILE')


def check_archive(
    dataset: str, root: str | Path, jobs: int = 1, manifest: str | Path | None = None
) -> ArchiveReport:
    """Compare an unpacked archive with the layout of its data set and decode every image.

    Args:
        dataset: ``'tinyface'``, ``'scface'`` or ``'survface'``.
        root: Folder of the archive.
        jobs: Number of processes that decode.
        manifest: File in ``root`` that is no part of the archive, beside ``manifest.csv``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no such data set, or ``jobs`` is below 1.
    """
    if dataset not in ARCHIVES:
        raise ValueError(f'dataset must be one of {sorted(ARCHIVES)}, not {dataset!r}')
    if jobs < 1:
        raise ValueError(f'jobs must be at least 1, not {jobs}')
    root = Path(root).resolve()
    if not root.is_dir():
        what = 'is a file' if root.is_file() else 'does not exist'
        raise FileNotFoundError(f'{root} {what}; give the folder of the unpacked archive')
    return ARCHIVES[dataset](root, Path(manifest).resolve() if manifest else None).run(jobs)
