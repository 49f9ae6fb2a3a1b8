"""Thresholds and areas that identification, verification and quality share.

Everywhere in this package a comparison is accepted when its score is *at or above* the threshold.
"""

from collections.abc import Sequence

import numpy as np

# Rates are decimal fractions: 0.3 * 10 must allow three errors, though it is slightly below three
# in binary.
_SLACK = 1e-9


def trapezoid(y: np.ndarray, x: np.ndarray) -> float:
    """Return the area under the points (x, y) joined by lines; ``x`` must not decrease."""
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def step_area(y: np.ndarray, x: np.ndarray, limit: float) -> float:
    """Return the area to ``limit`` under a function with the value ``y[i]`` from ``x[i]`` on."""
    return float((y * np.diff(np.minimum(np.append(x, np.inf), limit))).sum())


def floor_share(share: float, count: int) -> int:
    """Return the largest whole number not above ``share * count``, up to binary rounding."""
    return int(np.floor(share * count + _SLACK))


def share_at_or_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return, for every threshold, the share of ``scores`` at or above it."""
    ordered = np.sort(scores)
    return (len(ordered) - np.searchsorted(ordered, thresholds, side='left')) / len(ordered)


def roc_area(positive: np.ndarray, negative: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive score beats a negative one.

    This is the Mann-Whitney form of the area, where ties count half; it equals the trapezoidal area
    under the curve through every score. ``-inf`` is a valid score that never beats another.
    """
    return ordered_area(positive, np.sort(negative))


def ordered_area(positive: np.ndarray, ordered: np.ndarray) -> float:
    """Compute :func:`roc_area` with increasing negative scores; fastest for increasing positive."""
    below = np.searchsorted(ordered, positive, side='left')
    not_above = np.searchsorted(ordered, positive, side='right')
    return float((below + not_above).mean() / 2 / len(ordered))


def strict_bounds(
    scores: np.ndarray, rates: Sequence[float], weights: np.ndarray | None = None
) -> np.ndarray:
    """Return, for every rate, the highest score that must not be accepted.

    Accepting the scores strictly *above* the bound accepts as much as the rate allows: every
    threshold between the bound and the next higher score does the same.

    Args:
        scores: Scores (N,) of comparisons that should be refused.
        rates: Shares of them that may be accepted, (R,).
        weights: Weight of each comparison, (N,). Default: equal weights.

    Returns:
        The bounds (R,); ``-inf`` where everything may be accepted.
    """
    if weights is None:
        return ordered_bounds(np.sort(scores), rates)
    values, group = np.unique(scores, return_inverse=True)
    return weighted_bounds(values, group, weights, rates)


def ordered_bounds(scores: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """Compute :func:`strict_bounds` of increasing scores: of k that may be accepted, the next."""
    refused = [len(scores) - floor_share(rate, len(scores)) for rate in rates]
    return np.array([scores[num - 1] if num > 0 else -np.inf for num in refused], np.float64)


def weighted_bounds(
    values: np.ndarray, group: np.ndarray, weights: np.ndarray, rates: Sequence[float]
) -> np.ndarray:
    """Compute :func:`strict_bounds` of scores that are sorted already.

    Args:
        values: The distinct scores, increasing, (V,).
        group: Place of each score in ``values``, (N,).
        weights: Weight of each score, (N,); scores of weight 0 have no effect.
        rates: See there.
    """
    at_or_above = np.bincount(group, weights)[::-1].cumsum()[::-1]
    allowed = np.asarray(rates) * weights.sum() + _SLACK
    # ``at_or_above`` decreases along ``values``: find the last place where it exceeds the rate.
    place = np.searchsorted(-at_or_above, -allowed, side='left')
    return np.concatenate([[-np.inf], values])[place]


def is_measurable(rate: float, trials: float) -> bool:
    """Return whether a rate can be measured by that number of trials: one error is allowed."""
    return rate * trials >= 1 - _SLACK


def check_rates(rates: tuple[float, ...], name: str) -> None:
    """Raise ``ValueError`` unless every rate lies in [0, 1]."""
    for rate in rates:
        if not 0 <= rate <= 1:
            raise ValueError(f'{name} must lie in [0, 1], got {rate}')
