"""Train the model of a config.

mmvlr train riface/r50_tinyface
"""

import argparse
import logging
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from mmvlr.utils.config_outline import check_folders, find_weights
from mmvlr.utils.zoo import find_model, require_checkpoint

from ..arguments import existing_file, natural, output_folder, positive
from ..common import add_config, announce, read_config

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def resume_source(text: str) -> str | Path:
    """Return ``auto``, or the path of a checkpoint."""
    return text if text == 'auto' else existing_file(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_config(parser)
    parser.add_argument('--work-dir', type=output_folder, help='folder of logs and checkpoints')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        type=resume_source,
        help='go on from the last checkpoint of the work dir (the first start, without one, is as '
        'without this option), or from the one named',
    )
    parser.add_argument('--seed', type=natural, help='random seed (default: that of the config)')
    parser.add_argument(
        '--max-iters',
        type=positive,
        help='stop after so many iterations: a quick check of a set-up',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, on CPU and GPU alike (bfloat16)'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='multiply the learning rates by the whole batch (all ranks) over that of the config',
    )
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')


def resume_from_last(runner: 'Runner') -> None:
    """Go on from the last checkpoint of the work dir; where there is none, start as configured.

    The main rank looks and all others follow: a file system may show a new file to one machine
    sooner than to another, and ranks that start from different weights would train on in silence.

    Raises:
        FileNotFoundError: The work dir names a checkpoint that this rank does not see.
    """
    from mmengine.dist import broadcast_object_list, is_main_process
    from mmengine.runner import find_latest_checkpoint

    last = [find_latest_checkpoint(runner.work_dir) if is_main_process() else None]
    broadcast_object_list(last)
    if not last[0]:
        start = runner._load_from or 'random weights'
        runner.logger.info(f'--resume: no checkpoint in {runner.work_dir} yet; start from {start}')
        return
    if not Path(last[0]).is_file():
        raise FileNotFoundError(
            f'{runner.work_dir}/last_checkpoint names {last[0]}, which does not exist here. All '
            'ranks need the same work dir; if it was moved, name the checkpoint: --resume FILE'
        )
    runner.logger.info(f'--resume: go on from {last[0]}')
    runner._resume, runner._load_from = True, last[0]


def prepare_ranks(config: 'Config') -> None:
    """Add what several ranks need: the statistics of batch norm become the same on all of them.

    Every rank gathers them over its own share of the images. A test over several ranks would mix
    as many models, and a checkpoint, which the main rank writes, would hold one of them.

    Raises:
        ValueError: ``sync_bn`` with frozen batch norm.
    """
    if config.get('sync_bn') and config.model.backbone.get('frozen_bn'):
        raise ValueError(
            'sync_bn and model.backbone.frozen_bn exclude each other: the layers that sync_bn '
            'makes are not frozen. Set sync_bn=None or model.backbone.frozen_bn=False'
        )
    hooks = config.setdefault('default_hooks', {})
    hooks.setdefault('sync_buffers', dict(type='SyncBuffersHook'))


def scale_rates(config: 'Config', own_batch: int) -> None:
    """Let mmengine scale the rates, which are those of batches of ``own_batch`` faces."""
    stated = config.get('auto_scale_lr') or {}
    config.auto_scale_lr = {'base_batch_size': own_batch, **stated, 'enable': True}


def run(args: argparse.Namespace) -> int:
    """Train; return the exit code."""
    weights = None if args.resume else find_weights(args.config, args.cfg_options or ())
    if weights and '://' not in weights:
        require_checkpoint(str(find_model(weights)))
    check_folders(args.config, args.cfg_options or (), ('train_dataloader', 'ui_dataloader'))
    announce('loading PyTorch')
    from mmvlr.apis import build_trainer, load_config
    from mmvlr.engine.work_dir import hold_work_dir

    config = read_config(args)
    config.launcher = args.launcher
    if args.amp:
        config.optim_wrapper.type = 'FaceAmpOptimWrapper'
    if args.auto_scale_lr:
        # What --cfg-options changes is what the rates are scaled to.
        scale_rates(config, load_config(args.config).train_dataloader.batch_size)
    if args.work_dir:
        config.work_dir = str(args.work_dir)
    if args.seed is not None:
        config.randomness = {**config.get('randomness', {}), 'seed': args.seed}
    if args.launcher != 'none':
        prepare_ranks(config)
    if args.resume and args.resume != 'auto':
        config.resume, config.load_from = True, str(args.resume)
    if config.get('load_from') and '://' not in config.load_from and not args.resume:
        # Before the data are read, which can take minutes.
        require_checkpoint(config.load_from)
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
        config.retain_evaluator = None
        config.default_hooks.logger.interval = 1
        config.default_hooks.checkpoint.update(by_epoch=False, interval=args.max_iters)
        config.default_hooks.checkpoint.pop('save_best', None)
        config.log_processor.by_epoch = False
    # A full disk is told once, and not by a traceback for every line of the log.
    logging.raiseExceptions = False
    with hold_work_dir(config, resume=bool(args.resume)):
        runner = build_trainer(config)
        if args.resume == 'auto':
            resume_from_last(runner)
        elif not args.resume and int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)):
            runner.logger.warning('restarted without --resume: training begins from its start')
        runner.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    runner.logger.info(f'peak memory of this process: {peak:,.0f} MiB')
    return 0
