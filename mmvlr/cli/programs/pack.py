"""Pack the images of a data set into one file.

Usage::

    python tools/dataset_converters/pack.py SRC OUT.pack [--skip-broken]
    python tools/dataset_converters/pack.py --verify PACK

SRC is a folder, of which all images, label files and folders are packed, or a .rec file of
insightface with its .idx beside it (or the folder with ``train.rec``), whose images become
``<label>/<record>.jpg``, the layout of ``FaceFolder``. Links are followed. Images are decoded
once and stored as raw pixels in native size. Images that cannot be read are named and counted,
and nothing is written unless ``--skip-broken`` leaves them out. ``--verify`` compares the checksum
of everything in a pack. The exit code is 1 where something is broken, 3 where that was left out.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmvlr.datasets.finding import IMAGE_SUFFIXES, walk
from mmvlr.datasets.storage import ImageError, PackReader, RecordIOReader, write_pack
from mmvlr.datasets.storage.recordio import RECORDS
from mmvlr.datasets.transforms import read_image
from mmvlr.utils.command import describe, output_file, tell_write_errors
from mmvlr.utils.locks import locked

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


def show(pack: PackReader) -> None:
    """Print counts and size of a pack."""
    print(
        f'{pack.path}: {len(pack):,} images, {len(pack.files):,} other files, '
        f'{pack.path.stat().st_size / 2**20:,.2f} MiB'
    )


def verify(path: Path) -> int:
    """Compare all checksums; return the exit code."""
    try:
        pack = PackReader(path)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    names = [*pack.names, *pack.files]
    console = Console(stderr=True)
    damaged = [name for name in track(names, 'Verifying', console=console) if not pack.intact(name)]
    show(pack)
    for name in damaged:
        print(f'damaged: {name}', file=sys.stderr)
    print(f'{len(damaged):,} damaged' if damaged else 'all checksums are right')
    return int(bool(damaged))


@tell_write_errors
def main(argv: list[str] | None = None) -> int:
    """Pack or verify; return the exit code."""
    parser = argparse.ArgumentParser(prog='mmvlr pack', description=describe(__doc__))
    parser.add_argument('src', nargs='?', type=Path, help='folder, or .rec file')
    parser.add_argument('out', nargs='?', type=output_file, help='file to write, NAME.pack')
    parser.add_argument(
        '--skip-broken', action='store_true', help='leave out images that cannot be read'
    )
    parser.add_argument('--verify', type=Path, metavar='PACK', help='check a pack')
    args = parser.parse_args(argv)
    if args.verify is not None:
        if args.src is not None:
            parser.error('--verify takes a pack and nothing else')
        return verify(args.verify)
    if args.out is None:
        parser.error('SRC and OUT.pack are needed, or --verify PACK')
    if args.out.suffix != '.pack':
        parser.error(f'{args.out}: the name of a pack must end in .pack')
    records = [args.src, args.src / RECORDS] if args.src.is_dir() else [args.src]
    if records[-1].suffix == '.rec' and records[-1].is_file():
        source: Source = RecordIOSource(records[-1], args.skip_broken)
    elif args.src.is_dir():
        source = FolderSource(args.src, args.out, args.skip_broken)
    else:
        parser.error(f'{args.src} is neither a folder nor a .rec file')
    if not len(source):
        parser.error(f'{args.src} holds nothing to pack')
    pack = None
    try:
        with locked(args.out.parent, args.out.name):
            pack = write_pack(args.out, source.items(), source.folders)
    except BrokenImagesError:
        print(f'{args.out} is not written; --skip-broken leaves such images out')
    else:
        show(pack)
    for reason, names in source.left_out.items():
        if names:
            print(f'left out: {len(names):,} {reason} ({", ".join(names[:3])})')
    if source.broken:
        for problem in source.broken:
            print(f'broken: {problem}', file=sys.stderr)
        print(f'{len(source.broken):,} broken images{"" if pack is None else " left out"}')
    if pack is None:
        return 1
    return 3 if source.broken else 0
