"""Align all images below a folder to the ArcFace template.

  mmvlr align SRC OUT

Names stay the same, so that OUT can be used in the place of SRC: TINYFACE_ROOT=OUT. A killed run
goes on where it stopped. Exit code 3 if some images or folders cannot be read, or a frame shows
several faces of which none stands out; they are named.
"""

import argparse
import sys
import time

from ..arguments import existing_file, existing_folder, output_folder, positive
from ..common import UsageError, add_detector_file, read_detector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        'src', type=existing_folder, metavar='SRC', help='folder of images, one face each'
    )
    parser.add_argument(
        'out', type=output_folder, metavar='OUT', help='new folder; the names are those of SRC'
    )
    parser.add_argument('--size', type=positive, default=112, help='side of the result in pixels')
    parser.add_argument(
        '--detection-side',
        type=positive,
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
    parser.add_argument(
        '--frame-side',
        type=positive,
        default=640,
        help='images of so many pixels are frames, searched at their own scale, not in a square',
    )
    parser.add_argument(
        '--min-size', type=float, default=12.0, help='smallest face of a frame in pixels'
    )
    parser.add_argument(
        '--detector', choices=('mtcnn', 'yunet'), default='mtcnn', help='what finds the faces'
    )
    add_detector_file(parser)
    parser.add_argument(
        '--landmarks',
        type=existing_file,
        metavar='FILE',
        help='take the landmarks from this list (a name and four or five points in a line, as '
        "SCface's) instead of seeking faces; images that it does not name are taken as a whole",
    )
    parser.add_argument('--jobs', type=positive, default=1, help='number of processes')


def run(args: argparse.Namespace) -> int:
    """Align; return the exit code."""
    from mmvlr.datasets.finding import find_images
    from mmvlr.preparation import align_tree, make_recipe
    from mmvlr.preparation.landmarks import LandmarkRecipe

    start = time.perf_counter()
    unused, detector = [], None
    if args.landmarks:
        if args.detector_file:
            raise UsageError('--landmarks and --detector-file do not go together')
        recipe = LandmarkRecipe.read(args.landmarks, args.size)
        unused = recipe.find_unused(map(str, find_images(args.src).images))
    else:
        detector = read_detector(
            args.detector,
            args.detector_file,
            side=args.detection_side,
            padding=args.padding,
            min_face=args.min_face,
            min_size=args.min_size,
            frame_side=args.frame_side,
        )
        recipe = make_recipe(detector, args.size)
    report = align_tree(args.src, args.out, recipe, args.jobs, detector)
    seconds = time.perf_counter() - start
    total = len(report.rows)
    print(f'recipe {recipe.name} ({recipe.detector})')
    print(f'{total:,} images aligned in {args.out}, {report.resumed:,} of them before')
    new = total - report.resumed
    print(f'{new:,} images in {seconds:.1f} s, {new / seconds:.1f} a second')
    share = report.fallbacks / max(total, 1)
    what = 'landmarks in the list' if args.landmarks else 'a detected face'
    print(f'{report.fallbacks:,} without {what}, cropped instead ({share:.1%})')
    if unused:
        shown = ', '.join(unused[:3]) + (', ...' if len(unused) > 3 else '')
        print(f'{len(unused):,} entries of {args.landmarks} without an image ({shown})')
    print(f'{len(report.copied):,} other files copied')
    if report.stale:
        print(f'{len(report.stale):,} files in {args.out} were aligned before and are not in')
        print(f'{args.src} any more; delete them if you want:')
        print(*(f'  {name}' for name in report.stale), sep='\n')
    if report.unreadable:
        print(f'{len(report.unreadable):,} images cannot be read or aligned:', file=sys.stderr)
        print(*(f'  {line}' for line in report.unreadable), sep='\n', file=sys.stderr)
        return 3
    return 0
