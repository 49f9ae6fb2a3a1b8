"""Loops of validation and test, which score faces into one table for all metrics."""

from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import TestLoop, ValLoop
from mmengine.runner.amp import autocast

from mmvlr.evaluation.metrics import FaceMetric
from mmvlr.evaluation.tables import evaluate_faces, tell_unmeasurable
from mmvlr.registry import LOOPS
from mmvlr.structures import FaceTable

from .extraction import unwrap
from .scoring import Scorer


class _FaceLoop:
    """Common part of the two loops; mmengine's loop, the other base class, builds the metrics.

    Attributes:
        faces: The table of the last run.
    """

    _stage: str
    faces: FaceTable | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for metric in self.evaluator.metrics:
            if not isinstance(metric, FaceMetric):
                raise TypeError(
                    f'{type(metric).__name__} is no FaceMetric: a metric of faces computes on a '
                    'FaceTable, see mmvlr.evaluation.metrics.FaceMetric'
                )

    def run(self) -> dict[str, float]:
        """Score the faces and evaluate them; return the metrics, the same on all ranks."""
        runner, stage, dataset = self.runner, self._stage, self.dataloader.dataset
        runner.call_hook(f'before_{stage}')
        runner.call_hook(f'before_{stage}_epoch')
        runner.model.eval()
        scorer = Scorer(unwrap(runner.model))
        for index, batch in enumerate(self.dataloader):
            known = dict(batch_idx=index, data_batch=batch)
            runner.call_hook(f'before_{stage}_iter', **known)
            with autocast(enabled=self.fp16):
                scorer.add(batch, dataset)
            runner.call_hook(f'after_{stage}_iter', outputs=batch['data_samples'], **known)
        self.faces = scorer.table(dataset)
        metrics: list[dict[str, float] | None] = [None]
        if is_main_process():
            metrics = [evaluate_faces(self.faces, self.evaluator.metrics)]
            tell_unmeasurable(self.evaluator.metrics)
        broadcast_object_list(metrics)
        runner.call_hook(f'after_{stage}_epoch', metrics=metrics[0])
        runner.call_hook(f'after_{stage}')
        return metrics[0]


@LOOPS.register_module()
class FaceValLoop(_FaceLoop, ValLoop):
    """Validation; see :class:`mmengine.runner.ValLoop` for its arguments."""

    _stage = 'val'


@LOOPS.register_module()
class FaceTestLoop(_FaceLoop, TestLoop):
    """Test; see :class:`mmengine.runner.TestLoop` for its arguments."""

    _stage = 'test'
