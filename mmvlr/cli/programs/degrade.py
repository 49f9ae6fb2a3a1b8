"""Make a high-resolution face set very low-resolution.

  mmvlr degrade SRC OUT --preset tinyface

Folders and names are kept. An image depends on (preset, seed, its name below SRC, copy) alone, not
on the others or their order. A run that was stopped goes on where it was: finished images are
kept. OUT/degradation.json records the settings, and a run with others is refused. Exit code 3 if
some images or folders cannot be read; they are named.
"""

import argparse

from ..arguments import existing_folder, natural, output_folder, positive, preset
from ..common import DONE, LEFT_OUT

#: Those of ``mmvlr.preparation.degrading``, which needs PyTorch.
SUFFIXES = ('bmp', 'jpg', 'png')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('src', type=existing_folder, metavar='SRC', help='high-resolution faces')
    parser.add_argument(
        'out', type=output_folder, metavar='OUT', help='folder of the degraded faces'
    )
    parser.add_argument(
        '--preset',
        type=preset,
        required=True,
        help='such as tinyface, scface_d1 or survface, or a .json file of a fit',
    )
    parser.add_argument('--seed', type=natural, default=0, help='random seed')
    parser.add_argument(
        '--copies',
        type=positive,
        default=1,
        help='degraded faces a source: NAME, NAME-2, NAME-3, ...',
    )
    parser.add_argument('--suffix', choices=SUFFIXES, default='png', help='format of the images')


def run(args: argparse.Namespace) -> int:
    """Degrade a folder; return the exit code."""
    from mmvlr.preparation.degrading import degrade_folder

    done = degrade_folder(args.src, args.out, args.preset, args.seed, args.copies, args.suffix)
    print(done.describe())
    return LEFT_OUT if done.damaged or done.tree.unread else DONE
