"""What is packed into one file: all images of a folder, or those of a RecordIO file."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmvlr.datasets.finding import IMAGE_SUFFIXES, walk
from mmvlr.datasets.storage import ImageError, RecordIOReader
from mmvlr.datasets.storage.recordio import RECORDS
from mmvlr.datasets.transforms import read_image

#: Files that are no images are packed up to this size: label files, not archives.
MAX_FILE_BYTES = 64 * 2**20


class BrokenImagesError(ValueError):
    """Images cannot be read, and leaving them out was not asked for."""


class Source:
    """What is to be packed.

    Args:
        skip_broken: Leave out images that cannot be read.

    Attributes:
        broken: What is wrong with each image that cannot be read.
        left_out: Why something is not packed -> names.
    """

    folders: tuple[str, ...] = ()

    def __init__(self, skip_broken: bool):
        self.skip_broken = skip_broken
        self.broken: list[str] = []
        self.left_out: dict[str, list[str]] = defaultdict(list)

    def __len__(self) -> int:
        raise NotImplementedError

    def contents(self) -> Iterator[tuple[str, np.ndarray | bytes]]:
        """Read one after the other; what is broken is noted."""
        raise NotImplementedError

    def items(self) -> Iterator[tuple[str, np.ndarray | bytes]]:
        """Read all, with progress.

        Raises:
            BrokenImagesError: At the end, if images are broken and may not be skipped.
        """
        console = Console(stderr=True)
        yield from track(self.contents(), 'Packing', total=len(self), console=console)
        if self.broken and not self.skip_broken:
            raise BrokenImagesError


class FolderSource(Source):
    """All images, label files and folders of a tree; hidden ones are left out."""

    def __init__(self, root: Path, out: Path, skip_broken: bool):
        super().__init__(skip_broken)
        self.root = root
        self.files: list[str] = []
        folders = []
        for folder in walk(root):
            self.broken += map(str, folder.unread)
            hidden = [str(folder.path / name) for name in folder.hidden]
            self.left_out['hidden files and folders'].extend(hidden)
            if folder.path not in [entry.path for entry in folder.unread]:
                folders.append(self._name(folder.path))
            for path in sorted((*folder.images, *folder.others)):
                if path.resolve() == out.resolve():
                    continue
                image = path.suffix.lower() in IMAGE_SUFFIXES
                if not image and path.stat().st_size > MAX_FILE_BYTES:
                    self.left_out['large files that are no images'].append(str(path))
                else:
                    self.files.append(self._name(path))
        self.folders = tuple(folders)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def __len__(self) -> int:
        return len(self.files)

    def contents(self) -> Iterator[tuple[str, np.ndarray | bytes]]:
        """See :class:`Source`."""
        for name in self.files:
            path = self.root / name
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                yield name, path.read_bytes()
                continue
            try:
                image = read_image(str(path))
            except (ImageError, OSError) as error:
                self.broken.append(str(error))
            else:
                yield name, image


class RecordIOSource(Source):
    """The images of a RecordIO file in one folder a label."""

    def __init__(self, rec: Path, skip_broken: bool):
        super().__init__(skip_broken)
        self.reader = RecordIOReader(rec)
        self.keys = self.reader.image_keys().tolist()

    def __len__(self) -> int:
        return len(self.keys)

    def contents(self) -> Iterator[tuple[str, np.ndarray]]:
        """See :class:`Source`."""
        digits = len(str(self.keys[-1]))
        for key in self.keys:
            try:
                label = self.reader[key].labels[0]
                image = self.reader.image(str(key))
            except ImageError as error:
                self.broken.append(str(error))
                continue
            if label < 0 or label != int(label):
                self.broken.append(f'{self.reader.path}: record {key} has the label {label}')
                continue
            yield f'{int(label)}/{key:0{digits}d}.jpg', image


def open_source(src: Path, out: Path, skip_broken: bool) -> Source:
    """Return what is to be packed.

    Args:
        src: A folder, or a ``.rec`` file with its ``.idx`` beside it, or its folder.
        out: The pack, which is not packed itself.
        skip_broken: Leave out images that cannot be read.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: It is neither, or holds nothing.
    """
    records = src / RECORDS if src.is_dir() else src
    if records.suffix == '.rec' and records.is_file():
        source: Source = RecordIOSource(records, skip_broken)
    elif src.is_dir():
        source = FolderSource(src, out, skip_broken)
    else:
        known = ValueError if src.exists() else FileNotFoundError
        raise known(f'{src} is neither a folder nor a .rec file')
    if not len(source):
        raise ValueError(f'{src} holds nothing to pack')
    return source
