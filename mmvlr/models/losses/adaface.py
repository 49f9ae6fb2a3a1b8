"""AdaFace."""

import math
from types import MappingProxyType

import torch

from mmvlr.registry import MODELS

from .margin import MarginSoftmaxLoss
from .moments import batch_moments


@MODELS.register_module()
class AdaFaceLoss(MarginSoftmaxLoss):
    """Margin by quality: emphasizes hard faces of high norm and easy faces of low norm.

    Kim et al., *AdaFace*, CVPR 2022 (arXiv 2204.00964), section 3.3. The quality of a face is its
    norm relative to recent ones, z = clip(h * (norm - mu) / (sigma + eps), -1, 1), no gradient;
    its target becomes cos(clip(theta - m * z, eps, pi - eps)) - (m + m * z). That is CosFace at
    z = 0 and ArcFace at z = -1. mu and sigma are running means of the batch's mean and standard
    deviation, updated with a batch before they are used on it.

    Args:
        margin: m.
        h: Change of z per standard deviation of the norms.
        scale: The factor s in front of the cosines.
        momentum: Weight of a batch in mu and sigma (t_alpha in the authors' code).
        max_norm: Norms are clipped to this value.
        eps: Keeps norms and sigma above 0, and theta' away from 0 and pi.
        initial_mean: mu at the start.
        initial_std: sigma at the start. Its influence decays slowly: to 0.37 after 100 batches.
        loss_weight: Factor of the whole loss.
        as_in: ``'adaface'``: all cosines are clamped to within ``eps`` of +-1, and have no gradient
            beyond; ``'cvlface'``: slope 1.

    Attributes:
        norm_mean, norm_std: mu and sigma, scalar buffers, updated by the training batches of all
            ranks.

    Example:
        >>> loss = AdaFaceLoss(h=0.5, momentum=0.0, initial_mean=20.0, initial_std=10.0, eps=0.0)
        >>> loss.quality(torch.tensor([10.0, 20.0, 50.0]))
        tensor([-0.5000,  0.0000,  1.0000])
    """

    PEERS = MappingProxyType(dict(adaface=False, cvlface=True))

    def __init__(
        self,
        margin: float = 0.4,
        h: float = 0.333,
        scale: float = 64.0,
        momentum: float = 0.01,
        max_norm: float = 100.0,
        eps: float = 1e-3,
        initial_mean: float = 20.0,
        initial_std: float = 100.0,
        loss_weight: float = 1.0,
        as_in: str | None = None,
    ):
        super().__init__(scale=scale, loss_weight=loss_weight, as_in=as_in)
        self.margin = margin
        self.h = h
        self.momentum = momentum
        self.max_norm = max_norm
        self.eps = eps
        self.register_buffer('norm_mean', torch.tensor(float(initial_mean)))
        self.register_buffer('norm_std', torch.tensor(float(initial_std)))

    def bounded(self, target: torch.Tensor) -> torch.Tensor:
        """Clamp cosines (B,); see :class:`MarginSoftmaxLoss`."""
        if self.as_in == 'adaface':
            return target.clamp(-1 + self.eps, 1 - self.eps)
        return super().bounded(target)

    def negative_cosines(
        self, cosines: torch.Tensor, target: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the other classes' cosines (B, C)."""
        return self.bounded(cosines) if self.as_in == 'adaface' else cosines

    def clamped(self, norms: torch.Tensor) -> torch.Tensor:
        """Return the norms (B,) within bounds, float32 and without gradient."""
        return norms.detach().float().clamp(self.eps, self.max_norm)

    def update_statistics(self, target: torch.Tensor, norms: torch.Tensor) -> None:
        """Update mu and sigma with mean and standard deviation of the norms (B,)."""
        mean, std = batch_moments(self.clamped(norms))
        self.norm_mean.lerp_(mean, self.momentum)
        self.norm_std.lerp_(std, self.momentum)

    def quality(self, norms: torch.Tensor) -> torch.Tensor:
        """Return z (B,) in [-1, 1] of the norms (B,) of raw embeddings, without gradient."""
        deviation = (self.clamped(norms) - self.norm_mean) / (self.norm_std + self.eps)
        return (self.h * deviation).clamp(-1, 1)

    def target_cosine(self, cosine: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
        """Return cos(theta - m * z) - (m + m * z)."""
        shift = self.margin * self.quality(norms)
        angle = (torch.acos(cosine) - shift).clamp(self.eps, math.pi - self.eps)
        return torch.cos(angle) - (self.margin + shift)
