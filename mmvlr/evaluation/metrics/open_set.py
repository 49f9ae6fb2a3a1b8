"""Open-set identification: TPIR at FPIR."""

from collections.abc import Sequence

import numpy as np

from mmvlr.registry import METRICS
from mmvlr.structures.face_table import FaceTable

from ..functional import (
    Curve,
    OpenSetScores,
    cmc_curve,
    open_set_curve,
    open_set_rates,
    open_set_scores,
)
from ..functional.curves import split_kinds, stack_kinds
from .base import Observations
from .closed_set import MAX_RANK, ClosedSetMetric, means


@METRICS.register_module()
class OpenSetMetric(ClosedSetMetric):
    """TPIR at given FPIR of mated and unmated probes against templates (QMUL-SurvFace).

    Uses the samples' ``role``: ``gallery``, ``probe`` (mated) and ``unmated``. Names, with rank 20:
    ``tpir20@fpir0.1`` and ``threshold@fpir0.1`` for each target, ``tpir20_auc``, the area under
    TPIR over FPIR; ``rank1`` and ``rank20``, the shares of mated probes whose own template is
    within that rank, whatever its score; and, as :class:`ClosedSetMetric`, ``discard_auc_q``, of
    the rank-1 error of the mated probes.

    Args:
        fpirs: Target false positive identification rates.
        rank: The own template must be among the first ``rank``.
        template: See :func:`open_set_identification`.
        threshold_rule: See there.
        **kwargs: See :class:`FaceMetric`.
    """

    default_prefix = 'open_set'
    roles = ('gallery', 'distractor', 'probe', 'unmated')

    def __init__(
        self,
        fpirs: Sequence[float] = (0.3, 0.2, 0.1, 0.01),
        rank: int = 20,
        template: str = 'mean_unit',
        threshold_rule: str = 'exact',
        **kwargs,
    ):
        super().__init__(ranks=(1, rank) if rank > 1 else (1,), **kwargs)
        self.fpirs = tuple(fpirs)
        self.rank = rank
        self.template = template
        self.threshold_rule = threshold_rule

    def open_search(self, faces: FaceTable) -> tuple[OpenSetScores, FaceTable, FaceTable]:
        """Search all probes; return their scores, the mated and the unmated faces."""
        for role in ('gallery', 'probe', 'unmated'):
            if not faces.has(role):
                raise ValueError(f'{type(self).__name__}: the test set has no face of role {role}')
        gallery = np.isin(faces.role, ('gallery', 'distractor'))
        # A mean of raw embeddings needs their lengths.
        raw = self.template == 'mean_raw'
        embedding = faces.embedding.astype(np.float32) if raw else faces.unit
        scores = open_set_scores(
            embedding[gallery],
            faces.identity[gallery],
            embedding[faces.role == 'probe'],
            faces.identity[faces.role == 'probe'],
            embedding[faces.role == 'unmated'],
            rank=self.rank,
            template=self.template,
        )
        return scores, faces.only('probe'), faces.only('unmated')

    def found_first(self, faces: FaceTable) -> np.ndarray:
        """Say of every mated probe whether its own template is first, bool (M,)."""
        return self.open_search(faces)[0].rank == 1

    def observations(self, faces: FaceTable) -> dict[str, Observations]:
        """See :class:`FaceMetric`."""
        scores, mated, unmated = self.open_search(faces)
        values, kind = stack_kinds(scores.mated_score, scores.unmated_score)

        def rates(kept: np.ndarray) -> dict[str, float]:
            found = open_set_rates(*split_kinds(kept), self.fpirs, self.threshold_rule)
            found = {name.replace('tpir@', f'tpir{self.rank}@'): v for name, v in found.items()}
            found[f'tpir{self.rank}_auc'] = found.pop('auc')
            return found

        groups = np.concatenate([mated.groups, unmated.groups])
        within = np.stack([scores.rank <= k for k in self.ranks], axis=1)
        names = [f'rank{k}' for k in self.ranks]
        return {
            'rates': Observations(values, groups, rates, strata=kind),
            'ranks': Observations(within, mated.groups, lambda kept: means(names, kept)),
        } | self.judge(scores.rank == 1, mated, faces)

    def draw(self, faces: FaceTable) -> dict[str, dict[str, Curve]]:
        """Return CMC and TPIR over FPIR, and error over discard of the mated probes."""
        scores, mated, unmated = self.open_search(faces)
        curve = open_set_curve(scores, mated.groups, unmated.groups, self.num_resamples)
        last = min(MAX_RANK, len(np.unique(faces.only('gallery').identity)))
        return dict(
            cmc={'templates': cmc_curve(scores.rank, last, mated.groups, self.num_resamples)},
            open_set={f'rank {self.rank}': curve},
            discard=self.draw_discard(scores.rank == 1, mated),
        )
