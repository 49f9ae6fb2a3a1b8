"""The hook that collects log values without synchronizing the GPU in every iteration."""

from collections.abc import Mapping

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner

from mmvlr.registry import HOOKS


@HOOKS.register_module()
class BufferedRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which fetches log values only when a log is due.

    The original reads about fifteen tensors in every iteration, each of which synchronizes the GPU.
    This hook keeps the tensors on the device and fetches those of several iterations in one copy,
    before the logger and before a checkpoint. Logged and smoothed values are the same.

    Between logs, ``train/...`` in the message hub has the values of the last log.
    """

    def __init__(self) -> None:
        super().__init__()
        self.intervals: list[int] = []
        # Iterations not flushed yet: (name, kind, number) of each value, kind a key of vectors.
        self.rows: list[list[tuple]] = []
        self.vectors: dict[tuple, list[torch.Tensor]] = {}

    def before_train(self, runner: Runner) -> None:
        """Read the intervals of the loggers."""
        super().before_train(runner)
        loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self.intervals = [logger.interval for logger in loggers] or [10]
        self.rows, self.vectors = [], {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Keep the values of an iteration; flush them if they will be read."""
        outputs = outputs or {}
        self._keep(outputs)
        # A new name is flushed at once: the logger writes names in the order of their arrival.
        known = runner.message_hub.log_scalars
        if (
            any(self.every_n_inner_iters(batch_idx, interval) for interval in self.intervals)
            or self.end_of_epoch(runner.train_dataloader, batch_idx)
            or any(f'train/{name}' not in known for name in outputs)
        ):
            self.flush(runner)

    def after_train(self, runner: Runner) -> None:
        """Flush the remaining values."""
        self.flush(runner)
        super().after_train(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Flush, so that the checkpoint holds the current values."""
        if self.rows:
            self.flush(runner)
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def _keep(self, outputs: Mapping) -> None:
        """Store the values of an iteration.

        They are copied, all of a kind at once: a tensor may be a buffer that changes later.
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
        """Send all kept values to the message hub."""
        numbers = {kind: iter(torch.cat(v).tolist()) for kind, v in self.vectors.items()}
        for row in self.rows:
            for name, kind, number in row:
                value = number if kind is None else next(numbers[kind])
                runner.message_hub.update_scalar(f'train/{name}', value)
        self.rows, self.vectors = [], {}
