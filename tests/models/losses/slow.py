"""The losses written out in loops, one float64 number at a time, and how to compare with them."""

import torch

from mmvlr.models.losses import cosine_matrix
from mmvlr.models.losses.margin import COSINE_EPS


def clamped(cosine):
    """What the core hands to ``target_cosine``."""
    return cosine.clamp(-1 + COSINE_EPS, 1 - COSINE_EPS)


def mean_cross_entropy(rows, labels):
    """Mean of log(sum(exp(logits))) - logit of the label, over lists of scalar tensors."""
    losses = []
    for logits, label in zip(rows, labels.tolist(), strict=True):
        largest = max(logit.item() for logit in logits)
        total = sum(torch.exp(logit - largest) for logit in logits)
        losses.append(torch.log(total) + largest - logits[label])
    return sum(losses) / len(losses)


def with_target(cosines, labels, scale, target):
    """Mean cross entropy with ``target(cosine, face)`` on the labels; faces are numbered."""
    rows = []
    for face, (row, label) in enumerate(zip(cosines, labels.tolist(), strict=True)):
        logits = []
        for index, cosine in enumerate(row):
            if index == label:
                cosine = target(clamped(cosine), face)
            logits.append(scale * cosine)
        rows.append(logits)
    return mean_cross_entropy(rows, labels)


def batch(num=8, classes=5, norms=(5, 130)):
    """Float32 cosines of random vectors, labels and norms, for the module and the reference."""
    cosines = cosine_matrix(torch.randn(num, 6), torch.randn(classes, 6))
    return cosines, torch.arange(num) % classes, torch.empty(num).uniform_(*norms)


def results(loss, dtype, *inputs):
    """Value of ``loss(*inputs)`` and its gradients, zeros where none flows, all in float64."""
    leaves = [tensor.detach().to(dtype, copy=True).requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    return [value.detach().double()] + [
        torch.zeros(leaf.shape, dtype=torch.float64) if gradient is None else gradient.double()
        for leaf, gradient in zip(leaves, gradients, strict=True)
    ]


def check(loss, reference, *inputs, rtol=1e-4, atol=1e-5):
    """Compare the float32 ``loss`` with the float64 ``reference``: value and gradients."""
    found = results(loss, torch.float32, *inputs)
    expected = results(reference, torch.float64, *inputs)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
