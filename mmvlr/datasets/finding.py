"""Find images: the directory walk of all tools and data sets.

Links are followed, except a link to a folder that is being walked. Hidden entries are left out.
Entries that cannot be read are returned with the reason, so that nothing is skipped in silence.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mmvlr.utils.filetype import IMAGE_SUFFIXES

from .storage.paths import PackPath

#: Reason why a link to a parent folder is not read: following it would never end.
ABOVE = 'a link to a folder above, not followed'


class Unread(NamedTuple):
    """An entry of a folder that cannot be read, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f'{self.path} ({self.reason})'


@dataclass
class Folder:
    """Entries of a folder, in name order.

    Attributes:
        path: The folder.
        images: Files with the extension of an image.
        others: Other files.
        folders: Folders, also linked ones.
        hidden: Names that begin with a dot: archives made on a Mac hold a ``._1.jpg`` beside
            every image.
        unread: Broken links, folders without permission to read, devices.
    """

    path: Path
    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)


def list_folder(path: Path | PackPath) -> Folder:
    """List a folder, on disk or in a pack.

    Raises:
        OSError: It cannot be read.
    """
    found = Folder(path)
    for name, entry in sorted(_entries(path)):
        place = path / name
        if name.startswith('.'):
            found.hidden.append(name)
            continue
        try:
            if entry.is_dir():
                found.folders.append(place)
            elif entry.is_file():
                is_image = place.suffix.lower() in IMAGE_SUFFIXES
                (found.images if is_image else found.others).append(place)
            else:
                dangling = os.path.islink(place)
                reason = 'a link that leads nowhere' if dangling else 'neither file nor folder'
                found.unread.append(Unread(place, reason))
        except OSError as error:
            found.unread.append(Unread(place, error.strerror or str(error)))
    return found


def _entries(path: Path | PackPath) -> list[tuple[str, 'os.DirEntry | PackPath']]:
    if isinstance(path, PackPath):
        return [(entry.name, entry) for entry in path.iterdir()]
    with os.scandir(path) as entries:
        return [(entry.name, entry) for entry in entries]


def walk(root: Path | PackPath) -> Iterator[Folder]:
    """Iterate over a folder and all folders below it, parents first.

    A folder below ``root`` that cannot be read is yielded with its own entry in ``unread`` only;
    so is a link to a folder above ``root``, which is not followed.

    Raises:
        OSError: ``root`` itself cannot be read.
    """
    is_pack = isinstance(root, PackPath)
    above = set() if is_pack else {_identity(folder) for folder in root.resolve().parents}
    todo: list[tuple[Path | PackPath, tuple]] = [(root, ())]
    while todo:
        path, inside = todo.pop()
        try:
            identity = path if is_pack else _identity(path)
            if identity in inside:
                continue
            if identity in above:
                raise OSError(ABOVE)
            found = list_folder(path)
        except OSError as error:
            if not inside:
                raise
            yield Folder(path, unread=[Unread(path, error.strerror or str(error))])
            continue
        yield found
        todo += [(folder, (*inside, identity)) for folder in reversed(found.folders)]


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


@dataclass
class Tree:
    """All entries below a folder, as in :class:`Folder`; folder by folder, each in name order."""

    images: list[Path]
    others: list[Path]
    unread: list[Unread]


def require_readable(path: Path) -> None:
    """Raise the error that explains why an entry listed by :func:`find_images` cannot be read.

    Raises:
        OSError: It is a link that leads nowhere, a folder, or neither file nor folder.
    """
    if path.is_dir():
        os.scandir(path).close()
        raise IsADirectoryError(f'folder {path} holds no image')
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(f'{path} is a link that leads nowhere ({os.readlink(path)})')
    if path.exists() and not path.is_file():
        # Opening a named pipe would block forever.
        raise OSError(f'{path} is neither file nor folder')


def find_images(root: Path | PackPath) -> Tree:
    """Return the images below a folder, the other files, and what cannot be read.

    Raises:
        OSError: The folder itself cannot be read.
    """
    found = Tree([], [], [])
    for folder in walk(root):
        found.images += folder.images
        found.others += folder.others
        found.unread += folder.unread
    return found
