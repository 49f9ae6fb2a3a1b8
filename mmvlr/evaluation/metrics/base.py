"""What every face metric shares: collecting predictions, over any number of ranks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric

from ..functional import (
    Curve,
    Interval,
    PairedDifference,
    bootstrap_intervals,
    paired_bootstraps,
)
from ..table import FaceTable

#: Name of a quality measure in results -> attribute of the data sample; higher is better.
QUALITIES = dict(ri='recognizability', ers='ers', norm='embedding_norm', crfiqa='crfiqa')


@dataclass(frozen=True, eq=False)
class Observations:
    """What was observed of every probe or pair, and the numbers that follow from it.

    From this everything else follows: the numbers, their intervals, and the comparison of two
    models on the same faces.

    Attributes:
        values: (N, ...) numbers, one row a probe.
        groups: Person of every probe (N,), or both of every pair (N, 2).
        statistics: Function of (resampled) values to numbers by name.
        strata: Kind of every probe (N,), or None; see :func:`bootstrap_interval`.
    """

    values: np.ndarray
    groups: np.ndarray
    statistics: Callable[[np.ndarray], Mapping[str, float]]
    strata: np.ndarray | None = None


class FaceMetric(BaseMetric):
    """Base of the face metrics.

    A subclass implements :meth:`compute` on a :class:`FaceTable`, or :meth:`observations`, from
    which intervals and comparisons follow. Results of several ranks are merged by ``sample_idx``:
    mmengine's own way, cutting the list to the data set's size, is right only for samplers that
    pad at the end.

    Args:
        intervals: Also give 95 % intervals, resampling people: ``NAME_low`` and ``NAME_high``.
        curves: Also keep the curves with their bands, for :attr:`drawn`.
        num_resamples: Number of resamples of an interval.
        prefix: Prefix of the metrics' names; ``default_prefix`` if not given.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.

    Attributes:
        roles: Roles of the faces that the metric needs; None for all.
        attributes: Meta information of the samples that the metric needs beside role and identity,
            and its value for faces that have none.
        drawn: The curves of the last evaluation (on the main rank, with ``curves=True``).
    """

    roles: tuple[str, ...] | None = None
    attributes: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        intervals: bool = False,
        curves: bool = False,
        num_resamples: int = 1000,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.intervals = intervals
        self.curves = curves
        self.num_resamples = num_resamples
        self.drawn: dict[str, dict[str, Curve]] = {}

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep what the metric needs of each face."""
        for sample in data_samples:
            index = int(sample['sample_idx'])
            if self.roles is not None and sample['role'] not in self.roles:
                self.results.append((index, None))
                continue
            kept = dict(
                role=sample['role'],
                identity=int(sample['identity']),
                embedding=sample['embedding'].float().cpu().numpy(),
            )
            for name, attribute in QUALITIES.items():
                if attribute in sample:
                    kept[name] = float(sample[attribute])
            kept.update({name: sample.get(name, none) for name, none in self.attributes.items()})
            self.results.append((index, kept))

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge the ranks, compute on the main one and return the same on all."""
        merged: dict[int, dict | None] = {}
        for part in all_gather_object(self.results):
            merged.update(part)
        self.results.clear()
        if len(merged) != size:
            raise ValueError(
                f'{type(self).__name__}: {len(merged)} of {size} images were predicted'
            )
        metrics: list[dict | None] = [None]
        if is_main_process():
            metrics = [self.compute_metrics(merged)]
        broadcast_object_list(metrics)
        return metrics[0]

    def compute_metrics(self, results: Mapping[int, dict | None]) -> dict[str, float]:
        """Return the metrics by their full names."""
        return self.report(self.table(results))

    def table(self, results: Mapping[int, dict | None]) -> FaceTable:
        """Stack the results (sample index -> what :meth:`process` kept) in index order."""
        indices = [index for index in sorted(results) if results[index] is not None]
        faces = [results[index] for index in indices]
        if not faces:
            raise ValueError(f'{type(self).__name__}: no face has one of the roles {self.roles}')
        shared = set.intersection(*({*face} for face in faces))
        columns = {
            name: np.array([face[name] for face in faces])
            for name in (*QUALITIES, *self.attributes)
            if name in shared
        }
        pairs = same = None
        known = self.dataset_meta or {}
        if len(known.get('pairs', ())):
            place = np.full(max(results) + 1, -1)
            place[indices] = np.arange(len(indices))
            pairs, same = place[known['pairs']], np.asarray(known['same'])
            kept = (pairs >= 0).all(axis=1)
            pairs, same = pairs[kept], same[kept]
        return FaceTable(
            embedding=np.stack([face['embedding'] for face in faces]),
            role=np.array([face['role'] for face in faces]),
            identity=np.array([face['identity'] for face in faces]),
            columns=columns,
            pairs=pairs,
            same=same,
        )

    def report(self, faces: FaceTable) -> dict[str, float]:
        """Return the metrics of a table by their full names; keep the curves.

        Args:
            faces: All faces of a test set; those of other roles than the metric's are left out.
        """
        if self.roles is not None:
            faces = faces.only(*self.roles)
        prefix = f'{self.prefix}/' if self.prefix else ''
        result: dict[str, float] = {}
        for name, value in self.compute(faces).items():
            if isinstance(value, Interval):
                result[f'{prefix}{name}'] = float(value.estimate)
                result[f'{prefix}{name}_low'] = float(value.low)
                result[f'{prefix}{name}_high'] = float(value.high)
            else:
                result[f'{prefix}{name}'] = float(value)
        if self.curves:
            self.drawn = self.draw(faces)
        return result

    def observations(self, faces: FaceTable) -> dict[str, Observations]:
        """Return what was observed, in parts with names of their own."""
        raise NotImplementedError

    def compute(self, faces: FaceTable) -> dict[str, float | Interval]:
        """Compute the metrics by their names without prefix, with intervals if asked for."""
        result: dict[str, float | Interval] = {}
        for part in self.observations(faces).values():
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
