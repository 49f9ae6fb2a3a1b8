"""Normalize embeddings to length one, for all code outside of training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

# Between these limits the square of a float32 neither overflows nor loses precision. Other rows are
# first scaled to a largest entry of one.
_SMALLEST, _LARGEST = 2.0**-50, 2.0**50


def unit_rows(
    embeddings: Any, label: Callable[[int], Any] = 'embedding {}'.format, *, double: bool = False
) -> Any:
    """Return the rows of a matrix as vectors of length one, for every finite row but zero.

    Args:
        embeddings: (N, D), a torch tensor on any device, or numpy or nested lists.
        label: Function that maps a row number to the row's name in messages.
        double: Compute and return float64 instead of float32.

    Returns:
        (N, D), a new tensor for a tensor, else a new array.

    Raises:
        ValueError: It is no real matrix, or a row holds NaN or infinity or is zero.

    Example:
        >>> unit_rows([[3e-30, 4e-30], [0.0, 1e30]])
        array([[0.6, 0.8],
               [0. , 1. ]], dtype=float32)
    """
    rows = moderate_rows(embeddings, label, double=double)
    if isinstance(rows, torch.Tensor):
        rows = rows.to(torch.float64 if double else torch.float32)
        return rows / rows.norm(dim=1, keepdim=True)
    unit = np.array(rows, np.float64 if double else np.float32)
    unit /= np.sqrt(np.einsum('nd,nd->n', unit, unit, dtype=np.float64))[:, None].astype(unit.dtype)
    return unit


def moderate_rows(
    embeddings: Any, label: Callable[[int], Any] = 'embedding {}'.format, *, double: bool = False
) -> Any:
    """Refuse rows without direction; rescale rows whose squares exceed the range of float32.

    Args:
        embeddings: See :func:`unit_rows`.
        label: See there.
        double: Return float64 instead of float32.

    Returns:
        (N, D), float64 if the input is or ``double`` is set, else float32. Rows of ordinary size
        are unchanged, bit for bit, and the memory may be shared with the input.

    Raises:
        ValueError: See :func:`unit_rows`.
    """
    is_tensor = isinstance(embeddings, torch.Tensor)
    rows = embeddings.detach() if is_tensor else np.asarray(embeddings)
    if is_tensor:
        is_real = not (rows.is_complex() or rows.dtype == torch.bool)
        wide = double or rows.dtype == torch.float64
        rows = rows.to(torch.float64 if wide else torch.float32) if is_real else rows
    else:
        is_real = rows.dtype.kind in 'fiu'
        wide = double or (rows.dtype.kind == 'f' and rows.dtype.itemsize > 4)
        rows = rows.astype(np.float64 if wide else np.float32, copy=False) if is_real else rows
    if rows.ndim != 2 or not is_real:
        raise ValueError(
            f'embeddings must be real numbers (n, D), got {rows.dtype} {tuple(rows.shape)}'
        )
    peak = _peaks(rows)
    extreme = np.flatnonzero(~((peak >= _SMALLEST) & (peak <= _LARGEST)))
    bad = extreme[~np.isfinite(peak[extreme]) | (peak[extreme] == 0)]
    if len(bad):
        what = 'is zero' if peak[bad[0]] == 0 else 'holds NaN or infinity'
        more = f' (and {len(bad) - 1} more like it)' if len(bad) > 1 else ''
        raise ValueError(f'{label(int(bad[0]))}{more} {what}: it has no direction')
    if len(extreme):
        rows = rows.clone() if is_tensor else rows.copy()
        scale = peak[extreme, None]
        rows[extreme] /= torch.from_numpy(scale).to(rows) if is_tensor else scale
    return rows


def _peaks(rows: Any) -> np.ndarray:
    """Return the largest absolute value of every row."""
    if isinstance(rows, np.ndarray):
        return np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0))
    if not rows.shape[1]:
        return np.zeros(len(rows), np.float32)
    return rows.abs().amax(dim=1).cpu().numpy()
