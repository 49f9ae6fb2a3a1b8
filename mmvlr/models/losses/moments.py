"""Compute mean and standard deviation of a batch, over all ranks."""

import torch
from mmengine.dist import all_reduce


@torch.no_grad()
def batch_moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of the values (B,) of all ranks.

    Every rank gets bitwise the same two scalars, so running statistics stay equal on all ranks.
    B may differ from rank to rank. A single process communicates nothing.

    Args:
        values: (B,), of this rank.

    Returns:
        Mean and standard deviation (divided by B - 1; 0 for a single value), scalars.

    Example:
        >>> mean, std = batch_moments(torch.tensor([1.0, 2.0, 3.0]))
        >>> mean.item(), std.item()
        (2.0, 1.0)
    """
    # In float32, the mean of squares minus the square of the mean loses too many digits.
    values_64 = values.double()
    count = torch.full_like(values_64[0], len(values))
    sums = torch.stack([values_64.sum(), values_64.square().sum(), count])
    all_reduce(sums)
    total, squares, count = sums
    mean = total / count
    variance = (squares - total * mean) / (count - 1).clamp_min(1)
    return mean.to(values.dtype), variance.clamp_min(0).sqrt().to(values.dtype)
