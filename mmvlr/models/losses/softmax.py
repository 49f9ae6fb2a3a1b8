"""Softmax."""

import torch
import torch.nn.functional as F

from mmvlr.registry import MODELS

from .margin import PrototypeLoss


@MODELS.register_module()
class SoftmaxLoss(PrototypeLoss):
    """Plain cross entropy of the inner products v . w_j: no scale, no margin, no bias.

    The lengths of embeddings and prototypes matter and are learned. There is no bias, as it would
    have no counterpart when faces are compared at test time.

    Args:
        loss_weight: Factor of the whole loss.

    Example:
        >>> loss = SoftmaxLoss()
        >>> loss.similarities(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
        tensor([[6., 4.]])
    """

    def similarities(self, embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Return the inner products (B, C) of embeddings (B, D) with prototypes (C, D), float32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.linear(embeddings.float(), prototypes.float())
