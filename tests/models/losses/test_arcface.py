"""ArcFace against the formula written out in plain float64 loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmvlr.models.losses import ArcFaceLoss, MarginSoftmaxLoss, cosine_matrix
from mmvlr.models.losses.margin import COSINE_EPS


def slow_arcface(cosines, labels, margin, scale):
    """Mean cross entropy with the margin, one number at a time; autograd follows in float64."""
    losses = []
    for row, label in zip(cosines, labels.tolist(), strict=True):
        logits = []
        for index, cosine in enumerate(row):
            if index == label:
                theta = torch.acos(cosine.clamp(-1 + COSINE_EPS, 1 - COSINE_EPS))
                if theta.item() + margin <= math.pi:
                    cosine = torch.cos(theta + margin)
                else:
                    cosine = cosine - margin * math.sin(math.pi - margin)
            logits.append(scale * cosine)
        largest = max(logit.item() for logit in logits)
        total = sum(torch.exp(logit - largest) for logit in logits)
        losses.append(torch.log(total) + largest - logits[label])
    return sum(losses) / len(losses)


def both(cosines, labels, **kwargs):
    """Loss and gradient of the reference and of the module."""
    results = []
    for dtype, loss in (
        (torch.float64, lambda c: slow_arcface(c, labels, **kwargs)),
        (torch.float32, lambda c: ArcFaceLoss(**kwargs)(c, labels)),
    ):
        leaf = cosines.to(dtype).requires_grad_()
        value = loss(leaf)
        results.append((value.detach().double(), torch.autograd.grad(value, leaf)[0].double()))
    return results


@pytest.mark.parametrize('margin', [0.0, 0.2, 0.45, 1.0])
@pytest.mark.parametrize('scale', [1.0, 64.0])
def test_value_and_gradient(margin, scale):
    embeddings, prototypes = torch.randn(8, 6), torch.randn(5, 6)
    labels = torch.arange(8) % 5
    # float32 numbers in both, so that only the arithmetic differs.
    cosines = cosine_matrix(embeddings, prototypes)
    (expected, expected_gradient), (found, gradient) = both(
        cosines, labels, margin=margin, scale=scale
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('angle', [2.0, 2.6, 2.7, 3.0, 3.1])
def test_beyond_pi(angle):
    """With m = 0.45 the margin passes pi from an angle of 2.69 on."""
    cosines = torch.tensor([[math.cos(angle), 0.1, -0.3]])
    (expected, expected_gradient), (found, gradient) = both(
        cosines, torch.tensor([0]), margin=0.45, scale=8.0
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-5)


def test_target_keeps_falling_beyond_pi():
    angles = torch.linspace(0.01, math.pi - 0.01, 500)
    with_margin = ArcFaceLoss(margin=0.45).target_cosine(torch.cos(angles), None)
    assert (with_margin.diff() < 0).all()


@pytest.mark.parametrize('sign', [1.0, -1.0])
@pytest.mark.parametrize('excess', [0.0, 1e-7, 1e-6])
def test_finite_at_the_poles(sign, excess):
    """Rounding puts cosines of parallel float32 vectors past 1, where acos is not a number."""
    cosines = torch.full((2, 3), 0.2)
    cosines[0, 0] = cosines[1, 1] = sign * (1 + excess)
    cosines.requires_grad_()
    loss = ArcFaceLoss()(cosines, torch.tensor([0, 2]))
    loss.backward()
    assert loss.isfinite()
    assert cosines.grad.isfinite().all()
    with torch.no_grad():
        expected = slow_arcface(cosines.double(), torch.tensor([0, 2]), 0.45, 64.0)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-3, atol=1e-3)


def test_aligned_vectors_train():
    """End to end from embeddings equal to their prototypes, in float32."""
    prototypes = torch.randn(200, 64)
    embeddings = (prototypes * 3).requires_grad_()
    loss = ArcFaceLoss()(cosine_matrix(embeddings, prototypes), torch.arange(200))
    loss.backward()
    assert loss.isfinite()
    assert embeddings.grad.isfinite().all()


def test_bf16_autocast_computes_in_float32():
    embeddings, prototypes = torch.randn(8, 16), torch.randn(4, 16)
    labels = torch.arange(8) % 4
    plain = ArcFaceLoss()(cosine_matrix(embeddings, prototypes), labels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cosines = cosine_matrix(embeddings, prototypes)
        under_autocast = ArcFaceLoss()(cosines, labels)
        # Half-precision embeddings come out of an autocast backbone.
        of_half = ArcFaceLoss()(cosine_matrix(embeddings.bfloat16(), prototypes), labels)
    assert cosines.dtype is under_autocast.dtype is of_half.dtype is torch.float32
    assert torch.equal(under_autocast, plain)
    rounded = ArcFaceLoss()(cosine_matrix(embeddings.bfloat16().float(), prototypes), labels)
    assert torch.equal(of_half, rounded)


def test_margin_touches_the_target_only():
    cosines = torch.rand(4, 5) - 0.5
    labels = torch.tensor([0, 1, 2, 3])
    logits = ArcFaceLoss(scale=10.0).logits(cosines, labels)
    others = torch.ones(4, 5, dtype=torch.bool).scatter(1, labels.view(-1, 1), False)
    torch.testing.assert_close(logits[others], 10 * cosines[others])
    assert (logits.gather(1, labels.view(-1, 1)) < 10 * cosines.gather(1, labels.view(-1, 1))).all()


def test_loss_weight():
    cosines, labels = torch.rand(4, 5), torch.tensor([0, 1, 2, 3])
    once = ArcFaceLoss()(cosines, labels)
    torch.testing.assert_close(ArcFaceLoss(loss_weight=2.5)(cosines, labels), 2.5 * once)


def test_without_margin_it_is_softmax():
    cosines, labels = torch.rand(4, 5), torch.tensor([0, 1, 2, 3])
    expected = F.cross_entropy(16 * cosines, labels)
    torch.testing.assert_close(MarginSoftmaxLoss(scale=16.0)(cosines, labels), expected)
    torch.testing.assert_close(ArcFaceLoss(margin=0.0, scale=16.0)(cosines, labels), expected)


def test_subclass_can_change_the_negatives():
    class Hard(MarginSoftmaxLoss):
        def negative_cosines(self, cosines, target, labels):
            return torch.where(cosines > target[:, None], cosines + 1, cosines)

    cosines = torch.tensor([[0.5, 0.6, 0.1]])
    logits = Hard(scale=1.0).logits(cosines, torch.tensor([0]))
    torch.testing.assert_close(logits, torch.tensor([[0.5, 1.6, 0.1]]))


def test_cosine_matrix_against_loops():
    embeddings, prototypes = torch.randn(3, 5), torch.randn(4, 5)
    cosines = cosine_matrix(embeddings, prototypes)
    for i, v in enumerate(embeddings.double()):
        for j, w in enumerate(prototypes.double()):
            cosine = (v @ w) / (v.norm() * w.norm())
            assert cosines[i, j].item() == pytest.approx(cosine.item(), abs=1e-6)


def test_cosine_matrix_of_a_zero_embedding_is_finite():
    embeddings = torch.zeros(1, 4, requires_grad=True)
    cosine_matrix(embeddings, torch.randn(3, 4)).sum().backward()
    assert embeddings.grad.isfinite().all()
