"""Verification of pairs: TAR at FAR, AUC, accuracy, and error over discard."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmvlr.registry import METRICS
from mmvlr.structures.face_table import FaceTable

from ..functional import (
    CONVENTIONS,
    Curve,
    RankConvention,
    discard_areas,
    error_versus_discard,
    find_conventions,
    is_measurable,
    measure_harm,
    pair_scores,
    rank_consistency,
    roc_curve,
    verification_rates,
)
from .base import FaceMetric, Observations, exact_qualities


@METRICS.register_module()
class VerificationMetric(FaceMetric):
    """TAR at given FAR, AUC and 10-fold accuracy of the data set's pairs (QMUL-SurvFace, LFW).

    The data set gives the pairs in its ``metainfo``: ``pairs``, (P, 2) sample indices, and
    ``same``, (P,). Names: ``tar@far0.1`` and ``threshold@far0.1`` for each target,
    ``verification_auc``, ``verification_accuracy``; for each quality q the model gives
    ``fnmr_discard_auc_q`` and ``fnmr_discard_pauc_q``, areas under the FNMR at ``fmr`` over the
    share of discarded pairs, to 0.95 and to 0.3, lower is better; and for each convention c
    ``fnmr_discard_c_q``, or, where c is a rank correlation, ``c_q``, higher is better.

    Args:
        fars: Target false acceptance rates.
        method: See :func:`verification`.
        folds: Folds of the accuracy.
        fmr: False match rate of the error over discard.
        rethreshold: See :func:`error_versus_discard`.
        conventions: Names of :data:`CONVENTIONS`, by which each quality is also evaluated, or
            ``'all'``.
        insightface: Whether to add ``verification_accuracy_insightface``; see
            :func:`verification_rates`.
        **kwargs: See :class:`FaceMetric`.

    Raises:
        ValueError: The data set has no pairs, or pairs of one kind only.
    """

    default_prefix = 'verification'
    roles = ('pair',)

    def __init__(
        self,
        fars: Sequence[float] = (0.3, 0.1, 0.01, 0.001),
        method: str = 'exact',
        folds: int = 10,
        fmr: float = 1e-3,
        rethreshold: bool = True,
        conventions: str | Sequence[str] = (),
        insightface: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.fars = tuple(fars)
        self.method = method
        self.folds = folds
        self.fmr = fmr
        self.rethreshold = rethreshold
        self.insightface = insightface
        names = find_conventions(conventions)
        self.ranked = tuple(n for n in names if isinstance(CONVENTIONS[n], RankConvention))
        self.areas = tuple(n for n in names if n not in self.ranked)

    def compare(self, faces: FaceTable) -> tuple[np.ndarray, np.ndarray]:
        """Return the score of every pair (P,) and its two people (P, 2)."""
        if faces.pairs is None or not len(faces.pairs):
            raise ValueError(f'{type(self).__name__}: the test set has no pairs')
        first, second = faces.pairs.T
        return pair_scores(faces.unit[first], faces.unit[second]), faces.groups[faces.pairs]

    def observations(self, faces: FaceTable) -> dict[str, Observations]:
        """See :class:`FaceMetric`."""
        score, people = self.compare(faces)
        same = np.asarray(faces.same, bool)

        def all_rates(score: np.ndarray, same: np.ndarray) -> dict[str, float]:
            options = self.fars, self.method, self.folds, self.insightface
            found = verification_rates(score, same, *options)
            for name in ('auc', 'accuracy', 'accuracy_insightface'):
                if name in found:
                    found[f'verification_{name}'] = found.pop(name)
            return found

        # Pairs for which a rate is undefined are refused here; such resamples are left out.
        names = list(all_rates(score, same))

        def rates(kept: np.ndarray) -> dict[str, float]:
            if len(kept) < 3 or len(np.unique(kept[:, 1])) < 2:
                return dict.fromkeys(names, np.nan)
            return all_rates(*kept.T)

        values = np.stack([score, same], axis=1)
        trials = int((~same).sum())
        unmeasurable = {
            f'{name}@far{far:g}': trials
            for far in self.fars
            if not is_measurable(far, trials)
            for name in ('tar', 'threshold')
        }
        parts = {'rates': Observations(values, people, rates, unmeasurable=unmeasurable)}
        return parts | self.judge(faces, score, people, same)

    def judge(
        self, faces: FaceTable, score: np.ndarray, people: np.ndarray, same: np.ndarray
    ) -> dict[str, Observations]:
        """Return how well each quality predicts errors, of pairs and, by ranks, of images."""
        parts: dict[str, Observations] = {}
        for name, quality in exact_qualities(faces).items():

            def areas(kept: np.ndarray, name: str = name) -> dict[str, float]:
                names = [f'fnmr_discard_{area}_{name}' for area in ('auc', 'pauc', *self.areas)]
                if len(np.unique(kept[:, 2])) < 2:
                    return dict.fromkeys(names, np.nan)
                pairs = kept[:, [0, 0, 1, 2]].T
                curve = error_versus_discard(*pairs, self.fmr, self.rethreshold)
                known = curve if self.rethreshold else None
                found = discard_areas(*pairs, self.areas, self.fmr, known)
                return dict(zip(names, (curve['auc'], curve['pauc'], *found.values()), strict=True))

            values = np.stack([quality[faces.pairs].min(axis=1), score, same], axis=1)
            curve = error_versus_discard(*values[:, [0, 0, 1, 2]].T, self.fmr, self.rethreshold)
            unmeasurable = {
                f'fnmr_discard_{area}_{name}': int(curve[f'{area}_trials'])
                for area in ('auc', 'pauc')
                if not is_measurable(self.fmr, curve[f'{area}_trials'])
            }
            parts[f'discard_{name}'] = Observations(
                values, people, areas, unmeasurable=unmeasurable
            )
        if self.ranked:
            images, harm, margin = measure_harm(faces.pairs, score, same, self.fmr)
        for name, quality in exact_qualities(faces).items() if self.ranked else ():

            def correlations(kept: np.ndarray, name: str = name) -> dict[str, float]:
                rules = {key: CONVENTIONS[key] for key in self.ranked}
                return {
                    f'{key}_{name}': rank_consistency(
                        kept[:, 0], kept[:, 1], kept[:, 2] if rule.by_margin else None, rule.alpha
                    )
                    for key, rule in rules.items()
                }

            values = np.stack([quality[images], harm, margin], axis=1)
            parts[f'consistency_{name}'] = Observations(values, faces.groups[images], correlations)
        return parts

    def draw(self, faces: FaceTable) -> dict[str, dict[str, Curve]]:
        """Return the ROC curve."""
        score, people = self.compare(faces)
        curve = roc_curve(score, faces.same, people, self.num_resamples)
        return dict(roc={'pairs': curve})


@METRICS.register_module()
class GalleryVerificationMetric(VerificationMetric):
    """The numbers of :class:`VerificationMetric` for sets of gallery and probes, without pairs.

    Every probe is compared with every gallery image. Most pairs are of two people, so the accuracy
    says little; TAR at FAR and AUC do not depend on the shares.

    Raises:
        ValueError: There are more than 20 million pairs.
    """

    default_prefix = 'verification'
    roles = ('gallery', 'probe')
    most_pairs = 20_000_000

    def select(self, faces: FaceTable) -> FaceTable:
        """Return gallery and probes with all their pairs."""
        faces = super().select(faces)
        probe, gallery = (np.flatnonzero(faces.role == role) for role in ('probe', 'gallery'))
        if len(probe) * len(gallery) > self.most_pairs:
            raise ValueError(
                f'{type(self).__name__}: {len(probe):,} probes and {len(gallery):,} gallery images '
                f'make more than {self.most_pairs:,} pairs; use ClosedSetMetric'
            )
        pairs = np.stack(np.meshgrid(probe, gallery, indexing='ij'), -1).reshape(-1, 2)
        same = faces.identity[pairs[:, 0]] == faces.identity[pairs[:, 1]]
        return replace(faces, pairs=pairs, same=same)
