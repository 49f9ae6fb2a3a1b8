"""The hook that fits the read-out of the recognizability index in closed form."""

from collections import Counter
from collections.abc import Sequence

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmvlr.datasets.base import set_epoch
from mmvlr.models.heads.read_out import ALPHAS, fit_read_out, require_two_people
from mmvlr.registry import HOOKS

from ..extraction import build_loader, extract_predictions, unwrap
from .resume import is_finished, save_again


@HOOKS.register_module()
class RegressionFitHook(Hook):
    """Fit PRM's linear read-out by ridge regression at chosen epochs.

    With a dropout of 0.9 and a learning rate of 1e-4 the read-out hardly changes in a short
    fine-tuning, and it learns how well the network *memorizes* a training face, as the face itself
    is part of its prototype. Here the target of a face is the index measured against class means
    **without that face**, and degraded copies of every face, which are not used in training, are
    included. The strength of the ridge is chosen by cross-validation over people.

    Runs in ``before_train_epoch`` of chosen epochs, and once when the training has ended: after
    the last checkpoint, which is then written again, and before the last validation. In the config
    it comes after :class:`UICenterHook`, whose center the targets need.

    Args:
        dataloader: Config of a loader over the training set without augmentation, or the name of
            that entry of the config.
        degraded_dataloader: Config of a loader over the same images with ``DegradeFace``, or
            its name.
        copies: Degraded copies of every image.
        before_epochs: Epochs before which the read-out is fitted.
        after_last: Whether to fit when the training has ended.
        alphas: Strengths of the ridge to choose from.

    Raises:
        ValueError: PRM is not linear, fewer than two people have two images, or the two loaders are
            not of the same images. Raised before the first step.
    """

    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        dataloader: dict | str,
        degraded_dataloader: dict | str,
        copies: int = 3,
        before_epochs: Sequence[int] = (),
        after_last: bool = True,
        alphas: Sequence[float] = ALPHAS,
    ):
        self.dataloader_cfg = dataloader
        self.degraded_cfg = degraded_dataloader
        self.copies = copies
        self.before_epochs = tuple(before_epochs)
        self.after_last = after_last
        self.alphas = tuple(alphas)
        self.is_due = False

    def before_train(self, runner: Runner) -> None:
        """Check before the training that the fit will be possible."""
        if not self.after_last and not self.before_epochs:
            return
        self.is_due = self.after_last
        if not unwrap(runner.model).regression.is_linear:
            raise ValueError('RegressionFitHook needs a linear PRM (regression.hidden=())')
        clean, degraded = (
            build_loader(runner.cfg, config, runner.seed).dataset
            for config in (self.dataloader_cfg, self.degraded_cfg)
        )
        if len(clean) != len(degraded):
            raise ValueError(
                f'RegressionFitHook: {len(clean)} images in dataloader and {len(degraded)} in '
                'degraded_dataloader; they must be the same ones'
            )
        images = Counter(clean.get_data_info(index)['gt_label'] for index in range(len(clean)))
        require_two_people(sum(count > 1 for count in images.values()))

    def before_train_epoch(self, runner: Runner) -> None:
        """Fit before a chosen epoch."""
        if runner.epoch in self.before_epochs:
            self.fit(runner)

    def before_val(self, runner: Runner) -> None:
        """Fit before the last validation."""
        if self.is_due and is_finished(runner):
            self._finish(runner)

    def after_train(self, runner: Runner) -> None:
        """Fit if the training ended without a validation, or early."""
        if self.is_due:
            self._finish(runner)

    def _finish(self, runner: Runner) -> None:
        self.is_due = False
        self.fit(runner)
        save_again(runner)

    def fit(self, runner: Runner) -> None:
        """Measure targets with the current weights and set the read-out."""
        model = unwrap(runner.model)
        loaders = [self.dataloader_cfg] + [self.degraded_cfg] * self.copies
        passes = []
        for number, loader in enumerate(loaders, 1):
            what = f'fitting the read-out of RI, pass {number} of {len(loaders)}'
            # Another "epoch" is another draw of the degradation.
            passes.append(self._extract(runner, model, loader, max(number - 2, 0), what))
        values, summary = fit_read_out(passes, model.recognizability, model.ui_center, self.alphas)
        value = torch.cat(values).to(model.ui_center.device)
        broadcast(value)
        model.regression.set_read_out(*value.split([len(part) for part in values]))
        print_log(f'read-out of the recognizability index {summary}', logger='current')

    @staticmethod
    def _extract(runner: Runner, model, config: dict | str, epoch: int, what: str) -> dict:
        loader = build_loader(runner.cfg, config, runner.seed)
        set_epoch(loader.dataset, epoch)
        return extract_predictions(model, loader, model.regression_predictions, what=what)
