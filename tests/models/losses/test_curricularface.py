"""CurricularFace against the formula in loops."""

import math

import pytest
import torch

from mmvlr.models import RecognitionModule
from mmvlr.models.losses import ArcFaceLoss, CurricularFaceLoss, cosine_matrix

from .slow import batch, check, clamped, mean_cross_entropy


def slow_t(t, cosines, labels, momentum=0.01):
    targets = [float(row[label]) for row, label in zip(cosines, labels.tolist(), strict=True)]
    return momentum * sum(targets) / len(targets) + (1 - momentum) * t


def slow_curricularface(cosines, labels, t, margin=0.5, scale=64.0):
    """The loss with t as it is after the batch; t has no gradient."""
    rows = []
    for row, label in zip(cosines, labels.tolist(), strict=True):
        cosine = clamped(row[label])
        theta = torch.acos(cosine)
        logits = []
        for index, other in enumerate(row):
            if index == label:
                if theta.item() + margin <= math.pi:
                    value = torch.cos(theta + margin)
                else:
                    value = cosine - margin * math.sin(math.pi - margin)
            elif other.item() > math.cos(theta.item() + margin):
                value = other * (t + other)
            else:
                value = other
            logits.append(scale * value)
        rows.append(logits)
    return mean_cross_entropy(rows, labels)


@pytest.mark.parametrize('margin', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('scale', [1.0, 64.0])
@pytest.mark.parametrize('t', [0.0, 0.6])
def test_value_and_gradient(margin, scale, t):
    cosines, labels, _ = batch()
    loss = CurricularFaceLoss(margin=margin, scale=scale)
    loss.t.fill_(t)
    check(
        lambda c: loss(c, labels),
        lambda c: slow_curricularface(c, labels, slow_t(t, cosines, labels), margin, scale),
        cosines,
    )


@pytest.mark.parametrize('sign', [1.0, -1.0])
@pytest.mark.parametrize('excess', [0.0, 1e-7, 1e-6])
def test_at_the_poles(sign, excess):
    cosines = torch.tensor([[0.0, 0.2, -0.3], [0.2, 0.4, 0.0]])
    cosines[0, 0] = cosines[1, 2] = sign * (1 + excess)
    labels = torch.tensor([0, 2])
    loss = CurricularFaceLoss()
    t = slow_t(0.0, cosines, labels)
    check(
        lambda c: loss(c, labels),
        lambda c: slow_curricularface(c, labels, t),
        cosines,
        rtol=1e-3,
        atol=1e-3,
    )


def test_t_over_several_steps():
    """t takes a batch in before the loss of that batch, in training only."""
    loss, t = CurricularFaceLoss(momentum=0.3), 0.0
    for _ in range(5):
        cosines, labels, _ = batch()
        t = slow_t(t, cosines, labels, momentum=0.3)
        found = loss(cosines, labels)
        assert loss.t.item() == pytest.approx(t, abs=1e-6)
        expected = slow_curricularface(cosines.double(), labels, t)
        assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.eval()
    for _ in range(2):
        cosines, labels, _ = batch()
        expected = slow_curricularface(cosines.double(), labels, t)
        assert loss(cosines, labels).item() == pytest.approx(expected.item(), rel=1e-4)
    assert loss.t.item() == pytest.approx(t, abs=1e-6)


def test_first_batch_with_a_published_figure():
    """After one batch of cosines 0.5 from t = 0, t is 0.005; a hard 0.4 becomes 0.4 * 0.405."""
    loss = CurricularFaceLoss()
    logits = loss.logits(torch.tensor([[0.5, 0.4, 0.01]]), torch.tensor([0]))
    assert loss.t.item() == pytest.approx(0.005)
    # cos(60 degrees + 0.5) = 0.0236, so 0.01 is easy.
    expected = [64 * math.cos(math.pi / 3 + 0.5), 64 * 0.4 * 0.405, 0.64]
    assert logits[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_without_hard_negatives_it_is_arcface():
    cosines = torch.tensor([[0.9, 0.1, -0.2], [0.0, 0.1, 0.95]])
    labels = torch.tensor([0, 2])
    expected = ArcFaceLoss(margin=0.5)(cosines, labels)
    torch.testing.assert_close(CurricularFaceLoss(margin=0.5)(cosines, labels), expected)


def test_t_is_in_the_checkpoint():
    config = dict(type='CurricularFaceLoss')
    head = RecognitionModule(4, 6, dropout=0.0, loss=config)
    embeddings, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    head.loss(embeddings, labels)
    state = head.state_dict()
    assert state['loss_module.t'].abs() > 0
    other = RecognitionModule(4, 6, dropout=0.0, loss=config)
    other.load_state_dict(state)
    assert torch.equal(other.loss_module.t, head.loss_module.t)
    assert other.loss(embeddings, labels) == head.loss(embeddings, labels)


def test_two_batches_then_backward():
    """t moves on in place; the graph of the first batch must not mind."""
    embeddings = torch.randn(8, 6, requires_grad=True)
    prototypes, labels = torch.randn(5, 6), torch.arange(8) % 5
    loss = CurricularFaceLoss()
    sum(loss(cosine_matrix(embeddings, prototypes), labels) for _ in range(2)).backward()
    assert embeddings.grad.isfinite().all()
