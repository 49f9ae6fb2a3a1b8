"""Read images by path, also inside files: ``faces.pack/1/a.jpg``, ``train.rec/17``, ``lfw.bin/3``.

Records carry such a path as ``img_path``, like that of an image file; each process opens the
containing file once. A folder with one of these extensions is still read as a folder.
"""

import os
import re
from collections.abc import Hashable, Iterator
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np

from . import lfw_bin, pack, recordio

READERS = {
    pack.SUFFIX: pack.PackReader,
    recordio.SUFFIX: recordio.RecordIOReader,
    lfw_bin.SUFFIX: lfw_bin.BinReader,
}
_INSIDE = re.compile(rf'\.(?:pack|rec|bin)[/{re.escape(os.sep)}]')


class Reader(Protocol):
    """Interface of the readers of all kinds of files."""

    def image(self, name: str) -> np.ndarray:
        """Return an image, RGB uint8 (h, w, 3); KeyError if there is none of this name."""

    def content(self, name: str) -> bytes:
        """Return the stored bytes of an image."""

    def size_key(self, name: str) -> Hashable:
        """Return a cheap key that is equal for images of equal content."""


_readers: dict[str, Reader] = {}
_states: dict[str, tuple[int, ...]] = {}


def open_stored(path: str | Path) -> Reader:
    """Return the reader of a .pack, .rec or .bin file; a changed file is opened again."""
    path = os.fspath(path)
    status = os.stat(path)
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if _states.get(path) != state:
        _readers[path] = READERS[os.path.splitext(path)[1]](path)
        _states[path] = state
    return _readers[path]


def locate(path: str | PurePath) -> tuple[Reader, str] | None:
    """Return the reader of the file that contains a path, and the name in it; None if none."""
    path = os.fspath(path)
    for found in _INSIDE.finditer(path):
        file, name = path[: found.end() - 1], path[found.end() :]
        reader = _readers.get(file)
        if reader is None:
            if not os.path.isfile(file):
                continue
            reader = open_stored(file)
        return reader, name.replace(os.sep, '/')
    return None


def file_status(path: str | PurePath) -> os.stat_result | None:
    """Return the status of an image's file, or of the file that contains it; None if none."""
    path = os.fspath(path)
    ends = [found.end() - 1 for found in _INSIDE.finditer(path)] + [len(path)]
    files = (path[:end] for end in ends)
    return next((os.stat(file) for file in files if os.path.isfile(file)), None)


class PackPath(type(PurePath())):
    """A file or folder in a pack, with the :class:`pathlib.Path` methods that data sets use."""

    def _entry(self) -> tuple[pack.PackReader, str]:
        found = locate(f'{self}/')
        if found is None:
            raise FileNotFoundError(f'{self} is not in a pack')
        return found[0], found[1].rstrip('/')

    def is_file(self) -> bool:
        """Return whether the pack holds an image or file of this name."""
        reader, name = self._entry()
        return reader.is_file(name)

    def is_dir(self) -> bool:
        """Return whether the pack holds a folder of this name."""
        reader, name = self._entry()
        return name in reader.tree

    def iterdir(self) -> Iterator['PackPath']:
        """Iterate over the entries of a folder."""
        reader, name = self._entry()
        return (self / entry for entry in reader.tree[name])

    def rglob(self, pattern: str) -> Iterator['PackPath']:
        """Iterate over all entries below a folder; the only pattern is ``*``."""
        if pattern != '*':
            raise ValueError(f"a pack is searched for '*' only, not {pattern!r}")
        for entry in self.iterdir():
            yield entry
            if entry.is_dir():
                yield from entry.rglob(pattern)

    def read_bytes(self) -> bytes:
        """Return the content of a file that is no image."""
        reader, name = self._entry()
        return reader.read_file(name)


def data_path(path: str | Path) -> Path | PackPath:
    """Return the folder of a data set: a path in a pack if one of its parts is a ``.pack`` file.

    Args:
        path: A folder, ``NAME.pack``, or ``NAME.pack/folder``.

    Raises:
        ValueError: The pack is damaged.
    """
    path = Path(path)
    for part in (path, *path.parents):
        if part.suffix == pack.SUFFIX and part.is_file():
            open_stored(part)
            return PackPath(path)
    return path
