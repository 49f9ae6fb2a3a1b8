"""The hook that makes checkpoints of a sharded head independent of the number of ranks."""

from typing import Any

import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import nn

from mmvlr.models.heads.partial_recognition_module import sharded_head
from mmvlr.registry import HOOKS

from ..extraction import unwrap


@HOOKS.register_module()
class ShardCheckpointHook(Hook):
    """Gather the prototypes of a :class:`PartialRecognitionModule` for every checkpoint.

    mmengine's checkpoint hook calls ``runner.save_checkpoint`` on every rank, and only rank 0
    writes. ``before_train`` therefore wraps it with the operations that all ranks must do together,
    whatever the reason for the checkpoint: an epoch, an iteration, a best result. A
    ``runner.save_checkpoint`` on a single rank would wait forever. The optimizer's state is
    gathered in ``before_save_checkpoint`` and split in ``after_load_checkpoint``; the head does
    the same for its weight.

    Nothing happens with another head or on a single rank. ``tools/train.py`` adds the hook.

    Raises:
        ValueError: The optimizer wrapper clips gradients, which would use a different norm on every
            rank; or weights are averaged (``EMAHook``), whose shards would not be gathered.
    """

    priority = 'NORMAL'

    def __init__(self):
        self.states: dict[str, torch.Tensor | None] = {}

    def before_train(self, runner: Runner) -> None:
        """Wrap saving so that all ranks take part in it."""
        head = sharded_head(unwrap(runner.model))
        if head is None:
            return
        if runner.optim_wrapper.clip_grad_kwargs:
            raise ValueError(
                'optim_wrapper.clip_grad does not go with prototypes that are sharded over '
                f'{head.num_ranks} ranks: each would clip by the norm of its own shard. Remove it.'
            )
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise ValueError(
                'averaged weights (EMAHook) do not go with prototypes that are sharded over '
                f'{head.num_ranks} ranks. Remove the hook, or use RecognitionModule.'
            )
        head.is_gathered = True
        save = runner.save_checkpoint

        def save_whole(*args: Any, **kwargs: Any) -> None:
            if kwargs.get('save_optimizer', True):
                self.states = {
                    name: head.whole(value) for name, value in _rows(runner, head).items()
                }
            with head.gathered():
                save(*args, **kwargs)
            self.states = {}

        runner.save_checkpoint = save_whole

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the whole optimizer state of the prototypes in the checkpoint, on rank 0."""
        if self.states:
            place = _place(runner, unwrap(runner.model).head.weight)
            checkpoint['optimizer']['state'][place].update(self.states)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reduce the optimizer's state to the rows of this rank."""
        head = sharded_head(unwrap(runner.model))
        # A test has no optimizer: its wrapper is None, or still a config.
        if head is None or not hasattr(runner.optim_wrapper, 'optimizer'):
            return
        states = checkpoint.get('optimizer', {}).get('state', {})
        state = states.get(_place(runner, head.weight), {})
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.shape == (
                head.num_classes,
                head.embed_dims,
            ):
                state[name] = head.take_rows(value).clone()


def _place(runner: Runner, parameter: nn.Parameter) -> int:
    """Return the number of a parameter in the optimizer's state dict."""
    groups = runner.optim_wrapper.optimizer.param_groups
    parameters = [id(member) for group in groups for member in group['params']]
    if id(parameter) not in parameters:
        return -1
    return parameters.index(id(parameter))


def _rows(runner: Runner, head: nn.Module) -> dict[str, torch.Tensor]:
    """Return the optimizer's state of each prototype, such as momentum."""
    state = runner.optim_wrapper.optimizer.state.get(head.weight, {})
    return {
        name: value
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and value.shape == head.weight.shape
    }
