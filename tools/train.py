"""Train a model: ``python tools/train.py configs/riface/r50_tinyface.py``."""

import argparse
import resource
import sys

from mmengine.config import DictAction

from mmvlr.apis import build_trainer, load_config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='go on from the last checkpoint of the work dir, or from the one named',
    )
    parser.add_argument('--seed', type=int, help='random seed (default: that of the config)')
    parser.add_argument(
        '--max-iters', type=int, help='stop after so many iterations: a quick check of a set-up'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override entries of the config, such as load_from=None train_dataloader.batch_size=8',
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train; return the exit code."""
    args = parse_args(argv)
    config = load_config(args.config, args.cfg_options)
    config.launcher = args.launcher
    if args.work_dir:
        config.work_dir = args.work_dir
    if args.seed is not None:
        config.randomness = {**config.get('randomness', {}), 'seed': args.seed}
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == 'auto' else args.resume
    if args.max_iters:
        config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=args.max_iters)
        config.param_scheduler = []
        # Fitting the read-out takes several passes over the training set: no quick check.
        config.custom_hooks = [
            hook
            for hook in config.get('custom_hooks') or []
            if hook['type'].split('.')[-1] != 'RegressionFitHook'
        ]
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
        config.default_hooks.logger.interval = 1
        config.default_hooks.checkpoint.update(by_epoch=False, interval=args.max_iters)
        config.default_hooks.checkpoint.pop('save_best', None)
        config.log_processor.by_epoch = False
    runner = build_trainer(config)
    runner.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    runner.logger.info(f'peak memory of this process: {peak:,.0f} MiB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
