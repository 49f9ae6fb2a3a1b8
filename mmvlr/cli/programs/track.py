"""Cut the faces of a video out: one folder a track, and a table of all.

  mmvlr track gate.mp4 tracks/ --every 5
  mmvlr track frames/ tracks/ --fps 12.5 --model riface.safetensors --best 5

SOURCE is a video, or a folder of frames, taken in the order of their names. The crops have their
native size, or with --align are aligned. OUT is what `mmvlr identify --tracks folder`, `mmvlr
quality` and `mmvlr enroll` take. OUT/tracks.csv names for each crop its track, frame, time, box,
the detector's score, its size and, with a model, its quality. A killed run goes on where it
stopped. Needs pip install 'mmvlr[video]', and 'mmvlr[align]' for MTCNN.

Exit code 3 if frames are damaged or the video is cut off, 5 if there is no face.
"""

import argparse
import os
import sys
import time

from ..arguments import existing_path, output_folder, positive
from ..common import (
    DONE,
    LEFT_OUT,
    MODEL_VARIABLE,
    NO_FACE,
    UsageError,
    add_detector_file,
    add_model,
    count,
    open_model,
    read_detector,
)

#: Side of aligned faces in pixels, that of ArcFace's template.
ALIGNED = 112


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        'source', type=existing_path, metavar='SOURCE', help='video, or folder of frames'
    )
    parser.add_argument('out', type=output_folder, metavar='OUT', help='new folder')
    parser.add_argument('--every', type=positive, default=1, help='take every n-th frame')
    parser.add_argument(
        '--fps',
        type=float,
        help='frames a second of a folder of frames (default: 25)',
    )
    parser.add_argument('--jobs', type=positive, default=1, help='number of processes')
    group = parser.add_argument_group('which faces are found')
    group.add_argument('--min-size', type=float, default=12.0, help='smallest face in pixels')
    group.add_argument(
        '--detector', choices=('mtcnn', 'yunet'), default='mtcnn', help='what finds the faces'
    )
    add_detector_file(group)
    group.add_argument(
        '--min-confidence',
        type=float,
        help="detector's score from which on a face starts a track; any goes on with one (default: "
        'mtcnn 0.95, yunet 0.9)',
    )
    group.add_argument(
        '--gap', type=float, default=1.0, help='seconds that a face may be hidden in a track'
    )
    group = parser.add_argument_group('what is written')
    group.add_argument(
        '--best',
        type=positive,
        metavar='K',
        help='keep the K best faces of a track only: by the quality of the model, else by size',
    )
    group.add_argument(
        '--margin', type=float, default=0.1, help='around the face, as a share of it'
    )
    group.add_argument(
        '--align',
        action='store_true',
        help=f'write faces aligned by their landmarks, {ALIGNED} x {ALIGNED} pixels, instead of '
        'crops in native size',
    )
    add_model(parser)


def run(args: argparse.Namespace) -> int:
    """Track; return the exit code."""
    if args.fps is not None and not args.source.is_dir():
        raise UsageError('--fps goes with a folder of frames; a video states its own')
    detector = read_detector(args.detector, args.detector_file)
    from mmvlr.preparation import TrackSettings, make_judge, open_frames, track_faces
    from mmvlr.utils.compat import limit_primitive_cache

    # The model may compute before the detector.
    limit_primitive_cache()
    start = time.perf_counter()
    names = ('every', 'min_size', 'min_confidence', 'gap', 'margin', 'best')
    settings = TrackSettings(
        **{name: getattr(args, name) for name in names}, align=ALIGNED if args.align else None
    )
    source = open_frames(args.source, args.every, args.fps)
    judge = None
    if args.model or os.environ.get(MODEL_VARIABLE):
        judge = make_judge(open_model(args))
    report = track_faces(source, args.out, settings, detector, judge, args.jobs)
    seconds = time.perf_counter() - start
    new = report.frames - report.resumed
    print(f'{count(report.frames, "frame")}, {report.resumed:,} of them searched before')
    print(f'{count(new, "frame")} in {seconds:.1f} s, {new / seconds:.1f} a second')
    print(f'{count(report.found, "face")} found, {count(report.tracks, "track")}')
    for reason, number in sorted(report.left_out.items()):
        if number:
            print(f'  left out: {count(number, "face")} {reason}')
    for number, height, width in report.sizes[:10]:
        print(f'frames change their size to {width} x {height} at frame {number}: all tracks end')
    if len(report.sizes) > 10:
        print(f'  ... and {len(report.sizes) - 10} times more')
    code = DONE
    if report.tracks:
        print(f'{count(report.crops, "crop")} in {args.out}, described in {args.out}/tracks.csv')
    else:
        hint = 'look for smaller ones (--min-size), or less sure ones (--min-confidence)'
        if report.found:
            hint = (
                f'{count(report.found, "face")} in single frames, which may be too far apart, or '
                f'of a low score; {hint}'
            )
        print(f'no track of a face in {args.source}: {hint}', file=sys.stderr)
        code = NO_FACE
    if report.problems:
        print(f'{args.source} cannot be read as a whole:', file=sys.stderr)
        print(*(f'  {line}' for line in report.problems), sep='\n', file=sys.stderr)
        code = code or LEFT_OUT
    return code
