"""Proximities, the index made of them and its losses, against written-out loops."""

import math

import pytest
import torch

from mmvlr.models.losses import (
    AttentionLoss,
    IndexDiversionLoss,
    IndexRegressionLoss,
    Proximities,
    RecognizabilityIndex,
    attention_target,
    proximities,
)


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / (
        math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    )


@pytest.fixture
def batch():
    embeddings, prototypes = 5 * torch.randn(6, 4), torch.randn(3, 4)
    center = torch.nn.functional.normalize(torch.randn(4), dim=0)
    return embeddings, torch.tensor([0, 1, 2, 2, 1, 0]), prototypes, center


def test_proximities(batch):
    embeddings, labels, prototypes, center = batch
    found = proximities(*batch)
    for i, (v, label) in enumerate(zip(embeddings.tolist(), labels.tolist(), strict=True)):
        others = [cosine(v, w) for j, w in enumerate(prototypes.tolist()) if j != label]
        assert found.d_p[i].item() == pytest.approx(
            1 - cosine(v, prototypes[label].tolist()), abs=1e-6
        )
        assert found.d_n[i].item() == pytest.approx(1 - max(others), abs=1e-6)
        assert found.d_ui[i].item() == pytest.approx(1 - cosine(v, center.tolist()), abs=1e-6)


def test_proximities_ignore_lengths(batch):
    embeddings, labels, prototypes, center = batch
    for one, other in zip(
        proximities(*batch),
        proximities(7 * embeddings, labels, 0.1 * prototypes, center),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_nearest_other_class_may_be_on_the_far_side():
    """d^N is that of the nearest *other* class also where its cosine is negative."""
    found = proximities(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([0]),
        torch.tensor([[1.0, 0.0], [-1.0, 0.1]]),
        torch.tensor([0.0, 1.0]),
    )
    assert found.d_n.item() == pytest.approx(1 - cosine([1, 0], [-1, 0.1]), abs=1e-6)


def test_proximities_have_no_gradient(batch):
    embeddings, labels, prototypes, center = batch
    found = proximities(embeddings.requires_grad_(), labels, prototypes.requires_grad_(), center)
    assert not any(distance.requires_grad for distance in found)


@pytest.mark.parametrize('log', [False, True])
@pytest.mark.parametrize('eps', [1e-3, 0.1])
def test_index(eps, log):
    distances = Proximities(*(2 * torch.rand(7) for _ in range(3)))
    xi = RecognizabilityIndex(eps=eps, log=log)(distances)
    for i in range(7):
        d_p, d_n, d_ui = (float(d[i]) for d in distances)
        expected = d_ui * d_n / (d_p + eps)
        expected = math.log(max(expected, eps)) if log else expected
        assert xi[i].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('log', [False, True])
def test_index_rises_and_falls_as_the_paper_says(log):
    index = RecognizabilityIndex(log=log)
    base = Proximities(*torch.tensor([[0.5], [0.8], [0.9]]))
    assert index(base._replace(d_p=base.d_p + 0.1)) < index(base)
    assert index(base._replace(d_n=base.d_n + 0.1)) > index(base)
    assert index(base._replace(d_ui=base.d_ui + 0.1)) > index(base)


@pytest.mark.parametrize('log', [False, True])
def test_index_is_finite_where_a_distance_vanishes(log):
    # Rounding makes the distance to the own prototype slightly negative.
    d_p = torch.tensor([0.0, -1e-7, -1e-7, 0.0])
    d_n, d_ui = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, -1e-7])
    xi = RecognizabilityIndex(log=log)(Proximities(d_p, d_n, d_ui))
    assert xi.isfinite().all()
    assert xi[0] == xi[1] == xi.max()


@pytest.mark.parametrize('log', [False, True])
@pytest.mark.parametrize(
    'factors', [('d_p', 'd_n'), ('d_ui', 'd_p'), ('d_n', 'd_ui'), ('d_p',), ('d_ui',)]
)
def test_index_of_some_factors(factors, log):
    distances = Proximities(*(2 * torch.rand(7) for _ in range(3)))
    xi = RecognizabilityIndex(log=log, factors=factors)(distances)
    for i in range(7):
        expected = 1.0
        for name in factors:
            distance = float(getattr(distances, name)[i])
            expected = expected / (distance + 1e-3) if name == 'd_p' else expected * distance
        expected = math.log(max(expected, 1e-3)) if log else expected
        assert xi[i].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('factors', [(), ('d_p', 'd_x')])
def test_index_of_unknown_factors_is_refused(factors):
    with pytest.raises(ValueError, match='factors must be some of'):
        RecognizabilityIndex(factors=factors)


def test_index_has_no_gradient():
    d = torch.rand(3, requires_grad=True)
    assert not RecognizabilityIndex()(Proximities(d, d, d)).requires_grad


@pytest.mark.parametrize(('sigma', 'floor'), [(0.5, 0.1), (0.01, 0.1), (0.0, 0.1), (0.3, 0.0)])
def test_diversion(sigma, floor):
    xi_hat = torch.randn(9, requires_grad=True)
    loss = IndexDiversionLoss(tau=1.5, sigma_floor=floor, loss_weight=2.0)
    found = loss(xi_hat, torch.tensor(0.2), torch.tensor(sigma))
    terms = [max(0.0, 1.5 - (x - 0.2) / max(sigma, floor)) for x in xi_hat.tolist()]
    assert found.item() == pytest.approx(2 * sum(terms) / 9, rel=1e-5)
    found.backward()
    slope = [-2 / 9 / max(sigma, floor) if term > 0 else 0.0 for term in terms]
    torch.testing.assert_close(xi_hat.grad, torch.tensor(slope), rtol=1e-5, atol=1e-6)


def test_diversion_is_finite_without_floor_at_sigma_zero():
    loss = IndexDiversionLoss(sigma_floor=0.0)
    assert loss(torch.tensor([2.0]), torch.tensor(1.0), torch.tensor(0.0)) == 0


@pytest.mark.parametrize('beta', [0.75, 0.1])
def test_regression(beta):
    xi_hat, xi = 2 * torch.randn(20), torch.randn(20)
    terms = []
    for d in (xi_hat - xi).abs().tolist():
        terms.append(0.5 * d * d / beta if d < beta else d - 0.5 * beta)
    found = IndexRegressionLoss(beta=beta, loss_weight=5.0)(xi_hat, xi)
    assert found.item() == pytest.approx(5 * sum(terms) / 20, rel=1e-5)


def test_attention_target(batch):
    embeddings, _, _, center = batch
    found = attention_target(embeddings, center)
    for v, row in zip(embeddings.tolist(), found, strict=True):
        along = sum(x * u for x, u in zip(v, center.tolist(), strict=True))
        rest = [x - along * u for x, u in zip(v, center.tolist(), strict=True)]
        length = math.sqrt(sum(x * x for x in rest))
        torch.testing.assert_close(row, torch.tensor([x / length for x in rest]))
        assert abs(float(row @ center)) < 1e-5


def test_attention_target_without_center_is_the_direction(batch):
    embeddings = batch[0]
    found = attention_target(embeddings, torch.zeros(4))
    torch.testing.assert_close(found, embeddings / embeddings.norm(dim=1, keepdim=True))


def test_attention_target_has_no_gradient(batch):
    assert not attention_target(batch[0].requires_grad_(), batch[3]).requires_grad


def test_attention_loss():
    attended, target = torch.randn(3, 4), torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    total = 0.0
    for v, t in zip(attended.tolist(), target.tolist(), strict=True):
        length = math.sqrt(sum(x * x for x in v))
        total += sum((x / length - y) ** 2 for x, y in zip(v, t, strict=True))
    found = AttentionLoss(loss_weight=3.0)(attended, target)
    assert found.item() == pytest.approx(3 * total / 12, rel=1e-5)
    assert AttentionLoss()(4 * target, target).item() == pytest.approx(0, abs=1e-12)
