"""Verification of pairs: TAR at FAR, AUC, accuracy, and error over discard."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmvlr.registry import METRICS
from mmvlr.structures.face_table import FaceTable

from ..functional import (
    Curve,
    error_versus_discard,
    is_measurable,
    pair_scores,
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
    share of discarded pairs, to 0.95 and to 0.3, lower is better.

    Args:
        fars: Target false acceptance rates.
        method: See :func:`verification`.
        folds: Folds of the accuracy.
        fmr: False match rate of the error over discard.
        rethreshold: See :func:`error_versus_discard`.
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
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.fars = tuple(fars)
        self.method = method
        self.folds = folds
        self.fmr = fmr
        self.rethreshold = rethreshold

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
            found = verification_rates(score, same, self.fars, self.method, self.folds)
            for name in ('auc', 'accuracy'):
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
        for name, quality in exact_qualities(faces).items():
            pair_quality = quality[faces.pairs].min(axis=1)

            def areas(kept: np.ndarray, name: str = name) -> dict[str, float]:
                if len(np.unique(kept[:, 2])) < 2:
                    return {f'fnmr_discard_{area}_{name}': np.nan for area in ('auc', 'pauc')}
                curve = error_versus_discard(*kept[:, [0, 0, 1, 2]].T, self.fmr, self.rethreshold)
                return {f'fnmr_discard_{area}_{name}': curve[area] for area in ('auc', 'pauc')}

            values = np.stack([pair_quality, score, same], axis=1)
            curve = error_versus_discard(*values[:, [0, 0, 1, 2]].T, self.fmr, self.rethreshold)
            unmeasurable = {
                f'fnmr_discard_{area}_{name}': int(curve[f'{area}_trials'])
                for area in ('auc', 'pauc')
                if not is_measurable(self.fmr, curve[f'{area}_trials'])
            }
            parts[f'discard_{name}'] = Observations(
                values, people, areas, unmeasurable=unmeasurable
            )
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
