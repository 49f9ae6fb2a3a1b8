"""What holds for every backbone: output, freezing of BN, folding."""

import pytest
import torch
from torch import nn

from mmvlr.models.backbones import (
    BackboneTail,
    InceptionResnetV1,
    IResNet,
    MobileFaceNet,
    SFaceNet,
)
from mmvlr.models.backbones.base import conv_bn, conv_output_size

SMALL = dict(
    input_size=32,
    embed_dims=16,
    stem_channels=8,
    stages=((16, 8, 1, 2), (16, 16, 1, 2)),
    last_channels=32,
)
BACKBONES = {
    'iresnet': lambda **kwargs: IResNet(18, input_size=32, embed_dims=16, **kwargs),
    'iresnet-adaface': lambda **kwargs: IResNet(
        18, input_size=32, embed_dims=16, variant='adaface', **kwargs
    ),
    'iresnet-faceevolve': lambda **kwargs: IResNet(
        18, input_size=32, embed_dims=16, variant='faceevolve', **kwargs
    ),
    'inception-resnet': lambda **kwargs: InceptionResnetV1(embed_dims=16, **kwargs),
    'mobilefacenet': lambda **kwargs: MobileFaceNet(**SMALL, **kwargs),
    'mobilefacenet-conv': lambda **kwargs: MobileFaceNet(
        **SMALL, tail='conv', padding='tf_same', stem_pointwise=True, **kwargs
    ),
    'sface': lambda **kwargs: SFaceNet(
        16, 32, 4, layers=((8, 1), (8, 2), (16, 1), (32, 2)), **kwargs
    ),
}
each_backbone = pytest.mark.parametrize('make', BACKBONES.values(), ids=BACKBONES)


def random_faces(backbone, number, **kwargs):
    side = getattr(backbone, 'min_size', 32)
    return torch.randn(number, 3, side, side, **kwargs)


def scramble_bn(module):
    """Give BN layers statistics that matter; fresh ones are the identity."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                nn.init.normal_(layer.weight, 1, 0.2)
                nn.init.normal_(layer.bias, 0, 0.2)
    return module


@each_backbone
def test_output(make):
    backbone = make().eval()
    feature_map, embedding = backbone(random_faces(backbone, 3))
    assert embedding.shape == (3, backbone.embed_dims) == (3, 16)
    assert feature_map.shape[:2] == (3, backbone.feat_channels)
    assert feature_map.ndim == 4
    assert embedding.isfinite().all()


@each_backbone
def test_faces_do_not_influence_each_other_in_eval_mode(make):
    backbone = make().eval()
    faces = random_faces(backbone, 3)
    together = backbone(faces)[1]
    alone = torch.cat([backbone(face[None])[1] for face in faces])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@each_backbone
def test_frozen_bn_keeps_statistics_and_affine(make):
    backbone = scramble_bn(make(frozen_bn=True))
    # As the Runner does it: the optimizer is built in front of the first train().
    optimizer = torch.optim.Adam(backbone.parameters(), lr=0.1, weight_decay=0.1)
    backbone.train()
    frozen = {
        f'{name}.{key}': value.clone()
        for name, module in backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for key, value in module.state_dict().items()
    }
    assert frozen
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    for _ in range(3):
        optimizer.zero_grad()
        backbone(random_faces(backbone, 4))[1].sin().sum().backward()
        optimizer.step()
        # A switch to validation and back must not thaw anything.
        backbone.eval()
        backbone.train()
    after = backbone.state_dict()
    for name, value in frozen.items():
        assert torch.equal(after[name], value), name
    first = next(name for name, _ in backbone.named_parameters())
    assert not torch.equal(after[first], before[first])


@pytest.mark.parametrize(
    ('name', 'layer'),
    [
        ('iresnet', 'features'),
        ('iresnet-faceevolve', 'features'),
        ('inception-resnet', 'last_bn'),
        ('mobilefacenet', 'features'),
        ('sface', 'features'),
    ],
)
def test_last_bn_learns_where_the_others_are_frozen(name, layer):
    backbone = BACKBONES[name](frozen_bn=True).train()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    last = getattr(backbone, layer)
    bias, mean = last.bias.clone(), last.running_mean.clone()
    backbone(random_faces(backbone, 4))[1].sin().sum().backward()
    optimizer.step()
    assert not torch.equal(last.bias, bias)
    assert not torch.equal(last.running_mean, mean)


@each_backbone
def test_map_and_tail_make_the_embedding(make):
    """The two halves are the whole, and a copied tail is the same function with its own weights."""
    backbone = scramble_bn(make(frozen_bn=True)).eval()
    faces = random_faces(backbone, 2)
    feature_map, embedding = backbone(faces)
    torch.testing.assert_close(backbone.extract_map(faces), feature_map, rtol=0, atol=0)
    tail = BackboneTail(backbone).eval()
    torch.testing.assert_close(tail(feature_map), embedding, rtol=0, atol=0)
    own = {id(parameter) for parameter in backbone.parameters()}
    assert not any(id(parameter) in own for parameter in tail.parameters())
    tail.train()
    flat = [m for m in tail.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training or m.weight.requires_grad for m in flat)


@each_backbone
def test_frozen_stages_keep_their_weights_and_run_without_a_graph(make):
    backbone, whole = make(frozen_stages=2, frozen_bn=True), make(frozen_bn=True)
    whole.load_state_dict(backbone.state_dict())
    backbone.train()
    frozen = [p for stage in backbone.stages()[:2] for m in stage for p in m.parameters()]
    learning = [p for stage in backbone.stages()[2:] for m in stage for p in m.parameters()]
    assert frozen
    assert not any(p.requires_grad for p in frozen)
    faces = random_faces(backbone, 3)
    backbone(faces)[1].sin().sum().backward()
    whole.train()
    whole(faces)[1].sin().sum().backward()
    assert all(p.grad is None for p in frozen)
    names = {id(p): name for name, p in backbone.named_parameters()}
    expected = dict(whole.named_parameters())
    for parameter in learning:
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[names[id(parameter)]].grad)


def test_more_frozen_stages_than_there_are():
    with pytest.raises(ValueError, match='frozen_stages'):
        MobileFaceNet(**SMALL, frozen_stages=99).train()


@each_backbone
def test_unfrozen_bn_learns(make):
    backbone = make().train()
    layers = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [layer.running_mean.clone() for layer in layers]
    backbone(random_faces(backbone, 4))[1].sum().backward()
    assert all(not torch.equal(m.running_mean, b) for m, b in zip(layers, before, strict=True))
    assert all(layer.weight.grad is not None for layer in layers)


@each_backbone
def test_folding_changes_nothing(make):
    """Frozen (folded) and merely evaluated (not folded) are the same function."""
    plain = scramble_bn(make()).double().eval()
    frozen = make(frozen_bn=True).double()
    frozen.load_state_dict(plain.state_dict())
    frozen.train()
    frozen.eval()
    faces = random_faces(plain, 2, dtype=torch.float64)
    for one, other in zip(plain(faces), frozen(faces), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize(
    'shape', [dict(), dict(stride=2, padding=1), dict(groups=2), dict(dilation=2)]
)
def test_conv_bn_equals_bn_of_conv(bias, shape):
    conv = nn.Conv2d(4, 6, 3, bias=bias, **shape).double()
    bn = scramble_bn(nn.BatchNorm2d(6, eps=0.01)).double().eval()
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(conv(x))
    wanted = [x, *conv.parameters()]

    expected = bn(conv(x))
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), wanted)
    bn.requires_grad_(False)
    found = conv_bn(conv, bn, x)
    found_gradients = torch.autograd.grad((found * upstream).sum(), wanted)

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_conv_bn_keeps_a_learning_bn():
    conv, bn = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)
    x = torch.randn(4, 2, 5, 5)
    conv_bn(conv, bn, x).sum().backward()
    assert bn.num_batches_tracked == 1
    assert bn.bias.grad is not None


@pytest.mark.parametrize(('size', 'strides', 'side'), [(112, 4, 7), (32, 3, 4), (33, 1, 17)])
def test_conv_output_size(size, strides, side):
    x = torch.zeros(1, 1, size, size)
    for _ in range(strides):
        x = nn.functional.conv2d(x, torch.ones(1, 1, 3, 3), stride=2, padding=1)
    assert conv_output_size(size, strides) == side == x.shape[-1]
