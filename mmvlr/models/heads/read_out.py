"""Fit a linear read-out of a network's features to targets that leave the face itself out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold

from ..losses import Proximities

#: Strengths of the ridge to choose from.
ALPHAS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10000)


class FittedReadOut(NamedTuple):
    """Result of :func:`fit_read_out`.

    Attributes:
        values: Shift (F,), scale (F,), weight (F,) and bias (1,), the arguments of
            :meth:`PerceptibilityRegression.set_read_out`.
        summary: What was fitted, in words.
    """

    values: tuple[torch.Tensor, ...]
    summary: str


def fit_read_out(
    passes: Sequence[Mapping[str, Any]],
    target: Callable[[Proximities], torch.Tensor],
    ui_center: torch.Tensor,
    alphas: Sequence[float] = ALPHAS,
) -> FittedReadOut:
    """Fit a read-out by ridge regression, its strength chosen by cross-validation over people.

    Args:
        passes: The same N training faces, undegraded first, then degraded copies of them: each with
            ``samples`` (N, with ``gt_label``), ``backbone_embedding`` (N, D) and
            ``regression_input`` (N, F).
        target: Maps proximities to the value to predict. They are measured against class means
            without the face itself; see :func:`leave_one_out_proximities`.
        ui_center: (D,) unit center of the unrecognizable identities, or zeros.
        alphas: Strengths of the ridge to choose from.

    Raises:
        ValueError: Fewer than two people have two images.
    """
    clean = F.normalize(passes[0]['backbone_embedding'].double(), dim=1)
    labels = torch.stack([sample.gt_label for sample in passes[0]['samples']]).view(-1)
    has_others = torch.bincount(labels)[labels] > 1
    num_people = len(labels[has_others].unique())
    require_two_people(num_people)
    inputs, targets = [], []
    for result in passes:
        unit = F.normalize(result['backbone_embedding'].double(), dim=1)
        distances = leave_one_out_proximities(unit, clean, labels, ui_center.cpu())
        targets.append(target(Proximities(*(d[has_others] for d in distances))))
        inputs.append(result['regression_input'].double()[has_others])
    x, y = torch.cat(inputs).numpy(), torch.cat(targets).numpy()
    people = labels[has_others].repeat(len(passes)).numpy()
    shift, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    standard = (x - shift) / scale
    folds = GroupKFold(min(5, num_people)).split(standard, y, people)
    ridge = RidgeCV(list(alphas), cv=list(folds)).fit(standard, y)
    values = (shift, scale, ridge.coef_, np.array([ridge.intercept_]))
    summary = (
        f'fitted to {len(y):,} faces of {num_people:,} people: ridge {ridge.alpha_:g}, '
        f'R^2 {ridge.score(standard, y):.3f}; '
        f'{int((~has_others).sum())} faces of people with one image left out'
    )
    return FittedReadOut(tuple(torch.from_numpy(value).float() for value in values), summary)


def require_two_people(count: int) -> None:
    """Raise an error if ``count``, the people with two or more images, is too small for a fit."""
    if count < 2:
        raise ValueError(
            f'{count} people have two or more images; a face can only be measured against other '
            'images of its person. Add images, or remove what is fitted (RegressionFitHook from '
            'custom_hooks, CCS and CCAS from quality_measures)'
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
