"""GraFIQs: measure how a face would change a network towards the statistics of its training.

Kolf, Damer, Boutros, *GraFIQs: Face Image Quality Assessment Using Gradient Magnitudes*, CVPR
Workshops 2024 (arXiv 2404.12203).
"""

from collections.abc import Callable

import torch
from torch import nn

from mmvlr.registry import QUALITIES

from .base import FaceBatch, QualityMeasure
from .copies import BackboneCopy


def _let_learn(backbone: nn.Module) -> None:
    # Frozen stages would pass no gradient on, and frozen BN is folded into convolutions.
    backbone.frozen_stages = 0
    backbone.requires_grad_(True)


@QUALITIES.register_module()
class GraFIQsQuality(QualityMeasure):
    """GraFIQs: summed absolute gradients of the error of a face's BN statistics.

    For each face alone, each BN layer of the backbone compares mean and (biased) variance of its
    input over positions with its running mean and variance, by mean squared error over channels;
    the loss is the sum of both, averaged over the layers. The quality is the sum of the absolute
    gradients of the loss with respect to the output of a stage, as in the authors' published code.

    Args:
        block: Stage of the backbone (its place in ``backbone.stages()``, negative from the end), or
            ``'image'`` for the network's input. The last stages have few BN layers after them.
        negate: Return minus the sum.
        name: See :class:`QualityMeasure`.
    """

    name = 'grafiqs'

    def __init__(self, block: int | str = 'image', negate: bool = False, name: str | None = None):
        super().__init__(name)
        if block != 'image' and type(block) is not int:
            raise ValueError(f"block must be a number or 'image', not {block!r}")
        self.block = block
        self.sign = -1 if negate else 1
        self.learning = BackboneCopy(_let_learn)

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the quality (B,).

        Raises:
            ValueError: The backbone has no BN layer (``BatchNorm2d``) with running statistics
                behind the block, or no such block.
        """
        backbone = self.learning(faces.model.backbone)
        layers = [
            module
            for module in backbone.modules()
            if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
        ]
        if not layers:
            raise ValueError(
                f'{self.name!r} needs a backbone with BN layers (BatchNorm2d), and '
                f'{type(backbone).__name__} has none: choose another measure'
            )
        errors: list[torch.Tensor] = []
        reached: list[torch.Tensor] = []
        hooks = [layer.register_forward_hook(_append_error(errors)) for layer in layers]
        if self.block != 'image':
            stages = backbone.stages()
            if not -len(stages) <= self.block < len(stages):
                raise ValueError(
                    f'{self.name!r}: block must be one of the {len(stages)} stages of '
                    f'{type(backbone).__name__}, not {self.block}'
                )
            last = stages[self.block][-1]
            hooks.append(last.register_forward_hook(lambda *found: reached.append(found[-1])))
        try:
            with torch.inference_mode(False), torch.enable_grad():
                inputs = faces.inputs.clone().requires_grad_()
                backbone(inputs)
                place = inputs if self.block == 'image' else reached[-1]
                # Each face's statistics are its own, so that one pass gives all gradients.
                loss = torch.stack(errors).mean(0).sum()
                (gradient,) = torch.autograd.grad(loss, place, allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
        if gradient is None:
            raise ValueError(f'{self.name!r}: no BN layer is behind block {self.block}')
        return self.sign * gradient.double().abs().flatten(1).sum(1)


def _append_error(errors: list[torch.Tensor]) -> Callable[..., None]:
    def hook(layer: nn.BatchNorm2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        mean = inputs[0].mean((2, 3)) - layer.running_mean
        variance = inputs[0].var((2, 3), correction=0) - layer.running_var
        errors.append(mean.square().mean(1) + variance.square().mean(1))

    return hook
