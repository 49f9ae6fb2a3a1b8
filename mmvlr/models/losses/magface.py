"""MagFace."""

from types import MappingProxyType

import torch

from mmvlr.registry import MODELS

from .arcface import add_angle
from .margin import MarginSoftmaxLoss


@MODELS.register_module()
class MagFaceLoss(MarginSoftmaxLoss):
    """ArcFace with a margin that grows with the norm, and a regularizer for long embeddings.

    Meng et al., *MagFace*, CVPR 2021 (arXiv 2103.06627), section 3.2. With a the norm clamped to
    ``norm_bounds`` (l_a, u_a), the margin m(a) runs linearly over ``margin_bounds`` (l_m, u_m) and
    lambda_g * mean(g(a)), g(a) = a / u_a^2 + 1 / a, is added. The gradient goes through the norm:
    embeddings of recognizable faces become long, so the norm becomes a quality measure. Outside the
    bounds the norm has no gradient.

    The regularizer is a part of the returned loss, as in the paper, so a perfect model ends at
    lambda_g * 2 / u_a = 0.64 instead of 0.

    Args:
        norm_bounds: l_a and u_a, the norms between which the margin grows.
        margin_bounds: l_m and u_m in radians, the margins at these norms.
        regularizer_weight: lambda_g.
        scale: The factor s in front of the cosines.
        loss_weight: Factor of the whole loss.
        as_in: ``'magface'``: no margin where the cosine is not above 0, as the authors' code has
            it (``easy_margin``).

    Example:
        >>> MagFaceLoss().margins(torch.tensor([5.0, 10.0, 60.0, 110.0]))
        tensor([0.4500, 0.4500, 0.6250, 0.8000])
    """

    PEERS = MappingProxyType(dict(magface=False))

    def __init__(
        self,
        norm_bounds: tuple[float, float] = (10.0, 110.0),
        margin_bounds: tuple[float, float] = (0.45, 0.8),
        regularizer_weight: float = 35.0,
        scale: float = 64.0,
        loss_weight: float = 1.0,
        as_in: str | None = None,
    ):
        super().__init__(scale=scale, loss_weight=loss_weight, as_in=as_in)
        self.norm_bounds = norm_bounds
        self.margin_bounds = margin_bounds
        self.regularizer_weight = regularizer_weight

    def margins(self, norms: torch.Tensor) -> torch.Tensor:
        """Return m(a) (B,) in radians of the norms (B,) of raw embeddings."""
        (shortest, longest), (smallest, largest) = self.norm_bounds, self.margin_bounds
        share = (norms.float().clamp(shortest, longest) - shortest) / (longest - shortest)
        return smallest + (largest - smallest) * share

    def regularizer(self, norms: torch.Tensor) -> torch.Tensor:
        """Return lambda_g * mean(g(a)), a scalar that falls until a reaches u_a."""
        shortest, longest = self.norm_bounds
        clamped = norms.float().clamp(shortest, longest)
        return self.regularizer_weight * (clamped / longest**2 + 1 / clamped).mean()

    def target_cosine(self, cosine: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
        """Return cos(theta + m(a)), or its continuation beyond pi."""
        shifted = add_angle(cosine, self.margins(norms))
        return torch.where(cosine > 0, shifted, cosine) if self.as_in == 'magface' else shifted
