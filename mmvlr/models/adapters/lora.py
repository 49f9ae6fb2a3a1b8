"""Low-rank adaptation: Hu et al., *LoRA*, ICLR 2022 (arXiv 2106.09685).

PEFT replaces layers by wrappers, which renames the weights of the backbone (no plain checkpoint
loads any more) and is bypassed by :func:`mmvlr.models.backbones.base.conv_bn`, which computes from
the kernel instead of calling the convolution. Here the backbone keeps its layers and names, and the
adapter is a part of the recognizer with its own weights and its own learning rate.
"""

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn

from mmvlr.registry import MODELS


class LowRank(nn.Module):
    """Two factors beside one layer: its output becomes W x + scale * up(gate * down(x)).

    Args:
        layer: An ``nn.Linear``, or an ``nn.Conv2d`` without groups.
        rank: Inner size of one pair of factors.
        scale: Factor of the addition.
        branches: Number of pairs, which a gate weights face by face.

    Attributes:
        gates: (B, branches), the weight of each pair for each face; None for 1.
        is_off: Whether the layer works as if there were no adapter.
        used: Whether the layer has been called since the adapter was attached.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, rank: int, scale: float, branches: int = 1):
        super().__init__()
        outputs, *rest = layer.weight.shape
        self.rank, self.scale = rank, scale
        self.down = nn.Parameter(layer.weight.new_empty(branches * rank, *rest))
        self.up = nn.Parameter(layer.weight.new_zeros(outputs, branches * rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.gates: torch.Tensor | None = None
        self.is_off = self.used = False
        # Not as a submodule: the weights belong to the adapter, under its names.
        layer.__dict__['low_rank'] = self
        layer.register_forward_hook(self.add)

    def add(
        self,
        layer: nn.Module,
        inputs: tuple[torch.Tensor, ...],
        output: torch.Tensor,
        factor: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the output of a layer with the adapter's part added; works as a forward hook.

        Args:
            layer: The layer.
            inputs: Its input.
            output: Its output.
            factor: (outputs,), a factor of each output, for a BN that is folded into the layer.
        """
        if self.is_off:
            return output
        (x,), self.used = inputs, True
        up = self.up * self.scale
        if factor is not None:
            up = up * factor[:, None]
        convolves = isinstance(layer, nn.Conv2d)
        if convolves:
            inner = F.conv2d(x, self.down, None, layer.stride, layer.padding, layer.dilation)
        else:
            inner = F.linear(x, self.down)
        if self.gates is not None:
            # A transformer with windows puts those of a face next to each other in the batch.
            gates = self.gates.repeat_interleave(len(x) // len(self.gates), 0)
            gates = gates.repeat_interleave(self.rank, 1).to(inner.dtype)
            places = inner.ndim - 2
            shape = (-1, *[1] * places) if convolves else (*[1] * places, -1)
            inner = inner * gates.view(len(x), *shape)
        added = F.conv2d(inner, up[:, :, None, None]) if convolves else F.linear(inner, up)
        return output + added

    def weight_change(self, gates: torch.Tensor | None = None) -> torch.Tensor:
        """Return the equal change of the layer's weight, float64, for gates (branches,)."""
        up = self.up.detach().double() * self.scale
        if gates is not None:
            up = up * gates.to(up).repeat_interleave(self.rank)
        return torch.tensordot(up, self.down.detach().double(), 1)


@MODELS.register_module()
class LoRA(BaseModule):
    """Low-rank changes of the linear layers and convolutions of a backbone that stays as it is.

    Attached by ``model.backbone.adapter=dict(type='LoRA', ...)``. The weights and the statistics of
    BN of the backbone stay as they were loaded; the adapter starts as no change. It is the part
    ``adapter`` of the model: it has a learning rate of its own, and the backbone has none.

    Args:
        backbone: The backbone; filled in.
        rank: Inner size of the changes.
        alpha: The changes are multiplied by ``alpha / rank``; ``rank`` by default.
        targets: Patterns of names of layers such as ``'blocks.*'`` (``fnmatch``). None for every
            linear layer and every convolution without groups outside the frozen stages.
        gate: Config of a gate such as :class:`QualityGate`, which weights two adapters for every
            face. None for a single adapter.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Raises:
        ValueError: A pattern fits no layer that can be adapted, or ``rank`` is no positive integer.
    """

    def __init__(
        self,
        backbone: nn.Module,
        rank: int = 8,
        alpha: float | None = None,
        targets: Sequence[str] | str | None = None,
        gate: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if not isinstance(rank, int) or rank < 1:
            raise ValueError(f'adapter.rank must be a positive integer, not {rank!r}')
        self.gate = None if gate is None else MODELS.build(dict(gate))
        if self.gate is not None and backbone.with_cp:
            raise ValueError(
                'backbone.with_cp computes again without the gates of the faces: use an adapter '
                'without adapter.gate, or with_cp=False'
            )
        branches = 1 if self.gate is None else self.gate.branches
        layers = find_layers(backbone, [targets] if isinstance(targets, str) else targets)
        scale = (rank if alpha is None else alpha) / rank
        # Names with dots cannot be names of submodules.
        self.names = list(layers)
        self.pairs = nn.ModuleDict(
            {
                name.replace('.', '/'): LowRank(layer, rank, scale, branches)
                for name, layer in layers.items()
            }
        )
        backbone.is_adapted = True
        count = sum(p.numel() for p in self.parameters())
        print_log(
            f'{type(self).__name__} of rank {rank} on {len(layers)} layers: {count:,} weights '
            f'beside {sum(p.numel() for p in backbone.parameters()):,}',
            logger='current',
        )

    @property
    def is_constant(self) -> bool:
        """Whether it changes every face in the same way, so that it can be merged."""
        return self.gate is None or self.gate.is_constant

    def set_gates(self, model: nn.Module, inputs: torch.Tensor) -> None:
        """Choose the weights of the adapters for a batch of faces.

        Args:
            model: The recognizer.
            inputs: (B, 3, H, W), as its data preprocessor makes them.
        """
        if self.gate is None:
            return
        for pair in self.pairs.values():
            pair.is_off = True
        gates = self.gate(model, inputs)
        for pair in self.pairs.values():
            pair.gates, pair.is_off = gates, False

    def require_use(self) -> None:
        """Raise ValueError unless every layer has been called since the adapter was attached.

        A backbone that computes from the weight of a layer without calling it would leave its
        adapter without effect.
        """
        unused = [n for n, p in zip(self.names, self.pairs.values(), strict=True) if not p.used]
        if unused:
            raise ValueError(
                f'the backbone never calls {", ".join(unused)}: an adapter has no effect there. '
                'Leave them out of model.backbone.adapter.targets'
            )

    @torch.no_grad()
    def merge(self, backbone: nn.Module) -> None:
        """Add the changes to the weights of the backbone and detach the adapter.

        Raises:
            ValueError: The gate weights faces differently.
        """
        if not self.is_constant:
            raise ValueError(
                f'{type(self.gate).__name__} weights the adapters of every face differently: they '
                'cannot be merged into one set of weights'
            )
        gates = None if self.gate is None else self.gate.weights
        for name, pair in zip(self.names, self.pairs.values(), strict=True):
            layer = backbone.get_submodule(name)
            layer.weight.copy_(layer.weight.double() + pair.weight_change(gates))
        detach(backbone)
        backbone.is_adapted = False


def find_layers(backbone: nn.Module, targets: Sequence[str] | None) -> dict[str, nn.Module]:
    """Return the layers of a backbone that patterns name and that can be adapted.

    Raises:
        ValueError: A pattern names none.
    """
    frozen = set()
    if backbone.frozen_stages:
        for stage in backbone.stages()[: backbone.frozen_stages]:
            frozen |= {inner for module in stage for inner in module.modules()}
    able = {
        name: layer
        for name, layer in backbone.named_modules()
        if layer not in frozen
        and (
            isinstance(layer, nn.Linear)
            or (
                isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == 'zeros'
            )
        )
    }
    for pattern in targets or ['*']:
        if not any(fnmatchcase(name, pattern) for name in able):
            raise ValueError(
                f'adapter.targets: {pattern!r} names no linear layer and no convolution without '
                f'groups outside the frozen stages of {type(backbone).__name__}; there are '
                f'{", ".join(list(able)[:5])}, ... ({len(able)})'
            )
    return {
        name: layer
        for name, layer in able.items()
        if any(fnmatchcase(name, pattern) for pattern in targets or ['*'])
    }


def detach(module: nn.Module) -> None:
    """Remove the adapters from the layers of a module."""
    for layer in module.modules():
        pair = layer.__dict__.pop('low_rank', None)
        if pair is not None:
            hooks = [k for k, h in layer._forward_hooks.items() if h == pair.add]
            del layer._forward_hooks[hooks[0]]
