"""Build a set of unrecognizable faces from a person re-identification set, or from frames.

  mmvlr build-ui-set SRC OUT --layout lpw
  mmvlr build-ui-set FRAMES OUT --layout folder

writes the crops to OUT/faces (UI_ROOT=OUT/faces), OUT/manifest.csv and OUT/contact_sheet.png, and
says what was left out and why. A killed run goes on where it stopped; with other limits on size,
confidence or correlation no face is sought again. Look at the contact sheet before you train.

With --config and --checkpoint only the largest cluster of the embeddings is kept. Exit code 1 if no
face is left, 3 if some images or folders cannot be read; they are named.
"""

import argparse
import sys
import time

from mmvlr.utils.shipped import find_config

from ..arguments import existing_file, existing_folder, output_folder, positive
from ..common import DONE, FAILED, LEFT_OUT, UsageError, add_detector_file, read_detector

#: Those of ``mmvlr.preparation.ui_building``, which needs PyTorch, as are the options' defaults.
LAYOUTS = dict(
    folder='any folders of images; each folder is a track',
    lpw='scen{1,2,3}/view{1..4}/<person>/*.jpg',
    mars='bbox_train/<person>/<person>C<camera>T<track>F<frame>.jpg',
)
SEARCH = ('layout', 'upper', 'side', 'min_face', 'search_size', 'frame_side')
FILTER = (
    *('every', 'min_size', 'max_size', 'min_confidence', 'margin', 'max_correlation'),
    'cluster_distance',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        'src', type=existing_folder, metavar='SRC', help='folder of the re-identification set'
    )
    parser.add_argument('out', type=output_folder, metavar='OUT', help='new folder')
    parser.add_argument(
        '--layout',
        choices=LAYOUTS,
        required=True,
        help='; '.join(f'{name}: {layout}' for name, layout in LAYOUTS.items()),
    )
    parser.add_argument('--jobs', type=positive, default=1, help='number of processes')
    group = parser.add_argument_group('where faces are sought (a change starts from the beginning)')
    group.add_argument(
        '--upper', type=float, default=0.4, help="share of the person's image, from top"
    )
    group.add_argument(
        '--side', type=positive, default=320, help='the part is scaled to a square of this side'
    )
    group.add_argument('--min-face', type=float, default=0.05, help='smallest face, of the square')
    group.add_argument(
        '--frame-side',
        type=positive,
        default=640,
        help='images of so many pixels are frames: all of them is searched, at their own scale',
    )
    group.add_argument(
        '--search-size', type=float, default=12.0, help='smallest face sought in a frame, in pixels'
    )
    group.add_argument(
        '--detector', choices=('mtcnn', 'yunet'), default='mtcnn', help='what finds the faces'
    )
    add_detector_file(group)
    parser.add_argument(
        '--every', type=positive, default=1, help='search every n-th image of a track'
    )
    group = parser.add_argument_group('which faces are kept')
    group.add_argument(
        '--min-size', type=float, default=6.0, help='shorter side in pixels, at least'
    )
    group.add_argument(
        '--max-size', type=float, default=32.0, help='shorter side in pixels, at most'
    )
    group.add_argument(
        '--min-confidence', type=float, default=0.9, help="detector's score, at least"
    )
    group.add_argument(
        '--margin', type=float, default=0.1, help='around the face, as a share of it'
    )
    group.add_argument(
        '--max-correlation',
        type=float,
        default=0.9,
        help='faces of a track that correlate more are near duplicates',
    )
    group.add_argument(
        '--config', type=find_config, help='config of the model whose embeddings are clustered'
    )
    group.add_argument('--checkpoint', type=existing_file, help='its checkpoint')
    group.add_argument(
        '--cluster-distance',
        type=float,
        default=0.5,
        help='clusters are merged up to this mean cosine distance',
    )


def run(args: argparse.Namespace) -> int:
    """Build the set; return the exit code."""
    if (args.config is None) != (args.checkpoint is None):
        raise UsageError('--config and --checkpoint go together')
    detector = read_detector(args.detector, args.detector_file)
    start = time.perf_counter()
    from mmvlr.preparation.ui_building import (
        FACES_FOLDER,
        MANIFEST_FILE,
        SHEET_FILE,
        UIFilter,
        UISearch,
        build_ui_set,
    )
    from mmvlr.reports.ui_set import build_embedder, write_sheet

    embed = build_embedder(args.config, str(args.checkpoint)) if args.checkpoint else None
    search = UISearch(**{name: getattr(args, name) for name in SEARCH})
    keep = UIFilter(**{name: getattr(args, name) for name in FILTER})
    result = build_ui_set(args.src, args.out, search, keep, embed, args.jobs, detector)
    write_sheet(args.out, result)
    seconds = time.perf_counter() - start
    new = result.images - result.resumed
    print(f'{result.images:,} images, {result.resumed:,} of them searched before')
    print(f'{new:,} images in {seconds:.1f} s, {new / seconds:.1f} a second')
    print(f'{result.found:,} faces found, {len(result.faces):,} kept in {args.out / FACES_FOLDER}')
    for reason, names in result.left_out.items():
        if not names:
            continue
        shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        print(f'  left out ({len(names):,}): {reason} ({shown})')
    if result.clusters:
        shown = ', '.join(f'{size:,}' for size in result.clusters[:5])
        print(f'{len(result.clusters):,} clusters, the largest of {shown} faces')
    code = DONE
    if result.faces:
        print(
            f'sources in {args.out / MANIFEST_FILE}, a look at the faces in {args.out / SHEET_FILE}'
        )
    else:
        print('no face is left: widen the limits', file=sys.stderr)
        code = FAILED
    if result.unreadable:
        print(f'{len(result.unreadable):,} images cannot be read:', file=sys.stderr)
        print(*(f'  {line}' for line in result.unreadable), sep='\n', file=sys.stderr)
        code = code or LEFT_OUT
    return code
