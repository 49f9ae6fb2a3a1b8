"""Score the faces of a test set: ``python tools/analysis/score.py CONFIG CHECKPOINT --out FILE``.

Writes an ``.npz`` file with the embedding of every face of the test set and of the UI set, its role
and identity, and what every quality measure says of it: RI, ERS, norm and CR-FIQA as far as the
model gives them, SER-FIQ, native size and sharpness. ``mmvlr.evaluation.FaceTable.load`` reads it.
"""

import argparse

from mmengine.config import DictAction

from mmvlr.apis import load_config, score_faces
from mmvlr.utils.command import describe, output_file, tell_write_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog='mmvlr score', description=describe(__doc__))
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', type=output_file, required=True, metavar='faces.npz')
    parser.add_argument('--work-dir', help='folder of the log')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override entries of the config',
    )
    return parser.parse_args(argv)


@tell_write_errors
def main(argv: list[str] | None = None) -> int:
    """Score; return the exit code."""
    args = parse_args(argv)
    config = load_config(args.config, args.cfg_options)
    if args.work_dir:
        config.work_dir = args.work_dir
    faces = score_faces(config, args.checkpoint)
    faces.save(args.out)
    print(f'{args.out}: {len(faces):,} faces, qualities {", ".join(faces.qualities)}')
    return 0
