"""The hook that fits the read-out of the recognizability index in closed form."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

from mmvlr.datasets.base import set_epoch
from mmvlr.models.losses import Proximities
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
        alphas: Sequence[float] = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000),
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
        clean = F.normalize(passes[0]['backbone_embedding'].double(), dim=1)
        labels = torch.stack([sample.gt_label for sample in passes[0]['samples']]).view(-1)
        has_others = torch.bincount(labels)[labels] > 1
        inputs, targets, groups = [], [], []
        for result in passes:
            unit = F.normalize(result['backbone_embedding'].double(), dim=1)
            distances = leave_one_out_proximities(unit, clean, labels, model.ui_center.cpu())
            target = model.recognizability(Proximities(*(d[has_others] for d in distances)))
            inputs.append(result['regression_input'].double()[has_others])
            targets.append(target)
            groups.append(labels[has_others])
        x, y = torch.cat(inputs).numpy(), torch.cat(targets).numpy()
        shift, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
        people = torch.cat(groups).numpy()
        num_people = len(np.unique(people))
        require_two_people(num_people)
        folds = GroupKFold(min(5, num_people))
        standard = (x - shift) / scale
        ridge = RidgeCV(list(self.alphas), cv=list(folds.split(standard, y, people)))
        ridge.fit(standard, y)
        values = np.concatenate([shift, scale, ridge.coef_, [ridge.intercept_]])
        value = torch.from_numpy(values).to(model.ui_center.device, torch.float32)
        broadcast(value)
        model.regression.set_read_out(*value.split([len(shift)] * 3 + [1]))
        explained = ridge.score(standard, y)
        print_log(
            f'read-out of the recognizability index fitted to {len(y):,} faces of '
            f'{num_people:,} people: ridge {ridge.alpha_:g}, R^2 {explained:.3f}; '
            f'{int((~has_others).sum())} faces of people with one image left out',
            logger='current',
        )

    @staticmethod
    def _extract(runner: Runner, model, config: dict | str, epoch: int, what: str) -> dict:
        loader = build_loader(runner.cfg, config, runner.seed)
        set_epoch(loader.dataset, epoch)
        return extract_predictions(model, loader, model.regression_predictions, what=what)


def require_two_people(count: int) -> None:
    """Raise an error if ``count``, the people with two or more images, is too small for a fit."""
    if count < 2:
        raise ValueError(
            f'RegressionFitHook: {count} people have two or more images; a face can only be '
            'measured against other images of its person. Add images, or remove the hook from '
            'custom_hooks'
        )


def leave_one_out_proximities(
    unit: torch.Tensor, clean: torch.Tensor, labels: torch.Tensor, ui_center: torch.Tensor
) -> Proximities:
    """Return proximities with class means as prototypes, the face's own image left out.

    Args:
        unit: (N, D) unit embeddings of the faces, or of degraded copies of them.
        clean: (N, D) unit embeddings of the undegraded images, from which the means are computed.
        labels: (N,) int64.
        ui_center: (D,) unit vector.

    Returns:
        d^P, d^N and d^UI, (N,) each. d^P of the only image of a person is 1: the mean of its
        other images is a zero vector.
    """
    sums = torch.zeros(int(labels.max()) + 1, unit.shape[1], dtype=unit.dtype)
    sums.index_add_(0, labels, clean)
    own = (unit * F.normalize(sums[labels] - clean, dim=1)).sum(1)
    cosines = unit @ F.normalize(sums, dim=1).T
    nearest = cosines.scatter(1, labels.view(-1, 1), -torch.inf).amax(1)
    return Proximities(1 - own, 1 - nearest, 1 - unit @ ui_center.to(unit))
