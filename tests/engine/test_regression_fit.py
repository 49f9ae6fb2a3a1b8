"""The closed-form read-out against loops and normal equations."""

import math

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from torch.nn import functional as F

from mmvlr.datasets import set_epoch
from mmvlr.engine import RegressionFitHook
from mmvlr.models.heads.read_out import leave_one_out_proximities


def unit_list(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length if length else 0.0 for x in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_leave_one_out_proximities():
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 2])
    clean = F.normalize(torch.randn(7, 4, dtype=torch.float64), dim=1)
    copies = F.normalize(clean + 0.3 * torch.randn(7, 4, dtype=torch.float64), dim=1)
    center = F.normalize(torch.randn(4), dim=0)
    found = leave_one_out_proximities(copies, clean, labels, center)
    for i in range(7):

        def mean_of(label, without=None):
            members = [j for j in range(7) if labels[j] == label and j != without]
            return unit_list([sum(clean[j][d].item() for j in members) for d in range(4)])

        v = copies[i].tolist()
        own = dot(v, mean_of(labels[i], without=i))
        others = [dot(v, mean_of(label)) for label in range(3) if label != labels[i]]
        assert found.d_p[i].item() == pytest.approx(1 - own, abs=1e-9)
        assert found.d_n[i].item() == pytest.approx(1 - max(others), abs=1e-9)
        assert found.d_ui[i].item() == pytest.approx(1 - dot(v, center.tolist()), abs=1e-6)


def test_only_image_of_a_person():
    clean = F.normalize(torch.randn(3, 4, dtype=torch.float64), dim=1)
    found = leave_one_out_proximities(clean, clean, torch.tensor([0, 1, 1]), torch.zeros(4))
    assert found.d_p[0] == 1


@pytest.fixture
def fitted(make_model, make_loader, make_runner):
    """A model whose read-out was fitted, and the two data sets it was fitted to."""
    loader = make_loader(num_people=6, images_per_person=3)
    degraded = make_loader(num_people=6, images_per_person=3)
    pipeline = degraded['dataset']['pipeline']
    degraded['dataset']['pipeline'] = [pipeline[0], dict(type='DegradeFace'), *pipeline[1:]]
    model = make_model(head=dict(type='RecognitionModule', num_classes=6))
    model.set_ui_center(torch.randn(16))
    hook = RegressionFitHook(loader, degraded, copies=2, before_epochs=(1,), alphas=(30.0,))
    return model, hook, make_runner(model), loader, degraded


def test_read_out_is_ridge_regression(fitted):
    model, hook, runner, loader, degraded = fitted
    hook.fit(runner)
    model.eval()
    rows, targets = [], []
    clean = None
    for copy in (None, 0, 1):
        dataset = Runner.build_dataloader(loader if copy is None else degraded).dataset
        set_epoch(dataset, copy or 0)
        faces = [dataset[index] for index in range(18)]
        with torch.no_grad():
            inputs = model.data_preprocessor(dict(inputs=[f['inputs'] for f in faces]))['inputs']
            feature_map, v = model(inputs)
            x = model.regression.inputs(feature_map, v).double()
        unit = F.normalize(v.double(), dim=1)
        clean = unit if clean is None else clean
        labels = torch.arange(18) // 3
        d = leave_one_out_proximities(unit, clean, labels, model.ui_center)
        rows.append(x)
        targets.append(d.d_ui * d.d_n / (d.d_p + 1e-3))
    x, y = torch.cat(rows).numpy(), torch.cat(targets).numpy()
    assert len(y) == 18 * 3
    mean, deviation = x.mean(0), x.std(0)
    z = (x - mean) / deviation
    weight = np.linalg.solve(z.T @ z + 30 * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    expected = z @ weight + y.mean()
    with torch.no_grad():
        found = (torch.from_numpy(x).float() - model.regression.shift) / model.regression.scale
        found = model.regression.layers(found).squeeze(1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-4)
    assert np.corrcoef(found.numpy(), y)[0, 1] > 0.3


def test_when_it_fits(fitted, monkeypatch):
    """Before chosen epochs; and once at the end, behind the last checkpoint, written again."""
    _, hook, runner, *_ = fitted
    calls = []
    hook.fit = lambda runner: calls.append(('fit', runner.epoch))
    monkeypatch.setattr(
        'mmvlr.engine.hooks.regression_fit.save_again', lambda r: calls.append(('save', r.epoch))
    )
    runner.train_loop = runner
    runner.max_epochs = 3
    hook.before_train(runner)
    for _ in range(3):
        hook.before_train_epoch(runner)
        hook.after_train_epoch(runner)
        runner.epoch += 1
        hook.before_val(runner)
    hook.after_train(runner)
    assert calls == [('fit', 1), ('fit', 3), ('save', 3)]
    # Without a validation, and of a training that was resumed behind its end.
    calls.clear()
    hook.before_train(runner)
    hook.after_train(runner)
    assert calls == [('fit', 3), ('save', 3)]


def test_what_cannot_be_fitted_is_told_before_training(make_model, make_loader, make_runner):
    model = make_model(head=dict(type='RecognitionModule', num_classes=4))
    several, single, fewer = (
        make_loader(num_people=people, images_per_person=count)
        for people, count in ((4, 2), (4, 1), (3, 2))
    )
    RegressionFitHook(several, several).before_train(make_runner(model))
    for loaders, told in (
        ((single, single), '0 people have two or more images'),
        ((several, fewer), '8 images in dataloader and 6 in degraded_dataloader'),
    ):
        with pytest.raises(ValueError, match=told):
            RegressionFitHook(*loaders).before_train(make_runner(model))
    with pytest.raises(KeyError, match='nowhere'):
        RegressionFitHook(several, 'nowhere').before_train(make_runner(model))


def test_people_with_one_image_are_left_out(
    make_model, make_loader, make_runner, tmp_path, messages
):
    from PIL import Image

    for person, count in (('1', 3), ('2', 3), ('3', 1)):
        (tmp_path / person).mkdir()
        for n in range(count):
            Image.effect_noise((20, 20), 50 + 10 * n).save(tmp_path / person / f'{n}.png')
    loader = make_loader(type='FaceFolder', data_root=str(tmp_path))
    model = make_model()
    model.set_ui_center(torch.randn(16))
    RegressionFitHook(loader, loader, copies=1).fit(make_runner(model))
    assert any(
        'fitted to 12 faces of 2 people' in text
        and '1 faces of people with one image left out' in text
        for _, text in messages
    )


def test_it_needs_a_linear_read_out(make_model, make_loader, make_runner):
    model = make_model(regression=dict(type='PerceptibilityRegression', hidden=(8,)))
    with pytest.raises(ValueError, match='needs a linear'):
        RegressionFitHook(make_loader(), make_loader()).before_train(make_runner(model))
