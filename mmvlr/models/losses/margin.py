"""Base classes of the classification losses: softmax over prototypes, with or without a margin.

A margin loss defines the target's cosine after the margin (``target_cosine``) and, rarely, the
other cosines (``negative_cosines``) or statistics of the batches (``update_statistics``). The base
class is responsible for the numerics: float32 also under autocast, cosines clamped before any
``acos``, and ``acos`` on the target column only, (B,) instead of (B, C).

This module is independent of distributed training: a head that shards its classes over ranks
combines the same steps in its own way (:class:`mmvlr.models.PartialRecognitionModule`).
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import nn

#: Smallest distance of a float32 cosine to +-1 before ``acos``, whose slope is infinite there.
COSINE_EPS = 1e-7


def cosine_matrix(embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Return the cosines (B, C) of embeddings (B, D) with prototypes (C, D), in float32.

    Autocast is switched off inside: a half-precision cosine times a scale of 64 is off by more
    than a margin of 0.02. Rounding may give values beyond 1: clamp them before ``acos``.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return F.linear(
            F.normalize(embeddings.float(), dim=1), F.normalize(prototypes.float(), dim=1)
        )


class PrototypeLoss(nn.Module):
    """Softmax cross entropy over the similarities of faces with prototypes.

    A head calls it in steps: :meth:`similarities`, :meth:`target`, :meth:`bounded`,
    :meth:`update_statistics` in training, :meth:`modified` and :meth:`regularizer`; :meth:`forward`
    is all of them but the first.

    Args:
        loss_weight: Factor of the whole loss.
    """

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def similarities(self, embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Return the similarities (B, C) of embeddings (B, D) with prototypes (C, D), float32."""
        raise NotImplementedError

    def target(self, similarities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the similarities (B,) with the faces' own classes; 0 where a label is -1."""
        own = similarities.gather(1, labels.clamp_min(0).view(-1, 1)).squeeze(1)
        return torch.where(labels >= 0, own, 0)

    def bounded(self, target: torch.Tensor) -> torch.Tensor:
        """Clamp :meth:`target` (B,) to the range that the other steps accept."""
        return target

    def update_statistics(self, target: torch.Tensor, norms: torch.Tensor | None) -> None:
        """Update the loss's statistics with a batch: :meth:`target` and norms, both (B,).

        Called in training only, without gradient and before the batch's loss. Statistics must be
        buffers, so that checkpoints carry them, and equal on all ranks; see
        :func:`.moments.batch_moments`.
        """

    def modified(
        self,
        similarities: torch.Tensor,
        target: torch.Tensor,
        labels: torch.Tensor,
        norms: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the logits (B, C).

        Args:
            similarities: (B, C) float32.
            target: (B,), see :meth:`target`.
            labels: (B,) int64 columns; -1 for a face whose class is not among the columns.
            norms: (B,) lengths of the raw embeddings, or None.
        """
        return similarities

    def regularizer(self, norms: torch.Tensor | None) -> torch.Tensor | None:
        """Return the term added to the cross entropy, a mean over the norms (B,), or None."""
        return None

    def logits(
        self, similarities: torch.Tensor, labels: torch.Tensor, norms: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits (B, C); in training, update the statistics with the batch first.

        See :meth:`forward` for the arguments.
        """
        similarities = similarities.float()
        target = self.bounded(self.target(similarities, labels))
        if self.training:
            with torch.no_grad():
                self.update_statistics(target, norms)
        return self.modified(similarities, target, labels, norms)

    def forward(
        self, similarities: torch.Tensor, labels: torch.Tensor, norms: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the mean loss, a scalar.

        Args:
            similarities: (B, C), as :meth:`similarities` makes them.
            labels: (B,) int64 class indices.
            norms: (B,) lengths of the raw embeddings, for losses that use them.
        """
        with torch.autocast(similarities.device.type, enabled=False):
            loss = F.cross_entropy(self.logits(similarities, labels, norms), labels)
            extra = self.regularizer(norms)
            return self.loss_weight * (loss if extra is None else loss + extra)


class MarginSoftmaxLoss(PrototypeLoss):
    """Softmax cross entropy over scaled cosines with a margin on the target.

    ``-log(exp(s * t) / (exp(s * t) + sum_j exp(s * n_j)))`` with ``t = target_cosine(c_y)`` and
    ``n = negative_cosines(c_j)``.

    Args:
        scale: The factor s in front of the cosines.
        loss_weight: Factor of the whole loss.
        as_in: Project whose deviation from the publication is followed, one of :attr:`PEERS`.

    Attributes:
        PEERS: Projects whose code deviates, mapped to whether it passes the gradient of a cosine
            through the margin as if that were a constant (slope 1).

    Raises:
        ValueError: There is no variant of this loss by that name.
    """

    PEERS: Mapping[str, bool] = MappingProxyType({})

    def __init__(self, scale: float = 64.0, loss_weight: float = 1.0, as_in: str | None = None):
        super().__init__(loss_weight)
        if as_in is not None and as_in not in self.PEERS:
            known = ', '.join(self.PEERS) or 'none'
            raise ValueError(
                f'as_in of {type(self).__name__} must be one of {known}, not {as_in!r}'
            )
        self.scale = scale
        self.as_in = as_in

    def similarities(self, embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Return the cosines (B, C) of embeddings (B, D) with prototypes (C, D)."""
        return cosine_matrix(embeddings, prototypes)

    def bounded(self, target: torch.Tensor) -> torch.Tensor:
        """Clamp cosines (B,) to the range in which ``acos`` has a finite slope."""
        return target.clamp(-1 + COSINE_EPS, 1 - COSINE_EPS)

    def target_cosine(self, cosine: torch.Tensor, norms: torch.Tensor | None) -> torch.Tensor:
        """Return the target's cosine (B,) after the margin; ``cosine`` is clamped."""
        return cosine

    def negative_cosines(
        self, cosines: torch.Tensor, target: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the other classes' cosines (B, C); the target's column is replaced later.

        ``target`` has no gradient. A label of -1 means that all columns are negatives.
        """
        return cosines

    def modified(
        self,
        similarities: torch.Tensor,
        target: torch.Tensor,
        labels: torch.Tensor,
        norms: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the scaled logits (B, C) with the margin on the target column."""
        column = labels.clamp_min(0).view(-1, 1)
        others = self.negative_cosines(similarities, target.detach(), labels)
        own = self.target_cosine(target, norms)
        if self.as_in is not None and self.PEERS[self.as_in]:
            own = target + (own - target).detach()
        with_margin = torch.where(labels >= 0, own, others.gather(1, column).squeeze(1))
        return self.scale * others.scatter(1, column, with_margin.view(-1, 1))
