"""Write the HTML report of a training run: ``python tools/analysis/report.py WORK_DIR``."""

import argparse

from mmengine.config import DictAction

from mmvlr.reports.from_run import build_report
from mmvlr.utils.command import describe, output_file, tell_write_errors


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(prog='mmvlr report', description=describe(__doc__))
    parser.add_argument('work_dir', help='folder of the run')
    parser.add_argument('--checkpoint', help='checkpoint (default: the last one of the run)')
    parser.add_argument('--config', help='config (default: the one in the work dir)')
    parser.add_argument('--out', type=output_file, help='the page (default: WORK_DIR/report.html)')
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
    """Write the page; return the exit code."""
    args = parse_args(argv)
    page, figures = build_report(
        args.work_dir, args.checkpoint, args.config, args.out, args.cfg_options
    )
    for name, value in figures.items():
        print(f'{name:24} {value:.4f}')
    print(page)
    return 0
