"""A runner that is only what a hook asks of it, and loaders over synthetic faces."""

from types import SimpleNamespace

import pytest

from mmvlr.registry import MODELS

PIPELINE = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]


@pytest.fixture
def make_loader():
    """Return a function: data set config -> loader config."""

    def make(type='SyntheticFaces', shuffle=False, **kwargs):
        return dict(
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            dataset=dict(type=type, pipeline=PIPELINE, **kwargs),
            collate_fn=dict(type='mmvlr.face_collate'),
        )

    return make


@pytest.fixture
def make_model(tiny_backbone, tiny_preprocessor):
    """Return a function that builds a small RIFace, or another type."""

    def make(type='RIFace', **kwargs):
        arguments = dict(
            backbone=dict(tiny_backbone),
            head=dict(type='RecognitionModule', num_classes=3),
            data_preprocessor=dict(tiny_preprocessor),
        )
        if type == 'RIFace':
            arguments.update(
                attention=dict(type='PerceptibilityAttention'),
                regression=dict(type='PerceptibilityRegression', zero_init=False),
                loss_diversion=dict(type='IndexDiversionLoss'),
            )
        return MODELS.build(dict(type=type, **{**arguments, **kwargs}))

    return make


@pytest.fixture
def make_runner():
    def make(model, **kwargs):
        values = dict(epoch=0, iter=0, seed=0, _load_from=None, _resume=False, cfg={})
        values['train_dataloader'] = range(1_000)
        return SimpleNamespace(model=model, **{**values, **kwargs})

    return make
