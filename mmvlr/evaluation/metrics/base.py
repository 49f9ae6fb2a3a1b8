"""Base of all face metrics: compute numbers, intervals and comparisons from a table of faces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmvlr.structures.face_table import FaceTable

from ..functional import (
    Curve,
    Interval,
    PairedDifference,
    bootstrap_intervals,
    paired_bootstraps,
)


@dataclass(frozen=True, eq=False)
class Observations:
    """Observations of every probe or pair, and the statistics computed from them.

    They determine everything else: the numbers, their intervals, and the comparison of two models
    on the same faces.

    Attributes:
        values: (N, ...) numbers, one row per probe.
        groups: Person of every probe (N,), or both people of every pair (N, 2).
        statistics: Function of (resampled) values to numbers by name.
        strata: Stratum of every probe (N,), or None; see :func:`bootstrap_interval`.
        unmeasurable: Numbers at an error rate below one over the number of trials, mapped to that
            number of trials: such numbers equal those at a rate of zero.
    """

    values: np.ndarray
    groups: np.ndarray
    statistics: Callable[[np.ndarray], Mapping[str, float]]
    strata: np.ndarray | None = None
    unmeasurable: Mapping[str, int] = field(default_factory=dict)


class FaceMetric:
    """Base of the face metrics, which map a :class:`FaceTable` to numbers by name.

    A subclass implements :meth:`compute`, or :meth:`observations`, from which intervals and
    comparisons follow. The table may come from a validation, a test or a file.

    Args:
        intervals: Whether to add 95 % intervals, by resampling people: ``NAME_low``, ``NAME_high``.
        curves: Whether to keep the curves with their bands in :attr:`drawn`.
        num_resamples: Number of resamples of an interval.
        prefix: Prefix of the metrics' names; ``default_prefix`` if not given.

    Attributes:
        roles: Roles of the faces that the metric needs; None for all.
        dataset_meta: ``metainfo`` of the data set, where a data set is tested.
        unmeasurable: Full names of the numbers of the last evaluation (on the main rank) for which
            the test set is too small, mapped to the number of trials; see :class:`Observations`.
        drawn: The curves of the last evaluation (on the main rank, with ``curves=True``).
    """

    default_prefix: str | None = None
    roles: tuple[str, ...] | None = None

    def __init__(
        self,
        intervals: bool = False,
        curves: bool = False,
        num_resamples: int = 1000,
        prefix: str | None = None,
    ):
        self.intervals = intervals
        self.curves = curves
        self.num_resamples = num_resamples
        self.prefix = prefix or self.default_prefix
        self.dataset_meta: Mapping[str, Any] | None = None
        self.unmeasurable: dict[str, int] = {}
        self.drawn: dict[str, dict[str, Curve]] = {}

    def report(self, faces: FaceTable) -> dict[str, float]:
        """Return the metrics of a table by their full names; keep the curves.

        Args:
            faces: All faces of a test set; those of other roles than the metric's are left out.
        """
        faces = self.select(faces)
        prefix = f'{self.prefix}/' if self.prefix else ''
        result: dict[str, float] = {}
        self.unmeasurable = {}
        found = self.compute(faces)
        self.unmeasurable = {f'{prefix}{k}': trials for k, trials in self.unmeasurable.items()}
        for name, value in found.items():
            if isinstance(value, Interval):
                result[f'{prefix}{name}'] = float(value.estimate)
                result[f'{prefix}{name}_low'] = float(value.low)
                result[f'{prefix}{name}_high'] = float(value.high)
            else:
                result[f'{prefix}{name}'] = float(value)
        if self.curves:
            self.drawn = self.draw(faces)
        return result

    def select(self, faces: FaceTable) -> FaceTable:
        """Return the faces that the metric needs."""
        return faces if self.roles is None else faces.only(*self.roles)

    def observations(self, faces: FaceTable) -> dict[str, Observations]:
        """Return the observations, in named parts."""
        raise NotImplementedError

    def compute(self, faces: FaceTable) -> dict[str, float | Interval]:
        """Compute the metrics by their names without prefix, with intervals if enabled."""
        result: dict[str, float | Interval] = {}
        for part in self.observations(faces).values():
            self.unmeasurable |= part.unmeasurable
            if self.intervals:
                result |= bootstrap_intervals(
                    part.values,
                    part.groups,
                    part.statistics,
                    num_resamples=self.num_resamples,
                    strata=part.strata,
                )
            else:
                result |= part.statistics(part.values)
        return result

    def difference(self, faces: FaceTable, other: FaceTable) -> dict[str, PairedDifference]:
        """Compare two models on the same faces, resampling people.

        Args:
            faces: Embeddings of the first model.
            other: Embeddings of the second, of the same faces in the same order.

        Returns:
            First minus second for every number that both have, by its full name.

        Raises:
            ValueError: The tables are of different faces.
        """
        if self.roles is not None:
            faces, other = faces.only(*self.roles), other.only(*self.roles)
        alike = len(faces) == len(other) and (faces.role == other.role).all()
        if not alike or (faces.identity != other.identity).any():
            raise ValueError(
                f'{type(self).__name__}: the two models were not tested on the same faces in the '
                'same order (roles or identities differ)'
            )
        names = [table.columns.get('name') for table in (faces, other)]
        if names[0] is not None and names[1] is not None and (names[0] != names[1]).any():
            raise ValueError(
                f'{type(self).__name__}: the two files name their images in another order'
            )
        if not np.array_equal(faces.pairs, other.pairs):
            raise ValueError(f'{type(self).__name__}: the two models were tested on other pairs')
        prefix = f'{self.prefix}/' if self.prefix else ''
        result: dict[str, PairedDifference] = {}
        theirs = self.observations(other)
        for name, part in self.observations(faces).items():
            if name in theirs:
                found = paired_bootstraps(
                    part.values,
                    theirs[name].values,
                    part.groups,
                    part.statistics,
                    num_resamples=self.num_resamples,
                    strata=part.strata,
                )
                result |= {f'{prefix}{key}': value for key, value in found.items()}
        return result

    def draw(self, faces: FaceTable) -> dict[str, dict[str, Curve]]:
        """Return the curves: ``cmc``, ``open_set``, ``roc`` or ``discard`` to name to curve."""
        return {}


def exact_qualities(faces: FaceTable) -> dict[str, np.ndarray]:
    """Return the quality measures in float64, so that areas are summed as exactly as rates."""
    return {name: np.asarray(values, np.float64) for name, values in faces.qualities.items()}
