"""Train RI-Face on the embedded synthetic faces, test it, and write its report.

``make demo`` runs this. Nothing is downloaded; everything goes into ``work_dirs/demo``. What an
earlier demo wrote there is replaced; other files stay.
"""

import argparse
import time
from pathlib import Path

import torch

from mmvlr.apis import build_trainer, load_config
from mmvlr.engine.building import hold_work_dir
from mmvlr.reports.from_run import build_report
from mmvlr.utils.command import describe, tell_write_errors

CONFIG = 'demo/riface_synthetic.py'


@tell_write_errors
def main(argv: list[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog='mmvlr demo', description=describe(__doc__))
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', type=int, default=0, help='random seed')
    args = parser.parse_args(argv)
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
