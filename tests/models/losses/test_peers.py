"""Variants of the losses that are named after the project whose code has them."""

import math

import pytest
import torch

from mmvlr.models import PartialRecognitionModule
from mmvlr.models.losses import AdaFaceLoss, ArcFaceLoss, CosFaceLoss, MagFaceLoss

from .slow import batch, check, clamped, with_target


def gradients(loss, cosines, labels, norms):
    cosines = cosines.clone().requires_grad_()
    loss(cosines, labels, norms).backward()
    return cosines.grad


@pytest.mark.parametrize(
    'variant', [ArcFaceLoss(as_in='insightface'), AdaFaceLoss(as_in='cvlface')]
)
def test_slope_one_passes_the_gradient_of_the_logits(variant):
    """The gradient of a cosine is s * (softmax - one_hot) / B, whatever the margin."""
    cosines, labels, norms = batch()
    variant.eval()
    logits = variant.logits(cosines, labels, norms).double()
    expected = torch.softmax(logits, dim=1)
    expected[torch.arange(len(labels)), labels] -= 1
    found = gradients(variant, cosines, labels, norms).double()
    torch.testing.assert_close(found, variant.scale * expected / len(labels), rtol=1e-4, atol=1e-5)


def test_insightface_has_no_continuation_beyond_pi():
    cosines = torch.tensor([[-0.99, 0.2], [0.5, -0.995]])
    labels = torch.tensor([0, 1])
    found = ArcFaceLoss(margin=0.5, as_in='insightface').logits(cosines, labels)
    for face in (0, 1):
        angle = math.acos(cosines[face, face].item()) + 0.5
        assert angle > math.pi
        assert found[face, face].item() == pytest.approx(64 * math.cos(angle), abs=1e-3)


def test_cvlface_has_the_values_of_the_publication():
    cosines, labels, norms = batch()
    plain, variant = AdaFaceLoss().eval(), AdaFaceLoss(as_in='cvlface').eval()
    assert torch.equal(plain.logits(cosines, labels, norms), variant.logits(cosines, labels, norms))


def test_magface_leaves_cosines_that_are_not_positive():
    cosines, labels, norms = batch(num=40)
    loss = MagFaceLoss(as_in='magface')
    assert (cosines[torch.arange(40), labels] <= 0).any()

    def reference(cosines, norms):
        def target(cosine, face):
            if cosine <= 0:
                return cosine
            share = (norms[face].clamp(10, 110) - 10) / 100
            return torch.cos(torch.acos(cosine) + 0.45 + 0.35 * share)

        kept = norms.clamp(10, 110)
        extra = 35 * (kept / 110**2 + 1 / kept).mean()
        return with_target(cosines, labels, 64, target) + extra

    check(lambda c, n: loss(c, labels, n), reference, cosines, norms)


def test_adaface_clamps_all_cosines():
    cosines, labels, norms = batch()
    cosines[0] = torch.tensor([1.0, -1.0, 0.9995, -0.9995, 0.5])
    loss = AdaFaceLoss(as_in='adaface').eval()
    logits = loss.logits(cosines, labels, norms)
    others = torch.ones_like(cosines, dtype=torch.bool)
    others[torch.arange(len(labels)), labels] = False
    expected = 64 * cosines.clamp(-0.999, 0.999)
    torch.testing.assert_close(logits[others], expected[others])
    own = AdaFaceLoss().eval().target_cosine(clamped(cosines[0, :1].clamp(max=0.999)), norms[:1])
    torch.testing.assert_close(logits[0, 0], 64 * own[0])


def test_variants_reach_the_sharded_head():
    torch.manual_seed(0)
    losses = [dict(type='ArcFaceLoss', margin=0.5)]
    losses.append(dict(losses[0], as_in='insightface'))
    grads = []
    for loss in losses:
        torch.manual_seed(1)
        head = PartialRecognitionModule(num_classes=4, embed_dims=6, loss=loss)
        head.loss(torch.randn(8, 6), torch.arange(8) % 4)['loss_cls'].backward()
        grads.append(torch.cat([p.grad.flatten() for p in head.parameters()]))
    assert not torch.allclose(*grads, rtol=1e-2)


@pytest.mark.parametrize('kind', [ArcFaceLoss, CosFaceLoss, MagFaceLoss])
def test_unknown_variants_are_refused(kind):
    with pytest.raises((ValueError, TypeError), match='as_in'):
        kind(as_in='nobody')
