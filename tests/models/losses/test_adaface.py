"""AdaFace against the formula in loops."""

import math
import statistics

import pytest
import torch

from mmvlr.models import RecognitionModule
from mmvlr.models.losses import AdaFaceLoss, ArcFaceLoss, CosFaceLoss

from .slow import batch, check, with_target


def slow_statistics(mean, std, norms, momentum=0.01):
    lengths = [min(max(norm, 1e-3), 100.0) for norm in norms.tolist()]
    return (
        momentum * statistics.fmean(lengths) + (1 - momentum) * mean,
        momentum * statistics.stdev(lengths) + (1 - momentum) * std,
    )


def slow_adaface(cosines, labels, norms, mean, std, margin=0.4, h=0.333, scale=64.0, eps=1e-3):
    """The loss with mean and std as they are after the batch; norms have no gradient."""

    def target(cosine, face):
        length = min(max(norms[face].item(), eps), 100.0)
        z = min(max((length - mean) / (std + eps) * h, -1.0), 1.0)
        theta = (torch.acos(cosine) - margin * z).clamp(eps, math.pi - eps)
        return torch.cos(theta) - (margin + margin * z)

    return with_target(cosines, labels, scale, target)


@pytest.mark.parametrize('margin', [0.0, 0.4, 1.0])
@pytest.mark.parametrize('scale', [1.0, 64.0])
@pytest.mark.parametrize('start', [(20.0, 100.0), (60.0, 8.0)])
def test_value_and_gradients(margin, scale, start):
    """Norms beyond 100, and from the second start qualities at both bounds of z and within."""
    cosines, labels, norms = batch()
    loss = AdaFaceLoss(margin=margin, scale=scale, initial_mean=start[0], initial_std=start[1])
    after = slow_statistics(*start, norms)
    check(
        lambda c, a: loss(c, labels, a),
        lambda c, a: slow_adaface(c, labels, a, *after, margin=margin, scale=scale),
        cosines,
        norms,
    )
    if start == (60.0, 8.0):
        quality = loss.quality(norms)
        assert {-1.0, 1.0} < set(quality.tolist())


@pytest.mark.parametrize('sign', [1.0, -1.0])
@pytest.mark.parametrize('excess', [0.0, 1e-7, 1e-6])
@pytest.mark.parametrize('norm', [0.0, 20.0, 1e6])
def test_at_the_poles(sign, excess, norm):
    cosines = torch.full((2, 3), 0.2)
    cosines[0, 0] = cosines[1, 2] = sign * (1 + excess)
    labels, norms = torch.tensor([0, 2]), torch.full((2,), norm)
    loss = AdaFaceLoss(initial_std=1.0)
    after = slow_statistics(20.0, 1.0, norms)
    check(
        lambda c, a: loss(c, labels, a),
        lambda c, a: slow_adaface(c, labels, a, *after),
        cosines,
        norms,
        rtol=1e-3,
        atol=1e-3,
    )


def test_eps():
    """Large enough to be seen on all it is used for: both ends of the angle, sigma and norms."""
    cosines = torch.tensor([[0.995, 0.2], [0.2, -0.995], [0.1, 0.3]])
    labels, norms = torch.tensor([0, 1, 0]), torch.tensor([20.0, 20.0, 20.5])
    loss = AdaFaceLoss(scale=4.0, eps=0.15, initial_std=1.0, momentum=0.0)
    check(
        lambda c: loss(c, labels, norms),
        lambda c: slow_adaface(c, labels, norms, 20.0, 1.0, scale=4.0, eps=0.15),
        cosines,
    )
    torch.testing.assert_close(loss.clamped(torch.tensor([0.05])), torch.tensor([0.15]))


def test_statistics_over_several_steps():
    """They take a batch in before the loss of that batch, in training only."""
    loss, mean, std = AdaFaceLoss(momentum=0.3), 20.0, 100.0
    for _ in range(5):
        cosines, labels, norms = batch()
        mean, std = slow_statistics(mean, std, norms, momentum=0.3)
        found = loss(cosines, labels, norms)
        assert loss.norm_mean.item() == pytest.approx(mean, rel=1e-5)
        assert loss.norm_std.item() == pytest.approx(std, rel=1e-5)
        expected = slow_adaface(cosines.double(), labels, norms, mean, std)
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.eval()
    for _ in range(2):
        cosines, labels, norms = batch()
        expected = slow_adaface(cosines.double(), labels, norms, mean, std)
        assert loss(cosines, labels, norms).item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.norm_mean.item() == pytest.approx(mean, rel=1e-5)
    assert loss.norm_std.item() == pytest.approx(std, rel=1e-5)


def test_published_start():
    """Mean 20, deviation 100 and a hundredth of the first batch."""
    loss = AdaFaceLoss()
    assert (loss.norm_mean.item(), loss.norm_std.item()) == (20, 100)
    loss(torch.rand(3, 4), torch.tensor([0, 1, 2]), torch.tensor([10.0, 20.0, 60.0]))
    assert loss.norm_mean.item() == pytest.approx(0.99 * 20 + 0.01 * 30, rel=1e-6)
    deviation = math.sqrt((20**2 + 10**2 + 30**2) / 2)
    assert loss.norm_std.item() == pytest.approx(0.99 * 100 + 0.01 * deviation, rel=1e-6)


def test_batch_of_one_has_no_deviation():
    loss = AdaFaceLoss(momentum=1.0)
    assert loss(torch.rand(1, 4), torch.tensor([0]), torch.tensor([30.0])).isfinite()
    assert (loss.norm_mean.item(), loss.norm_std.item()) == (30, 0)


@pytest.mark.parametrize(
    ('norm', 'other'),
    [(20.0, CosFaceLoss(margin=0.4)), (1e-3, ArcFaceLoss(margin=0.4))],
    ids=['z=0', 'z=-1'],
)
def test_cosface_and_arcface_are_special_cases(norm, other):
    cosines, labels, _ = batch()
    loss = AdaFaceLoss(initial_std=1.0).eval()
    found = loss(cosines, labels, torch.full((8,), norm))
    torch.testing.assert_close(found, other(cosines, labels))


def test_no_gradient_through_the_norm():
    """The norm's gradient is none, so that of an embedding is at right angles to it."""
    cosines, labels, norms = batch()
    cosines.requires_grad_(), norms.requires_grad_()
    AdaFaceLoss()(cosines, labels, norms).backward()
    assert norms.grad is None
    head = RecognitionModule(4, 6, dropout=0.0, loss=dict(type='AdaFaceLoss', initial_std=5.0))
    embeddings = (20 * torch.randn(4, 6)).requires_grad_()
    head.loss(embeddings, torch.tensor([0, 1, 2, 3]))['loss_cls'].backward()
    along = (embeddings.grad * embeddings).sum(1) / embeddings.norm(dim=1)
    torch.testing.assert_close(along, torch.zeros(4), rtol=0, atol=1e-6)


def test_statistics_are_in_the_checkpoint():
    config = dict(type='AdaFaceLoss')
    head = RecognitionModule(4, 6, dropout=0.0, loss=config)
    embeddings, labels = 30 * torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    head.loss(embeddings, labels)
    state = head.state_dict()
    assert state['loss_module.norm_mean'] != 20
    assert state['loss_module.norm_std'] != 100
    other = RecognitionModule(4, 6, dropout=0.0, loss=config)
    other.load_state_dict(state)
    for name in ('norm_mean', 'norm_std'):
        kept = getattr(head.loss_module, name)
        assert torch.equal(getattr(other.loss_module, name), kept)
    assert other.loss(embeddings, labels) == head.loss(embeddings, labels)
