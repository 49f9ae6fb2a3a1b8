"""Closed-set identification: rank-k, mAP, and how well a quality measure predicts errors."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from mmvlr.registry import METRICS
from mmvlr.structures.face_table import FaceTable

from ..functional import (
    Curve,
    SearchResult,
    closed_set_ranks,
    cmc_curve,
    discard_curve,
    rank1_error_versus_discard,
    roc_area,
)
from ..functional.curves import split_kinds, stack_kinds
from .base import FaceMetric, Observations, exact_qualities

#: Ranks of a CMC curve.
MAX_RANK = 50
#: Best matches that a search keeps of each probe.
NUM_MATCHES = 5


@METRICS.register_module()
class ClosedSetMetric(FaceMetric):
    """Rank-k and mAP of probes against gallery and distractors; area of error over discard.

    Uses the samples' ``role``: ``gallery`` and ``distractor`` make the gallery, ``probe`` the
    probes; each quality is evaluated in separating ``ui`` faces, if there are any, from probes.
    Names: ``rank1``, ..., ``mAP``; for each quality q of ``ri``, ``ers``, ``norm`` of the model,
    ``discard_auc_q`` (area under the rank-1 error over the discarded share 0, 0.05, ..., 0.95,
    lower is better) and, with UI faces, ``ui_auc_q`` (probability that a probe's quality is above
    that of a UI face).

    Args:
        ranks: The ranks k.
        map_rule: Rule of the average precision; see :func:`closed_set_ranks`.
        **kwargs: See :class:`FaceMetric`.

    Example:
        >>> faces = FaceTable(
        ...     embedding=np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 0.9]]),
        ...     role=['gallery', 'gallery', 'probe'],
        ...     identity=[0, 1, 1],
        ... )
        >>> ClosedSetMetric(ranks=(1,), prefix='toy').report(faces)
        {'toy/rank1': 1.0, 'toy/mAP': 1.0}

        In a config::

            test_evaluator = dict(type='ClosedSetMetric', ranks=(1, 5), prefix='mine')
    """

    default_prefix = 'closed_set'
    roles = ('gallery', 'distractor', 'probe', 'ui')

    def __init__(
        self, ranks: Sequence[int] = (1, 5, 10, 20), map_rule: str = 'trapezoid', **kwargs
    ):
        super().__init__(**kwargs)
        self.ranks = tuple(ranks)
        self.map_rule = map_rule
        self._found: WeakKeyDictionary[FaceTable, Any] = WeakKeyDictionary()

    def select(self, faces: FaceTable) -> FaceTable:
        """Return the table itself, so that the search is shared between all metrics of it."""
        return faces

    def search(self, faces: FaceTable) -> SearchResult:
        """Search the probes in the gallery, once per table; all metrics use the result.

        Args:
            faces: A table; faces of the roles ``gallery`` and ``distractor`` are the gallery.
        """
        if faces not in self._found:
            self._found[faces] = self._search(faces)
        return self._found[faces]

    def _search(self, faces: FaceTable) -> SearchResult:
        gallery, probe = self._parts(faces)
        return closed_set_ranks(
            gallery.unit,
            gallery.identity,
            probe.unit,
            probe.identity,
            map_rule=self.map_rule,
            top_k=NUM_MATCHES,
        )

    def _parts(self, faces: FaceTable, *roles: str) -> list[FaceTable]:
        """Return gallery, probes and faces of further roles."""
        for role in ('gallery', 'probe', *roles):
            if not faces.has(role):
                raise ValueError(f'{type(self).__name__}: the test set has no face of role {role}')
        return [faces.only('gallery', 'distractor'), *map(faces.only, ('probe', *roles))]

    def found_first(self, faces: FaceTable) -> np.ndarray:
        """Return whether the person of each probe is found first, bool (P,)."""
        return self.search(faces).rank == 1

    def observations(self, faces: FaceTable) -> dict[str, Observations]:
        """See :class:`FaceMetric`."""
        found, probes = self.search(faces), faces.only('probe')
        return {'ranks': self.rates(found, probes)} | self.judge(found.rank == 1, probes, faces)

    def rates(self, found: SearchResult, probes: FaceTable) -> Observations:
        """Return the observations for rank-k and mAP."""
        within = [found.rank <= k for k in self.ranks]
        names = [*(f'rank{k}' for k in self.ranks), 'mAP']
        values = np.stack([*within, found.average_precision], axis=1)
        return Observations(values, probes.groups, lambda kept: means(names, kept))

    def judge(
        self, correct: np.ndarray, probes: FaceTable, faces: FaceTable
    ) -> dict[str, Observations]:
        """Return how well each quality predicts errors, and separates probes from UI faces."""
        parts: dict[str, Observations] = {}
        ui = faces.only('ui') if 'ui' in self.roles else []
        for name, quality in exact_qualities(probes).items():

            def area(kept: np.ndarray, name: str = name) -> dict[str, float]:
                curve = rank1_error_versus_discard(kept[:, 0], kept[:, 1])
                return {f'discard_auc_{name}': float(curve['auc'])}

            def told(kept: np.ndarray, name: str = name) -> dict[str, float]:
                return {f'ui_auc_{name}': roc_area(*split_kinds(kept))}

            values = np.stack([quality, correct], axis=1)
            parts[f'discard_{name}'] = Observations(values, probes.groups, area)
            if len(ui):
                values, kind = stack_kinds(quality, exact_qualities(ui)[name])
                groups = np.concatenate([probes.groups, ui.groups])
                parts[f'ui_{name}'] = Observations(values, groups, told, strata=kind)
        return parts

    def draw(self, faces: FaceTable) -> dict[str, dict[str, Curve]]:
        """Return the CMC curve and error over discard by each quality."""
        found, probes = self.search(faces), faces.only('probe')
        last = min(MAX_RANK, int(np.isin(faces.role, ('gallery', 'distractor')).sum()))
        return dict(
            cmc={'all probes': cmc_curve(found.rank, last, probes.groups, self.num_resamples)},
            discard=self.draw_discard(found.rank == 1, probes),
        )

    def draw_discard(self, correct: np.ndarray, probes: FaceTable) -> dict[str, Curve]:
        """Return error over discard by each quality."""
        return {
            name: discard_curve(quality, correct, probes.groups, self.num_resamples)
            for name, quality in exact_qualities(probes).items()
        }


@METRICS.register_module()
class TinyFaceMetric(ClosedSetMetric):
    """TinyFace's metric: rank-1/5/10/20 and mAP under the prefix ``tinyface``.

    Flip fusion is an option of the model (``model.flip_fusion``), as it needs a second forward
    pass.
    """

    default_prefix = 'tinyface'


@METRICS.register_module()
class SCfaceMetric(ClosedSetMetric):
    """SCface's metric: rank-k at each distance and their mean, under the prefix ``scface``.

    Names: ``d1_rank1``, ``d2_rank1``, ``d3_rank1`` (1 is the farthest) and ``mean_rank1``, the mean
    over the distances, for each k; mAP and the areas of error over discard over all probes.

    Args:
        ranks: The ranks k.
        **kwargs: See :class:`FaceMetric`.

    Raises:
        ValueError: The samples carry no ``distance``.
    """

    default_prefix = 'scface'

    def __init__(self, ranks: Sequence[int] = (1,), **kwargs):
        super().__init__(ranks=ranks, **kwargs)

    def rates(self, found: SearchResult, probes: FaceTable) -> Observations:
        """Return the observations for rank-k by distance, their mean, and mAP."""
        distance = probes.columns.get('distance', np.zeros(len(probes)))
        if (distance == 0).any():
            raise ValueError('SCfaceMetric: there are probes without a distance')
        within = [found.rank <= k for k in self.ranks]
        values = np.stack([distance, found.average_precision, *within], axis=1)
        distances = np.unique(distance)

        def rates(kept: np.ndarray) -> dict[str, float]:
            result = {}
            for column, k in enumerate(self.ranks, start=2):
                at = [_mean(kept[kept[:, 0] == d, column]) for d in distances]
                result |= {f'd{d:g}_rank{k}': rate for d, rate in zip(distances, at, strict=True)}
                result[f'mean_rank{k}'] = float(np.mean(at))
            return result | {'mAP': float(kept[:, 1].mean())}

        return Observations(values, probes.groups, rates)

    def draw(self, faces: FaceTable) -> dict[str, dict[str, Curve]]:
        """Return a CMC curve for each distance, and error over discard."""
        curves = super().draw(faces)
        found, probes = self.search(faces), faces.only('probe')
        last = len(curves['cmc']['all probes'].x)
        for distance in np.unique(probes.columns['distance']):
            here = probes.columns['distance'] == distance
            curves['cmc'][f'D{distance:g}'] = cmc_curve(
                found.rank[here], last, probes.groups[here], self.num_resamples
            )
        return curves


def means(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Return the means of the columns (N, K) by name."""
    return {name: float(mean) for name, mean in zip(names, values.mean(axis=0), strict=True)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float('nan')
