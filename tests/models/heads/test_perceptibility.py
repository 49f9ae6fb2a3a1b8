"""PAM and PRM against their formulas."""

import math

import pytest
import torch
from torch import nn

from mmvlr.models import PerceptibilityAttention, PerceptibilityRegression


@pytest.fixture
def feature_map():
    return torch.randn(3, 32, 5, 5)


def test_attention_formula(feature_map):
    pam = PerceptibilityAttention(feat_channels=32, embed_dims=6, reduction=8)
    first, _, second = pam.channel_gate
    assert (first.in_features, first.out_features) == (32, 4)
    assert (second.in_features, second.out_features) == (4, 32)
    for face, found in zip(feature_map, pam(feature_map), strict=True):

        def gate(pooled):
            return second.weight @ (first.weight @ pooled + first.bias).relu() + second.bias

        average, largest = face.mean((1, 2)), face.flatten(1).max(1).values
        channel = 1 / (1 + torch.exp(-(gate(average) + gate(largest))))
        refined = face * channel.view(-1, 1, 1)
        planes = torch.stack([refined.mean(0), refined.max(0).values])
        padded = nn.functional.pad(planes, (3, 3, 3, 3))
        kernel = pam.spatial_gate.weight[0]
        spatial = torch.empty(5, 5)
        for y in range(5):
            for x in range(5):
                window = padded[:, y : y + 7, x : x + 7]
                spatial[y, x] = (window * kernel).sum() + pam.spatial_gate.bias[0]
        attended = refined * (1 / (1 + torch.exp(-spatial)))
        expected = pam.project.weight @ attended.mean((1, 2)) + pam.project.bias
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_attention_maps(feature_map):
    pam = PerceptibilityAttention(feat_channels=32, embed_dims=6)
    attended, spatial = pam.attention(feature_map)
    assert attended.shape == feature_map.shape
    assert spatial.shape == (3, 1, 5, 5)
    assert ((spatial > 0) & (spatial < 1)).all()
    torch.testing.assert_close(pam(feature_map), pam.project(attended.mean((2, 3))))


def test_attention_of_few_channels():
    """The gate keeps one unit where the reduction would leave none."""
    pam = PerceptibilityAttention(feat_channels=8, embed_dims=4, reduction=16)
    assert pam(torch.randn(2, 8, 3, 3)).shape == (2, 4)


def linear_prm(**kwargs):
    return PerceptibilityRegression(
        embed_dims=6, feat_channels=32, source='embedding', with_norm=False, hidden=(), **kwargs
    )


def test_papers_regression_is_linear(feature_map):
    prm = linear_prm(dropout=0.9, zero_init=False).eval()
    embeddings = torch.randn(3, 6)
    assert sum(parameter.numel() for parameter in prm.parameters()) == 7
    weight, bias = prm.parameters()
    expected = torch.stack([(weight[0] * v).sum() + bias[0] for v in embeddings])
    found = prm(feature_map, embeddings)
    assert found.shape == (3,)
    torch.testing.assert_close(found, expected)
    # The map is not looked at.
    torch.testing.assert_close(prm(torch.zeros_like(feature_map), embeddings), found)


def test_regression_dropout_acts_in_training_only(feature_map):
    prm = linear_prm(dropout=0.9, zero_init=False).train()
    embeddings = torch.ones(2000, 6)
    weight = next(prm.parameters())
    nn.init.ones_(weight)
    nn.init.zeros_(prm.layers[-1].bias)
    found = prm(torch.zeros(2000, 32, 1, 1), embeddings)
    # Each of the six inputs survives with probability 0.1 and is multiplied by ten.
    survived = (found / 10).round()
    torch.testing.assert_close(found, survived * 10)
    assert survived.mean().item() == pytest.approx(0.6, abs=0.1)
    assert (prm.eval()(torch.zeros(2000, 32, 1, 1), embeddings) == 6).all()


def test_zero_start_is_a_constant_that_spares_the_backbone(feature_map):
    prm = linear_prm(dropout=0.0, zero_init=True)
    embeddings = torch.randn(3, 6, requires_grad=True)
    found = prm(feature_map, embeddings)
    assert (found == found[0]).all()
    found.sum().backward()
    assert not embeddings.grad.any()
    assert next(prm.parameters()).grad.any()


def test_unknown_source():
    with pytest.raises(ValueError, match='source must be one of'):
        PerceptibilityRegression(embed_dims=6, feat_channels=32, source='pixels')


@pytest.mark.parametrize('with_norm', [False, True])
@pytest.mark.parametrize('source', ['embedding', 'pooled', 'both'])
def test_what_is_regressed_on(feature_map, source, with_norm):
    prm = PerceptibilityRegression(6, 32, source=source, with_norm=with_norm)
    embeddings = torch.randn(3, 6)
    for i, found in enumerate(prm.inputs(feature_map, embeddings)):
        expected = [] if source == 'pooled' else embeddings[i].tolist()
        if with_norm:
            length = sum(x * x for x in embeddings[i].tolist()) ** 0.5
            expected += [length, math.log(length)]
        if source != 'embedding':
            expected += [plane.mean().item() for plane in feature_map[i]]
            expected += [plane.max().item() for plane in feature_map[i]]
        torch.testing.assert_close(found, torch.tensor(expected))


def test_set_read_out(feature_map):
    prm = PerceptibilityRegression(6, 32, dropout=0.5).eval()
    shift, scale, weight = torch.randn(8), torch.rand(8) + 0.5, torch.randn(8)
    parameter = prm.layers[0].weight
    prm.set_read_out(shift, scale, weight, torch.tensor(0.7))
    embeddings = torch.randn(3, 6)
    x = prm.inputs(feature_map, embeddings)
    expected = ((x - shift) / scale) @ weight + 0.7
    torch.testing.assert_close(prm(feature_map, embeddings), expected)
    assert prm.layers[0].weight is parameter
    # The standardization belongs to the read-out: a checkpoint carries both.
    other = PerceptibilityRegression(6, 32).eval()
    other.load_state_dict(prm.state_dict())
    torch.testing.assert_close(other(feature_map, embeddings), expected)


def test_set_read_out_of_hidden_layers():
    prm = PerceptibilityRegression(6, 32, hidden=(4,))
    assert not prm.is_linear
    with pytest.raises(ValueError, match='linear read-out'):
        prm.set_read_out(*torch.zeros(3, 8), torch.tensor(0.0))


def test_length_of_a_zero_embedding_is_finite(feature_map):
    prm = PerceptibilityRegression(6, 32, zero_init=False)
    embeddings = torch.zeros(3, 6, requires_grad=True)
    prm(feature_map, embeddings).sum().backward()
    assert embeddings.grad.isfinite().all()
