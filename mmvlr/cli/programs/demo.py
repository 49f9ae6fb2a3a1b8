"""Train RI-Face on the embedded synthetic faces, test it, and write its report.

Nothing is downloaded; everything goes into the work dir. What an earlier demo wrote there is
replaced; other files stay.
"""

import argparse
import time
from pathlib import Path

from ..arguments import natural, output_folder
from ..common import announce

CONFIG = 'demo/riface_synthetic.py'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        '--work-dir',
        type=output_folder,
        default='work_dirs/demo',
        help='folder of logs, checkpoints and the report',
    )
    parser.add_argument('--seed', type=natural, default=0, help='random seed')


def run(args: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    announce('loading PyTorch')
    import torch

    from mmvlr.apis import build_trainer, load_config
    from mmvlr.engine.work_dir import hold_work_dir
    from mmvlr.reports.from_run import build_report

    begin = time.perf_counter()
    # The layers are so small that two threads would mostly wait for each other, and results would
    # depend on their number.
    torch.set_num_threads(1)
    config = load_config(CONFIG)
    config.work_dir = str(args.work_dir)
    config.randomness = dict(seed=args.seed)
    # The demo starts afresh each time: curves of an older run would mix with the new ones.
    with hold_work_dir(config, 'demo', fresh=True, more=['report.html']) as folder:
        runner = build_trainer(config)
        folder.adopt([f'{Path(runner.log_dir).name}/vis_data/scalars.json'])
        runner.train()
        page, figures = build_report(args.work_dir, config=args.work_dir / Path(CONFIG).name)
    minutes = (time.perf_counter() - begin) / 60
    print(
        f'\nRI-Face on synthetic faces of people it has never seen, after {minutes:.1f} minutes:\n'
        f'  rank-1                          {figures["rank1"]:6.1%}   '
        f'({figures["rank1"] / figures["pixel_rank1"]:.1f} times that of plain pixels, '
        f'{figures["pixel_rank1"]:.1%})\n'
        f'  faces told from UI faces by RI  {figures["ui_auc_ri"]:6.1%}   (AUC)\n'
        f'  rank-1 error                    {figures["error"]:6.1%}\n'
        f'  ... of the half of highest RI   {figures["error_best_half"]:6.1%}\n'
        f'The page to look at: {page.resolve()}'
    )
    return 0
