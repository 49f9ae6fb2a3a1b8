"""The exact, block-wise search from which all identification metrics are computed."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch

from ._blocks import (
    NO_IDENTITY,
    Array,
    Tile,
    compute_device,
    score_tiles,
)

MapRule: TypeAlias = Literal['trapezoid', 'torchmetrics', 'pml']


@dataclass(frozen=True, eq=False)
class SearchResult:
    """Result of a search for every probe.

    P is the number of probes that were searched for (without those that were dropped for lack of a
    mate), K the number of best columns kept. Columns are ranked: rows of the gallery, or people
    with all their rows.

    Attributes:
        rank: Rank of the first correct column, counted from 1, int64 (P,).
        average_precision: float64 (P,); empty if it was not requested.
        mate_score: Score of the first correct column, float32 (P,).
        mate_index: Its gallery row, the lower one of equal scores; the first row of a person,
            int64 (P,).
        top_index: Gallery rows of the best columns, best first, int64 (P, K). Among equal scores
            the lower row is first; which of several equal columns takes the last place is not
            defined.
        top_score: Their scores, float32 (P, K).
        probe_index: Row of each probe in the given ``probe``, int64 (P,), increasing.
        num_dropped: Number of probes that were left out.
    """

    rank: np.ndarray
    average_precision: np.ndarray
    mate_score: np.ndarray
    mate_index: np.ndarray
    top_index: np.ndarray
    top_score: np.ndarray
    probe_index: np.ndarray
    num_dropped: int


def search(
    gallery: Array,
    gallery_ids: np.ndarray,
    probe: Array,
    probe_ids: np.ndarray,
    *,
    with_map: bool,
    top_k: int,
    on_missing_mate: str,
    block_size: int,
    map_rule: MapRule = 'trapezoid',
    people: np.ndarray | None = None,
    probe_name: str = 'probe',
) -> SearchResult:
    """Search every probe, whose person is in the gallery, and return the ranks of its mates.

    The input must be checked already; for the arguments, see :func:`closed_set_ranks`.

    A first pass over the tiles that contain mates reads the scores of the mates, which are the
    thresholds; a second pass over all tiles counts the impostors at or above them. Few tiles
    contain mates, so this costs little more than one pass, and no row of scores is ever held.

    Args:
        gallery: Unit embeddings (G, D).
        gallery_ids: Identities, int64 (G,).
        probe: Unit embeddings (P, D).
        probe_ids: Identities, int64 (P,).
        with_map: Whether to compute the average precisions.
        top_k: How many of the best columns to keep per probe.
        on_missing_mate: ``'error'`` or ``'drop'``.
        block_size: Rows of gallery and probes that are scored at a time.
        map_rule: See :func:`closed_set_ranks`.
        people: Number of the person of each gallery row, int64 (G,): people are ranked by their
            best row. Default: rows are ranked.
        probe_name: Name of the probes, for the error message.

    Raises:
        ValueError: A probe has no mate.
    """
    if map_rule not in get_args(MapRule):
        raise ValueError(f'map_rule must be one of {get_args(MapRule)}, got {map_rule!r}')
    columns = _Columns(gallery_ids, people)
    pairs = _MatePairs(columns.ids, probe_ids)
    missing = pairs.missing
    if len(missing) and (on_missing_mate == 'error' or len(missing) == len(probe_ids)):
        raise ValueError(
            f'{probe_name}_ids: {len(missing)} of {len(probe_ids)} have no mate in the gallery, '
            f'first row {missing[0]} (identity {probe_ids[missing[0]]})'
        )
    order, starts = columns.rows(pairs.gallery_order)
    matrices = probe, pairs.probe_order, gallery, order
    tiling = dict(starts=starts, block_size=block_size)

    score = np.empty(len(pairs.row), dtype=np.float32)
    for tile in score_tiles(
        *matrices, **tiling, wanted=lambda rows, cols: len(pairs.inside(rows, cols)) > 0
    ):
        inside = pairs.inside(tile.rows, tile.cols)
        score[inside] = tile.scores[pairs.places(tile, inside)].cpu().numpy()

    # The mates of each probe from best to worst. The places of the pairs are not sorted, because
    # from here on they are needed only as a set.
    best_first = np.lexsort((-score, pairs.row))
    score = score[best_first]
    best_score = score[pairs.first[:-1]]
    best_mate = pairs.gallery_order[pairs.col[best_first[pairs.first[:-1]]]]
    if with_map:
        threshold, first = score, pairs.first
    else:
        threshold, first = best_score, np.arange(len(best_score) + 1)

    device = compute_device(gallery, probe)
    counter = _ImpostorCounter(threshold, first, device)
    top_k = min(top_k, len(columns.ids))
    top = _TopImages(len(best_score), top_k, device)
    for tile in score_tiles(*matrices, **tiling):
        if top_k:
            top.add(tile)
        # Mates are removed first, so that only impostors are counted.
        inside = pairs.inside(tile.rows, tile.cols)
        if len(inside):
            tile.scores[pairs.places(tile, inside)] = -torch.inf
        counter.add(tile.rows, tile.scores)
    impostors = counter.count.cpu().numpy()

    precision = np.empty(0)
    if with_map:
        nth = 1 + np.arange(len(score)) - pairs.first[pairs.row]
        place = impostors + nth
        at = nth / place
        if map_rule == 'trapezoid':
            before = np.where(place > 1, (nth - 1) / np.maximum(place - 1, 1), 1.0)
            at = (before + at) / 2
        elif map_rule == 'pml':
            at = np.where(place <= pairs.num_mates[pairs.row], at, 0)
        precision = np.add.reduceat(at, pairs.first[:-1]) / pairs.num_mates

    top_index = columns.first[pairs.gallery_order[top.col.cpu().numpy()]]
    top_score = top.score.cpu().numpy()
    best_first = np.lexsort((top_index, -top_score), axis=1)

    # Restore the order in which the probes were given.
    given = np.argsort(pairs.probe_order)
    return SearchResult(
        rank=1 + impostors[first[:-1]][given],
        average_precision=precision[given] if with_map else precision,
        mate_score=best_score[given],
        mate_index=columns.first[best_mate[given]],
        top_index=np.take_along_axis(top_index, best_first, axis=1)[given],
        top_score=np.take_along_axis(top_score, best_first, axis=1)[given],
        probe_index=pairs.probe_order[given],
        num_dropped=len(missing),
    )


def best_scores(gallery: Array, probe: Array, block_size: int) -> np.ndarray:
    """Return the highest score of every probe in the gallery, float64 (P,)."""
    best = np.full(len(probe), -np.inf)
    orders = np.arange(len(probe)), np.arange(len(gallery))
    for rows, _, scores in score_tiles(probe, orders[0], gallery, orders[1], block_size=block_size):
        best[rows] = np.maximum(best[rows], scores.amax(dim=1).cpu().numpy())
    return best


def group_rows(people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an order that groups the rows by person, and the start of each group.

    Args:
        people: Number of the person of each row, int64 (N,).

    Returns:
        The order, by rising number, int64 (N,), and the starts with N at the end, int64 (K + 1,).
    """
    order = np.argsort(people, kind='stable')
    changes = np.flatnonzero(np.diff(people[order])) + 1
    return order, np.concatenate([[0], changes, [len(people)]])


class _Columns:
    """The columns that are ranked: the rows of a gallery, or its people.

    Attributes:
        ids: Identity of each column, (C,).
        first: First gallery row of each, (C,).
    """

    def __init__(self, gallery_ids: np.ndarray, people: np.ndarray | None) -> None:
        self._order, self._starts = np.arange(len(gallery_ids)), None
        if people is not None:
            order, starts = group_rows(people)
            # With one row per person, ranking rows gives the same result faster.
            if len(starts) <= len(order):
                self._order, self._starts = order, starts
        self.first = self._order if self._starts is None else self._order[self._starts[:-1]]
        self.ids = gallery_ids[self.first]

    def rows(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the gallery rows of the columns in an order, and the start of each column."""
        if self._starts is None:
            return order, None
        counts = np.diff(self._starts)[order]
        starts = np.append(0, counts.cumsum())
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
        return self._order[np.repeat(self._starts[order], counts) + within], starts


class _MatePairs:
    """All pairs of a probe and one of its mates, and orders of both sides that group them.

    Both sides are sorted by person; the rest of the gallery comes last. So the mates of a probe are
    consecutive rows, and all pairs lie in a few tiles near the diagonal of the score matrix.
    Persons with few gallery images come first, so that the probes with more than j mates are
    the last ones of every block.

    Attributes:
        probe_order: Rows of the probes that have a mate, (P,).
        gallery_order: Rows of the whole gallery, (G,).
        missing: Rows of the probes without mate, increasing.
        num_mates: Mates of every probe, along ``probe_order``, (P,).
        first: The pairs of probe p are ``first[p], ..., first[p + 1] - 1``, (P + 1,).
        row: Place of the probe of each pair along ``probe_order``, (N,).
        col: Place of the mate of each pair along ``gallery_order``, (N,).
    """

    def __init__(self, gallery_ids: np.ndarray, probe_ids: np.ndarray) -> None:
        people, probe_person = np.unique(probe_ids, return_inverse=True)
        person = np.minimum(np.searchsorted(people, gallery_ids), len(people) - 1)
        is_mate = (people[person] == gallery_ids) & (gallery_ids != NO_IDENTITY)
        images = np.bincount(person[is_mate], minlength=len(people))
        number = np.empty(len(people), dtype=np.int64)
        number[np.argsort(images, kind='stable')] = np.arange(len(people))
        gallery_number = np.where(is_mate, number[person], len(people))

        self.gallery_order = np.argsort(gallery_number, kind='stable')
        probe_order = np.argsort(number[probe_person], kind='stable')
        num_mates = images[probe_person[probe_order]]
        self.missing = np.sort(probe_order[num_mates == 0])
        self.probe_order = probe_order[num_mates > 0]
        self.num_mates = num_mates[num_mates > 0]
        self.first = np.concatenate([[0], np.cumsum(self.num_mates)])
        self.row = np.repeat(np.arange(len(self.probe_order)), self.num_mates)
        first_mate = np.searchsorted(
            gallery_number[self.gallery_order], number[probe_person[self.probe_order]]
        )
        self.col = first_mate[self.row] + np.arange(len(self.row)) - self.first[self.row]

    def inside(self, rows: slice, cols: slice) -> np.ndarray:
        """Return the numbers of the pairs in one tile."""
        start, stop = self.first[rows.start], self.first[rows.stop]
        col = self.col[start:stop]
        return start + np.flatnonzero((col >= cols.start) & (col < cols.stop))

    def places(self, tile: Tile, pairs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row and column of pairs within their tile, as an index of its scores."""
        device = tile.scores.device
        return (
            torch.from_numpy(self.row[pairs] - tile.rows.start).to(device),
            torch.from_numpy(self.col[pairs] - tile.cols.start).to(device),
        )


class _ImpostorCounter:
    """Counts, for thresholds of single probes, the scores at or above them.

    Probe p has the thresholds ``first[p], ..., first[p + 1] - 1``, and no probe may have more
    than the next one: the n-th thresholds of a tile then belong to its last rows.
    """

    def __init__(self, threshold: np.ndarray, first: np.ndarray, device: torch.device) -> None:
        self.level = torch.from_numpy(threshold).to(device)
        self.count = torch.zeros(len(threshold), dtype=torch.int64, device=device)
        self.first = first

    def add(self, rows: slice, scores: torch.Tensor) -> None:
        """Count one tile."""
        first = self.first[rows.start : rows.stop + 1]
        num = np.diff(first)
        for n in range(num[-1]):
            start = int(np.searchsorted(num, n, side='right'))
            which = torch.from_numpy(first[start:-1] + n).to(self.level.device)
            above = scores[start:] >= self.level[which][:, None]
            # Bytes first, 64 at a time, which cannot overflow: summing bool to integers directly
            # is several times slower.
            by_64 = above.view(torch.uint8).view(len(above), -1, 64).sum(dim=2, dtype=torch.uint8)
            self.count[which] += by_64.sum(dim=1)


class _TopImages:
    """The best columns seen so far, for every row."""

    def __init__(self, num_rows: int, k: int, device: torch.device) -> None:
        self.score = torch.full((num_rows, k), -torch.inf, dtype=torch.float32, device=device)
        self.col = torch.zeros((num_rows, k), dtype=torch.int64, device=device)

    def add(self, tile: Tile) -> None:
        """Merge one tile."""
        rows, cols, scores = tile
        k = self.score.shape[1]
        # Few rows of a late tile improve on the best so far; the others need no sorting.
        row = (scores.amax(dim=1) > self.score[rows, -1]).nonzero()[:, 0]
        best, col = scores[row].topk(min(k, scores.shape[1]), dim=1)
        row += rows.start
        best = torch.cat([self.score[row], best], dim=1)
        col = torch.cat([self.col[row], col + cols.start], dim=1)
        self.score[row], kept = best.topk(k, dim=1)
        self.col[row] = col.gather(1, kept)
