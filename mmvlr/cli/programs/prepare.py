"""Check an unpacked archive and list its images.

Usage::

    python tools/dataset_converters/prepare.py {tinyface,scface,survface} ROOT

Names, folders and label files are compared with the layout of the data set, every image is
decoded, and all problems are printed. The manifest has a line for every readable image: its size
and SHA-256. Exit code 0 if all is right, 1 with problems, 2 for a wrong call.
"""

import argparse
import sys
from pathlib import Path

from mmvlr.preparation.archives import ARCHIVES, MANIFEST, check_archive, check_manifest_path
from mmvlr.utils.command import describe


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(
        prog='mmvlr prepare',
        description=describe(__doc__, whole=True),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('dataset', choices=sorted(ARCHIVES))
    parser.add_argument('root', metavar='ROOT', type=Path, help='folder of the unpacked archive')
    parser.add_argument(
        '--manifest', type=Path, metavar='FILE', help=f'the table (default: ROOT/{MANIFEST})'
    )
    parser.add_argument('--jobs', type=int, default=1, help='number of processes (default: 1)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Check; return the exit code."""
    args = parse_args(argv)
    manifest = args.manifest or args.root / MANIFEST
    try:
        if args.root.is_dir():
            check_manifest_path(manifest, args.root)
        report = check_archive(args.dataset, args.root, args.jobs, manifest)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(report.describe())
    try:
        report.write_manifest(manifest)
    except OSError as error:
        print(f'{manifest} is not written: {error}', file=sys.stderr)
        return 1
    unreadable = sum(report.found.values()) - len(report.rows)
    print(f'\n{manifest}: {len(report.rows):,} images', end='')
    if report.num_problems:
        print(
            f'; the archive has {report.num_problems:,} problems, and {unreadable:,} images that '
            'cannot be read are not in the manifest'
        )
        return 1
    print('; no problems')
    return 0
