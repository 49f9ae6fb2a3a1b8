"""What every face metric shares: collecting predictions, over any number of ranks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.evaluator import BaseMetric

#: Name of a quality measure in results -> attribute of the data sample; higher is better.
QUALITIES = dict(ri='recognizability', ers='ers', norm='embedding_norm')


class FaceMetric(BaseMetric):
    """Base of the face metrics.

    A subclass implements :meth:`compute` on arrays. Results of several ranks are merged by
    ``sample_idx``: mmengine's own way, cutting the list to the data set's size, is right only for
    samplers that pad at the end.

    Args:
        prefix: Prefix of the metrics' names; ``default_prefix`` if not given.
        **kwargs: See :class:`mmengine.evaluator.BaseMetric`.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep what the metric needs of each face."""
        for sample in data_samples:
            kept = dict(
                sample_idx=int(sample['sample_idx']),
                role=sample['role'],
                identity=int(sample['identity']),
                embedding=sample['embedding'].float().cpu().numpy(),
            )
            for name, attribute in QUALITIES.items():
                if attribute in sample:
                    kept[name] = float(sample[attribute])
            self.results.append(kept)

    def evaluate(self, size: int) -> dict[str, float]:
        """Merge the ranks, compute on the main one and return the same on all."""
        merged: dict[int, dict] = {}
        for part in all_gather_object(self.results):
            merged.update((result['sample_idx'], result) for result in part)
        self.results.clear()
        if len(merged) != size:
            raise ValueError(
                f'{type(self).__name__}: {len(merged)} of {size} pictures were predicted'
            )
        metrics: list[dict | None] = [None]
        if is_main_process():
            computed = self.compute_metrics([merged[index] for index in sorted(merged)])
            prefix = f'{self.prefix}/' if self.prefix else ''
            metrics = [{f'{prefix}{name}': value for name, value in computed.items()}]
        broadcast_object_list(metrics)
        return metrics[0]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Stack the results into arrays and compute."""
        arrays = dict(
            role=np.array([result['role'] for result in results]),
            identity=np.array([result['identity'] for result in results]),
            embedding=np.stack([result['embedding'] for result in results]),
        )
        for name in QUALITIES:
            if all(name in result for result in results):
                arrays[name] = np.array([result[name] for result in results])
        return self.compute(**arrays)

    def compute(
        self, role: np.ndarray, identity: np.ndarray, embedding: np.ndarray, **qualities: np.ndarray
    ) -> dict[str, float]:
        """Compute the metrics.

        Args:
            role: (N,) strings.
            identity: (N,) integers.
            embedding: (N, D) float32, raw.
            **qualities: ``ri``, ``ers``, ``norm``, (N,) each, where the model gives them.
        """
        raise NotImplementedError


def unit(embedding: np.ndarray) -> torch.Tensor:
    """Return embeddings (N, D) as unit vectors."""
    return torch.nn.functional.normalize(torch.from_numpy(embedding), dim=1)
