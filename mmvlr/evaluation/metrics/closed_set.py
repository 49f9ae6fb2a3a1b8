"""Closed-set identification: rank-k, mAP and how well a quality measure foretells errors."""

from collections.abc import Sequence

import numpy as np

from mmvlr.registry import METRICS

from ..functional import closed_set_ranks, cmc, rank1_error_versus_discard, roc_area
from .base import FaceMetric, unit


@METRICS.register_module()
class ClosedSetMetric(FaceMetric):
    """Rank-k and mAP of probes against gallery and distractors; area of error over discard.

    Uses the samples' ``role``: ``gallery`` and ``distractor`` make the gallery, ``probe`` the
    probes; ``ui`` faces, if the data set has any, are told from the probes by each quality.
    Names: ``rank1``, ..., ``mAP``; for each quality q of ``ri``, ``ers``, ``norm`` the model gives
    ``discard_auc_q`` (area under the rank-1 error over the discarded share 0, 0.05, ..., 0.95,
    lower is better) and, with UI faces, ``ui_auc_q`` (probability that a probe's quality is above
    that of a UI face).

    Args:
        ranks: The ranks k.
        prefix: Prefix of the names.
        **kwargs: See :class:`FaceMetric`.

    Example:
        >>> import torch
        >>> from mmvlr.structures import FaceDataSample
        >>> metric = ClosedSetMetric(ranks=(1,), prefix='toy')
        >>> faces = [('gallery', 0, [1., 0.]), ('gallery', 1, [0., 1.]), ('probe', 1, [.1, .9])]
        >>> for index, (role, identity, embedding) in enumerate(faces):
        ...     sample = FaceDataSample(
        ...         metainfo=dict(sample_idx=index, role=role, identity=identity))
        ...     sample.embedding = torch.tensor(embedding)
        ...     metric.process(None, [sample.to_dict()])
        >>> metric.evaluate(3)
        {'toy/rank1': 1.0, 'toy/mAP': 1.0}

        In a config::

            test_evaluator = dict(type='ClosedSetMetric', ranks=(1, 5), prefix='mine')
    """

    default_prefix = 'closed_set'

    def __init__(self, ranks: Sequence[int] = (1, 5, 10, 20), **kwargs):
        super().__init__(**kwargs)
        self.ranks = tuple(ranks)

    def compute(
        self, role: np.ndarray, identity: np.ndarray, embedding: np.ndarray, **qualities: np.ndarray
    ) -> dict[str, float]:
        """See :class:`FaceMetric`."""
        gallery = np.isin(role, ('gallery', 'distractor'))
        probe = role == 'probe'
        embeddings = unit(embedding)
        found = closed_set_ranks(
            embeddings[gallery], identity[gallery], embeddings[probe], identity[probe]
        )
        curve = cmc(found.rank, max(self.ranks))
        result = {f'rank{k}': float(curve[k - 1]) for k in self.ranks}
        result['mAP'] = float(found.average_precision.mean())
        ui = role == 'ui'
        for name, quality in qualities.items():
            discard = rank1_error_versus_discard(quality[probe], found.rank == 1)
            result[f'discard_auc_{name}'] = float(discard['auc'])
            if ui.any():
                result[f'ui_auc_{name}'] = roc_area(quality[probe], quality[ui])
        return result


@METRICS.register_module()
class TinyFaceMetric(ClosedSetMetric):
    """TinyFace's metric: rank-1/5/10/20 and mAP under the prefix ``tinyface``.

    Flip fusion is the model's (``model.flip_fusion``), as it needs a second forward pass.
    """

    default_prefix = 'tinyface'
