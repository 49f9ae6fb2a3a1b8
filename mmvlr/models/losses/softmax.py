"""Softmax."""

import torch
import torch.nn.functional as F

from mmvlr.registry import MODELS

from .margin import MarginSoftmaxLoss


@MODELS.register_module()
class SoftmaxLoss(MarginSoftmaxLoss):
    """Plain cross entropy of the inner products v . w_j: no scale, no margin, no bias.

    The lengths of embeddings and prototypes count and are learned. A bias has no counterpart when
    faces are compared at test time, so there is none.

    Args:
        loss_weight: Factor of the whole loss.

    Example:
        >>> loss = SoftmaxLoss()
        >>> loss.similarities(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([[6., 4.]])
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__(scale=1.0, loss_weight=loss_weight)

    def similarities(self, embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Return the inner products (B, C) of embeddings (B, D) with prototypes (C, D), float32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.linear(embeddings.float(), prototypes.float())

    def logits(
        self,
        cosines: torch.Tensor,
        labels: torch.Tensor,
        norms: torch.Tensor | None = None,
        rows: slice | None = None,
    ) -> torch.Tensor:
        """Return the inner products (B, C) as they are: clamping is for cosines."""
        return cosines.float()
