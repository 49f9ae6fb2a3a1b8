"""SER-FIQ against T full passes in float64, face by face."""

import copy
import math

import pytest
import torch
from torch import nn

from mmvlr.models import FaceBackbone
from mmvlr.models.quality import FaceBatch, SERFIQQuality, split_at_dropout

IRESNET = dict(type='IResNet', depth=18, input_size=32, embed_dims=16, dropout=0.4)


class FixedMask(nn.Module):
    """Dropout whose mask is given."""

    def __init__(self, mask, rate):
        super().__init__()
        self.mask, self.rate = mask, rate

    def forward(self, x):
        return x * self.mask.view(1, *x.shape[1:]) / (1 - self.rate)


def by_full_passes(model, inputs, masks, rate, position):
    model = copy.deepcopy(model).double()
    found = []
    for face in inputs.double():
        embeddings = []
        for mask in masks.double():
            if position == 'last_layer':
                model.backbone.dropout = FixedMask(mask, rate)
            v = model.backbone(face[None])[1][0].detach()
            if position == 'embedding':
                v = FixedMask(mask, rate)(v[None])[0]
            length = math.sqrt(sum(x * x for x in v.tolist()))
            embeddings.append([x / length for x in v.tolist()])
        distances = [
            math.sqrt(sum((x - y) ** 2 for x, y in zip(first, second, strict=True)))
            for index, first in enumerate(embeddings)
            for second in embeddings[index + 1 :]
        ]
        assert len(distances) == len(masks) * (len(masks) - 1) / 2
        found.append(2 / (1 + math.exp(sum(distances) / len(distances))))
    return found


@pytest.fixture
def backbones(tiny_backbone):
    small = dict(input_size=32, stem_channels=4, layers=((8, 2), (16, 2)), embed_dims=16)
    return dict(
        linear=tiny_backbone,
        conv=dict(tiny_backbone, tail='conv'),
        iresnet=IRESNET,
        sface=dict(type='SFaceNet', **small),
    )


@pytest.mark.parametrize('position', ['last_layer', 'embedding'])
@pytest.mark.parametrize('kind', ['linear', 'conv', 'iresnet', 'sface'])
def test_equals_full_passes(make_model, backbones, kind, position):
    model = make_model('FaceRecognizer', backbone=dict(backbones[kind]))
    inputs = torch.randn(2, 3, 32, 32) * torch.tensor([0.3, 3.0]).view(2, 1, 1, 1)
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    measure = SERFIQQuality(num_passes=7, dropout=0.3, position=position, seed=3)
    found = measure(FaceBatch(model, inputs))
    assert len(calls) == 1
    width = model.embed_dims
    if position == 'last_layer':
        width = dict(linear=32, conv=32, iresnet=512 * 4, sface=16 * 64)[kind]
    masks = measure.masks(width)
    assert masks.shape == (7, width)
    expected = by_full_passes(model, inputs, masks, 0.3, position)
    assert found.tolist() == pytest.approx(expected, rel=2e-5)
    assert expected[0] != pytest.approx(expected[1], rel=1e-4)


@pytest.mark.parametrize('kind', ['linear', 'conv', 'iresnet', 'sface'])
def test_the_layers_behind_the_dropout_give_the_embedding(make_model, backbones, kind, inputs):
    model = make_model('FaceRecognizer', backbone=dict(backbones[kind]))
    feature_map, embedding = model(inputs)
    read, last_layers = split_at_dropout(model.backbone, feature_map)
    torch.testing.assert_close(last_layers(read), embedding)


def test_masks():
    masks = SERFIQQuality(num_passes=100, dropout=0.3).masks(500)
    assert masks.float().mean().item() == pytest.approx(0.7, abs=0.01)
    assert torch.equal(masks, SERFIQQuality(num_passes=100, dropout=0.3).masks(500))
    assert not torch.equal(masks, SERFIQQuality(num_passes=100, dropout=0.3, seed=1).masks(500))
    assert not torch.equal(masks[0], masks[1])


def test_repeats_and_leaves_the_generators_alone(make_model, inputs):
    model = make_model()
    before = torch.get_rng_state()
    found = SERFIQQuality()(FaceBatch(model, inputs))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(SERFIQQuality()(FaceBatch(model, inputs)), found)
    assert not torch.equal(SERFIQQuality(seed=1)(FaceBatch(model, inputs)), found)
    assert ((found > 0) & (found < 1)).all()


def test_an_embedding_that_no_mask_changes_is_robust(make_model, inputs):
    model = make_model('FaceRecognizer')
    nn.init.zeros_(model.backbone.embedding.weight)
    # The bias of the BN behind it is left: one constant embedding.
    model.backbone.features.running_mean.fill_(1.0)
    assert SERFIQQuality(num_passes=3)(FaceBatch(model, inputs)).tolist() == [1.0] * 5


def test_a_higher_rate_is_less_robust(make_model, inputs):
    faces = FaceBatch(make_model(), inputs)
    low, high = (SERFIQQuality(dropout=rate)(faces) for rate in (0.1, 0.6))
    assert (low > high).all()


class OtherBackbone(FaceBackbone):
    embed_dims, feat_channels = 16, 3

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 16)

    def forward(self, x):
        feature_map = x[:, :, ::16, ::16]
        return feature_map, self.layer(feature_map.mean((2, 3)))


def test_another_backbone(make_model, inputs):
    model = make_model('FaceRecognizer')
    model.backbone = OtherBackbone()
    faces = FaceBatch(model, inputs)
    with pytest.raises(ValueError, match=r'dropout of a OtherBackbone stands: register'):
        SERFIQQuality()(faces)
    assert SERFIQQuality(position='embedding')(faces).shape == (5,)

    @split_at_dropout.register
    def _(backbone: OtherBackbone, feature_map: torch.Tensor):
        return feature_map.mean((2, 3)), backbone.layer

    measure = SERFIQQuality(num_passes=5)
    model.backbone.dropout = nn.Identity()
    assert measure(faces).shape == (5,)


def test_arguments():
    with pytest.raises(ValueError, match='at least 2'):
        SERFIQQuality(num_passes=1)
    for rate in (0, 1):
        with pytest.raises(ValueError, match=r'lie in \(0, 1\)'):
            SERFIQQuality(dropout=rate)
    with pytest.raises(ValueError, match="not 'input'"):
        SERFIQQuality(position='input')
