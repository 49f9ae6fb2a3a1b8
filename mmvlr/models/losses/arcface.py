"""ArcFace."""

import math
from types import MappingProxyType

import torch

from mmvlr.registry import MODELS

from .margin import MarginSoftmaxLoss


def add_angle(cosine: torch.Tensor, margin: float | torch.Tensor) -> torch.Tensor:
    """Return cos(theta + m), or its decreasing continuation c - m * sin(pi - m) beyond pi.

    Args:
        cosine: (B,) cos(theta), strictly within -1 and 1.
        margin: The angle m in radians, one for all or (B,).

    Returns:
        (B,), differentiable in both arguments.
    """
    shifted = torch.acos(cosine) + margin
    beyond = cosine - margin * torch.sin(torch.as_tensor(margin))
    return torch.where(shifted < math.pi, torch.cos(shifted), beyond)


@MODELS.register_module()
class ArcFaceLoss(MarginSoftmaxLoss):
    """Additive angular margin: cos(theta + m).

    Deng et al., *ArcFace*, CVPR 2019 (arXiv 1801.07698), eq. 3. Beyond theta + m > pi, where
    cos(theta + m) would increase again, the target is c - m * sin(pi - m), which keeps decreasing.

    Args:
        margin: The angle m in radians. RI-Face uses 0.45 (table 5).
        scale: The factor s in front of the cosines.
        loss_weight: Factor of the whole loss.
        as_in: ``'insightface'``: cos(theta + m) beyond pi too, and slope 1.

    Example:
        >>> import torch
        >>> loss = ArcFaceLoss(margin=0.0, scale=1.0)
        >>> round(loss(torch.tensor([[1.0, 0.0]]), torch.tensor([0])).item(), 4)
        0.3133
    """

    PEERS = MappingProxyType(dict(insightface=True))

    def __init__(
        self,
        margin: float = 0.45,
        scale: float = 64.0,
        loss_weight: float = 1.0,
        as_in: str | None = None,
    ):
        super().__init__(scale=scale, loss_weight=loss_weight, as_in=as_in)
        self.margin = margin

    def target_cosine(self, cosine: torch.Tensor, norms: torch.Tensor | None) -> torch.Tensor:
        """Return cos(theta + m), or its continuation beyond pi."""
        if self.as_in == 'insightface':
            return torch.cos(torch.acos(cosine) + self.margin)
        return add_angle(cosine, self.margin)
