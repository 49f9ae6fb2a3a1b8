"""Differentiable sums over the ranks, and the softmax over sharded classes.

With sharded classes every rank computes the same loss, but from its own columns: the contributions
are summed by an all-reduce. The gradient that a rank needs is that of the common loss with respect
to its own summand, so it passes the all-reduce unchanged.
"""

from typing import Any

import torch
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the sum of the ranks' values, any shape.

    Everything computed from the sum must be the same on every rank: the gradient of the sum is used
    as that of this rank's summand, without communication.
    """
    return _SumOverRanks.apply(values)


def mean_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of the ranks' values, with the gradient of :func:`sum_over_ranks`."""
    return sum_over_ranks(values / get_world_size())


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return torch.cat(all_gather(values.contiguous()))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        all_reduce(total)
        return total.chunk(get_world_size())[get_rank()] * get_world_size()


def gather_rows(values: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ranks, (W * B, ...), of this rank's (B, ...); B is the same on all.

    Use it for losses whose gradient each rank computes in part. The gradient of a row is the sum
    over the ranks, times their number W: :class:`DistributedDataParallel` divides by W, as it
    assumes losses that are a mean over one rank's faces.
    """
    return _GatherRows.apply(values)


def shard_cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy over classes that are sharded over the ranks.

    Args:
        logits: (B, C) of the shard's classes, for the same B faces on every rank.
        labels: (B,) int64 index of the class among the columns, -1 where it lies in another shard.

    Returns:
        Scalar, the same on every rank; its gradient is that with respect to this rank's logits.
    """
    largest = logits.detach().amax(1)
    all_reduce(largest, op='max')
    total = (logits - largest[:, None]).exp().sum(1)
    target = logits.gather(1, labels.clamp_min(0).view(-1, 1)).squeeze(1)
    total, target = sum_over_ranks(torch.stack([total, torch.where(labels >= 0, target, 0)]))
    return (total.log() + largest - target).mean()
