"""Fold BN into the layers before it, for inference."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class FoldedBN(nn.Identity):
    """Placeholder for a BN that has been folded into the layer before it.

    ``conv_bn`` folds a BN on the fly, except in training, where it applies the BN. This module
    always reports training mode, so that the folded kernel is used unchanged.
    """

    weight = torch.empty(0)
    training = property(lambda self: True, lambda self, mode: None)


def folded(model: nn.Module) -> nn.Module:
    """Return a copy for inference in which BN is folded into the layer before it.

    W' = s W and b' = s b + beta - s mean with s = gamma / sqrt(var + eps), computed in float64. In
    eval mode the backbones fold at every call; a folded copy has its kernels ready. Only what is
    exact is folded: a BN in front of a padded convolution (the first one of an IResNet block)
    stays, as the zeros of the border do not go through it, and so does the last BN of an IResNet,
    whose output is the feature map.

    A folded copy has other weights: take the fingerprint of a model
    (:func:`mmvlr.apis.network.fingerprint_model`) before folding.

    Args:
        model: A recognizer or a backbone, not changed. The attribute ``folds`` of a module lists
            pairs of names of submodules (layer, BN) where the BN directly follows the layer;
            modules without it are copied with their BN.

    Returns:
        nn.Module: In eval mode, without gradients. Its embeddings differ by rounding only.

    Example:
        >>> from mmvlr.models import MobileFaceNet
        >>> small = dict(input_size=32, stages=((16, 8, 1, 2), (16, 16, 1, 2)), last_channels=32)
        >>> backbone = MobileFaceNet(**small).eval()
        >>> faces = torch.randn(2, 3, 32, 32)
        >>> torch.allclose(folded(backbone)(faces)[1], backbone(faces)[1], atol=1e-5)
        True
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    adapter = getattr(model, 'adapter', None)
    if adapter is not None and adapter.is_constant:
        model.merge_adapter()
    for module in list(model.modules()):
        for layer, bn in getattr(module, 'folds', ()):
            found = _find(module, bn)
            if isinstance(found, _BatchNorm):
                _fold(_find(module, layer), found)
                parent, _, name = bn.rpartition('.')
                setattr(module.get_submodule(parent), name, FoldedBN())
    return model


def _find(module: nn.Module, name: str) -> nn.Module | None:
    """Return a submodule by its dotted name; None where a part of the path is absent."""
    for part in name.split('.'):
        module = getattr(module, part, None)
    return module


def _fold(layer: nn.Conv2d | nn.Linear, bn: _BatchNorm) -> None:
    scale = torch.rsqrt(bn.running_var.double() + bn.eps)
    shift = -bn.running_mean.double() * scale
    if bn.affine:
        scale, shift = scale * bn.weight.double(), shift * bn.weight.double() + bn.bias.double()
    if layer.bias is not None:
        shift = shift + layer.bias.double() * scale
    kernel = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(kernel.to(layer.weight), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(layer.weight), requires_grad=False)
    low_rank = layer.__dict__.get('low_rank')
    if low_rank is not None:
        low_rank.up.mul_(scale[:, None])
