"""One-to-many search: closed set (rank-k, CMC, mAP) and open set (TPIR at FPIR)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ._blocks import (
    BLOCK_SIZE,
    DISTRACTOR_ID,
    Array,
    ArrayLike,
    Tile,
    as_embeddings,
    as_ids,
    as_vector,
    check_block_size,
    check_same_width,
    compute_device,
    float32_rows,
    score_tiles,
)
from ._curves import check_rates, roc_area, share_at_or_above, strict_bounds, trapezoid

_GRID_STEPS = 1000


@dataclass(frozen=True, eq=False)
class ClosedSetRanks:
    """What a closed-set search says of every single probe.

    P is the number of probes that were searched for (those without mate are left out if that was
    asked for), K the number of best images kept.

    Attributes:
        rank: Rank of the first correct image, counted from 1, int64 (P,).
        average_precision: float64 (P,); empty if it was not asked for.
        mate_score: Score of the first correct image, float32 (P,).
        top_index: Gallery rows of the best images, best first, int64 (P, K). Among equal scores
            the lower row stands first; which of several equal images still makes it into the
            last place is left open.
        top_score: Their scores, float32 (P, K).
        probe_index: Row of each probe in the given ``probe``, int64 (P,), increasing.
        num_dropped: Number of probes that were left out.
    """

    rank: np.ndarray
    average_precision: np.ndarray
    mate_score: np.ndarray
    top_index: np.ndarray
    top_score: np.ndarray
    probe_index: np.ndarray
    num_dropped: int


def closed_set_ranks(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    probe: ArrayLike,
    probe_ids: ArrayLike,
    *,
    with_map: bool = True,
    top_k: int = 1,
    on_missing_mate: Literal['error', 'drop'] = 'error',
    block_size: int = BLOCK_SIZE,
) -> ClosedSetRanks:
    """Search every probe in the gallery and say where its mates stand.

    The score is the inner product, which for unit vectors orders like the Euclidean distance.
    The gallery is per image: a person may have several. Gallery images of identity -100 are
    distractors and mates of nobody.

    Ties count against the probe. Its rank is one plus the number of impostors that score at or
    above its best mate; in the average precision every impostor that ties with a mate comes before
    it. (Among mates that tie with *each other* the order is immaterial: exchanging two correct
    images leaves the list of hits as it was.)

    The average precision is the trapezoidal one of the TinyFace evaluation, which it has from the
    Oxford buildings benchmark (Philbin et al., CVPR 2007): with the k-th of m mates at place r_k,

        AP = 1/m * sum_k ((k - 1) / (r_k - 1) + k / r_k) / 2,

    where the first fraction, the precision just before the mate, is 1 for r_k = 1.

    Memory is O(block_size^2 + block_size * D) beside the inputs and the results. The answer does
    not depend on the block size, as equal embeddings get bitwise equal scores.

    Args:
        gallery: Unit embeddings (G, D), numpy or torch, in any floating-point storage; the
            products are float32.
        gallery_ids: Identities, integers (G,).
        probe: Unit embeddings (P, D).
        probe_ids: Identities, integers (P,).
        with_map: Whether to compute the average precisions.
        top_k: How many of the best gallery images to keep per probe.
        on_missing_mate: What to do with probes that have no mate in the gallery: ``'error'``
            refuses them, ``'drop'`` leaves them out.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        Arrays with one entry per probe that was searched for.

    Raises:
        ValueError: If an input is malformed, or a probe has no mate.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import closed_set_ranks
        >>> gallery = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> probe = np.array([[0.0, 1.0], [0.8, 0.6]])
        >>> found = closed_set_ranks(gallery, [7, 8, -100], probe, [7, 8])
        >>> found.rank
        array([3, 3])
        >>> found.top_index
        array([[1], [2]])
        >>> found.average_precision.round(3)
        array([0.167, 0.167])
    """
    check_block_size(block_size)
    gallery, gallery_ids = _checked('gallery', gallery, gallery_ids, block_size)
    probe, probe_ids = _checked('probe', probe, probe_ids, block_size)
    check_same_width(gallery, 'gallery', probe, 'probe')
    if top_k < 0:
        raise ValueError(f'top_k must not be negative, got {top_k}')
    if on_missing_mate not in ('error', 'drop'):
        raise ValueError(f"on_missing_mate must be 'error' or 'drop', got {on_missing_mate!r}")
    return _rank_mates(
        gallery,
        gallery_ids,
        probe,
        probe_ids,
        with_map=with_map,
        top_k=top_k,
        on_missing_mate=on_missing_mate,
        block_size=block_size,
    )


def closed_set_identification(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    probe: ArrayLike,
    probe_ids: ArrayLike,
    ranks: Sequence[int] = (1, 5, 10, 20),
    *,
    with_map: bool = True,
    on_missing_mate: Literal['error', 'drop'] = 'error',
    block_size: int = BLOCK_SIZE,
) -> dict[str, float | int]:
    """Rank-k identification rates and mAP of a closed-set search (TinyFace, SCface).

    See :func:`closed_set_ranks` for the rules.

    Args:
        gallery: Unit embeddings (G, D), numpy or torch.
        gallery_ids: Identities, integers (G,); -100 marks distractors.
        probe: Unit embeddings (P, D).
        probe_ids: Identities, integers (P,).
        ranks: The ranks k to report.
        with_map: Whether to report ``mAP``.
        on_missing_mate: ``'error'`` or ``'drop'`` for probes without mate in the gallery.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        ``rank{k}`` for every k and ``mAP``, in [0, 1]; ``num_probes``, the number of probes they
        are averaged over; with ``on_missing_mate='drop'`` also ``num_dropped``.

    Raises:
        ValueError: If an input is malformed, or a probe has no mate.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import closed_set_identification
        >>> gallery = np.eye(4)
        >>> probe = np.array([[1.0, 0, 0, 0], [0, 0.6, 0.8, 0]])
        >>> closed_set_identification(gallery, [1, 2, 3, -100], probe, [1, 2], ranks=(1, 2))
        {'rank1': 0.5, 'rank2': 1.0, 'mAP': 0.625, 'num_probes': 2}
    """
    for k in ranks:
        if k < 1:
            raise ValueError(f'ranks count from 1, got {k}')
    found = closed_set_ranks(
        gallery,
        gallery_ids,
        probe,
        probe_ids,
        with_map=with_map,
        top_k=0,
        on_missing_mate=on_missing_mate,
        block_size=block_size,
    )
    result: dict[str, float | int] = {f'rank{k}': float((found.rank <= k).mean()) for k in ranks}
    if with_map:
        result['mAP'] = float(found.average_precision.mean())
    result['num_probes'] = len(found.rank)
    if on_missing_mate == 'drop':
        result['num_dropped'] = found.num_dropped
    return result


def cmc(ranks: ArrayLike, max_rank: int) -> np.ndarray:
    """Cumulative match characteristic: share of probes found within the first k images.

    Args:
        ranks: Rank of the first correct image of every probe, counted from 1, (P,).
        max_rank: Length of the curve.

    Returns:
        The rates for k = 1, ..., ``max_rank``, float64 (max_rank,).

    Raises:
        ValueError: If a rank or ``max_rank`` is below 1.

    Example:
        >>> from mmvlr.evaluation.functional import cmc
        >>> cmc([1, 1, 3, 9], max_rank=4)
        array([0.5 , 0.5 , 0.75, 0.75])
    """
    ranks = as_vector(ranks, 'ranks')
    if max_rank < 1 or ranks.min() < 1:
        raise ValueError('ranks and max_rank count from 1')
    within = np.searchsorted(np.sort(ranks), np.arange(1, max_rank + 1), side='right')
    return within / len(ranks)


def open_set_identification(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    mated: ArrayLike,
    mated_ids: ArrayLike,
    unmated: ArrayLike,
    fpirs: Sequence[float] = (0.3, 0.2, 0.1, 0.01),
    rank: int = 20,
    template: Literal['mean_unit', 'mean_raw', 'none'] = 'mean_unit',
    threshold_rule: Literal['exact', 'grid'] = 'exact',
    *,
    block_size: int = BLOCK_SIZE,
) -> dict[str, float]:
    """True positive identification rate at given false positive rates (QMUL-SurvFace).

    Scores are cosines. FPIR(t) is the share of unmated probes whose best score is at or above t;
    TPIR(t) the share of mated probes whose own template is within the first ``rank`` (ties count
    against the probe, as in :func:`closed_set_ranks`) and scores at or above t.

    Threshold rules:

    - ``'exact'``: the lowest threshold whose FPIR does not exceed the target, which is the next
      float64 above the highest unmated best score that must not be accepted. With fewer unmated
      probes than 1 / FPIR none may be. The area is exact: the probability that an accepted mated
      probe outscores an unmated one, ties half.
    - ``'grid'``: the rule of a public port of the official evaluation. 1,000 equal steps from the
      lowest to the highest unmated best score; the step whose FPIR is nearest to the target (of
      two equally near the one with the lower FPIR, then the lower threshold). FPIR may exceed the
      target. The area is the trapezoidal one over the steps.

    Args:
        gallery: Embeddings (G, D), numpy or torch.
        gallery_ids: Identities, integers (G,). Images of identity -100 are distractors: each
            is a template of its own, whose person nobody is.
        mated: Embeddings of probes whose person is in the gallery, (M, D).
        mated_ids: Their identities, integers (M,).
        unmated: Embeddings of probes whose person is not in the gallery, (U, D).
        fpirs: Target false positive identification rates.
        rank: The own template must be among the first ``rank`` templates.
        template: ``'mean_unit'``: one template per person, the mean of its unit embeddings,
            normalized again. ``'mean_raw'``: the mean of the embeddings as they are, normalized;
            embeddings of any length are accepted and the probes are normalized. ``'none'``: every
            image is its own template, ranks count images, and the best own image counts.
        threshold_rule: ``'exact'`` or ``'grid'``.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        ``tpir@fpir{f}`` and ``threshold@fpir{f}`` for every target f, and ``auc``, the area under
        TPIR over FPIR.

    Raises:
        ValueError: If an input is malformed, a mated probe has no mate, or the images of a
            person cancel out, so that its template has no direction.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import open_set_identification
        >>> gallery, mated = np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]])
        >>> unmated = np.array([[0.8, -0.6], [-0.6, -0.8]])
        >>> result = open_set_identification(
        ...     gallery, [1, 2], mated, [1, 1], unmated, fpirs=(0.5,), rank=1)
        >>> {name: round(value, 3) for name, value in result.items()}
        {'tpir@fpir0.5': 0.5, 'threshold@fpir0.5': -0.6, 'auc': 0.5}
    """
    # What costs nothing to check comes before what takes minutes.
    check_rates(tuple(fpirs), 'fpirs')
    if threshold_rule not in ('exact', 'grid'):
        raise ValueError(f"threshold_rule must be 'exact' or 'grid', got {threshold_rule!r}")
    scores = open_set_scores(
        gallery, gallery_ids, mated, mated_ids, unmated, rank, template, block_size=block_size
    )
    return open_set_rates(scores.mated_score, scores.unmated_score, fpirs, threshold_rule)


@dataclass(frozen=True, eq=False)
class OpenSetScores:
    """What an open-set search says of every single probe.

    Attributes:
        mated_score: Score of the probe's own template, ``-inf`` where that is not within the
            rank: such a probe is found at no threshold. float64 (M,).
        unmated_score: Best score of every unmated probe, float64 (U,).
        rank: Rank of the own template, counted from 1, int64 (M,).
    """

    mated_score: np.ndarray
    unmated_score: np.ndarray
    rank: np.ndarray


def open_set_scores(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    mated: ArrayLike,
    mated_ids: ArrayLike,
    unmated: ArrayLike,
    rank: int = 20,
    template: Literal['mean_unit', 'mean_raw', 'none'] = 'mean_unit',
    *,
    block_size: int = BLOCK_SIZE,
) -> OpenSetScores:
    """Search mated and unmated probes among the templates; see :func:`open_set_identification`.

    Args:
        gallery: Embeddings (G, D), numpy or torch.
        gallery_ids: Identities, integers (G,).
        mated: Embeddings of the mated probes, (M, D).
        mated_ids: Their identities, integers (M,).
        unmated: Embeddings of the unmated probes, (U, D).
        rank: The own template must be among the first ``rank`` templates.
        template: How the images of a person become templates.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        The scores that decide at every threshold.

    Raises:
        ValueError: If an input is malformed, a mated probe has no mate, or the images of a
            person cancel out.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import open_set_scores
        >>> found = open_set_scores(np.eye(2), [1, 2], [[0.6, 0.8]], [1], [[0.8, -0.6]], rank=1)
        >>> found.mated_score, found.rank, found.unmated_score.round(3)
        (array([-inf]), array([2]), array([0.8]))
    """
    if template not in ('mean_unit', 'mean_raw', 'none'):
        raise ValueError(f"template must be 'mean_unit', 'mean_raw' or 'none', got {template!r}")
    if rank < 1:
        raise ValueError(f'rank counts from 1, got {rank}')
    check_block_size(block_size)

    unit = template != 'mean_raw'
    gallery, gallery_ids = _checked('gallery', gallery, gallery_ids, block_size, unit)
    mated, mated_ids = _checked('mated', mated, mated_ids, block_size, unit)
    unmated = as_embeddings(unmated, 'unmated', unit=unit, block_size=block_size)
    check_same_width(gallery, 'gallery', mated, 'mated')
    check_same_width(gallery, 'gallery', unmated, 'unmated')
    if template != 'none':
        gallery, gallery_ids = _mean_templates(gallery, gallery_ids, block_size)

    found = _rank_mates(
        gallery,
        gallery_ids,
        mated,
        mated_ids,
        with_map=False,
        top_k=0,
        on_missing_mate='error',
        block_size=block_size,
        normalize=not unit,
        probe_name='mated',
    )
    return OpenSetScores(
        mated_score=np.where(found.rank <= rank, found.mate_score.astype(np.float64), -np.inf),
        unmated_score=_best_scores(gallery, unmated, block_size, normalize=not unit),
        rank=found.rank,
    )


def open_set_rates(
    mated_score: np.ndarray,
    unmated_score: np.ndarray,
    fpirs: Sequence[float] = (0.3, 0.2, 0.1, 0.01),
    threshold_rule: Literal['exact', 'grid'] = 'exact',
) -> dict[str, float]:
    """TPIR at FPIR, thresholds and area from scores; see :func:`open_set_identification`.

    Args:
        mated_score: See :class:`OpenSetScores`, (M,).
        unmated_score: See there, (U,).
        fpirs: Target false positive identification rates.
        threshold_rule: ``'exact'`` or ``'grid'``.

    Returns:
        ``tpir@fpir{f}`` and ``threshold@fpir{f}`` for every target f, and ``auc``.

    Raises:
        ValueError: If a target or the rule is wrong.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import open_set_rates
        >>> rates = open_set_rates(np.array([0.9, 0.2]), np.array([0.5, 0.3]), fpirs=(0.5,))
        >>> {name: round(value, 3) for name, value in rates.items()}
        {'tpir@fpir0.5': 0.5, 'threshold@fpir0.5': 0.3, 'auc': 0.5}
    """
    check_rates(tuple(fpirs), 'fpirs')
    result: dict[str, float] = {}
    if threshold_rule == 'exact':
        thresholds = lowest_thresholds(mated_score, unmated_score, fpirs)
        area = roc_area(mated_score, unmated_score)
    elif threshold_rule == 'grid':
        grid = np.linspace(unmated_score.min(), unmated_score.max(), _GRID_STEPS + 1)
        fpir_of_step = share_at_or_above(unmated_score, grid)
        by_fpir = np.argsort(fpir_of_step, kind='stable')
        nearest = [by_fpir[np.abs(fpir_of_step[by_fpir] - fpir).argmin()] for fpir in fpirs]
        thresholds = grid[nearest]
        area = trapezoid(share_at_or_above(mated_score, grid)[::-1], fpir_of_step[::-1])
    else:
        raise ValueError(f"threshold_rule must be 'exact' or 'grid', got {threshold_rule!r}")
    rates = share_at_or_above(mated_score, thresholds)
    for fpir, threshold, rate in zip(fpirs, thresholds, rates, strict=True):
        result[f'tpir@fpir{fpir:g}'] = float(rate)
        result[f'threshold@fpir{fpir:g}'] = float(threshold)
    result['auc'] = area
    return result


def lowest_thresholds(
    mated_score: np.ndarray, unmated_score: np.ndarray, fpirs: Sequence[float]
) -> np.ndarray:
    """Lowest threshold for every target FPIR; the lowest score where all may be accepted."""
    thresholds = np.nextafter(strict_bounds(unmated_score, fpirs), np.inf)
    found = mated_score[np.isfinite(mated_score)]
    lowest = min(unmated_score.min(), found.min(initial=np.inf))
    return np.maximum(thresholds, lowest)


def _checked(
    name: str, embeddings: ArrayLike, ids: ArrayLike, block_size: int, unit: bool = True
) -> tuple[Array, np.ndarray]:
    matrix = as_embeddings(embeddings, name, unit=unit, block_size=block_size)
    return matrix, as_ids(ids, f'{name}_ids', len(matrix))


def _mean_templates(
    gallery: Array, gallery_ids: np.ndarray, block_size: int
) -> tuple[torch.Tensor, np.ndarray]:
    """Unit mean of the embeddings of each person, (T, D), and the persons' identities (T,)."""
    own_id = gallery_ids.copy()
    distractors = np.flatnonzero(gallery_ids == DISTRACTOR_ID)
    # Distinct numbers above all others, so that no two distractors are averaged.
    own_id[distractors] = gallery_ids.max() + 1 + np.arange(len(distractors))
    _, first, slot = np.unique(own_id, return_index=True, return_inverse=True)
    sums = torch.zeros(len(first), gallery.shape[1], dtype=torch.float64)
    total = torch.zeros(len(first), dtype=torch.float64)
    for start in range(0, len(gallery), block_size):
        block = slice(start, start + block_size)
        rows = float32_rows(gallery, block).cpu().double()
        sums.index_add_(0, torch.from_numpy(slot[block]), rows)
        total.index_add_(0, torch.from_numpy(slot[block]), rows.norm(dim=1))
    # Scaling a sum or a mean to length one is the same: the count does not matter.
    length = sums.norm(dim=1, keepdim=True)
    cancel = (length[:, 0] < 1e-6 * total).nonzero()
    if len(cancel):
        person = int(gallery_ids[first[int(cancel[0])]])
        raise ValueError(f'gallery: the embeddings of identity {person} cancel out')
    return (sums / length).float(), gallery_ids[first]


def _best_scores(gallery: Array, probe: Array, block_size: int, *, normalize: bool) -> np.ndarray:
    """Highest score of every probe in the gallery, float64 (P,)."""
    best = np.full(len(probe), -np.inf)
    for rows, _, scores in score_tiles(
        probe,
        np.arange(len(probe)),
        gallery,
        np.arange(len(gallery)),
        block_size=block_size,
        normalize=normalize,
    ):
        best[rows] = np.maximum(best[rows], scores.amax(dim=1).cpu().numpy())
    return best


class _MatePairs:
    """All pairs of a probe and one of its mates, and orders that bring them together.

    Both sides are sorted by person, the rest of the gallery comes last. So the mates of a probe are
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
        is_mate = (people[person] == gallery_ids) & (gallery_ids != DISTRACTOR_ID)
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
        """Numbers of the pairs in one tile."""
        start, stop = self.first[rows.start], self.first[rows.stop]
        col = self.col[start:stop]
        return start + np.flatnonzero((col >= cols.start) & (col < cols.stop))

    def places(self, tile: Tile, pairs: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and column of pairs within their tile, as an index of its scores."""
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
        # Few rows of a late tile beat what is there already; the others need no sorting.
        row = (scores.amax(dim=1) > self.score[rows, -1]).nonzero()[:, 0]
        best, col = scores[row].topk(min(k, scores.shape[1]), dim=1)
        row += rows.start
        best = torch.cat([self.score[row], best], dim=1)
        col = torch.cat([self.col[row], col + cols.start], dim=1)
        self.score[row], kept = best.topk(k, dim=1)
        self.col[row] = col.gather(1, kept)


def _rank_mates(
    gallery: Array,
    gallery_ids: np.ndarray,
    probe: Array,
    probe_ids: np.ndarray,
    *,
    with_map: bool,
    top_k: int,
    on_missing_mate: str,
    block_size: int,
    normalize: bool = False,
    probe_name: str = 'probe',
) -> ClosedSetRanks:
    """Compute :func:`closed_set_ranks` for checked input.

    A first walk over the tiles that hold mates reads the scores of the mates, which are the
    thresholds; a second walk over all tiles counts the impostors at or above them. The tiles
    with mates are few, so this costs hardly more than one walk, and no row of scores is ever held.
    """
    pairs = _MatePairs(gallery_ids, probe_ids)
    missing = pairs.missing
    if len(missing) and (on_missing_mate == 'error' or len(missing) == len(probe_ids)):
        raise ValueError(
            f'{probe_name}_ids: {len(missing)} of {len(probe_ids)} have no mate in the gallery, '
            f'first row {missing[0]} (identity {probe_ids[missing[0]]})'
        )
    matrices = probe, pairs.probe_order, gallery, pairs.gallery_order
    tiling = dict(block_size=block_size, normalize=normalize)

    score = np.empty(len(pairs.row), dtype=np.float32)
    for tile in score_tiles(
        *matrices, **tiling, wanted=lambda rows, cols: len(pairs.inside(rows, cols)) > 0
    ):
        inside = pairs.inside(tile.rows, tile.cols)
        score[inside] = tile.scores[pairs.places(tile, inside)].cpu().numpy()

    # The mates of each probe from the best to the worst. The places of the pairs stay as they are,
    # because from here on they are needed only as a set.
    score = score[np.lexsort((-score, pairs.row))]
    best_score = score[pairs.first[:-1]]
    if with_map:
        threshold, first = score, pairs.first
    else:
        threshold, first = best_score, np.arange(len(best_score) + 1)

    device = compute_device(gallery, probe)
    counter = _ImpostorCounter(threshold, first, device)
    top_k = min(top_k, len(gallery))
    top = _TopImages(len(best_score), top_k, device)
    for tile in score_tiles(*matrices, **tiling):
        if top_k:
            top.add(tile)
        # With the mates out of the way only impostors are counted.
        inside = pairs.inside(tile.rows, tile.cols)
        if len(inside):
            tile.scores[pairs.places(tile, inside)] = -torch.inf
        counter.add(tile.rows, tile.scores)
    impostors = counter.count.cpu().numpy()

    precision = np.empty(0)
    if with_map:
        nth = 1 + np.arange(len(score)) - pairs.first[pairs.row]
        place = impostors + nth
        before = np.where(place > 1, (nth - 1) / np.maximum(place - 1, 1), 1.0)
        at = nth / place
        precision = np.add.reduceat((before + at) / 2, pairs.first[:-1]) / pairs.num_mates

    top_index, top_score = pairs.gallery_order[top.col.cpu().numpy()], top.score.cpu().numpy()
    best_first = np.lexsort((top_index, -top_score), axis=1)

    # Back from the order of persons to the order in which the probes were given.
    given = np.argsort(pairs.probe_order)
    return ClosedSetRanks(
        rank=1 + impostors[first[:-1]][given],
        average_precision=precision[given] if with_map else precision,
        mate_score=best_score[given],
        top_index=np.take_along_axis(top_index, best_first, axis=1)[given],
        top_score=np.take_along_axis(top_score, best_first, axis=1)[given],
        probe_index=pairs.probe_order[given],
        num_dropped=len(missing),
    )
