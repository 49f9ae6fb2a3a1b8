"""The Runner of mmvlr: what it tells on the console, and what it times."""

import contextlib
import io
import logging
import os
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import IterTimerHook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from torch import nn

from mmvlr.utils.outputs import is_own

from .extraction import unwrap


class _ConsoleFilter(logging.Filter):
    """Keep from the console what belongs into the log file, which has all of it.

    That are reports of several lines (machine, config, hooks), what was said before, and
    mmengine's notes to its own developers.
    """

    def __init__(self):
        super().__init__()
        self.seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is shown."""
        text = record.getMessage()
        if text in self.seen or 'will be deprecated' in text:
            return False
        self.seen.add(text)
        return record.levelno > logging.INFO or '\n' not in text


#: One for all loggers of a process: before there is a Runner, mmengine's own logger tells.
_CONSOLE = _ConsoleFilter()


def quiet_console(logger: logging.Logger, fresh: bool = False) -> None:
    """Let the console handlers of a logger show only what a person reads, and that once.

    Args:
        logger: mmengine's, or a Runner's.
        fresh: Another run begins, which says again what an earlier one said.
    """
    if fresh:
        _CONSOLE.seen.clear()
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.addFilter(_CONSOLE)


class QuietRunner(Runner):
    """mmengine's Runner with a short console, an honest clock and a summary before the training.

    A config in the work dir is overwritten only if a training wrote it.
    """

    #: Parts of the model that the loaded checkpoint does not have.
    new_parts: tuple[str, ...] = ()

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; its file has everything, the console the rest."""
        logger = super().build_logger(*args, **kwargs)
        quiet_console(logger)
        return logger

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call a point of all hooks."""
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train':
            self._tell_summary()
        if fn_name == 'before_train_epoch':
            # Passes over the data before an epoch are not the time of its first batch.
            for hook in self._hooks:
                if isinstance(hook, IterTimerHook):
                    hook.t = time.time()

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict:
        """Load weights; what does not match goes into the log file and, in short, the summary."""
        with contextlib.redirect_stdout(io.StringIO()) as said:
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        self.logger.info(f'loading {filename}:\n{said.getvalue()}')
        there = {key.removeprefix('module.') for key in checkpoint.get('state_dict', checkpoint)}
        model = unwrap(self.model)
        missing = [name for name, _ in model.named_parameters() if name not in there]
        self.new_parts = tuple(dict.fromkeys(name.split('.')[0] for name in missing))
        return checkpoint

    def dump_config(self) -> None:
        """Write the config into the work dir."""
        path = Path(self.work_dir, Path(self.cfg.filename or f'{self.timestamp}.py').name)
        if not os.path.lexists(path) or is_own(path):
            super().dump_config()
        else:
            self.logger.info(f'{path} is there already and stays as it is')

    def _tell_summary(self) -> None:
        for line in describe_training(self):
            self.logger.info(line)


def describe_training(runner: Runner) -> list[str]:
    """Return what a training is about to do, in a few lines."""
    model, loop, loader = unwrap(runner.model), runner.train_loop, runner.train_dataloader
    place = next(model.parameters()).device.type
    ranks = f' x {runner.world_size} ranks' if runner.world_size > 1 else ''
    lines = [
        f'{type(model).__name__} with {type(model.backbone).__name__}: '
        f'{_count(model):,} parameters, {_count(model, True):,} of them learn; '
        f'on {place}{ranks}, seed {runner.seed}'
    ]
    if runner._load_from:
        new = f'; new: {", ".join(runner.new_parts)}' if runner.new_parts else ''
        verb = 'resumed' if runner._resume else 'weights'
        lines.append(f'{verb} from {runner._load_from}{new}')
    else:
        lines.append('random weights')
    people = getattr(loader.dataset, 'num_classes', None)
    told = f' of {people:,} people' if people else ''
    lines.append(f'training: {len(loader.dataset):,} images{told}, {loader.batch_size} a batch')
    if runner.val_loop is None:
        lines.append('no validation')
    else:
        images = len(runner.val_dataloader.dataset)
        lines.append(f'validation: {images:,} images, every {loop.val_interval} epoch(s)')
    epochs = f'{loop.max_epochs} epochs, ' if loop.max_epochs and loop.max_epochs > 1 else ''
    lines.append(f'{epochs}{loop.max_iters:,} iterations in all')
    lines.append(f'config, versions and this log: {runner.log_dir}')
    return lines


def _count(model: nn.Module, learning: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not learning)
