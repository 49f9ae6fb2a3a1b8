"""The hook that passes log values on without making a GPU wait in every iteration."""

from collections.abc import Mapping

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner

from mmvlr.registry import HOOKS


@HOOKS.register_module()
class BufferedRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, but log values are fetched only when a log is due.

    The original asks for the number behind each of some fifteen tensors in every iteration, and
    each time the GPU has to finish first. This one keeps the tensors where they are and fetches
    those of several iterations in one copy, in front of the logger and of a checkpoint. What is
    logged and smoothed is the same.

    Whoever reads ``train/...`` from the message hub in between finds the values of the last log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.intervals: list[int] = []
        # Iterations not passed on yet: (name, kind, number) of each value, kind a key of vectors.
        self.rows: list[list[tuple]] = []
        self.vectors: dict[tuple, list[torch.Tensor]] = {}

    def before_train(self, runner: Runner) -> None:
        """Look up how often the loggers will ask."""
        super().before_train(runner)
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.intervals = [logger.interval for logger in loggers] or [10]
        self.rows, self.vectors = [], {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Keep the values of an iteration; pass them on if they will be read."""
        outputs = outputs or {}
        self._keep(outputs)
        # A new name is passed on at once: the logger writes names in the order of their arrival.
        known = runner.message_hub.log_scalars
        if (
            any(self.every_n_inner_iters(batch_idx, interval) for interval in self.intervals)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or any(f'train/{name}' not in known for name in outputs)
        ):
            self.flush(runner)

    def after_train(self, runner: Runner) -> None:
        """Leave nothing behind."""
        self.flush(runner)
        super().after_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the values up to here into a checkpoint."""
        if self.rows:
            self.flush(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _keep(self, outputs: Mapping) -> None:
        """Take in the values of an iteration.

        They are copied, all of a kind in one go: a tensor may be a buffer that goes on changing.
        """
        row, groups = [], {}
        for name, value in outputs.items():
            if isinstance(value, torch.Tensor):
                kind = (value.dtype, value.device)
                groups.setdefault(kind, []).append(value.detach().reshape(()))
                row.append((name, kind, None))
            else:
                row.append((name, None, value))
        self.rows.append(row)
        for kind, values in groups.items():
            self.vectors.setdefault(kind, []).append(torch.stack(values))

    def flush(self, runner: Runner) -> None:
        """Pass everything that was kept on to the message hub."""
        numbers = {kind: iter(torch.cat(v).tolist()) for kind, v in self.vectors.items()}
        for row in self.rows:
            for name, kind, number in row:
                value = number if kind is None else next(numbers[kind])
                runner.message_hub.update_scalar(f'train/{name}', value)
        self.rows, self.vectors = [], {}
