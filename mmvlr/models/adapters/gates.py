"""Gates: how much each of several adapters counts for a face."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmvlr.registry import MODELS, QUALITIES


@MODELS.register_module()
class FixedGate(nn.Module):
    """The same weights for every face, so that the adapters can be merged.

    Args:
        weights: One weight an adapter.
    """

    is_constant = True

    def __init__(self, weights: Sequence[float] = (0.5, 0.5)):
        super().__init__()
        self.branches = len(weights)
        self.register_buffer('weights', torch.tensor(weights, dtype=torch.float32))

    def forward(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """Return the weights (B, branches) of a batch."""
        return self.weights.expand(len(inputs), -1)


@MODELS.register_module()
class QualityGate(nn.Module):
    """Two adapters, the second for poor faces: weights (g, 1 - g), g = sigmoid((q - m) / s).

    m and s are mean and standard deviation of the quality over the training, a running average that
    a checkpoint carries. After Narayan et al., *PETALface*, WACV 2025 (arXiv 2412.07771), who gate
    two LoRAs by an image quality.

    Args:
        quality: Config of a quality measure. One that needs a model is measured with the adapters
            off, in a pass of its own; one that needs images sees the faces as the network does,
            resized.
        momentum: Weight of a batch in the running average.

    Raises:
        ValueError: The quality is the native size, which a resized face has lost.
    """

    is_constant = False
    branches = 2

    def __init__(self, quality: Mapping[str, Any], momentum: float = 0.05):
        super().__init__()
        self.quality = QUALITIES.build(dict(quality))
        if self.quality.name == 'size':
            raise ValueError(
                'adapter.gate.quality: the network sees faces of one size, whose native size it '
                "does not know; use dict(type='SharpnessQuality') or dict(type='NormQuality')"
            )
        self.momentum = momentum
        # Zero until the first batch of a training.
        self.register_buffer('mean', torch.tensor(0.0))
        self.register_buffer('std', torch.tensor(0.0))

    @torch.no_grad()
    def forward(self, model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """Return the weights (B, 2) of a batch."""
        training = model.training
        model.eval()
        try:
            quality = self.quality.measure_inputs(model, inputs).to(inputs.device)
        finally:
            model.train(training)
        if training:
            weight = torch.where(self.std > 0, self.momentum, 1.0)
            self.mean.lerp_(quality.mean(), weight)
            self.std.lerp_(quality.std(correction=0), weight)
        good = torch.sigmoid((quality - self.mean) / self.std.clamp(min=1e-6))
        return torch.stack([good, 1 - good], 1)
