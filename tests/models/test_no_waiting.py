"""A training step asks for no number: on a GPU each question waits for all that was queued.

Fake tensors have shapes and no numbers, so a step that needs a number ends in an error. The
exception is ``PartialRecognitionModule``, which compares the batches of all ranks each step.
"""

import os
import traceback

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

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


def run_apart(check):
    """Run a function in a forked process; return 0 unless it fails.

    Fake tensors start threads of autograd, after which no other test could fork.
    """
    child = os.fork()
    if not child:
        try:
            check()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def step(model, data):
    """Preprocessing, losses, their sum and the backward pass, as in ``train_step``."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        data = model.data_preprocessor(data, True)
        losses = model(**data, mode='loss')
        total, logged = model.parse_losses(losses)
        total.backward()
    return logged


@pytest.mark.parametrize('name', registered(FaceRecognizer))
@pytest.mark.parametrize('loss', registered(MarginSoftmaxLoss))
def test_step_asks_nothing(name, loss, make_model, data):
    def check():
        model = make_model(name, loss)
        logged = step(model, data)
        assert model.head.weight.grad.shape == model.head.weight.shape
        if name == 'RIFace':
            assert {'loss_diversion', 'loss_attention', 'loss_regression'} <= set(logged)

    assert run_apart(check) == 0


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(diversion_moves_backbone=False),
        dict(regression_moves_backbone=False),
        dict(attention=None, loss_diversion=None),
    ],
)
def test_step_of_a_variant_asks_nothing(kwargs, make_model, data):
    assert run_apart(lambda: step(make_model('RIFace', **kwargs), data)) == 0


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
