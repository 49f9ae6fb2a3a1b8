"""Base of all backbones: the contract of the output, frozen layers, gradient checkpointing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import deepcopy

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..adapters.lora import detach


class FaceBackbone(BaseModule):
    """Base of all backbones.

    A subclass sets ``embed_dims`` (D, size of the embedding) and ``feat_channels`` (C, channels of
    the last feature map). It names its layers from the input to the map in :meth:`stages`, runs
    those behind the map in :meth:`embed` and lists them in ``tail_layers``.

    Args:
        frozen_bn: Freeze every BatchNorm2d, that is the layers after (or before) 2-D convolutions:
            statistics and affine parameters stay as they were loaded, also after ``train()``. The
            BatchNorm1d after the last linear layer still learns. RI-Face, table 5, does this:
            the statistics of a small VLR training set are worse than those of the pretraining.
        frozen_stages: Number of first entries of :meth:`stages` that keep their weights and
            statistics and run without a graph, which saves their backward pass and its memory.
        with_cp: Gradient checkpointing: drop the activations inside a block and compute them again
            in the backward pass. Less memory, more time, the same gradients.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Attributes:
        tail_layers: Names of the layers that :meth:`embed` runs.
        is_adapted: Whether an adapter learns in its place: all weights and statistics stay.
    """

    is_adapted: bool = False
    embed_dims: int
    feat_channels: int
    tail_layers: tuple[str, ...]

    def __init__(
        self,
        frozen_bn: bool = False,
        frozen_stages: int = 0,
        with_cp: bool = False,
        init_cfg: Mapping | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        self.frozen_bn = frozen_bn
        self.frozen_stages = frozen_stages
        self.with_cp = with_cp

    def stages(self) -> Sequence[Sequence[nn.Module]]:
        """Return the layers from the input to the feature map: stages, each a list of modules.

        A stage is the unit of ``frozen_stages``, a module that of ``with_cp``.
        """
        raise NotImplementedError

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Map a feature map (B, C, h, w) to embeddings (B, D), by ``tail_layers`` alone."""
        raise NotImplementedError

    def extract_map(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map faces (B, 3, H, W) to the feature map (B, C, h, w)."""
        x = inputs
        learns = torch.is_grad_enabled()
        for index, stage in enumerate(self.stages()):
            with torch.set_grad_enabled(learns and index >= self.frozen_stages):
                x = self.run_blocks(stage, x)
        return x

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map faces (B, 3, H, W) to a feature map (B, C, h, w) and embeddings (B, D)."""
        feature_map = self.extract_map(inputs)
        return feature_map, self.embed(feature_map)

    def freeze(self) -> None:
        """Put the frozen layers into eval mode and stop their gradients.

        Raises:
            ValueError: There are fewer stages than ``frozen_stages``.
        """
        if self.frozen_bn:
            freeze_bn(self)
        if self.is_adapted:
            freeze_bn(self, _BatchNorm)
            self.requires_grad_(False)
        stages = self.stages() if self.frozen_stages else []
        if not 0 <= self.frozen_stages <= len(stages):
            raise ValueError(
                f'frozen_stages must be 0 to {len(self.stages())}, the stages of '
                f'{type(self).__name__}, not {self.frozen_stages}'
            )
        for stage in stages[: self.frozen_stages]:
            for module in stage:
                module.eval()
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> 'FaceBackbone':
        """Set the training mode; frozen layers stay in eval mode."""
        super().train(mode)
        self.freeze()
        return self

    def run_blocks(self, blocks: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
        """Run modules in a row; each is recomputed in the backward pass if ``with_cp``."""
        again = self.with_cp and self.training and torch.is_grad_enabled()
        for block in blocks:
            x = recomputed(block, x) if again else block(x)
        return x


def freeze_bn(module: nn.Module, kind: type[_BatchNorm] = nn.BatchNorm2d) -> None:
    """Put every BN of a kind in a module into eval mode and stop its gradients."""
    for layer in module.modules():
        if isinstance(layer, kind):
            layer.eval()
            layer.requires_grad_(False)


class BackboneTail(nn.Module):
    """A copy of the layers of a backbone after its feature map, trained separately.

    Args:
        backbone: Backbone whose ``tail_layers`` are copied with weights; frozen BN stays frozen.

    Raises:
        ValueError: The backbone does not name the layers after its feature map.
    """

    def __init__(self, backbone: FaceBackbone):
        super().__init__()
        if not hasattr(backbone, 'tail_layers'):
            raise ValueError(
                f'{type(backbone).__name__} names no tail_layers: implement embed(feature_map) and '
                "list its layers there, or use projection='pooled'"
            )
        for name in backbone.tail_layers:
            layer = deepcopy(getattr(backbone, name))
            if backbone.is_adapted:
                # The copy is trained itself.
                detach(layer)
                layer.requires_grad_(True)
            self.add_module(name, layer)
        self.frozen_bn = backbone.frozen_bn
        # The layers have the same names here as in the backbone, so its method works here too.
        self.embed = type(backbone).embed
        self.train()

    def train(self, mode: bool = True) -> 'BackboneTail':
        """Set the training mode; frozen BN layers stay in eval mode."""
        super().train(mode)
        if self.frozen_bn:
            freeze_bn(self)
        return self

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Map a feature map (B, C, h, w) to embeddings (B, D)."""
        return self.embed(self, feature_map)


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
    # Does what the convolution's forward does, with another kernel, by public functions only.
    out = F.conv2d(
        x,
        conv.weight * scale.view(-1, 1, 1, 1),
        shift,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    )
    low_rank = conv.__dict__.get('low_rank')
    return out if low_rank is None else low_rank.add(conv, (x,), out, scale)


@contextmanager
def statistics_kept(layers: list[_BatchNorm]) -> Iterator[None]:
    """Keep the running statistics of BN unchanged; batches are normalized as before."""
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
    # A compiled graph repeats the computation, but not the writes to buffers.
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
