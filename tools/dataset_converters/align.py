"""Align all images below a folder: ``python tools/dataset_converters/align.py SRC OUT``.

Names stay the same, so that OUT can be used in the place of SRC: ``TINYFACE_ROOT=OUT``. A killed
run goes on where it stopped. Exit code 1 if an image cannot be read.
"""

import argparse
import sys
import time

from mmvlr.datasets.alignment import AlignmentRecipe, align_tree


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(
        description='Align all images below a folder to the ArcFace template.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('src', metavar='SRC', help='folder of images, one face each')
    parser.add_argument('out', metavar='OUT', help='new folder; the names are those of SRC')
    parser.add_argument('--size', type=int, default=112, help='side of the result in pixels')
    parser.add_argument(
        '--detection-side',
        type=int,
        default=160,
        help='faces are sought in the image scaled to a square of so many pixels',
    )
    parser.add_argument(
        '--padding',
        type=float,
        default=0.25,
        help="width of the square's gray edge, as a share of the image's longer side",
    )
    parser.add_argument(
        '--min-face', type=float, default=0.2, help='smallest face, as a share of the square'
    )
    parser.add_argument('--jobs', type=int, default=1, help='number of processes')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Align; return the exit code."""
    args = parse_args(argv)
    start = time.perf_counter()
    try:
        recipe = AlignmentRecipe(args.size, args.detection_side, args.padding, args.min_face)
        report = align_tree(args.src, args.out, recipe, args.jobs)
    except (OSError, ImportError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    seconds = time.perf_counter() - start
    total = len(report.rows)
    print(f'recipe {recipe.name} ({recipe.detector})')
    print(f'{total:,} images aligned in {args.out}, {report.resumed:,} of them before')
    new = total - report.resumed
    print(f'{new:,} images in {seconds:.1f} s, {new / seconds:.1f} a second')
    share = report.fallbacks / max(total, 1)
    print(f'{report.fallbacks:,} without a detected face, cropped instead ({share:.1%})')
    print(f'{len(report.copied):,} other files copied')
    if report.stale:
        print(f'{len(report.stale):,} files in {args.out} were aligned before and are not in')
        print(f'{args.src} any more; delete them if you want:')
        print(*(f'  {name}' for name in report.stale), sep='\n')
    if report.unreadable:
        print(f'{len(report.unreadable):,} images cannot be read:', file=sys.stderr)
        print(*(f'  {line}' for line in report.unreadable), sep='\n', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
