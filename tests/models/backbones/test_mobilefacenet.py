import math

import numpy as np
import pytest
import torch

from mmvlr.models import MobileFaceNet
from mmvlr.models.backbones.mobilefacenet import ConvBN, InvertedResidual

COUNTS = {'insightface': 2_059_520, 'slim': 1_200_512, 'tfjs': 1_303_424}


@pytest.mark.parametrize(('variant', 'count'), COUNTS.items())
def test_parameter_count(variant, count):
    backbone = MobileFaceNet(variant=variant)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == count


@pytest.mark.parametrize(('variant', 'dims'), [('insightface', 512), ('slim', 512), ('tfjs', 192)])
def test_published_size(variant, dims):
    backbone = MobileFaceNet(variant=variant).eval()
    with torch.no_grad():
        feature_map, embedding = backbone(torch.randn(1, 3, 112, 112))
    assert feature_map.shape == (1, 512, 7, 7)
    assert embedding.shape == (1, dims)


def test_arguments_override_the_variant():
    backbone = MobileFaceNet(variant='tfjs', embed_dims=64)
    assert backbone.embed_dims == 64
    assert backbone.embedding.conv.out_channels == 64


@pytest.mark.parametrize('wrong', [dict(variant='big'), dict(tail='x'), dict(padding='x')])
def test_unknown_options(wrong):
    with pytest.raises(ValueError, match='must be'):
        MobileFaceNet(**wrong)


def conv_same_by_hand(x, kernel, stride):
    """TensorFlow's SAME, depthwise, in loops: https://www.tensorflow.org/api_docs/python/tf/nn."""
    channels, height, width = x.shape
    k = kernel.shape[-1]
    out = np.zeros((channels, math.ceil(height / stride), math.ceil(width / stride)))
    pad = [
        max((n - 1) * stride + k - size, 0)
        for n, size in zip(out.shape[1:], (height, width), strict=True)
    ]
    # The odd one of the padding goes to the end.
    top, left = pad[0] // 2, pad[1] // 2
    for c, i, j in np.ndindex(*out.shape):
        for a in range(k):
            for b in range(k):
                y, z = i * stride + a - top, j * stride + b - left
                if 0 <= y < height and 0 <= z < width:
                    out[c, i, j] += x[c, y, z] * kernel[c, 0, a, b]
    return out


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('size', [(6, 6), (7, 7), (6, 7), (5, 8)])
def test_tf_same_padding(size, stride):
    layer = ConvBN(2, 2, 3, stride, groups=2, linear=True, padding='tf_same').double().eval()
    layer.bn.eps = 0.0
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    expected = conv_same_by_hand(x[0].numpy(), layer.conv.weight.detach().numpy(), stride)
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-12)


def test_symmetric_padding_is_another_convolution():
    """At stride 2 and an even size the two differ; that is why the option exists."""
    same = ConvBN(1, 1, 3, 2, linear=True, padding='tf_same').eval()
    symmetric = ConvBN(1, 1, 3, 2, linear=True).eval()
    symmetric.load_state_dict(same.state_dict())
    x = torch.randn(1, 1, 8, 8)
    assert same(x).shape == symmetric(x).shape
    assert not torch.allclose(same(x), symmetric(x))


@pytest.mark.parametrize(
    ('channels', 'stride', 'with_shortcut'), [(8, 1, True), (8, 2, False), (6, 1, False)]
)
def test_shortcut(channels, stride, with_shortcut):
    block = InvertedResidual(8, 16, channels, stride, 'symmetric').eval()
    torch.nn.init.zeros_(block.project.conv.weight)
    x = torch.randn(1, 8, 6, 6)
    out = block(x)
    assert torch.equal(out, x) if with_shortcut else not out.any()


def test_feature_map_is_in_front_of_the_global_convolution():
    backbone = MobileFaceNet(
        input_size=32, embed_dims=4, stem_channels=4, stages=((8, 4, 1, 2),), last_channels=8
    ).eval()
    feature_map, embedding = backbone(torch.randn(2, 3, 32, 32))
    assert feature_map.shape == (2, 8, 8, 8)
    pooled = backbone.global_depthwise(feature_map)
    assert pooled.shape == (2, 8, 1, 1)
    torch.testing.assert_close(backbone.features(backbone.embedding(pooled).flatten(1)), embedding)
