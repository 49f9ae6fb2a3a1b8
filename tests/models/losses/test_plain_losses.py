"""Softmax, NormFace and CosFace against the formulas in loops."""

import pytest
import torch
from torch.nn import functional as F

from mmvlr.models import RecognitionModule
from mmvlr.models.losses import ArcFaceLoss, CosFaceLoss, NormFaceLoss, SoftmaxLoss

from .slow import batch, check, mean_cross_entropy, with_target


@pytest.mark.parametrize('scale', [1.0, 64.0])
def test_normface(scale):
    cosines, labels, _ = batch()
    check(
        lambda c: NormFaceLoss(scale=scale)(c, labels),
        lambda c: with_target(c, labels, scale, lambda cosine, face: cosine),
        cosines,
    )


@pytest.mark.parametrize('margin', [0.0, 0.35, 0.6])
@pytest.mark.parametrize('scale', [1.0, 64.0])
def test_cosface(margin, scale):
    cosines, labels, _ = batch()
    check(
        lambda c: CosFaceLoss(margin=margin, scale=scale)(c, labels),
        lambda c: with_target(c, labels, scale, lambda cosine, face: cosine - margin),
        cosines,
    )


@pytest.mark.parametrize('loss', [CosFaceLoss(margin=0.0), ArcFaceLoss(margin=0.0)])
def test_without_margin_it_is_normface(loss):
    cosines, labels, _ = batch()
    torch.testing.assert_close(loss(cosines, labels), NormFaceLoss()(cosines, labels))


def slow_softmax(embeddings, prototypes, labels):
    rows = [[sum(x * y for x, y in zip(v, w, strict=True)) for w in prototypes] for v in embeddings]
    return mean_cross_entropy(rows, labels)


def test_softmax():
    """Values beyond those of cosines, and both gradients."""
    embeddings, prototypes, labels = 3 * torch.randn(8, 6), torch.randn(5, 6), torch.arange(8) % 5
    loss = SoftmaxLoss()
    assert loss.similarities(embeddings, prototypes).abs().max() > 4
    check(
        lambda v, w: loss(loss.similarities(v, w), labels),
        lambda v, w: slow_softmax(v, w, labels),
        embeddings,
        prototypes,
    )


def test_softmax_in_the_head_is_cross_entropy_of_a_linear_layer_without_bias():
    head = RecognitionModule(5, 6, dropout=0.0, loss=dict(type='SoftmaxLoss'))
    embeddings, labels = 20 * torch.randn(8, 6), torch.arange(8) % 5
    scores = F.linear(embeddings, head.weight)
    torch.testing.assert_close(head(embeddings), scores)
    found = head.loss(embeddings, labels)['loss_cls']
    torch.testing.assert_close(found, F.cross_entropy(scores, labels))
    found.backward()
    assert [name for name, _ in head.named_parameters()] == ['weight']
    # Unlike with cosines, the length of a prototype is learned.
    assert (head.weight.grad * head.weight).sum(1).abs().min() > 1e-3


def test_softmax_under_bf16_autocast_computes_in_float32():
    loss, labels = SoftmaxLoss(), torch.arange(8) % 4
    embeddings, prototypes = 20 * torch.randn(8, 16), torch.randn(4, 16)
    plain = loss(loss.similarities(embeddings, prototypes), labels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        similarities = loss.similarities(embeddings, prototypes)
        of_half = loss.similarities(embeddings.bfloat16(), prototypes)
        under_autocast = loss(similarities, labels)
    assert similarities.dtype is of_half.dtype is torch.float32
    assert torch.equal(under_autocast, plain)
