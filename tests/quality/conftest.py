"""Small models and loaders over synthetic faces."""

import functools

import pytest
import torch
from mmengine.runner import Runner

from mmvlr.datasets import SyntheticFaces
from mmvlr.registry import MODELS

PIPELINE = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]


@pytest.fixture(scope='session')
def make_loader():
    """Return a function: batch size, order and faces -> loader."""

    @functools.cache
    def faces(num_people, images_per_person):
        pytest.importorskip('skimage')
        return SyntheticFaces(num_people, images_per_person, pipeline=PIPELINE)

    def make(batch_size=4, shuffle=False, num_people=3, images_per_person=4, dataset=None):
        return Runner.build_dataloader(
            dict(
                batch_size=batch_size,
                sampler=dict(type='DefaultSampler', shuffle=shuffle),
                dataset=dataset or faces(num_people, images_per_person),
                collate_fn=dict(type='mmvlr.face_collate'),
            ),
            seed=0,
        )

    return make


@pytest.fixture
def make_model(tiny_backbone, tiny_preprocessor):
    """Return a function: type -> a small model in eval mode whose BN has seen something."""

    def make(type='RIFace', **kwargs):
        arguments = dict(
            backbone=dict(tiny_backbone),
            head=dict(type='RecognitionModule', num_classes=3, dropout=0.0),
            data_preprocessor=dict(tiny_preprocessor),
        )
        if type == 'RIFace':
            arguments.update(regression=dict(type='PerceptibilityRegression', zero_init=False))
        model = MODELS.build(dict(type=type, **{**arguments, **kwargs}))
        for module in model.backbone.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        if type == 'CRFIQA':
            torch.nn.init.normal_(model.regression.layers[0].weight)
        model.eval()
        model.set_ui_center(model(torch.randn(8, 3, 32, 32))[1].detach().mean(0))
        return model

    return make


@pytest.fixture
def inputs():
    return torch.randn(5, 3, 32, 32)
