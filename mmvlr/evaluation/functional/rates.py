"""Compute rates of identification from the result of a search."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from ._blocks import ArrayLike, as_vector
from ._curves import check_rates, roc_area, share_at_or_above, strict_bounds, trapezoid

ThresholdRule: TypeAlias = Literal['exact', 'grid', 'insightface']
_GRID_STEPS = 1000


def cmc(ranks: ArrayLike, max_rank: int) -> np.ndarray:
    """Compute the cumulative match characteristic: share of probes found within the first k.

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


def open_set_rates(
    mated_score: np.ndarray,
    unmated_score: np.ndarray,
    fpirs: Sequence[float] = (0.3, 0.2, 0.1, 0.01),
    threshold_rule: ThresholdRule = 'exact',
) -> dict[str, float]:
    """Compute TPIR at FPIR, thresholds and area from scores; see :func:`open_set_identification`.

    Args:
        mated_score: See :class:`OpenSetScores`, (M,).
        unmated_score: See there, (U,).
        fpirs: Target false positive identification rates.
        threshold_rule: ``'exact'``, ``'grid'`` or ``'insightface'``.

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
    check_rule(threshold_rule)
    result: dict[str, float] = {}
    if threshold_rule == 'insightface':
        place = [math.ceil(len(unmated_score) * fpir) for fpir in fpirs]
        nth = np.sort(unmated_score)[::-1][np.maximum(place, 1) - 1]
        thresholds = np.nextafter(nth, np.inf)
        area = roc_area(mated_score, unmated_score)
    elif threshold_rule == 'exact':
        thresholds = lowest_thresholds(mated_score, unmated_score, fpirs)
        area = roc_area(mated_score, unmated_score)
    else:
        grid = np.linspace(unmated_score.min(), unmated_score.max(), _GRID_STEPS + 1)
        fpir_of_step = share_at_or_above(unmated_score, grid)
        by_fpir = np.argsort(fpir_of_step, kind='stable')
        nearest = [by_fpir[np.abs(fpir_of_step[by_fpir] - fpir).argmin()] for fpir in fpirs]
        thresholds = grid[nearest]
        area = trapezoid(share_at_or_above(mated_score, grid)[::-1], fpir_of_step[::-1])
    rates = share_at_or_above(mated_score, thresholds)
    for fpir, threshold, rate in zip(fpirs, thresholds, rates, strict=True):
        result[f'tpir@fpir{fpir:g}'] = float(rate)
        result[f'threshold@fpir{fpir:g}'] = float(threshold)
    result['auc'] = area
    return result


def check_rule(threshold_rule: str) -> None:
    """Raise ``ValueError`` unless there is such a rule of thresholds."""
    if threshold_rule not in get_args(ThresholdRule):
        known = ', '.join(get_args(ThresholdRule))
        raise ValueError(f'threshold_rule must be one of {known}, got {threshold_rule!r}')


def lowest_thresholds(
    mated_score: np.ndarray, unmated_score: np.ndarray, fpirs: Sequence[float]
) -> np.ndarray:
    """Return the lowest threshold for every target FPIR; the lowest score if all are accepted."""
    thresholds = np.nextafter(strict_bounds(unmated_score, fpirs), np.inf)
    found = mated_score[np.isfinite(mated_score)]
    lowest = min(unmated_score.min(), found.min(initial=np.inf))
    return np.maximum(thresholds, lowest)
