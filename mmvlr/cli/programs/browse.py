"""Draw what the network sees: faces after every transform of a config's pipeline.

  mmvlr browse CONFIG [--split train] [--repeat 3] [--out sheet.png]

One row a face: the native image, the face after each transform, and what the data preprocessor
feeds to the network, mapped back to gray levels. With --repeat a face is drawn several times, each
time as in another epoch.
"""

import argparse

from ..arguments import natural, output_file, positive
from ..common import UsageError, add_config, read_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_config(parser)
    parser.add_argument(
        '--split',
        default='train',
        help='loader of the config: train, val, test, ui, ... for train_dataloader, ...',
    )
    parser.add_argument('--num', type=positive, default=8, help='number of faces')
    parser.add_argument(
        '--repeat', type=positive, default=1, help='draws of the augmentation a face'
    )
    parser.add_argument('--seed', type=natural, default=0, help='decides faces and augmentation')
    parser.add_argument('--out', type=output_file, default='sheet.png', metavar='sheet.png')


def run(args: argparse.Namespace) -> int:
    """Draw the sheet; return the exit code."""
    if args.out.suffix != '.png':
        raise UsageError(f'--out {args.out}: the name of the sheet ends in .png')
    from PIL import Image

    from mmvlr.reports.transform_sheet import draw_transforms
    from mmvlr.utils.io import write_atomic

    sheet = draw_transforms(read_config(args), args.split, args.num, args.repeat, args.seed)
    image = Image.fromarray(sheet)
    print(write_atomic(args.out, lambda path: image.save(path, format='PNG')))
    return 0
