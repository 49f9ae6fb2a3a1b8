"""The hook that stops a run whose embedding has collapsed."""

import math

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvlr.registry import HOOKS


class TrainingCollapsedError(RuntimeError):
    """The embeddings of a batch have become nearly the same, or a loss is not a number."""


@HOOKS.register_module()
class CollapseGuardHook(Hook):
    """Stop training when the loss is not finite or the effective rank stays too low.

    A collapsed run continues with a decreasing loss and ends with a useless model. Losses are also
    checked at the end of an epoch, so that no checkpoint is saved after a loss that is not finite.
    A low rank is detected ``patience * interval`` iterations late: raise ``max_keep_ckpts`` if
    epochs are short.

    Runs in ``after_train_iter``; reads the model's log values every ``interval`` iterations only,
    because reading synchronizes the GPU.

    Args:
        min_effective_rank: Effective rank below which the embedding counts as collapsed.
        patience: Number of consecutive checks that must be below it.
        interval: Iterations between two checks.
    """

    priority = 'NORMAL'

    REMEDY = (
        'Remedies, most effective first: prototypes from class means (PrototypeInitHook), '
        'UICenterHook(diversion_begin=1, freeze_statistics=True), a larger sigma_floor or a '
        'smaller tau of IndexDiversionLoss, diversion_moves_backbone=False, lower learning rates.'
    )

    def __init__(self, min_effective_rank: float = 2.0, patience: int = 3, interval: int = 10):
        self.min_effective_rank = min_effective_rank
        self.patience = patience
        self.interval = interval
        self.low = 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        """Check the log values of the iteration."""
        due = self.every_n_train_iters(runner, self.interval)
        # A checkpoint may be saved after an epoch; one with nan would make every resume fail.
        if outputs is None or not (due or self.end_of_epoch(runner.train_dataloader, batch_idx)):
            return
        read = [name for name in outputs if 'loss' in name or name == 'effective_rank']
        # Copied at once, as every single value would synchronize the GPU.
        values = [torch.as_tensor(outputs[name]).double().reshape(()) for name in read]
        numbers = dict(zip(read, torch.stack(values).tolist(), strict=True)) if read else {}
        rank = numbers.pop('effective_rank', None)
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise TrainingCollapsedError(
                    f'{name} is {number} at iteration {runner.iter + 1} of epoch '
                    f'{runner.epoch + 1}. {self.REMEDY}'
                )
        if rank is None or not due:
            return
        self.low = self.low + 1 if rank < self.min_effective_rank else 0
        if self.low >= self.patience:
            raise TrainingCollapsedError(
                f'the embeddings have collapsed: effective rank {rank:.2f} (below '
                f'{self.min_effective_rank} in {self.low} checks in a row) at iteration '
                f'{runner.iter + 1} of epoch {runner.epoch + 1}. {self.REMEDY}'
            )
