"""Models of timm as backbones: the contract, frozen stages, checkpointing."""

import pytest
import torch
from torch import nn

from mmvlr.models import LoRA, TimmBackbone
from mmvlr.models.backbones import BackboneTail
from mmvlr.models.backbones.base import FaceBackbone

timm = pytest.importorskip('timm')

KINDS = {
    'vit': dict(model_name='test_vit', model_args=dict(patch_size=8)),
    'swin': dict(
        model_name='swin_tiny_patch4_window7_224',
        model_args=dict(embed_dim=16, depths=(1, 1, 2), num_heads=(1, 2, 4)),
    ),
    'convnext': dict(model_name='test_convnext'),
    'resnet': dict(model_name='test_resnet', frozen_bn=True),
}
each_kind = pytest.mark.parametrize('kind', KINDS)


def build(kind, **kwargs):
    arguments = {**KINDS[kind], 'embed_dims': 16, 'input_size': 32, **kwargs}
    arguments['model_args'] = dict(
        KINDS[kind].get('model_args', {}), **kwargs.get('model_args', {})
    )
    return TimmBackbone(**arguments)


@each_kind
@pytest.mark.parametrize('pooling', ['mean', 'flatten'])
def test_contract(kind, pooling):
    backbone = build(kind, pooling=pooling).eval()
    assert isinstance(backbone, FaceBackbone)
    faces = torch.randn(3, 3, 32, 32)
    feature_map, embedding = backbone(faces)
    assert feature_map.shape[:2] == (3, backbone.feat_channels)
    assert feature_map.ndim == 4
    assert embedding.shape == (3, 16)
    alone = torch.cat([backbone(face[None])[1] for face in faces])
    torch.testing.assert_close(alone, embedding, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(BackboneTail(backbone).eval()(feature_map), embedding)


def test_map_is_the_grid_of_the_patches():
    """A patch that changes changes its own position of the map the most, and no class token."""
    backbone = build('vit', model_args=dict(depth=1)).eval()
    faces = torch.zeros(2, 3, 32, 32)
    faces[1, :, 16:24, 8:16] = 3
    maps = backbone(faces)[0]
    assert maps.shape[2:] == (4, 4)
    change = (maps[1] - maps[0]).norm(dim=0)
    assert divmod(change.argmax().item(), 4) == (2, 1)


@each_kind
def test_frozen_stages(kind):
    stages = build(kind).stages()
    assert len(stages) > 2
    backbone = build(kind, frozen_stages=2, drop_path=0.5).train()
    frozen = {p for stage in backbone.stages()[:2] for m in stage for p in m.parameters()}
    frozen |= set(backbone.model.parameters(recurse=False))
    assert frozen
    assert not any(
        m.training for stage in backbone.stages()[:2] for x in stage for m in x.modules()
    )
    backbone(torch.randn(4, 3, 32, 32))[1].square().sum().backward()
    assert all(
        (p.grad is None) == (p in frozen) for p in backbone.model.parameters() if p.requires_grad
    )
    assert not any(p.requires_grad for p in frozen)
    behind = [p for stage in backbone.stages()[2:] for m in stage for p in m.parameters()]
    assert any(p.grad is not None and p.grad.any() for p in behind)
    names = LoRA(build(kind, frozen_stages=2), rank=2).names
    assert len(names) < len(LoRA(build(kind), rank=2).names)


@each_kind
def test_checkpointing_has_the_same_gradients_also_in_bfloat16(kind):
    plain, again = build(kind, drop_path=0.0), build(kind, with_cp=True, drop_path=0.0)
    again.load_state_dict(plain.state_dict())
    faces = torch.randn(4, 3, 32, 32)
    for dtype in (None, torch.bfloat16):
        for backbone in (plain, again):
            backbone.zero_grad()
            with torch.autocast('cpu', torch.bfloat16, enabled=dtype is not None):
                loss = backbone.train()(faces)[1].float().sin().sum()
            loss.backward()
        for one, other in zip(plain.parameters(), again.parameters(), strict=True):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ('wrong', 'named'),
    [
        (dict(model_name='vit_tiny'), 'vit_tiny_patch16_224'),
        (dict(model_name='hf-hub:someone/else'), 'hf-hub'),
        (dict(model_args=dict(pretrained=True)), 'pretrained'),
        (dict(model_args=dict(patchsize=8)), 'patchsize'),
        (dict(pooling='max'), 'pooling'),
        (dict(model_name='test_resnet', model_args={}, with_cp=True), 'frozen_bn'),
        (dict(frozen_stages=99), 'frozen_stages'),
    ],
)
def test_wrong_arguments(wrong, named):
    with pytest.raises(ValueError, match=named):
        TimmBackbone(**{**KINDS['vit'], 'embed_dims': 16, 'input_size': 32, **wrong})


def test_missing_package(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    with pytest.raises(ImportError, match=r'mmvlr\[timm\]'):
        build('vit')


@each_kind
def test_no_layer_is_without_gradient(kind):
    backbone = build(kind).train()
    backbone(torch.randn(4, 3, 32, 32))[1].square().sum().backward()
    unused = [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    assert isinstance(backbone.features, nn.BatchNorm1d)
