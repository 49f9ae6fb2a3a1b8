"""Open-set identification: TPIR at FPIR."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmvlr.registry import METRICS, TEMPLATES
from mmvlr.structures.face_table import FaceTable

from ..functional import (
    Curve,
    OpenSetScores,
    SearchResult,
    cmc_curve,
    is_measurable,
    open_set_curve,
    open_set_rates,
    open_set_scores,
)
from ..functional.averaging import PROTOCOLS
from ..functional.curves import split_kinds, stack_kinds
from ..templates import template_config
from .base import Observations
from .closed_set import MAX_RANK, NUM_MATCHES, ClosedSetMetric, means


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
        rank: The probe's own template must be among the first ``rank``.
        template: ``'mean_unit'``, ``'mean_raw'`` or ``'none'``, see
            :func:`open_set_identification`; or a rule of galleries by its short name, such as
            ``'ri'``, or a config of one of ``TEMPLATES``.
        threshold_rule: See there.
        **kwargs: See :class:`FaceMetric`.
    """

    default_prefix = 'open_set'
    roles = ('gallery', 'distractor', 'probe', 'unmated')

    def __init__(
        self,
        fpirs: Sequence[float] = (0.3, 0.2, 0.1, 0.01),
        rank: int = 20,
        template: str | Mapping[str, Any] = 'mean_unit',
        threshold_rule: str = 'exact',
        **kwargs,
    ):
        super().__init__(ranks=(1, rank) if rank > 1 else (1,), **kwargs)
        self.fpirs = tuple(fpirs)
        self.rank = rank
        self.template = (
            template if template in PROTOCOLS else TEMPLATES.build(template_config(template))
        )
        self.threshold_rule = threshold_rule

    def open_search(self, faces: FaceTable) -> OpenSetScores:
        """Search mated and unmated probes, once per table; all metrics use the result."""
        if faces not in self._found:
            gallery, mated, unmated = self._parts(faces, 'unmated')
            # A mean of raw embeddings needs their lengths.
            raw = self.template == 'mean_raw'
            rows = [
                part.embedding.astype(np.float32) if raw else part.unit
                for part in (gallery, mated, unmated)
            ]
            self._found[faces] = open_set_scores(
                rows[0],
                gallery.identity,
                rows[1],
                mated.identity,
                rows[2],
                rank=self.rank,
                template=self.template,
                qualities=gallery.columns,
                top_k=NUM_MATCHES,
            )
        return self._found[faces]

    def search(self, faces: FaceTable) -> SearchResult:
        """Return the search result of the mated probes."""
        return self.open_search(faces).found

    def observations(self, faces: FaceTable) -> dict[str, Observations]:
        """See :class:`FaceMetric`."""
        scores = self.open_search(faces)
        mated, unmated = faces.only('probe'), faces.only('unmated')
        values, kind = stack_kinds(scores.mated_score, scores.unmated_score)

        def rates(kept: np.ndarray) -> dict[str, float]:
            found = open_set_rates(*split_kinds(kept), self.fpirs, self.threshold_rule)
            found = {name.replace('tpir@', f'tpir{self.rank}@'): v for name, v in found.items()}
            found[f'tpir{self.rank}_auc'] = found.pop('auc')
            return found

        groups = np.concatenate([mated.groups, unmated.groups])
        unmeasurable = {
            f'{name}@fpir{fpir:g}': len(unmated)
            for fpir in self.fpirs
            if not is_measurable(fpir, len(unmated))
            for name in (f'tpir{self.rank}', 'threshold')
        }
        within = np.stack([scores.rank <= k for k in self.ranks], axis=1)
        names = [f'rank{k}' for k in self.ranks]
        return {
            'rates': Observations(values, groups, rates, kind, unmeasurable),
            'ranks': Observations(within, mated.groups, lambda kept: means(names, kept)),
        } | self.judge(scores.rank == 1, mated, faces)

    def draw(self, faces: FaceTable) -> dict[str, dict[str, Curve]]:
        """Return CMC and TPIR over FPIR, and error over discard of the mated probes."""
        scores = self.open_search(faces)
        mated, unmated = faces.only('probe'), faces.only('unmated')
        curve = open_set_curve(scores, mated.groups, unmated.groups, self.num_resamples)
        last = min(MAX_RANK, len(np.unique(faces.only('gallery').identity)))
        return dict(
            cmc={'templates': cmc_curve(scores.rank, last, mated.groups, self.num_resamples)},
            open_set={f'rank {self.rank}': curve},
            discard=self.draw_discard(scores.rank == 1, mated),
        )
