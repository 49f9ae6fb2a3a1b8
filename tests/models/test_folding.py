"""A folded model is the same function, without the BN that can be folded."""

import copy

import pytest
import torch
from torch import nn

from mmvlr.models.folding import FoldedBN, folded
from mmvlr.registry import MODELS

from .backbones.test_contract import each_backbone, random_faces, scramble_bn


def layers_of(module, kind):
    return [name for name, layer in module.named_modules() if isinstance(layer, kind)]


BN = nn.modules.batchnorm._BatchNorm


@each_backbone
def test_same_function(make):
    backbone = scramble_bn(make()).double().eval()
    faces = random_faces(backbone, 3, dtype=torch.float64)
    # With gradients no BN is folded on the fly: this is BN as PyTorch applies it.
    wanted = backbone(faces)
    found = folded(backbone)(faces)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one.detach(), rtol=1e-9, atol=1e-9)


@each_backbone
def test_same_function_in_single_precision(make):
    backbone = scramble_bn(make()).eval()
    faces = random_faces(backbone, 3)
    with torch.no_grad():
        wanted, found = backbone(faces)[1], folded(backbone)(faces)[1]
    assert torch.cosine_similarity(wanted, found).min() > 0.99999
    assert (wanted - found).abs().max() < 1e-4 * wanted.norm(dim=1).max()


@each_backbone
def test_only_bn_that_cannot_be_folded_stays(make):
    backbone = make()
    left = layers_of(folded(backbone), BN)
    # BN in front of a padded convolution, and the BN that makes the feature map.
    stays = [n for n in layers_of(backbone, BN) if n.endswith('.bn1') or n in ('bn2', 'map_bn')]
    assert left == stays
    assert len(layers_of(folded(backbone), FoldedBN)) == len(layers_of(backbone, BN)) - len(left)


@each_backbone
def test_model_itself_is_left_alone(make):
    backbone = scramble_bn(make()).train()
    before = copy.deepcopy(backbone.state_dict())
    folded(backbone)
    assert backbone.training
    learns = [parameter.requires_grad for parameter in make().parameters()]
    assert [parameter.requires_grad for parameter in backbone.parameters()] == learns
    after = backbone.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_recognizer(tiny_backbone, tiny_preprocessor):
    model = MODELS.build(
        dict(
            type='RIFace',
            backbone=tiny_backbone,
            data_preprocessor=tiny_preprocessor,
            attention=dict(type='PerceptibilityAttention'),
            regression=dict(type='PerceptibilityRegression', zero_init=False),
            inference_embedding='sum',
            flip_fusion='sum',
        )
    ).eval()
    scramble_bn(model)
    model.set_ui_center(torch.randn(16))
    ready = folded(model)
    faces = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        wanted, found = model.predictions(faces), ready.predictions(faces)
    assert set(found) == set(wanted) > {'embedding', 'recognizability', 'ers'}
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in ready.parameters())
    kernels = [m.weight for m in ready.backbone.modules() if isinstance(m, nn.Conv2d)]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_a_frozen_model_folds_too(tiny_backbone):
    backbone = scramble_bn(MODELS.build({**tiny_backbone, 'frozen_bn': True})).eval()
    faces = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(folded(backbone)(faces)[1], backbone(faces)[1])


@pytest.mark.parametrize('mode', [True, False])
def test_mode_does_not_bring_bn_back(tiny_backbone, mode):
    backbone = scramble_bn(MODELS.build(tiny_backbone)).eval()
    ready = folded(backbone).train(mode)
    faces = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ready(faces)[1], backbone(faces)[1].detach(), rtol=1e-4, atol=1e-5)
