"""Proximities of an embedding and the recognizability index made of them.

RI-Face (arXiv 2304.10066), section 3: an embedding is recognizable when it lies near its own
prototype, far from the nearest other prototype and far from the center of the unrecognizable
identities (UI).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.registry import MODELS

from .margin import cosine_matrix


class Proximities(NamedTuple):
    """The three distances of a batch, each (B,) in [0, 2]."""

    d_p: torch.Tensor
    d_n: torch.Tensor
    d_ui: torch.Tensor


@torch.no_grad()
def proximities(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    prototypes: torch.Tensor,
    ui_center: torch.Tensor,
) -> Proximities:
    """Return d^P = 1 - cos(v, w_y), d^N = 1 - max_{j != y} cos(v, w_j), d^UI = 1 - cos(v, u).

    Args:
        embeddings: (B, D), any length.
        labels: (B,) int64.
        prototypes: (C, D), any length, C >= 2.
        ui_center: (D,) unit vector.
    """
    cosines = cosine_matrix(embeddings, prototypes)
    column = labels.view(-1, 1)
    own = cosines.gather(1, column).squeeze(1)
    nearest = cosines.scatter(1, column, -torch.inf).amax(1)
    ui = F.normalize(embeddings.float(), dim=1) @ ui_center.float()
    return Proximities(1 - own, 1 - nearest, 1 - ui)


@MODELS.register_module()
class RecognizabilityIndex(nn.Module):
    """xi = d^UI * d^N / (d^P + eps), the target of the perceptibility regression.

    The form agrees with every sign the paper states; eps and the exact expression cannot be read in
    the paper, so the formula is a registered component and can be replaced in a config.

    Args:
        eps: Keeps xi finite for an embedding on its prototype.
        log: Return log(xi) instead, which lacks the long upper tail of the ratio. :meth:`restore`
            leads back to xi.
        factors: Proximities to use, for ablations; the others are replaced by 1.

    Example:
        >>> import torch
        >>> d = [torch.tensor([x]) for x in (0.5, 0.8, 0.9)]
        >>> round(RecognizabilityIndex(eps=0.0)(Proximities(*d)).item(), 4)
        1.44
        >>> round(RecognizabilityIndex(eps=0.0, factors=('d_p',))(Proximities(*d)).item(), 4)
        2.0
        >>> formula = RecognizabilityIndex(log=True)
        >>> round(formula.restore(formula(Proximities(*d))).item(), 4)
        1.4371
    """

    def __init__(
        self,
        eps: float = 1e-3,
        log: bool = False,
        factors: Sequence[str] = Proximities._fields,
    ):
        super().__init__()
        if not factors or not set(factors) <= set(Proximities._fields):
            raise ValueError(f'factors must be some of {Proximities._fields}, not {factors!r}')
        self.eps = eps
        self.log = log
        self.factors = tuple(factors)

    def forward(self, distances: Proximities) -> torch.Tensor:
        """Map proximities (B,) to xi (B,), without gradient."""
        one = torch.ones_like(distances.d_p)
        d_p, d_n, d_ui = (
            getattr(distances, name) if name in self.factors else one
            for name in Proximities._fields
        )
        if 'd_p' in self.factors:
            d_p = d_p.clamp_min(0) + self.eps
        xi = d_ui * d_n / d_p
        xi = xi.clamp_min(self.eps).log() if self.log else xi
        return xi.detach()

    def restore(self, regressed: torch.Tensor) -> torch.Tensor:
        """Return xi of regressed values, (B,): exp where the logarithm is regressed.

        It keeps the order of faces. Users see xi; losses and UI statistics work on the regressed
        value.
        """
        # A read-out of an extreme face must not leave the range of float32.
        return regressed.clamp(-80, 80).exp() if self.log else regressed
