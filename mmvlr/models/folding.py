"""Folding of BN into the layers in front of it, for inference."""

import copy
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .backbones import InceptionResnetV1, IResNet, MobileFaceNet
from .backbones.inception_resnet import ConvBNReLU
from .backbones.iresnet import IBasicBlock
from .backbones.mobilefacenet import ConvBN


class FoldedBN(nn.Identity):
    """Stands where a BN was that has become part of the layer in front of it.

    ``conv_bn`` folds a BN on the fly unless it is in training, in which case it applies it: this
    one always says that it is in training, so that the folded kernel is used as it stands.
    """

    weight = torch.empty(0)
    training = property(lambda self: True, lambda self, mode: None)


def folded(model: nn.Module) -> nn.Module:
    """Return a copy for inference in which BN is part of the layer in front of it.

    W' = s W and b' = s b + beta - s mean with s = gamma / sqrt(var + eps), computed in float64. In
    eval mode the backbones fold at every call; a folded copy has its kernels ready. Only what is
    exact is folded: a BN in front of a padded convolution (the first one of an IResNet block)
    stays, as the zeros of the border do not go through it, and so does the last BN of an IResNet,
    whose output is the feature map.

    A folded copy has other weights: take the identity of a model
    (:func:`mmvlr.apis.network.identity_of`) before folding.

    Args:
        model: A recognizer or a backbone; it is left as it is. Backbones of your own are copied
            with their BN, except where they are made of the blocks of mmvlr's.

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
    for module in list(model.modules()):
        for parent, layer, bn in _pairs(module):
            if isinstance(getattr(parent, bn), _BatchNorm):
                _fold(getattr(parent, layer), getattr(parent, bn))
                setattr(parent, bn, FoldedBN())
    return model


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Yield (parent, name of a layer, name of what follows it directly) of one module."""
    match module:
        case ConvBN() | ConvBNReLU():
            yield module, 'conv', 'bn'
        case IBasicBlock():
            yield module, 'conv1', 'bn2'
            yield module, 'conv2', 'bn3'
            if module.downsample is not None:
                yield module.downsample, '0', '1'
        case IResNet():
            yield module, 'conv1', 'bn1'
            yield module, 'fc', 'features'
        case MobileFaceNet():
            yield module, 'embedding', 'features'
        case InceptionResnetV1():
            yield module, 'last_linear', 'last_bn'


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
