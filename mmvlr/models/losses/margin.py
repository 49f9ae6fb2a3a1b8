"""The margin core: what every margin-based softmax loss shares.

A subclass says what becomes of the target's cosine (``target_cosine``) and, rarely, of the others
(``negative_cosines``), what it remembers of a batch (``update_statistics``) or that it compares
embeddings with prototypes in another way (``similarities``). The core owns the numerics: float32
also under autocast, cosines clamped before any ``acos``, and ``acos`` on the target column only,
(B,) instead of (B, C).

The classes may be sharded over the ranks: every rank then calls the loss with all faces of all
ranks and the columns of its own classes, and says by ``rows`` which faces are its own.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .sharding import mean_over_ranks, shard_cross_entropy, sum_over_ranks

#: Closest a float32 cosine may come to +-1 in front of ``acos``, whose slope is infinite there.
COSINE_EPS = 1e-7


def cosine_matrix(embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """Return the cosines (B, C) of embeddings (B, D) with prototypes (C, D), in float32.

    Autocast is switched off inside: a half-precision cosine times a scale of 64 is off by more
    than a margin of 0.02. Values may exceed 1 by rounding; who needs an angle clamps.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        return F.linear(
            F.normalize(embeddings.float(), dim=1), F.normalize(prototypes.float(), dim=1)
        )


class MarginSoftmaxLoss(nn.Module):
    """Softmax cross entropy over scaled cosines with a margin on the target.

    ``-log(exp(s * t) / (exp(s * t) + sum_j exp(s * n_j)))`` with ``t = target_cosine(c_y)`` and
    ``n = negative_cosines(c_j)``.

    Args:
        scale: The factor s in front of the cosines.
        loss_weight: Factor of the whole loss.
    """

    def __init__(self, scale: float = 64.0, loss_weight: float = 1.0):
        super().__init__()
        self.scale = scale
        self.loss_weight = loss_weight

    def similarities(self, embeddings: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
        """Return what the loss is called with: (B, C) of embeddings (B, D), prototypes (C, D)."""
        return cosine_matrix(embeddings, prototypes)

    def update_statistics(self, target: torch.Tensor, norms: torch.Tensor | None) -> None:
        """Take in a batch: cosines of the targets and norms, both (B,).

        Called in training only, without gradient and before the batch's loss. Statistics belong in
        buffers, which checkpoints carry, and must become the same on every rank; see
        :func:`.moments.batch_moments`. Also with sharded classes a rank is given its own faces.
        """

    def target_cosine(self, cosine: torch.Tensor, norms: torch.Tensor | None) -> torch.Tensor:
        """Return the target's cosine (B,) after the margin; ``cosine`` is clamped."""
        return cosine

    def negative_cosines(
        self, cosines: torch.Tensor, target: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the other classes' cosines (B, C); the target's column is replaced later.

        ``target`` has no gradient. With sharded classes a label is -1 in rows whose class lies in
        another shard: all columns of such a row are negatives.
        """
        return cosines

    def regularizer(self, norms: torch.Tensor | None) -> torch.Tensor | None:
        """Return what is added to the cross entropy: a mean over the norms (B,), or None."""
        return None

    def logits(
        self,
        cosines: torch.Tensor,
        labels: torch.Tensor,
        norms: torch.Tensor | None = None,
        rows: slice | None = None,
    ) -> torch.Tensor:
        """Return the scaled logits (B, C) with the margin on the target column.

        See :meth:`forward` for the arguments.
        """
        cosines = cosines.float()
        column = (labels if rows is None else labels.clamp_min(0)).view(-1, 1)
        target = cosines.gather(1, column).squeeze(1)
        if rows is not None:
            target = sum_over_ranks(torch.where(labels >= 0, target, 0))
        target = target.clamp(-1 + COSINE_EPS, 1 - COSINE_EPS)
        if self.training:
            with torch.no_grad():
                own = slice(None) if rows is None else rows
                self.update_statistics(target[own], None if norms is None else norms[own])
        others = self.negative_cosines(cosines, target.detach(), labels)
        with_margin = self.target_cosine(target, norms)
        if rows is not None:
            with_margin = torch.where(labels >= 0, with_margin, others.gather(1, column).squeeze(1))
        return self.scale * others.scatter(1, column, with_margin.view(-1, 1))

    def forward(
        self,
        cosines: torch.Tensor,
        labels: torch.Tensor,
        norms: torch.Tensor | None = None,
        rows: slice | None = None,
    ) -> torch.Tensor:
        """Return the mean loss, a scalar.

        Args:
            cosines: (B, C), as :meth:`similarities` makes them.
            labels: (B,) int64 class indices.
            norms: (B,) lengths of the raw embeddings, for losses that use them.
            rows: Given where the classes are sharded over the ranks. B then counts the faces of all
                ranks, in the order of the ranks, ``rows`` are those of this rank, C counts the
                classes of this rank's shard, and a label is -1 where its class lies in another.
                Every rank returns the mean over all faces; its gradient is the part that flows
                through its own columns, so gradients of B rows are to be summed over the ranks.
        """
        with torch.autocast(cosines.device.type, enabled=False):
            logits = self.logits(cosines, labels, norms, rows)
            if rows is None:
                loss, extra = F.cross_entropy(logits, labels), self.regularizer(norms)
            else:
                loss = shard_cross_entropy(logits, labels)
                extra = self.regularizer(None if norms is None else norms[rows])
                extra = None if extra is None else mean_over_ranks(extra)
            return self.loss_weight * (loss if extra is None else loss + extra)
