"""Adapters on every backbone: where they learn, merging, folding, gates."""

import copy

import pytest
import torch
from torch import nn

from mmvlr.models import FaceRecognizer, LoRA
from mmvlr.models.adapters import LowRank
from mmvlr.models.folding import folded
from mmvlr.registry import MODELS

from .backbones.test_contract import each_backbone, random_faces, scramble_bn

NORM = dict(type='QualityGate', quality=dict(type='NormQuality'))
SHARP = dict(type='QualityGate', quality=dict(type='SharpnessQuality'))


def learned(model):
    """Give the up factors values, as training does."""
    for pair in model.adapter.pairs.values():
        nn.init.normal_(pair.up, 0, 0.1)
    return model


@pytest.fixture
def make(tiny_backbone, tiny_preprocessor):
    """Return a function: arguments of the adapter -> recognizer with scrambled BN."""

    def build(frozen_stages=0, with_cp=False, model=None, **adapter):
        backbone = dict(tiny_backbone, frozen_stages=frozen_stages, with_cp=with_cp)
        backbone['adapter'] = dict(type='LoRA', **{'rank': 2, **adapter})
        config = dict(type='FaceRecognizer', data_preprocessor=tiny_preprocessor)
        return scramble_bn(MODELS.build({**config, **(model or {}), 'backbone': backbone}))

    return build


@each_backbone
def test_adapter_of_every_backbone(make):
    """It starts as no change, learns alone, and merged it is the same function."""
    backbone = scramble_bn(make()).train()
    faces = random_faces(backbone, 4)
    plain = backbone.eval()(faces)[1]
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    adapter = LoRA(backbone, rank=2)
    assert torch.equal(backbone(faces)[1], plain)
    adapter.require_use()
    for pair in adapter.pairs.values():
        nn.init.normal_(pair.up, 0, 0.1)
    backbone.train()
    backbone(faces)[1].square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())
    assert not any(p.requires_grad for p in backbone.parameters())
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    changed = backbone.eval()(faces)[1]
    assert (changed - plain).norm() > 0.01 * plain.norm()
    copied = copy.deepcopy((backbone, adapter))
    adapter.merge(backbone)
    for merged in (backbone(faces)[1], copied[0](faces)[1]):
        assert (merged - changed).abs().max() < 1e-5 * changed.abs().max()
    assert backbone.state_dict().keys() == before.keys()


def test_recognizer(make, tiny_backbone):
    model = learned(make())
    names = {n.split('.')[0] for n, p in model.named_parameters() if p.requires_grad}
    assert names == {'adapter'}
    plain = FaceRecognizer(tiny_backbone)
    assert {n for n in model.state_dict() if n.startswith('backbone.')} == {
        n for n in plain.state_dict() if n.startswith('backbone.')
    }
    faces = torch.randn(3, 3, 32, 32)
    expected = model.eval()(faces)[1]
    model.merge_adapter()
    assert model.adapter is None
    torch.testing.assert_close(model(faces)[1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('gate', [None, dict(type='FixedGate', weights=(0.3, 0.7)), NORM, SHARP])
def test_folded(make, gate):
    model = learned(make(gate=gate)).eval()
    faces = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(folded(model)(faces)[1], model(faces)[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('gate', [NORM, SHARP])
def test_each_face_has_the_adapters_merged_by_its_gate(make, gate):
    model = learned(make(gate=gate)).train()
    faces = torch.randn(6, 3, 32, 32) * torch.linspace(0.2, 2, 6)[:, None, None, None]
    model(faces)
    assert model.adapter.gate.std > 0
    assert model.training
    statistics = model.adapter.gate.mean.clone()
    together = model.eval()(faces)[1]
    assert torch.equal(model.adapter.gate.mean, statistics)
    weights = next(iter(model.adapter.pairs.values())).gates
    assert weights[:, 0].std() > 0.1
    torch.testing.assert_close(weights.sum(1), torch.ones(6))
    with pytest.raises(ValueError, match='QualityGate'):
        model.merge_adapter()
    for face, own, expected in zip(faces, weights, together, strict=True):
        fixed = copy.deepcopy(model)
        fixed.adapter.gate = MODELS.build(dict(type='FixedGate', weights=own.tolist()))
        fixed.merge_adapter()
        torch.testing.assert_close(fixed(face[None])[1][0], expected, rtol=1e-4, atol=1e-5)


def test_windows_of_a_face_share_its_gate():
    """Windows of a face follow each other in the batch of a transformer's layer."""
    layer = nn.Linear(4, 4)
    pair = LowRank(layer, 2, 1.0, branches=2)
    nn.init.normal_(pair.up)
    pair.gates = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    tokens = torch.randn(6, 5, 4)
    found = layer(tokens)
    for index, one in enumerate(pair.gates):
        weight = layer.weight + pair.weight_change(one).float()
        windows = tokens[3 * index : 3 * index + 3]
        expected = nn.functional.linear(windows, weight, layer.bias)
        torch.testing.assert_close(found[3 * index : 3 * index + 3], expected)


def test_targets_and_frozen_stages(make):
    names = make(targets='blocks.*').adapter.names
    assert names and all(name.startswith('blocks.') for name in names)
    assert not any('depthwise' in name for name in names)
    behind = make(frozen_stages=2).adapter.names
    assert 'last.conv' in behind and not any(name.startswith('blocks.0.') for name in behind)


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [
        (dict(targets=['block.*']), r'block\.\*'),
        (dict(targets=['global_depthwise.conv']), 'global_depthwise'),
        (dict(rank=0), 'rank'),
        (dict(gate=NORM, with_cp=True), 'with_cp'),
        (dict(gate=dict(type='QualityGate', quality=dict(type='SizeQuality'))), 'quality'),
    ],
)
def test_wrong_arguments(make, wrong, named):
    with pytest.raises(ValueError, match=named):
        make(**wrong)


def test_layers_that_are_not_called_are_told(make):
    model = make()
    kernel = model.backbone.embedding.weight.flatten(1)
    model.backbone.embed = lambda feature_map: feature_map.mean((2, 3)) @ kernel.T
    with pytest.raises(ValueError, match='never calls embedding'):
        model(torch.randn(2, 3, 32, 32))


def test_tail_of_attention_is_a_plain_copy_that_learns(make):
    model = make(
        model=dict(type='RIFace', attention=dict(type='PerceptibilityAttention', projection='tail'))
    )
    tail = model.attention.tail
    assert all(p.requires_grad for p in tail.embedding.parameters())
    tail(model.backbone.extract_map(torch.randn(4, 3, 32, 32))).sum().backward()
    assert tail.embedding.weight.grad.any()
    assert 'low_rank' not in vars(tail.embedding)
