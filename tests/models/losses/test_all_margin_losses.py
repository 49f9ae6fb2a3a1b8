"""What holds of every registered margin loss."""

import pytest
import torch

from mmvlr.models.losses import PrototypeLoss, cosine_matrix
from mmvlr.registry import MODELS

from .slow import batch

MODELS.import_from_location()
LOSSES = sorted(
    name
    for name, part in MODELS.module_dict.items()
    if part.__module__.startswith('mmvlr.') and issubclass(part, PrototypeLoss)
)


@pytest.fixture(params=LOSSES)
def loss(request):
    return MODELS.build(dict(type=request.param))


def test_all_are_here():
    assert len(LOSSES) == 7


def test_bf16_autocast_computes_in_float32(loss):
    embeddings, prototypes, labels = torch.randn(8, 16), torch.randn(4, 16), torch.arange(8) % 4
    loss.eval()
    norms = embeddings.norm(dim=1)
    plain = loss(loss.similarities(embeddings, prototypes), labels, norms)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        similarities = loss.similarities(embeddings, prototypes)
        under_autocast = loss(similarities, labels, norms)
        of_half = loss.similarities(embeddings.bfloat16(), prototypes)
    assert similarities.dtype is of_half.dtype is under_autocast.dtype is torch.float32
    assert torch.equal(under_autocast, plain)


def test_training_step_under_bf16_autocast(loss):
    embeddings = (30 * torch.randn(8, 16)).requires_grad_()
    prototypes, labels = torch.randn(4, 16), torch.arange(8) % 4
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = embeddings.bfloat16()
        value = loss(loss.similarities(half, prototypes), labels, half.norm(dim=1))
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    assert all(buffer.dtype is torch.float32 for buffer in loss.buffers())


def test_aligned_vectors_train(loss):
    """Embeddings equal and opposite to their prototypes: cosines of +-1 and beyond by rounding."""
    prototypes = torch.randn(200, 64)
    lengths = torch.linspace(-15, 15, 200)[:, None]
    embeddings = (prototypes * lengths).requires_grad_()
    labels = torch.arange(200)
    assert cosine_matrix(embeddings, prototypes).abs().max() > 1
    similarities = loss.similarities(embeddings, prototypes)
    value = loss(similarities, labels, embeddings.norm(dim=1))
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()


def test_loss_weight(loss):
    cosines, labels, norms = batch()
    loss.eval()
    once = loss(cosines, labels, norms)
    loss.loss_weight = 2.5
    torch.testing.assert_close(loss(cosines, labels, norms), 2.5 * once)


def test_negatives_of_faces_that_lie_well_are_only_scaled(loss):
    cosines = 0.2 * torch.rand(4, 5) - 0.1
    labels = torch.arange(4)
    cosines[labels, labels] = 0.95
    logits = loss.logits(cosines, labels, torch.full((4,), 40.0))
    others = torch.ones(4, 5, dtype=torch.bool).scatter(1, labels[:, None], False)
    scale = getattr(loss, 'scale', 1.0)
    # To the bit: what went through acos is rounded, besides the time that it takes.
    assert torch.equal(logits[others], scale * cosines[others])
    assert (logits[~others] <= scale * cosines[~others]).all()


@pytest.mark.parametrize('name', sorted({*LOSSES} - {'AdaFaceLoss', 'MagFaceLoss'}))
def test_norms_are_needed_by_those_made_of_them_only(name):
    cosines, labels, norms = batch()
    loss = MODELS.build(dict(type=name)).eval()
    assert loss(cosines, labels) == loss(cosines, labels, norms)


def test_state_is_touched_in_training_only():
    class Counting(PrototypeLoss):
        seen = 0

        def update_statistics(self, target, norms):
            assert not torch.is_grad_enabled()
            assert target.shape == norms.shape == (8,)
            self.seen += 1

    loss = Counting()
    cosines, labels, norms = batch()
    loss(cosines.requires_grad_(), labels, norms).backward()
    assert loss.seen == 1
    loss.eval()(cosines, labels, norms)
    assert loss.seen == 1
