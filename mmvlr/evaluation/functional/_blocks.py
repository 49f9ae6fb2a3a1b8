"""Input checks and the block-wise score engine that the metrics of this package share."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from mmvlr.utils.vectors import moderate_rows, unit_rows

Array: TypeAlias = np.ndarray | torch.Tensor
ArrayLike: TypeAlias = np.ndarray | torch.Tensor | Sequence

DISTRACTOR_ID = -100
"""Identity of images that belong to nobody: they are never anybody's mate."""

BLOCK_SIZE = 2048
"""Rows of either side in one tile of scores: 16 MB of float32."""

_UNIT_TOLERANCE = 1e-3
_ROW_MULTIPLE = 64


def as_embeddings(
    embeddings: ArrayLike, name: str, *, unit: bool = True, block_size: int = BLOCK_SIZE
) -> Array:
    """Check an embedding matrix and return it as it is stored.

    Nothing is converted or copied here: a half-precision matrix stays half precision, a
    memory-mapped one stays on disk, and the rows are visited one block at a time.

    Args:
        embeddings: Matrix (N, D), numpy or torch, on any device; or any object with ``shape``,
            ``dtype``, ``ndim``, a length and rows by slice or integers, as files of arrays have.
        name: Name of the argument, for the messages.
        unit: Whether every row must have length one (up to 1e-3, or the precision of the
            storage if that is coarser). Otherwise rows must only not be zero.
        block_size: Rows that are checked at a time.

    Returns:
        The same matrix, as a numpy array or a torch tensor without gradient.

    Raises:
        ValueError: If the matrix is not of shape (N, D), is empty, does not hold real numbers,
            holds NaN or infinity, or a row has the wrong length.
    """
    if isinstance(embeddings, torch.Tensor):
        matrix: Array = embeddings.detach()
        is_real = not (matrix.is_complex() or matrix.dtype == torch.bool)
        coarseness = torch.finfo(matrix.dtype).eps if matrix.is_floating_point() else 0.0
    else:
        # What reads its rows on demand (a file, a generator) must not be read as a whole.
        on_demand = all(hasattr(embeddings, name) for name in ('shape', 'dtype', 'ndim'))
        matrix = embeddings if on_demand else np.asarray(embeddings)
        is_real = matrix.dtype.kind in 'fiu'
        coarseness = np.finfo(matrix.dtype).eps if matrix.dtype.kind == 'f' else 0.0
    if matrix.ndim != 2:
        raise ValueError(f'{name} must have shape (N, D), got {tuple(matrix.shape)}')
    if 0 in matrix.shape:
        raise ValueError(f'{name} is empty: its shape is {tuple(matrix.shape)}')
    if not is_real:
        raise ValueError(f'{name} must hold real numbers, got {matrix.dtype}')

    tolerance = max(_UNIT_TOLERANCE, float(coarseness))
    for start in range(0, len(matrix), block_size):
        rows = float32_rows(matrix, slice(start, start + block_size))
        if unit:
            wrong = ~((rows.norm(dim=1) - 1).abs() <= tolerance)
            if not wrong.any():
                continue
        # Refuses what has no direction, before what only has another length.
        moderate_rows(rows, lambda row, start=start: f'{name}: row {start + row}')
        if unit:
            row = start + int(wrong.nonzero()[0])
            raise ValueError(
                f'{name}: row {row} is not of length one: normalize the embeddings first'
            )
    return matrix


def check_same_width(first: Array, first_name: str, second: Array, second_name: str) -> None:
    """Raise ``ValueError`` unless two matrices hold embeddings of one size."""
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f'{first_name} and {second_name} must have the same embedding size, '
            f'got {first.shape[1]} and {second.shape[1]}'
        )


def as_vector(values: ArrayLike, name: str, length: int | None = None) -> np.ndarray:
    """Return a non-empty one-dimensional numpy array, of ``length`` entries if that is given."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
        values = (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()
    vector = np.asarray(values)
    if vector.ndim != 1:
        raise ValueError(f'{name} must be one-dimensional, got shape {vector.shape}')
    if not len(vector):
        raise ValueError(f'{name} is empty')
    if length is not None and len(vector) != length:
        raise ValueError(f'{name} must have {length} entries, got {len(vector)}')
    return vector


def as_ids(ids: ArrayLike, name: str, length: int) -> np.ndarray:
    """Return identities as int64 (N,)."""
    vector = as_vector(ids, name, length)
    if vector.dtype.kind not in 'iu':
        raise ValueError(f'{name} must be integers, got {vector.dtype}')
    return vector.astype(np.int64)


def as_flags(flags: ArrayLike, name: str, length: int | None = None) -> np.ndarray:
    """Return yes/no values, given as bool or as 0 and 1, as bool (N,)."""
    vector = as_vector(flags, name, length)
    if not np.isin(vector, (0, 1)).all():
        raise ValueError(f'{name} must hold only true and false (or 1 and 0)')
    return vector.astype(bool)


def as_scores(scores: ArrayLike, name: str, length: int | None = None) -> np.ndarray:
    """Return finite real numbers as float64 (N,)."""
    vector = as_vector(scores, name, length)
    if vector.dtype.kind not in 'fiu':
        raise ValueError(f'{name} must hold real numbers, got {vector.dtype}')
    vector = vector.astype(np.float64)
    if not np.isfinite(vector).all():
        entry = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise ValueError(f'{name}: entry {entry} is NaN or infinite')
    return vector


def check_block_size(block_size: int) -> None:
    """Raise ``ValueError`` unless ``block_size`` is at least one."""
    if block_size < 1:
        raise ValueError(f'block_size must be at least 1, got {block_size}')


def compute_device(*matrices: Array) -> torch.device:
    """Device of the first matrix that is not on the CPU, else the CPU."""
    devices = [matrix.device for matrix in matrices if isinstance(matrix, torch.Tensor)]
    return next((device for device in devices if device.type != 'cpu'), torch.device('cpu'))


class Tile(NamedTuple):
    """One block of the score matrix: its probes, its gallery images and their scores."""

    rows: slice
    cols: slice
    scores: torch.Tensor


def score_tiles(
    probe: Array,
    probe_order: np.ndarray,
    gallery: Array,
    gallery_order: np.ndarray,
    *,
    block_size: int = BLOCK_SIZE,
    normalize: bool = False,
    wanted: Callable[[slice, slice], bool] | None = None,
) -> Iterator[Tile]:
    """Walk through the inner products of probes and gallery, one tile at a time.

    Only one tile and the two blocks of embeddings it is made of exist at any time, in float32
    whatever the storage is. The tiles of one gallery block follow each other, because the gallery
    is the long side and its blocks are the costly ones to read and convert.

    **Equal embeddings get bitwise equal scores**, wherever they stand. A plain matrix product does
    not promise that: BLAS treats left-over rows and columns by other kernels that add up in another
    order, so a tie would be decided by rounding. Both sides of every product are therefore padded
    to a multiple of 64 rows, which leaves no left-overs.

    On a GPU the products follow torch's setting for float32 products, whose default is full
    precision: leave TF32 off for exact scores.

    Args:
        probe: Embeddings (P, D).
        probe_order: Rows of ``probe`` in the order in which they are wanted, int64 (P',).
        gallery: Embeddings (G, D).
        gallery_order: Rows of ``gallery`` in the wanted order, int64 (G',).
        block_size: Largest number of rows of either side in a tile.
        normalize: Whether rows are scaled to length one before the product.
        wanted: Says for a tile, by its rows and columns, whether to compute it. Default: all.

    Yields:
        Tiles; ``rows`` and ``cols`` count along the two orders. ``scores`` may have more columns
        than ``cols``, up to a multiple of 64, filled with ``-inf``. It may be changed, and is
        overwritten by the next tile.
    """
    device = compute_device(gallery, probe)
    side = _round_up(block_size)
    buffer = torch.empty(
        min(side, _round_up(len(probe_order))) * min(side, _round_up(len(gallery_order))),
        dtype=torch.float32,
        device=device,
    )
    for cols in _blocks(len(gallery_order), block_size):
        columns = None
        for rows in _blocks(len(probe_order), block_size):
            if wanted is not None and not wanted(rows, cols):
                continue
            if columns is None:
                columns = _load(gallery, gallery_order[cols], device, normalize)
            block = _load(probe, probe_order[rows], device, normalize)
            shape = len(block), len(columns)
            scores = buffer[: shape[0] * shape[1]].view(shape)
            # Writing to an output of float32 also keeps autocast from narrowing the product.
            torch.matmul(block, columns.T, out=scores)
            scores[:, cols.stop - cols.start :] = -torch.inf
            yield Tile(rows, cols, scores[: rows.stop - rows.start])


def pair_scores(first: Array, second: Array, *, block_size: int = BLOCK_SIZE) -> np.ndarray:
    """Inner products of corresponding rows of two (N, D) matrices, as float64 (N,)."""
    scores = [
        # Element-wise in float64: a pair is not worth a matrix product, and the cost is nothing.
        (float32_rows(first, block).cpu().double() * float32_rows(second, block).cpu().double())
        .sum(dim=1)
        .numpy()
        for block in _blocks(len(first), block_size)
    ]
    return np.concatenate(scores)


def _blocks(length: int, block_size: int) -> Iterator[slice]:
    for start in range(0, length, block_size):
        yield slice(start, min(start + block_size, length))


def _round_up(rows: int) -> int:
    return -(-rows // _ROW_MULTIPLE) * _ROW_MULTIPLE


def float32_rows(matrix: Array, index: slice | np.ndarray) -> torch.Tensor:
    """Rows of a matrix as float32, on the device where they are stored."""
    if isinstance(matrix, torch.Tensor):
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index).to(matrix.device)
        return matrix[index].float()
    rows = np.ascontiguousarray(matrix[index], dtype=np.float32)
    # torch warns of read-only memory (a memory-mapped file, say), though it is only read here.
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


def _load(matrix: Array, index: np.ndarray, device: torch.device, normalize: bool) -> torch.Tensor:
    """Rows as float32 on ``device``; the last is repeated up to a multiple of 64 rows."""
    index = np.pad(index, (0, _round_up(len(index)) - len(index)), mode='edge')
    rows = float32_rows(matrix, index).to(device)
    return unit_rows(rows) if normalize else rows
