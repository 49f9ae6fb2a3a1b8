"""Intervals and comparisons by resampling identities.

Pictures of one person succeed and fail together, so they are no independent observations, and
intervals that treat them as such are too narrow. What is resampled is therefore the person, with
all the pictures (Bolle, Ratha and Pankanti, "Error analysis of pattern recognition systems: the
subsets bootstrap", CVIU 2004).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ._blocks import ArrayLike, as_vector

Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        estimate: The statistic of the data.
        low: Lower end of the interval.
        high: Upper end.
        level: Confidence level, such as 0.95.
    """

    estimate: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two methods on the same probes.

    Attributes:
        difference: Statistic of the first minus that of the second.
        low: Lower end of the confidence interval of the difference.
        high: Upper end.
        level: Confidence level, such as 0.95.
        p_value: Two-sided p-value of the hypothesis that there is no difference.
    """

    difference: float
    low: float
    high: float
    level: float
    p_value: float


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Confidence interval of a statistic, by resampling whole identities (percentile method).

    Args:
        values: What was observed for every probe: (N,), such as ``rank == 1``, or (N, ...) for
            statistics of several columns, such as quality and correctness.
        groups: Identity of every probe, (N,).
        statistic: Function of the values of the resampled probes, (M,) or (M, ...), to a float;
            M varies, as identities differ in their number of probes. For the mean of one column,
            the default, only sums per identity are resampled, which is fast.
        level: Confidence level, in (0, 1).
        num_resamples: Number of resamples.
        seed: Seed of the random generator: the same call gives the same interval.

    Returns:
        The statistic of the data and its interval.

    Raises:
        ValueError: If an input is malformed or there are fewer than two identities.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import bootstrap_interval
        >>> correct = np.repeat([True, False, True, True], 5)
        >>> bootstrap_interval(correct, groups=np.repeat([1, 2, 3, 4], 5))
        Interval(estimate=0.75, low=0.25, high=1.0, level=0.95)
    """
    values = _as_values(values, 'values')
    resamples = _Resamples(groups, len(values), num_resamples, seed)
    low, high = _ends(resamples.statistics(values, statistic), level)
    return Interval(float(statistic(values)), low, high, level)


def paired_bootstrap(
    values_a: ArrayLike,
    values_b: ArrayLike,
    groups: ArrayLike,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two methods on the same probes, by resampling whole identities.

    Both methods are resampled together, so what makes a probe hard for both cancels out. The
    p-value is the share of resamples in which the difference departs from the observed difference
    at least as far as that departs from zero (Efron and Tibshirani, "An Introduction to the
    Bootstrap", 1993, section 16.4), the observed data counted as one resample; so it is never
    below 1 / (num_resamples + 1).

    Args:
        values_a: What was observed for every probe with the first method, (N,) or (N, ...).
        values_b: The same for the second method and the same probes in the same order.
        groups: Identity of every probe, (N,).
        statistic: See :func:`bootstrap_interval`.
        level: Confidence level, in (0, 1).
        num_resamples: Number of resamples.
        seed: Seed of the random generator.

    Returns:
        Statistic of the first minus statistic of the second, its interval and its p-value.

    Raises:
        ValueError: If an input is malformed or there are fewer than two identities.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import paired_bootstrap
        >>> people = np.repeat(np.arange(40), 3)
        >>> before = people % 2 == 0
        >>> after = before | (people < 20)
        >>> result = paired_bootstrap(after, before, people)
        >>> result.difference, result.low > 0, result.p_value < 0.01
        (0.25, True, True)
    """
    values_a, values_b = _as_values(values_a, 'values_a'), _as_values(values_b, 'values_b')
    if len(values_a) != len(values_b):
        raise ValueError(
            f'values_a and values_b must have as many entries, '
            f'got {len(values_a)} and {len(values_b)}'
        )
    resamples = _Resamples(groups, len(values_a), num_resamples, seed)
    resampled = resamples.statistics(values_a, statistic) - resamples.statistics(
        values_b, statistic
    )
    low, high = _ends(resampled, level)
    difference = float(statistic(values_a)) - float(statistic(values_b))
    # Rounding must not decide whether a departure is as large as the observed one.
    as_far = np.abs(resampled - difference) >= abs(difference) - 1e-12
    p_value = (1 + int(as_far.sum())) / (1 + num_resamples)
    return PairedDifference(difference, low, high, level, p_value)


class _Resamples:
    """The same resamples of identities, as often as they are asked for."""

    def __init__(self, groups: ArrayLike, length: int, num_resamples: int, seed: int) -> None:
        groups = as_vector(groups, 'groups', length)
        _, self.group, self.size = np.unique(groups, return_inverse=True, return_counts=True)
        if len(self.size) < 2:
            raise ValueError('groups: needs at least two identities to resample')
        if num_resamples < 1:
            raise ValueError(f'num_resamples must be at least 1, got {num_resamples}')
        self.num_resamples, self.seed = num_resamples, seed

    def statistics(self, values: np.ndarray, statistic: Statistic) -> np.ndarray:
        """The statistic in every resample, float64 (num_resamples,)."""
        if statistic is np.mean and values.ndim == 1:
            total = np.bincount(self.group, values)
            means = (total[drawn].sum() / self.size[drawn].sum() for drawn in self._draws())
            return np.fromiter(means, np.float64, self.num_resamples)
        by_group = np.split(np.argsort(self.group, kind='stable'), np.cumsum(self.size)[:-1])
        found = (
            statistic(values[np.concatenate([by_group[group] for group in drawn])])
            for drawn in self._draws()
        )
        return np.fromiter(found, np.float64, self.num_resamples)

    def _draws(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        for _ in range(self.num_resamples):
            yield rng.integers(len(self.size), size=len(self.size))


def _as_values(values: ArrayLike, name: str) -> np.ndarray:
    if hasattr(values, 'detach'):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.ndim < 1 or not len(array):
        raise ValueError(f'{name} must hold at least one observation')
    if array.dtype.kind not in 'biuf' or not np.isfinite(array).all():
        raise ValueError(f'{name} must hold finite real numbers')
    return array


def _ends(resampled: np.ndarray, level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise ValueError(f'level must lie in (0, 1), got {level}')
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
