"""Check an unpacked archive and list its images.

  mmvlr prepare {tinyface,scface,survface} ROOT

Names, folders and label files are compared with the layout of the data set, every image is
decoded, and all problems are printed. The manifest has a line for every readable image: its size
and SHA-256. Exit code 0 if all is right, 1 with problems, 2 for wrong usage.
"""

import argparse

from ..arguments import existing_folder, output_file, positive

#: Those of ``mmvlr.preparation.archives``, which needs PyTorch.
ARCHIVES = ('scface', 'survface', 'tinyface')
MANIFEST = 'manifest.csv'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('dataset', choices=ARCHIVES)
    parser.add_argument(
        'root', metavar='ROOT', type=existing_folder, help='folder of the unpacked archive'
    )
    parser.add_argument(
        '--manifest',
        type=output_file,
        metavar='FILE',
        help=f'the table (default: ROOT/{MANIFEST})',
    )
    parser.add_argument('--jobs', type=positive, default=1, help='number of processes')


def run(args: argparse.Namespace) -> int:
    """Check; return the exit code."""
    manifest = args.manifest or output_file(str(args.root / MANIFEST))
    from mmvlr.preparation.archives import check_archive, check_manifest_path

    if args.root.is_dir():
        check_manifest_path(manifest, args.root)
    report = check_archive(args.dataset, args.root, args.jobs, manifest)
    print(report.describe())
    report.write_manifest(manifest)
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
