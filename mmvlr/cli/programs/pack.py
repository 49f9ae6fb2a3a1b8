"""Pack the images of a data set into one file.

  mmvlr pack SRC OUT.pack [--skip-broken]
  mmvlr pack --verify PACK

SRC is a folder, of which all images, label files and folders are packed, or a .rec file of
insightface with its .idx beside it (or the folder with train.rec), whose images become
<label>/<record>.jpg, the layout of FaceFolder. Links are followed. Images are decoded once and
stored as raw pixels in native size. Images that cannot be read are named and counted, and nothing
is written unless --skip-broken leaves them out. --verify compares the checksum of everything in a
pack. The exit code is 1 where something is broken, 3 where that was left out.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..arguments import existing_file, existing_path, output_file
from ..common import DONE, FAILED, LEFT_OUT, UsageError

if TYPE_CHECKING:
    from mmvlr.datasets.storage import PackReader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('src', nargs='?', type=existing_path, help='folder, or .rec file')
    parser.add_argument('out', nargs='?', type=output_file, help='file to write, NAME.pack')
    parser.add_argument(
        '--skip-broken', action='store_true', help='leave out images that cannot be read'
    )
    parser.add_argument('--verify', type=existing_file, metavar='PACK', help='check a pack')


def run(args: argparse.Namespace) -> int:
    """Pack or verify; return the exit code."""
    if args.verify is not None:
        if args.src is not None:
            raise UsageError('--verify takes a pack and nothing else')
        return verify(args.verify)
    if args.out is None:
        raise UsageError('SRC and OUT.pack are needed, or --verify PACK')
    if args.out.suffix != '.pack':
        raise UsageError(f'{args.out}: the name of a pack must end in .pack')
    from mmvlr.datasets.storage import write_pack
    from mmvlr.preparation.packing import BrokenImagesError, open_source
    from mmvlr.utils.locks import locked

    source = open_source(args.src, args.out, args.skip_broken)
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
            print(f'left out ({len(names):,}): {reason} ({", ".join(names[:3])})')
    if source.broken:
        for problem in source.broken:
            print(f'broken: {problem}', file=sys.stderr)
        print(f'{len(source.broken):,} broken images{"" if pack is None else " left out"}')
    if pack is None:
        return FAILED
    return LEFT_OUT if source.broken else DONE


def show(pack: 'PackReader') -> None:
    """Print counts and size of a pack."""
    print(
        f'{pack.path}: {len(pack):,} images, {len(pack.files):,} other files, '
        f'{pack.path.stat().st_size / 2**20:,.2f} MiB'
    )


def verify(path: Path) -> int:
    """Compare all checksums; return the exit code."""
    from rich.console import Console
    from rich.progress import track

    from mmvlr.datasets.storage import PackReader

    pack = PackReader(path)
    names = [*pack.names, *pack.files]
    console = Console(stderr=True)
    damaged = [name for name in track(names, 'Verifying', console=console) if not pack.intact(name)]
    show(pack)
    for name in damaged:
        print(f'damaged: {name}', file=sys.stderr)
    print(f'{len(damaged):,} damaged' if damaged else 'all checksums are right')
    return FAILED if damaged else DONE
