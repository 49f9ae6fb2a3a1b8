"""A training step asks for no number: on a GPU each question waits for all that was queued.

The exception is ``PartialRecognitionModule``, which compares the batches of all ranks each step.
"""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmvlr.models import FaceRecognizer
from mmvlr.models.losses import MarginSoftmaxLoss
from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample

MODELS.import_from_location()


def registered(base):
    return sorted(
        name
        for name, part in MODELS.module_dict.items()
        if part.__module__.startswith('mmvlr.') and issubclass(part, base)
    )


#: Operators whose result, or its size, the host has to know.
ASKING = {
    'aten::_local_scalar_dense',
    'aten::equal',
    'aten::is_nonzero',
    'aten::masked_select',
    'aten::nonzero',
    'aten::nonzero_numpy',
    'aten::unique_dim',
    'aten::_unique',
    'aten::_unique2',
    'aten::bincount',
    'aten::allclose',
}


class NoQuestions(TorchDispatchMode):
    """Fails on what makes a GPU wait: numbers asked for, and indices by a mask."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        indices = args[1] if name in ('aten::index', 'aten::index_put', 'aten::index_put_') else ()
        if name in ASKING or any(i is not None and i.dtype is torch.bool for i in indices):
            raise AssertionError(f'{name} makes a GPU wait')
        return func(*args, **(kwargs or {}))


class CountAcos(TorchFunctionMode):
    """Counts the elements that acos is given."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.acos, torch.arccos, torch.Tensor.acos, torch.Tensor.arccos):
            self.elements.append(args[0].numel())
        return func(*args, **(kwargs or {}))


@pytest.fixture
def make_model(tiny_backbone, tiny_preprocessor):
    def make(name, loss='ArcFaceLoss', **kwargs):
        arguments = dict(
            backbone=dict(tiny_backbone),
            head=dict(type='RecognitionModule', num_classes=3, loss=dict(type=loss)),
            data_preprocessor=dict(tiny_preprocessor),
        )
        if name == 'RIFace':
            arguments.update(
                attention=dict(type='PerceptibilityAttention'),
                loss_diversion=dict(type='IndexDiversionLoss'),
            )
        model = MODELS.build(dict(type=name, **{**arguments, **kwargs})).train()
        model.set_ui_center(torch.randn(16))
        if name == 'RIFace':
            model.set_ui_statistics(torch.tensor(0.3), torch.tensor(0.2))
        return model

    return make


@pytest.fixture
def data():
    """Six faces as a loader delivers them."""
    samples = [FaceDataSample(gt_label=torch.tensor(index % 3)) for index in range(6)]
    return dict(
        inputs=torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), data_samples=samples
    )


def step(model, data):
    """Preprocessing, losses, their sum and the backward pass, as in ``train_step``."""
    data = model.data_preprocessor(data, True)
    losses = model(**data, mode='loss')
    total, logged = model.parse_losses(losses)
    total.backward()
    return logged


@pytest.mark.parametrize('name', registered(FaceRecognizer))
@pytest.mark.parametrize('loss', registered(MarginSoftmaxLoss))
def test_step_asks_nothing(name, loss, make_model, data):
    model = make_model(name, loss)
    with NoQuestions():
        logged = step(model, data)
    assert all(value.isfinite() for value in logged.values())
    assert model.head.weight.grad.isfinite().all()
    if name == 'RIFace':
        assert {'loss_diversion', 'loss_attention', 'loss_regression'} <= set(logged)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(diversion_moves_backbone=False),
        dict(regression_moves_backbone=False),
        dict(attention=None, loss_diversion=None),
    ],
)
def test_step_of_a_variant_asks_nothing(kwargs, make_model, data):
    model = make_model('RIFace', **kwargs)
    with NoQuestions():
        step(model, data)


@pytest.mark.parametrize('loss', registered(MarginSoftmaxLoss))
def test_acos_sees_the_target_column_only(loss):
    """(B,) elements at a time; of (B, C) it would be half of the loss's time for many classes."""
    module = MODELS.build(dict(type=loss)).train()
    embeddings = torch.randn(4, 16, requires_grad=True)
    similarities = module.similarities(embeddings, torch.randn(500, 16))
    with CountAcos() as counter:
        module(similarities, torch.arange(4), embeddings.norm(dim=1)).backward()
    assert set(counter.elements) <= {4}
    assert len(counter.elements) <= 2
    if loss in ('AdaFaceLoss', 'ArcFaceLoss', 'CurricularFaceLoss', 'MagFaceLoss'):
        assert counter.elements


def test_the_modes_notice():
    x = torch.tensor([0.5, 0.0])
    for asks in (
        lambda: x[0].item(),
        lambda: bool(x[0]),
        lambda: x[x > 0],
        lambda: torch.equal(x, x),
        lambda: x.nonzero(),
        lambda: torch.unique(x),
        lambda: x.clone().__setitem__(x > 0, torch.ones(1)),
    ):
        with pytest.raises(AssertionError, match='makes a GPU wait'), NoQuestions():
            asks()
    with CountAcos() as counter:
        x.acos(), torch.acos(x)
    assert counter.elements == [2, 2]


# Flags instead of questions -----------------------------------------------------------------------


@pytest.mark.parametrize('load', ['torch', 'mmengine'])
def test_flags_follow_a_loaded_state(load, make_model):
    from mmengine.runner.checkpoint import load_state_dict

    def load_into(model, state):
        model.load_state_dict(state) if load == 'torch' else load_state_dict(model, state)

    measured, fresh = make_model('RIFace'), make_model('RIFace')
    empty = {
        **measured.state_dict(),
        'ui_center': torch.zeros(16),
        'ui_mean': torch.tensor(float('nan')),
    }
    load_into(fresh, empty)
    assert not fresh.has_ui_center
    assert not fresh.has_ui_statistics
    load_into(fresh, measured.state_dict())
    assert fresh.has_ui_center
    assert fresh.has_ui_statistics
    # A pretrained backbone says nothing of them.
    load_state_dict(fresh, {'backbone.stem.conv.weight': fresh.backbone.stem.conv.weight})
    assert fresh.has_ui_center
    assert fresh.has_ui_statistics


def test_zeros_take_the_center_away(make_model):
    model = make_model('FaceRecognizer')
    assert model.has_ui_center
    model.set_ui_center(torch.zeros(16))
    assert not model.has_ui_center
