"""Compare systems that were tested on the same faces, each with one or several seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .functional import resample
from .metrics import Observations

#: Above this p-value a system counts as not distinguishable from the best.
ALPHA = 0.05


@dataclass(frozen=True)
class Score:
    """One figure of a system, over its seeds.

    Attributes:
        mean: Mean over the seeds.
        low: Lower end of the 95 % interval, or None.
        high: Upper end, or None.
        lowest: Lowest value over the seeds, or None.
        highest: Highest value over the seeds, or None.
        num_seeds: Number of seeds.
        p: Adjusted p-value of the difference to the best; None for the best itself and if it was
            not tested.
        best: Whether it is the best of the systems.
        unit: ``'rate'`` is in [0, 1] and shown in percent; ``'number'`` is shown unchanged.
        lower_is_better: Whether lower is better, as for an error or the area under an error curve.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    lowest: float | None = None
    highest: float | None = None
    num_seeds: int = 1
    p: float | None = None
    best: bool = False
    unit: Literal['rate', 'number'] = 'rate'
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        if self.unit not in ('rate', 'number'):
            raise ValueError(f"the unit of a score is 'rate' or 'number', not {self.unit!r}")

    @property
    def mark(self) -> Literal['best', 'near', 'worse', 'untested']:
        """Relation to the best; ``near`` is not distinguishable from it."""
        if self.best:
            return 'best'
        if self.p is None or math.isnan(self.p):
            return 'untested'
        return 'near' if self.p >= ALPHA else 'worse'


def join_seeds(parts: Sequence[Observations]) -> Observations:
    """Join the observations of several seeds on the same probes: numbers become their means.

    The people are resampled once for all seeds, so an interval shows how much the mean varies with
    the people of the test set.

    Args:
        parts: One per seed, of the same probes in the same order.

    Raises:
        ValueError: The seeds were tested on different probes.
    """
    first = parts[0]
    if any(not np.array_equal(part.groups, first.groups) for part in parts):
        raise ValueError('the seeds of a method were tested on different faces')

    # Derived from the values, so that systems with different numbers of seeds can be paired.
    def average(kept: np.ndarray) -> dict[str, float]:
        found = [first.statistics(kept[:, seed]) for seed in range(kept.shape[1])]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    values = np.stack([np.asarray(part.values, np.float64) for part in parts], axis=1)
    return Observations(values, first.groups, average, first.strata)


def adjust_p_values(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    Example:
        >>> adjust_p_values(dict(a=0.01, b=0.04, c=0.03))
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted, highest = {}, 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = highest
    return adjusted


def compare_systems(
    observed: Mapping[str, Sequence[Observations]],
    lower_is_better: bool = False,
    unit: Literal['rate', 'number'] = 'rate',
    num_resamples: int = 1000,
) -> dict[str, dict[str, Score]]:
    """Compare systems on the same probes.

    Args:
        observed: Observations of each seed, by system.
        lower_is_better: Whether the lowest is the best.
        unit: See :class:`Score`.
        num_resamples: Resamples of people.

    Returns:
        Scores by name of the number and by system. ``p`` is the p-value of the paired test against
        the best system, adjusted by :func:`adjust_p_values` for the number of other systems.

    Raises:
        ValueError: The systems were tested on different probes.
    """
    joined = {system: join_seeds(parts) for system, parts in observed.items()}
    resampled = {
        system: resample(
            part.values, part.groups, part.statistics, num_resamples, strata=part.strata
        )
        for system, part in joined.items()
    }
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for system, draws in resampled.items():
        each = [one.statistics(np.asarray(one.values)) for one in observed[system]]
        for name, interval in draws.intervals().items():
            of_seeds = [float(numbers[name]) for numbers in each]
            scores.setdefault(name, {})[system] = dict(
                mean=interval.estimate,
                low=interval.low,
                high=interval.high,
                lowest=min(of_seeds),
                highest=max(of_seeds),
                num_seeds=len(of_seeds),
                lower_is_better=lower_is_better,
                unit=unit,
            )
    best = {
        name: (min if lower_is_better else max)(systems, key=lambda s: systems[s]['mean'])
        for name, systems in scores.items()
    }
    p_values: dict[str, dict[str, float]] = {name: {} for name in scores}
    for winner in dict.fromkeys(best.values()):
        for system in joined:
            if system == winner:
                continue
            if not np.array_equal(joined[system].groups, joined[winner].groups):
                raise ValueError(f'{system} and {winner} were tested on different faces')
            for name, difference in resampled[system].minus(resampled[winner]).items():
                if best[name] == winner:
                    p_values[name][system] = difference.p_value
    return {
        name: {
            system: Score(**score, p=adjusted.get(system), best=system == best[name])
            for system, score in systems.items()
        }
        for name, systems in scores.items()
        for adjusted in [adjust_p_values(p_values[name])]
    }
