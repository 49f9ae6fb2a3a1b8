"""What every backbone shares: the contract of its output, freezing of BN, recomputed blocks."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class FaceBackbone(BaseModule):
    """Base of all backbones.

    A subclass sets ``embed_dims`` (D, size of the embedding) and ``feat_channels`` (C, channels of
    the last feature map), and its ``forward`` returns ``(feature_map, embedding)`` of shapes
    (B, C, h, w) and (B, D).

    Args:
        frozen_bn: Freeze every BatchNorm2d, that is the layers after (or before) 2-D convolutions:
            statistics and affine parameters stay as they were loaded, also after ``train()``. The
            BatchNorm1d behind the last linear layer still learns. RI-Face, table 5, does this:
            the statistics of a small VLR training set are worse than those of the pretraining.
        with_cp: Gradient checkpointing: forget what happens inside of a block and compute it again
            in the backward pass. Less memory, more time, the same gradients.
        init_cfg: See :class:`mmengine.model.BaseModule`.
    """

    embed_dims: int
    feat_channels: int

    def __init__(
        self, frozen_bn: bool = False, with_cp: bool = False, init_cfg: Mapping | None = None
    ):
        super().__init__(init_cfg=init_cfg)
        self.frozen_bn = frozen_bn
        self.with_cp = with_cp

    def freeze_bn(self) -> None:
        """Put every BatchNorm2d into eval mode and stop its gradients."""
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'FaceBackbone':
        """Set the training mode; frozen BN layers stay in eval mode."""
        super().train(mode)
        if self.frozen_bn:
            self.freeze_bn()
        return self

    def run_blocks(self, blocks: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        """Return ``blocks(x)``; each block is recomputed in the backward pass if ``with_cp``."""
        if not (self.with_cp and self.training and torch.is_grad_enabled()):
            return blocks(x)
        for block in blocks:
            x = recomputed(block, x)
        return x

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map faces (B, 3, H, W) to a feature map (B, C, h, w) and embeddings (B, D)."""
        raise NotImplementedError


def conv_bn(conv: nn.Conv2d, bn: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """Return ``bn(conv(x))``, as one convolution where the BN is frozen or nothing is trained.

    A BN that does not learn is a constant scale and shift of each channel. Folding it into the
    (small) kernel instead of applying it to the (large) map saves a pass over the map in each
    direction; the kernel's gradient goes through the scale, so training is the same up to
    rounding.
    """
    learns = bn.weight.requires_grad and torch.is_grad_enabled()
    if bn.training or learns:
        return bn(conv(x))
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
    shift = bn.bias - bn.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    # The public spelling of the convolution's own forward, with another kernel.
    return F.conv2d(
        x,
        conv.weight * scale.view(-1, 1, 1, 1),
        shift,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )


@contextmanager
def statistics_kept(layers: list[_BatchNorm]) -> Iterator[None]:
    """Leave the running statistics of BN alone; batches are normalized as before."""
    before = [(layer.momentum, layer.num_batches_tracked.clone()) for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, (momentum, batches) in zip(layers, before, strict=True):
            layer.momentum = momentum
            layer.num_batches_tracked.copy_(batches)


def recomputed(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return ``block(x)``, to be computed again in the backward pass.

    The second pass must not count the batch a second time in the statistics of BN.
    """
    # _BatchNorm: SyncBatchNorm, which sync_bn makes, is no BatchNorm2d.
    layers = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    # A compiled graph repeats what is computed, not what is written to buffers.
    if not layers or torch.compiler.is_compiling():
        return checkpoint(block, x, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), statistics_kept(layers)

    return checkpoint(block, x, use_reentrant=False, context_fn=contexts)


def conv_output_size(size: int, strides: int) -> int:
    """Return the side of the map after a number of stride-2 convolutions of a ``size`` input."""
    for _ in range(strides):
        size = (size + 1) // 2
    return size
