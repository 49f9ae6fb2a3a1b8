"""CurricularFace."""

from types import MappingProxyType

import torch

from mmvlr.registry import MODELS

from .arcface import ArcFaceLoss
from .moments import batch_moments


@MODELS.register_module()
class CurricularFaceLoss(ArcFaceLoss):
    """ArcFace whose weight of hard negatives increases in the course of training.

    Huang et al., *CurricularFace*, CVPR 2020 (arXiv 2004.00288), section 3.2. The target is
    ArcFace's. A negative is hard where c_j > cos(theta_y + m), and becomes c_j * (t + c_j). The
    curriculum's parameter t is a running mean of the targets' cosines, updated with a batch before
    it is used on it: t <- momentum * mean(c_y) + (1 - momentum) * t.

    Args:
        margin: The angle m in radians.
        scale: The factor s in front of the cosines.
        momentum: Weight of a batch in t.
        loss_weight: Factor of the whole loss.

    Attributes:
        t: Scalar buffer, 0 at the start, updated by the training batches of all ranks.

    Example:
        >>> loss = CurricularFaceLoss(margin=0.0, scale=1.0, momentum=0.5)
        >>> loss.logits(torch.tensor([[0.5, 0.75, 0.25]]), torch.tensor([0]))
        tensor([[0.5000, 0.7500, 0.2500]])
        >>> loss.t
        tensor(0.2500)
    """

    PEERS = MappingProxyType({})

    def __init__(
        self,
        margin: float = 0.5,
        scale: float = 64.0,
        momentum: float = 0.01,
        loss_weight: float = 1.0,
    ):
        super().__init__(margin=margin, scale=scale, loss_weight=loss_weight)
        self.momentum = momentum
        self.register_buffer('t', torch.zeros(()))

    def update_statistics(self, target: torch.Tensor, norms: torch.Tensor | None) -> None:
        """Update t with the mean cosine of the targets (B,)."""
        self.t.lerp_(batch_moments(target)[0], self.momentum)

    def negative_cosines(
        self, cosines: torch.Tensor, target: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return c_j * (t + c_j) where the negative is hard, else c_j; (B, C)."""
        bar = torch.cos(torch.acos(target) + self.margin)
        return torch.where(cosines > bar[:, None], cosines * (self.t + cosines), cosines)
