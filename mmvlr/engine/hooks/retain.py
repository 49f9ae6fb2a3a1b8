"""The hook that measures what fine-tuning forgets."""

import math
from collections.abc import Mapping, Sequence

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmvlr.evaluation.metrics import FaceMetric
from mmvlr.evaluation.tables import build_metrics, evaluate_faces
from mmvlr.registry import HOOKS

from ..extraction import build_loader, unwrap

#: Name of the number that :class:`RetainHook` makes of gain and loss.
BOTH = 'both'


@HOOKS.register_module()
class RetainHook(Hook):
    """Evaluate a second test set beside every validation, and once before the training.

    Its metrics, ``retain/rank1`` and so on, join those of the validation: they are logged with
    them, and ``save_best`` and ``EarlyStoppingHook`` can name them. The values of both sets before
    the training are logged as those of step 0.

    ``mmvlr train`` adds this hook to a config with the entries ``retain_dataloader``,
    ``retain_evaluator`` and, for ``combine``, ``retain_combine``.

    Args:
        dataloader: Config of the loader of the test set, or the name of that entry of the config.
        evaluator: Config of one or several metrics.
        combine: Names of metrics of both sets, the geometric mean of which becomes ``both``. With
            ``save_best='both'`` the best checkpoint is a compromise of gain and loss.

    Raises:
        ValueError: A metric has the name of one of the validation, or ``combine`` names none.
    """

    # The metrics must be complete when other hooks see them.
    priority = 'HIGHEST'

    def __init__(
        self,
        dataloader: Mapping | str = 'retain_dataloader',
        evaluator: Mapping | Sequence[Mapping] = (),
        combine: Sequence[str] = (),
    ):
        self.dataloader_cfg = dataloader
        self.dataloader = None
        evaluators = [evaluator] if isinstance(evaluator, Mapping) else list(evaluator)
        self.metrics = build_metrics([dict(prefix='retain') | dict(one) for one in evaluators])
        self.combine = tuple(combine)

    def before_train(self, runner: Runner) -> None:
        """Measure the network that the training starts from."""
        if runner.iter == 0:
            metrics = runner.val_loop.evaluator.metrics
            found = self._evaluate(runner, runner.val_dataloader, metrics) | self.measure(runner)
            runner.visualizer.add_scalars(found, step=0)
            shown = ', '.join(f'{name} {value:.4f}' for name, value in found.items())
            runner.logger.info(f'before the training: {shown}')

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the metrics to those of the validation."""
        found = self.measure(runner)
        both = sorted(metrics.keys() & found.keys())
        if both:
            raise ValueError(
                f'retain_evaluator and val_evaluator both give {both[0]}: set another prefix'
            )
        metrics.update(found)
        if self.combine:
            missing = [name for name in self.combine if name not in metrics]
            if missing:
                raise ValueError(
                    f'retain_combine names {missing[0]!r}; there are {", ".join(sorted(metrics))}'
                )
            values = [max(metrics[name], 0.0) for name in self.combine]
            metrics[BOTH] = math.prod(values) ** (1 / len(values))

    def measure(self, runner: Runner) -> dict[str, float]:
        """Return the metrics of the current weights, the same on all ranks."""
        if self.dataloader is None:
            self.dataloader = build_loader(runner.cfg, self.dataloader_cfg, runner.seed)
        return self._evaluate(runner, self.dataloader, self.metrics)

    @staticmethod
    def _evaluate(
        runner: Runner, loader: DataLoader, metrics: Sequence[FaceMetric]
    ) -> dict[str, float]:
        # Late: building names hooks, and scoring builds.
        from ..scoring import score_loader

        faces = score_loader(unwrap(runner.model), loader)
        found: list[dict[str, float] | None] = [None]
        if is_main_process():
            found = [evaluate_faces(faces, metrics)]
        broadcast_object_list(found)
        return found[0]
