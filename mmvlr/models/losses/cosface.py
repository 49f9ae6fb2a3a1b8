"""CosFace."""

import torch

from mmvlr.registry import MODELS

from .margin import MarginSoftmaxLoss


@MODELS.register_module()
class CosFaceLoss(MarginSoftmaxLoss):
    """Additive cosine margin: cos(theta) - m.

    Wang et al., *CosFace*, CVPR 2018 (arXiv 1801.09414), eq. 4, the large margin cosine loss.

    Args:
        margin: The margin m, subtracted from the target's cosine.
        scale: The factor s in front of the cosines.
        loss_weight: Factor of the whole loss.

    Example:
        >>> loss = CosFaceLoss(margin=0.25, scale=1.0)
        >>> loss.logits(torch.tensor([[0.75, 0.25]]), torch.tensor([0]))
        tensor([[0.5000, 0.2500]])
    """

    def __init__(self, margin: float = 0.35, scale: float = 64.0, loss_weight: float = 1.0):
        super().__init__(scale=scale, loss_weight=loss_weight)
        self.margin = margin

    def target_cosine(self, cosine: torch.Tensor, norms: torch.Tensor | None) -> torch.Tensor:
        """Return c - m."""
        return cosine - self.margin
