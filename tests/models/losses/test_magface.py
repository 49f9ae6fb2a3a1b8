"""MagFace against the formula in loops."""

import math

import pytest
import torch

from mmvlr.models import RecognitionModule
from mmvlr.models.losses import ArcFaceLoss, MagFaceLoss

from .slow import batch, check, with_target


def slow_magface(
    cosines, labels, norms, scale=64.0, norm_bounds=(10, 110), margin_bounds=(0.45, 0.8), weight=35
):
    shortest, longest = norm_bounds
    smallest, largest = margin_bounds
    lengths = [norm.clamp(shortest, longest) for norm in norms]

    def target(cosine, face):
        margin = (largest - smallest) / (longest - shortest) * (lengths[face] - shortest) + smallest
        theta = torch.acos(cosine)
        if theta.item() + margin.item() <= math.pi:
            return torch.cos(theta + margin)
        return cosine - margin * torch.sin(math.pi - margin)

    regularizer = sum(a / longest**2 + 1 / a for a in lengths) / len(lengths)
    return with_target(cosines, labels, scale, target) + weight * regularizer


@pytest.mark.parametrize('scale', [1.0, 64.0])
@pytest.mark.parametrize(
    'options', [{}, dict(norm_bounds=(1.0, 40.0), margin_bounds=(0.1, 1.5)), dict(weight=0.0)]
)
def test_value_and_gradients(scale, options):
    """Norms below, within and above the bounds; the gradient reaches cosines and norms."""
    cosines, labels, norms = batch()
    named = {'regularizer_weight' if k == 'weight' else k: v for k, v in options.items()}
    loss = MagFaceLoss(scale=scale, **named)
    check(
        lambda c, a: loss(c, labels, a),
        lambda c, a: slow_magface(c, labels, a, scale, **options),
        cosines,
        norms,
    )


@pytest.mark.parametrize('sign', [1.0, -1.0])
@pytest.mark.parametrize('excess', [0.0, 1e-7, 1e-6])
@pytest.mark.parametrize('norm', [0.0, 10.0, 50.0, 110.0, 1e6])
def test_at_the_poles(sign, excess, norm):
    cosines = torch.full((2, 3), 0.2)
    cosines[0, 0] = cosines[1, 2] = sign * (1 + excess)
    labels, norms = torch.tensor([0, 2]), torch.full((2,), norm)
    check(
        lambda c, a: MagFaceLoss()(c, labels, a),
        lambda c, a: slow_magface(c, labels, a),
        cosines,
        norms,
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize('angle', [2.2, 2.6, 3.0, 3.1])
def test_beyond_pi(angle):
    """The margin's gradient also flows where the target is continued."""
    cosines, labels = torch.tensor([[math.cos(angle), 0.1, -0.3]]), torch.tensor([0])
    check(
        lambda c, a: MagFaceLoss(scale=8.0)(c, labels, a),
        lambda c, a: slow_magface(c, labels, a, scale=8.0),
        cosines,
        torch.tensor([60.0]),
    )


@pytest.mark.parametrize(('norm', 'margin'), [(3.0, 0.45), (10.0, 0.45), (200.0, 0.8)])
def test_at_its_bounds_it_is_arcface_and_a_constant(norm, margin):
    cosines, labels, _ = batch()
    length = min(max(norm, 10), 110)
    expected = ArcFaceLoss(margin=margin)(cosines, labels) + 35 * (length / 110**2 + 1 / length)
    found = MagFaceLoss()(cosines, labels, torch.full((8,), norm))
    torch.testing.assert_close(found, expected)


def test_regularizer_is_least_at_the_upper_bound():
    lengths = torch.linspace(10, 110, 50)
    values = torch.stack([MagFaceLoss().regularizer(length[None]) for length in lengths])
    assert (values.diff() < 0).all()
    assert values[-1].item() == pytest.approx(35 * 2 / 110)


def test_loss_weight_is_of_the_whole_loss():
    cosines, labels, norms = batch()
    once = MagFaceLoss()(cosines, labels, norms)
    torch.testing.assert_close(MagFaceLoss(loss_weight=2.5)(cosines, labels, norms), 2.5 * once)


def test_gradient_reaches_the_length_of_embeddings():
    """Cosines leave the length alone; MagFace lengthens faces that lie well."""
    head = RecognitionModule(4, 6, dropout=0.0, loss=dict(type='MagFaceLoss'))
    labels = torch.tensor([0, 1, 2, 3])
    embeddings = (50 * head.weight.detach() + 0.1).requires_grad_()
    head.loss(embeddings, labels)['loss_cls'].backward()
    along = (embeddings.grad * embeddings).sum(1)
    assert (along < 0).all()
