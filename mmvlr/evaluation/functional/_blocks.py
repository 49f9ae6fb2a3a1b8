"""Check inputs and compute scores block by block, for all metrics of this package."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from mmvlr.structures import NO_IDENTITY as NO_IDENTITY
from mmvlr.structures.face_table import number_people as number_people
from mmvlr.utils.vectors import moderate_rows

Array: TypeAlias = np.ndarray | torch.Tensor
ArrayLike: TypeAlias = np.ndarray | torch.Tensor | Sequence

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
        # An object that reads its rows on demand (such as a file) must not be read as a whole.
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
        # Rows without a direction are reported before rows of another length.
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
    """Return flags, given as bool or as 0 and 1, as bool (N,)."""
    vector = as_vector(flags, name, length)
    if vector.dtype != bool and not np.isin(vector, (0, 1)).all():
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
    """Return the device of the first matrix that is not on the CPU, else the CPU."""
    devices = [matrix.device for matrix in matrices if isinstance(matrix, torch.Tensor)]
    return next((device for device in devices if device.type != 'cpu'), torch.device('cpu'))


class Tile(NamedTuple):
    """One block of the score matrix: its probes, its columns of the gallery and their scores."""

    rows: slice
    cols: slice
    scores: torch.Tensor


def score_tiles(
    probe: Array,
    probe_order: np.ndarray,
    gallery: Array,
    gallery_order: np.ndarray,
    *,
    starts: np.ndarray | None = None,
    block_size: int = BLOCK_SIZE,
    wanted: Callable[[slice, slice], bool] | None = None,
) -> Iterator[Tile]:
    """Compute the inner products of probes and gallery, one tile at a time.

    Only one tile and its two blocks of embeddings exist at any time, always in float32. The tiles
    of one gallery block follow each other, because the gallery is the long side and its blocks are
    expensive to read and convert.

    **Equal embeddings get bitwise equal scores** at any position. A plain matrix product does not
    guarantee that: BLAS processes remaining rows and columns by other kernels, which sum in another
    order, so rounding would decide ties. Both sides of every product are therefore padded to a
    multiple of 64 rows, which leaves no remainder.

    On a GPU the products follow torch's setting for float32 products, whose default is full
    precision: leave TF32 off for exact scores.

    Args:
        probe: Embeddings (P, D).
        probe_order: Rows of ``probe`` in the order to use, int64 (P',).
        gallery: Embeddings (G, D).
        gallery_order: Rows of ``gallery`` in the order to use, int64 (G',).
        starts: Start of the rows of each column of scores along ``gallery_order``, and the end of
            the last, int64 (C + 1,): a column's score is that of its best row. Default: every row
            is a column.
        block_size: Largest number of rows of either side in a tile; the rows of one column stay
            together.
        wanted: Function of the rows and columns of a tile that returns whether to compute it.
            Default: all tiles are computed.

    Yields:
        Tiles; ``rows`` and ``cols`` count along the two orders. ``scores`` may have more columns
        than ``cols``, up to a multiple of 64, filled with ``-inf``. It may be changed, and is
        overwritten by the next tile.
    """
    device = compute_device(gallery, probe)
    if starts is None:
        column_blocks = [(cols, cols) for cols in _blocks(len(gallery_order), block_size)]
    else:
        column_blocks = list(_whole_columns(starts, block_size))
    longest = max(there.stop - there.start for _, there in column_blocks)
    buffer = torch.empty(
        min(_round_up(block_size), _round_up(len(probe_order))) * _round_up(longest),
        dtype=torch.float32,
        device=device,
    )
    for cols, there in column_blocks:
        columns = None
        for rows in _blocks(len(probe_order), block_size):
            if wanted is not None and not wanted(rows, cols):
                continue
            if columns is None:
                columns = _load(gallery, gallery_order[there], device)
            block = _load(probe, probe_order[rows], device)
            shape = len(block), len(columns)
            scores = buffer[: shape[0] * shape[1]].view(shape)
            # Writing to an output of float32 also keeps autocast from narrowing the product.
            torch.matmul(block, columns.T, out=scores)
            scores[:, there.stop - there.start :] = -torch.inf
            if starts is not None:
                scores = _best_of_each(scores, starts[cols.start : cols.stop + 1])
            yield Tile(rows, cols, scores[: rows.stop - rows.start])


def product_blocks(
    probe: np.ndarray, gallery: np.ndarray, probe_block: int, gallery_block: int
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Compute the inner products of two float32 matrices, for callers that recompute the best.

    Nothing is padded or copied, so a single probe takes the least time; but the last bits of a
    product depend on the positions of its rows, as :func:`score_tiles` explains.

    Args:
        probe: float32 (P, D).
        gallery: float32 (G, D).
        probe_block: Probes in a block.
        gallery_block: Gallery rows in a block.

    Yields:
        Probes, gallery rows and their products, float32; the blocks of some probes follow each
        other.
    """
    for rows in _blocks(len(probe), probe_block):
        for cols in _blocks(len(gallery), gallery_block):
            # NumPy's product, as torch's takes eight times as long for a single probe.
            yield rows, cols, probe[rows] @ gallery[cols].T


def pair_scores(first: Array, second: Array, *, block_size: int = BLOCK_SIZE) -> np.ndarray:
    """Return the inner products of corresponding rows of two (N, D) matrices, float64 (N,)."""
    scores = [
        # Element-wise products are cheap enough for float64.
        (float32_rows(first, block).cpu().double() * float32_rows(second, block).cpu().double())
        .sum(dim=1)
        .numpy()
        for block in _blocks(len(first), block_size)
    ]
    return np.concatenate(scores)


def _blocks(length: int, block_size: int) -> Iterator[slice]:
    for start in range(0, length, block_size):
        yield slice(start, min(start + block_size, length))


def _whole_columns(starts: np.ndarray, block_size: int) -> Iterator[tuple[slice, slice]]:
    """Yield columns of at most ``block_size`` rows, or a single larger column, and their rows."""
    first = 0
    while first < len(starts) - 1:
        last = int(np.searchsorted(starts, starts[first] + block_size, side='right')) - 1
        last = max(last, first + 1)
        yield slice(first, last), slice(int(starts[first]), int(starts[last]))
        first = last


def _best_of_each(scores: torch.Tensor, starts: np.ndarray) -> torch.Tensor:
    """Return the best score of every group of columns, padded by ``-inf`` to a multiple of 64."""
    group = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    group = torch.from_numpy(group).to(scores.device)
    best = scores.new_full((len(scores), _round_up(len(starts) - 1)), -torch.inf)
    return best.scatter_reduce_(1, group.expand(len(scores), -1), scores, 'amax')


def _round_up(rows: int) -> int:
    return -(-rows // _ROW_MULTIPLE) * _ROW_MULTIPLE


def float32_rows(matrix: Array, index: slice | np.ndarray) -> torch.Tensor:
    """Return rows of a matrix as float32, on the device where they are stored."""
    if isinstance(matrix, torch.Tensor):
        if isinstance(index, np.ndarray):
            index = torch.from_numpy(index).to(matrix.device)
        return matrix[index].float()
    rows = np.ascontiguousarray(matrix[index], dtype=np.float32)
    # torch warns about read-only memory (such as a memory-mapped file), though it is only read.
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


def _load(matrix: Array, index: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return rows as float32 on ``device``; the last is repeated to a multiple of 64 rows."""
    index = np.pad(index, (0, _round_up(len(index)) - len(index)), mode='edge')
    return float32_rows(matrix, index).to(device)
