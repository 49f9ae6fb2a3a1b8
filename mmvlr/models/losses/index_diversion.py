"""Index diversion: push the recognizability of faces away from that of the UI set."""

import torch
from torch import nn

from mmvlr.registry import MODELS


@MODELS.register_module()
class IndexDiversionLoss(nn.Module):
    """mean(max(0, tau - (xi_hat - mu_UI) / sigma_UI)), the deviation loss on the predicted index.

    RI-Face (arXiv 2304.10066) describes it in prose; the form is the deviation loss of Pang et
    al., *Deep anomaly detection with deviation networks*, KDD 2019. mu_UI and sigma_UI are the
    mean and standard deviation of xi_hat over the UI set, constants here.

    Args:
        tau: Number of standard deviations that a face should lie above the UI set.
        sigma_floor: Lower bound of sigma_UI in the division. Without it the loss is unstable: a
            shrinking sigma_UI increases the gradient that shrinks it.
        loss_weight: Factor of the loss (beta).

    Example:
        >>> import torch
        >>> loss = IndexDiversionLoss(tau=2.0, sigma_floor=0.0, loss_weight=1.0)
        >>> loss(torch.tensor([1.0, 5.0]), torch.tensor(1.0), torch.tensor(1.0)).item()
        1.0
    """

    def __init__(self, tau: float = 2.0, sigma_floor: float = 0.1, loss_weight: float = 2.0):
        super().__init__()
        self.tau = tau
        self.sigma_floor = sigma_floor
        self.loss_weight = loss_weight

    def forward(
        self, xi_hat: torch.Tensor, ui_mean: torch.Tensor, ui_std: torch.Tensor
    ) -> torch.Tensor:
        """Return the scalar loss of predictions ``xi_hat`` (B,)."""
        floor = max(self.sigma_floor, torch.finfo(torch.float32).tiny)
        deviation = (xi_hat.float() - ui_mean) / ui_std.clamp_min(floor)
        return self.loss_weight * (self.tau - deviation).clamp_min(0).mean()
