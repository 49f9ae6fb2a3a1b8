"""Train in mixed precision on any machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmvlr.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class FaceAmpOptimWrapper(OptimWrapper):
    """Run the forward pass under autocast, and scale float16 gradients.

    mmengine's ``AmpOptimWrapper`` requires a GPU and scales any type. This wrapper follows the
    device of the parameters, so a config works on any machine, and does not scale bfloat16, which
    has the range of float32. Weights, optimizer and the margin losses stay float32.

    Args:
        dtype: ``'bfloat16'``, or ``'float16'`` on a GPU.
        init_scale: Initial factor of the loss for float16. It is halved when a gradient overflows,
            and that step is skipped; it doubles after 2,000 steps without overflow.
        **kwargs: Arguments of :class:`mmengine.optim.OptimWrapper`.

    Raises:
        ValueError: Another type, or one that the machine does not support.
    """

    def __init__(self, dtype: str = 'bfloat16', init_scale: float = 2.0**16, **kwargs):
        super().__init__(**kwargs)
        self.device_type = self.optimizer.param_groups[0]['params'][0].device.type
        if dtype not in ('bfloat16', 'float16'):
            raise ValueError(f"optim_wrapper.dtype must be 'bfloat16' or 'float16', not {dtype!r}")
        if dtype == 'float16' and self.device_type == 'cpu':
            raise ValueError(
                "optim_wrapper.dtype='float16' needs a GPU; on CPU use dtype='bfloat16'"
            )
        if dtype == 'bfloat16' and self.device_type == 'cuda' and not is_bf16_supported():
            raise ValueError("this GPU has no bfloat16 (optim_wrapper.dtype); use dtype='float16'")
        self.cast_dtype = getattr(torch, dtype)
        self.scaler = torch.amp.GradScaler(
            self.device_type, init_scale=init_scale, enabled=dtype == 'float16'
        )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Run the forward pass of a step under autocast."""
        with super().optim_context(model), torch.autocast(self.device_type, self.cast_dtype):
            yield

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        """Compute the gradients of the scaled loss."""
        super().backward(self.scaler.scale(loss), **kwargs)

    def step(self, **kwargs) -> None:
        """Clip, and update the parameters unless a gradient overflowed."""
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict:
        """Return the optimizer's state with that of the scaler."""
        return {**super().state_dict(), 'loss_scaler': self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state, also of a run in another precision."""
        state_dict = dict(state_dict)
        scaler = state_dict.pop('loss_scaler', None)
        if scaler:
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state_dict)


def is_bf16_supported() -> bool:
    """Return whether the GPU supports bfloat16 natively."""
    return torch.cuda.is_bf16_supported(including_emulation=False)
