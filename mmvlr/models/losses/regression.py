"""Regression of the recognizability index and of the attended embedding."""

import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.registry import MODELS


@MODELS.register_module()
class IndexRegressionLoss(nn.Module):
    """Smooth-L1 between predicted and measured recognizability index.

    0.5 * d^2 / beta where abs(d) < beta, else abs(d) - 0.5 * beta; RI-Face uses beta = 0.75.

    Args:
        beta: Difference at which the loss changes from quadratic to linear.
        loss_weight: Factor of the loss (alpha).
    """

    def __init__(self, beta: float = 0.75, loss_weight: float = 5.0):
        super().__init__()
        self.beta = beta
        self.loss_weight = loss_weight

    def forward(self, xi_hat: torch.Tensor, xi: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of predictions (B,) against targets (B,)."""
        return self.loss_weight * F.smooth_l1_loss(xi_hat.float(), xi.float(), beta=self.beta)


def attention_target(embeddings: torch.Tensor, ui_center: torch.Tensor) -> torch.Tensor:
    """Return normalize(v - (v . u) u): the embedding without its unrecognizable component.

    Args:
        embeddings: (B, D), any length.
        ui_center: (D,) unit vector u; zeros (no UI center yet) leave the direction as it is.

    Returns:
        (B, D) unit vectors, without gradient.
    """
    embeddings = embeddings.detach().float()
    along = (embeddings @ ui_center).unsqueeze(1) * ui_center
    return F.normalize(embeddings - along, dim=1)


@MODELS.register_module()
class AttentionLoss(nn.Module):
    """Mean squared error between the attended embedding and the attention target.

    Args:
        loss_weight: Factor of the loss (gamma).
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, attended: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of attended embeddings (B, D) against unit targets (B, D)."""
        return self.loss_weight * F.mse_loss(F.normalize(attended.float(), dim=1), target)
