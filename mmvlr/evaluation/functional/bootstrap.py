"""Compute intervals and comparisons by resampling identities.

Results of images of one person are correlated, so intervals that treat images as independent are
too narrow. Therefore people are resampled, each with all images of the person (Bolle, Ratha and
Pankanti, "Error analysis of pattern recognition systems: the
subsets bootstrap", CVIU 2004). A comparison of two people counts as often as the product of how
often each of them was drawn (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._blocks import ArrayLike
from ._resampling import Resamples, Statistic


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        estimate: The statistic of the data; an array where the statistic is one.
        low: Lower end of the interval, of the same shape.
        high: Upper end.
        level: Confidence level, such as 0.95.
    """

    estimate: Any
    low: Any
    high: Any
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


@dataclass(frozen=True, eq=False)
class Resampled:
    """Several statistics of one method in every resample; see :func:`resample`.

    Attributes:
        names: Names of the K statistics.
        estimate: (K,) float64, of the data.
        draws: (num_resamples, K) float64, NaN where a resample does not define a statistic.
    """

    names: tuple[str, ...]
    estimate: np.ndarray
    draws: np.ndarray

    def intervals(self, level: float = 0.95) -> dict[str, Interval]:
        """Return each statistic with its interval (percentile method)."""
        low, high = _ends(self.draws, level)
        rows = zip(self.names, self.estimate, low, high, strict=True)
        return {name: Interval(float(e), float(a), float(b), level) for name, e, a, b in rows}

    def minus(self, other: 'Resampled', level: float = 0.95) -> dict[str, PairedDifference]:
        """Return the differences to another method on the same probes and resamples.

        Raises:
            ValueError: The other has other statistics or another number of resamples.
        """
        if self.names != other.names or self.draws.shape != other.draws.shape:
            raise ValueError(
                f'{self.draws.shape} draws of {self.names} and {other.draws.shape} of '
                f'{other.names} cannot be compared'
            )
        found = _differences(self.draws, other.draws, self.estimate - other.estimate, level)
        return dict(zip(self.names, found, strict=True))


def resample(
    values: ArrayLike,
    groups: ArrayLike,
    statistics: Callable[[np.ndarray], Mapping[str, float]],
    num_resamples: int = 1000,
    seed: int = 0,
    strata: ArrayLike | None = None,
) -> Resampled:
    """Compute several named statistics in every resample of identities.

    With the same groups, strata and seed the resamples are the same, so that methods resampled one
    by one can be compared in pairs.

    Args:
        values: See :func:`bootstrap_interval`.
        groups: See there.
        statistics: Function of the values of the resampled probes to numbers by name, always the
            same names.
        num_resamples: Number of resamples.
        seed: Seed of the random generator.
        strata: See :func:`bootstrap_interval`.

    Raises:
        ValueError: If an input is malformed or there are fewer than two identities.

    Example:
        >>> from mmvlr.evaluation.functional import resample
        >>> one, two = (
        ...     resample(v, [1, 2, 3, 4], lambda v: dict(mean=v.mean()))
        ...     for v in ([1, 1, 1, 1], [1, 0, 1, 0]))
        >>> one.minus(two)['mean'].difference
        0.5
    """
    values = _as_values(values, 'values')
    known = statistics(values)

    def vector(kept: np.ndarray) -> np.ndarray:
        return np.array([float(value) for value in statistics(kept).values()])

    resamples = Resamples(groups, len(values), num_resamples, seed, strata)
    draws = resamples.statistics(values, vector).reshape(num_resamples, len(known))
    estimate = np.array([float(value) for value in known.values()])
    return Resampled(tuple(known), estimate, draws)


def bootstrap_interval(
    values: ArrayLike,
    groups: ArrayLike,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    strata: ArrayLike | None = None,
) -> Interval:
    """Compute the interval of a statistic, by resampling identities (percentile method).

    Args:
        values: Observation of every probe: (N,), such as ``rank == 1``, or (N, ...) for
            statistics of several columns, such as quality and correctness.
        groups: Identity of every probe, (N,); or the two identities of every comparison, (N, 2).
        statistic: Function of the values of the resampled probes, (M,) or (M, ...), to a float or
            an array of fixed shape; M varies, as identities differ in their number of probes. The
            probes keep their order. NaN means that the statistic is undefined in a resample, which
            is left out. For the mean of one column, the default, only sums per identity are
            resampled, which is fast.
        level: Confidence level, in (0, 1).
        num_resamples: Number of resamples.
        seed: Seed of the random generator: the same call gives the same interval.
        strata: Stratum of every probe, (N,), such as mated and unmated: identities are resampled
            within each stratum. Default: a single stratum.

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
    resamples = Resamples(groups, len(values), num_resamples, seed, strata)
    low, high = _ends(resamples.statistics(values, statistic), level)
    return Interval(_plain(statistic(values)), _plain(low), _plain(high), level)


def bootstrap_intervals(
    values: ArrayLike,
    groups: ArrayLike,
    statistics: Callable[[np.ndarray], Mapping[str, float]],
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    strata: ArrayLike | None = None,
) -> dict[str, Interval]:
    """Compute the intervals of several named statistics on the same resamples.

    Args:
        values: See :func:`bootstrap_interval`.
        groups: See there.
        statistics: Function of the values of the resampled probes to numbers by name, always the
            same names.
        level: Confidence level, in (0, 1).
        num_resamples: Number of resamples.
        seed: Seed of the random generator.
        strata: See :func:`bootstrap_interval`.

    Returns:
        The interval of each.

    Raises:
        ValueError: If an input is malformed or there are fewer than two identities.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import bootstrap_intervals
        >>> found = bootstrap_intervals(
        ...     [1, 0, 1, 1], [1, 2, 3, 4], lambda v: dict(mean=v.mean(), worst=v.min()))
        >>> found['worst']
        Interval(estimate=0.0, low=0.0, high=1.0, level=0.95)
    """
    return resample(values, groups, statistics, num_resamples, seed, strata).intervals(level)


def paired_bootstrap(
    values_a: ArrayLike,
    values_b: ArrayLike,
    groups: ArrayLike,
    statistic: Statistic = np.mean,
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    strata: ArrayLike | None = None,
) -> PairedDifference:
    """Compare two methods on the same probes, by resampling whole identities.

    Both methods are resampled together, so difficulty common to both cancels out. The p-value is
    the share of resamples in which the difference deviates from the observed difference at least as
    much as that deviates from zero (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
    section 16.4). The observed data count as one resample, so it is never below
    1 / (num_resamples + 1).

    Args:
        values_a: Observation of every probe with the first method, (N,) or (N, ...).
        values_b: The same for the second method and the same probes in the same order.
        groups: Identity of every probe, (N,), or both of every comparison, (N, 2).
        statistic: See :func:`bootstrap_interval`; here to a float.
        level: Confidence level, in (0, 1).
        num_resamples: Number of resamples.
        seed: Seed of the random generator.
        strata: See :func:`bootstrap_interval`.

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
    _check_alike(values_a, values_b)
    resamples = Resamples(groups, len(values_a), num_resamples, seed, strata)
    draws = [resamples.statistics(values, statistic) for values in (values_a, values_b)]
    difference = np.atleast_1d(statistic(values_a)) - np.atleast_1d(statistic(values_b))
    (found,) = _differences(*draws, difference, level)
    return found


def paired_bootstraps(
    values_a: ArrayLike,
    values_b: ArrayLike,
    groups: ArrayLike,
    statistics: Callable[[np.ndarray], Mapping[str, float]],
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
    strata: ArrayLike | None = None,
) -> dict[str, PairedDifference]:
    """Compare two methods in several named statistics on the same resamples.

    Args:
        values_a: See :func:`paired_bootstrap`.
        values_b: See there.
        groups: See there.
        statistics: Function of the values of the resampled probes to numbers by name, always the
            same names.
        level: Confidence level, in (0, 1).
        num_resamples: Number of resamples.
        seed: Seed of the random generator.
        strata: See :func:`bootstrap_interval`.

    Returns:
        The difference in each.

    Raises:
        ValueError: If an input is malformed or there are fewer than two identities.

    Example:
        >>> from mmvlr.evaluation.functional import paired_bootstraps
        >>> found = paired_bootstraps(
        ...     [1, 1, 1, 1], [1, 0, 1, 0], [1, 2, 3, 4], lambda v: dict(mean=v.mean()))
        >>> found['mean'].difference
        0.5
    """
    values_a, values_b = _as_values(values_a, 'values_a'), _as_values(values_b, 'values_b')
    _check_alike(values_a, values_b)
    first, second = (
        resample(values, groups, statistics, num_resamples, seed, strata)
        for values in (values_a, values_b)
    )
    return first.minus(second, level)


def _check_alike(values_a: np.ndarray, values_b: np.ndarray) -> None:
    if len(values_a) != len(values_b):
        raise ValueError(
            f'values_a and values_b must have as many entries, '
            f'got {len(values_a)} and {len(values_b)}'
        )


def _differences(
    draws_a: np.ndarray, draws_b: np.ndarray, difference: np.ndarray, level: float
) -> list[PairedDifference]:
    """One difference for each of the K statistics."""
    resampled = draws_a - draws_b
    low, high = _ends(resampled, level)
    resampled = resampled.reshape(len(resampled), -1)
    defined = (~np.isnan(resampled)).sum(axis=0)
    # Rounding must not decide whether a deviation is as large as the observed one.
    as_far = (np.abs(resampled - difference) >= np.abs(difference) - 1e-12).sum(axis=0)
    p_value = (1 + as_far) / (1 + defined)
    rows = zip(difference, np.atleast_1d(low), np.atleast_1d(high), p_value, strict=True)
    return [
        PairedDifference(float(value), float(a), float(b), level, float(p))
        for value, a, b, p in rows
    ]


def _as_values(values: ArrayLike, name: str) -> np.ndarray:
    if hasattr(values, 'detach'):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.ndim < 1 or not len(array):
        raise ValueError(f'{name} must hold at least one observation')
    if array.dtype.kind not in 'biuf' or np.isnan(array).any():
        raise ValueError(f'{name} must hold real numbers, no NaN')
    return array


def _ends(resampled: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    if not 0 < level < 1:
        raise ValueError(f'level must lie in (0, 1), got {level}')
    if not np.isnan(resampled).any():
        return tuple(np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0))
    with warnings.catch_warnings():
        # A statistic that no resample defines is NaN; this is a valid result, without a warning.
        warnings.simplefilter('ignore', RuntimeWarning)
        return tuple(np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2], axis=0))


def _plain(value: Any) -> Any:
    """Return a number as float, an array unchanged."""
    array = np.asarray(value, np.float64)
    return array if array.ndim else float(array)
