"""Measure what a folder of faces has lost, and fit a degradation to it.

  mmvlr fit-degradation FOLDER --out stats.json
  mmvlr fit-degradation FOLDER --out stats.json --fit preset.json --source HR_FOLDER

The statistics are the 10 %, 50 % and 90 % quantiles over the images of: native size, radial power
spectrum at 112 x 112, noise, JPEG blockiness, brightness and contrast. With --fit a preset of
VLRDegradation is searched that makes the images of --source resemble the folder's; the distances
printed before and after are taken on degraded images that the search has not seen.
"""

import argparse

from ..arguments import existing_folder, natural, output_file, positive, preset
from ..common import DONE, LEFT_OUT, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        'folder', type=existing_folder, help='faces at native size, in folders or not'
    )
    parser.add_argument('--out', type=output_file, required=True, metavar='stats.json')
    parser.add_argument(
        '--fit', type=output_file, metavar='preset.json', help='fit a preset, write it'
    )
    parser.add_argument(
        '--source', type=existing_folder, metavar='FOLDER', help='HR faces for --fit'
    )
    parser.add_argument(
        '--start',
        type=preset,
        default='tinyface',
        help='preset or .json file that the fit starts from',
    )
    parser.add_argument(
        '--samples', type=positive, default=120, help='degraded faces an evaluation'
    )
    parser.add_argument('--seed', type=natural, default=0, help='seed of the fit')
    parser.add_argument(
        '--figure', type=output_file, metavar='figure.png', help='draw the statistics'
    )


def run(args: argparse.Namespace) -> int:
    """Measure a folder; return the exit code."""
    if (args.fit is None) != (args.source is None):
        raise UsageError('--fit needs --source, and the other way round')
    if args.fit and args.fit.suffix != '.json':
        raise UsageError(f'--fit {args.fit}: the name of a preset file ends in .json')
    from mmvlr.reports.degradation import measure_folder

    fit = dict(
        source=args.source, out=args.fit, start=args.start, samples=args.samples, seed=args.seed
    )
    whole = measure_folder(args.folder, args.out, args.figure, fit if args.fit else None)
    return DONE if whole else LEFT_OUT
