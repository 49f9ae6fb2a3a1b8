"""Write the HTML report of a training run.

mmvlr report WORK_DIR
"""

import argparse

from ..arguments import existing_file, existing_folder, existing_model, output_file
from ..common import add_cfg_options, announce, read_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('work_dir', type=existing_folder, help='folder of the run')
    parser.add_argument(
        '--checkpoint', type=existing_model, help='checkpoint (default: the last one of the run)'
    )
    parser.add_argument(
        '--config', type=existing_file, help='config (default: the one in the work dir)'
    )
    parser.add_argument('--out', type=output_file, help='the page (default: WORK_DIR/report.html)')
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page; return the exit code."""
    announce(f'loading {args.work_dir}')
    from mmvlr.reports.from_run import build_report

    page, figures = build_report(
        args.work_dir, args.checkpoint, args.config, args.out, read_options(args.cfg_options)
    )
    for name, value in figures.items():
        print(f'{name:24} {value:.4f}')
    print(page)
    return 0
