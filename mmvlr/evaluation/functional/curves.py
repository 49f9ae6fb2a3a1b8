"""Curves with confidence bands: CMC, TPIR over FPIR, ROC, error over discard.

A band is the pointwise interval of the identity-clustered bootstrap (:mod:`.bootstrap`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ._blocks import ArrayLike, as_flags, as_scores
from ._curves import share_at_or_above, strict_bounds
from .bootstrap import bootstrap_interval
from .identification import OpenSetScores
from .quality import rank1_error_versus_discard
from .rates import cmc, lowest_thresholds

_POINTS_PER_DECADE = 20
# Rates at which a curve is evaluated exactly.
_USUAL_RATES = (0.001, 0.01, 0.1, 0.2, 0.3)


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve and its pointwise 95 % band.

    Attributes:
        x: float64 (K,), increasing.
        y: float64 (K,).
        low: Lower end of the band, (K,), or None if it was not requested.
        high: Upper end, or None.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def cmc_curve(
    ranks: ArrayLike, max_rank: int, groups: ArrayLike | None = None, num_resamples: int = 1000
) -> Curve:
    """Compute the cumulative match characteristic over the ranks 1, ..., ``max_rank``.

    Args:
        ranks: Rank of the first correct image of every probe, counted from 1, (P,).
        max_rank: Length of the curve.
        groups: Identity of every probe, (P,), for the band.
        num_resamples: Number of resamples of the band.

    Example:
        >>> from mmvlr.evaluation.functional import cmc_curve
        >>> cmc_curve([1, 1, 3], max_rank=3).y.round(3)
        array([0.667, 0.667, 1.   ])
    """
    x = np.arange(1, max_rank + 1).astype(np.float64)
    return _curve(x, np.asarray(ranks), lambda kept: cmc(kept, max_rank), groups, num_resamples)


def open_set_curve(
    scores: OpenSetScores,
    mated_groups: ArrayLike | None = None,
    unmated_groups: ArrayLike | None = None,
    num_resamples: int = 1000,
) -> Curve:
    """Compute TPIR over FPIR, by the exact rule, from one unmated probe to all of them.

    FNIR over FPIR, the DET curve, is one minus it.

    Args:
        scores: Result of :func:`open_set_scores`.
        mated_groups: Identity of every mated probe, (M,), for the band.
        unmated_groups: Identity of every unmated probe, (U,), for the band.
        num_resamples: Number of resamples of the band.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import OpenSetScores, open_set_curve
        >>> scores = OpenSetScores(np.array([0.9, 0.4]), np.array([0.5, 0.3]), np.array([1, 1]))
        >>> curve = open_set_curve(scores)
        >>> float(curve.x[0]), float(curve.y[0]), float(curve.y[-1])
        (0.5, 1.0, 1.0)
    """
    values, strata = stack_kinds(scores.mated_score, scores.unmated_score)
    x = _rates_down_to(1 / len(scores.unmated_score))

    def rates(kept: np.ndarray) -> np.ndarray:
        mated, unmated = split_kinds(kept)
        return share_at_or_above(mated, lowest_thresholds(mated, unmated, x))

    groups = None
    if mated_groups is not None and unmated_groups is not None:
        groups = np.concatenate([mated_groups, unmated_groups])
    return _curve(x, values, rates, groups, num_resamples, strata)


def roc_curve(
    score: ArrayLike, same: ArrayLike, groups: ArrayLike | None = None, num_resamples: int = 1000
) -> Curve:
    """Compute TAR over FAR: the largest TAR whose FAR does not exceed x.

    Args:
        score: Cosine of each pair, (N,).
        same: Whether the pair shows one person, (N,).
        groups: The two identities of each pair, (N, 2), for the band.
        num_resamples: Number of resamples of the band.

    Raises:
        ValueError: If an input is malformed or all pairs are of one kind.

    Example:
        >>> from mmvlr.evaluation.functional import roc_curve
        >>> curve = roc_curve([0.9, 0.3, 0.4, 0.1], [1, 1, 0, 0])
        >>> float(curve.x[0]), float(curve.y[0])
        (0.5, 1.0)
    """
    score = as_scores(score, 'score')
    same = as_flags(same, 'same', len(score))
    if same.all() or not same.any():
        raise ValueError('same: needs pairs of one person and pairs of two')
    x = _rates_down_to(1 / (~same).sum())

    def rates(kept: np.ndarray) -> np.ndarray:
        genuine, impostor = split_kinds(kept)
        if not len(genuine) or not len(impostor):
            return np.full(len(x), np.nan)
        return share_at_or_above(genuine, np.nextafter(strict_bounds(impostor, x), np.inf))

    values = np.stack([score, ~same], axis=1)
    return _curve(x, values, rates, groups, num_resamples)


def discard_curve(
    quality: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike | None = None,
    num_resamples: int = 1000,
) -> Curve:
    """Compute the rank-1 error over the discarded share 0, 0.05, ..., 0.95.

    Args:
        quality: Quality of each probe, higher is better, (P,).
        correct: Whether the first image found is right, (P,).
        groups: Identity of every probe, (P,), for the band.
        num_resamples: Number of resamples of the band.

    Example:
        >>> from mmvlr.evaluation.functional import discard_curve
        >>> discard_curve([0.1, 0.9], [False, True]).y[[0, -1]]
        array([0.5, 0. ])
    """
    values = np.stack([as_scores(quality, 'quality'), as_flags(correct, 'correct')], axis=1)
    x = rank1_error_versus_discard(values[:, 0], values[:, 1])['discard']
    return _curve(
        x,
        values,
        lambda kept: rank1_error_versus_discard(kept[:, 0], kept[:, 1])['error'],
        groups,
        num_resamples,
    )


def stack_kinds(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of two kinds as (N, 2), score and kind, and the kinds (N,), 0 and 1."""
    kind = np.repeat([0, 1], [len(positive), len(negative)])
    return np.stack([np.concatenate([positive, negative]), kind], axis=1), kind


def split_kinds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo :func:`stack_kinds`."""
    negative = values[:, 1] > 0
    return values[~negative, 0], values[negative, 0]


def _rates_down_to(lowest: float) -> np.ndarray:
    """Return rates from ``lowest`` to 1, evenly on a logarithmic axis, and the usual targets."""
    num = int(np.ceil(-np.log10(lowest) * _POINTS_PER_DECADE)) + 1
    usual = np.array([rate for rate in _USUAL_RATES if rate > lowest])
    even = np.geomspace(lowest, 1, num)[1:-1]
    # Drop rates that equal a usual one up to rounding.
    even = even[~np.isclose(even[:, None], usual).any(axis=1)]
    return np.unique(np.concatenate([[lowest, 1.0], usual, even]))


def _curve(
    x: np.ndarray,
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: ArrayLike | None,
    num_resamples: int,
    strata: np.ndarray | None = None,
) -> Curve:
    if groups is None:
        return Curve(x, np.asarray(statistic(values)))
    found = bootstrap_interval(
        values, groups, statistic, num_resamples=num_resamples, strata=strata
    )
    return Curve(x, found.estimate, found.low, found.high)
