"""Inception-ResNet-v1, the network of FaceNet's public weights.

Architecture: Szegedy et al., *Inception-v4, Inception-ResNet and the Impact of Residual Connections
on Learning*, 2016 (arXiv 1602.07261), figures 10 to 14 and figure 7 with the column
Inception-ResNet-v1 of table 1, up to the pooling; a linear layer and a BN make the embedding.
Widths, scales and parameter names are those of the ``InceptionResnetV1`` state dicts of
facenet-pytorch (github.com/timesler/facenet-pytorch), which therefore load unchanged: 23,482,624
parameters at 512 dimensions.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.registry import MODELS

from .base import FaceBackbone, conv_bn

#: Epsilon of all BN layers, that of the TensorFlow model the weights come from.
BN_EPS = 1e-3


class ConvBNReLU(nn.Module):
    """Convolution without bias, BN, ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel, or its height and width.
        stride: Stride.
        same: Pad so that stride 1 keeps the size; nothing is padded otherwise.
    """

    folds = (('conv', 'bn'),)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        same: bool = True,
    ):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if same else 0
        self.conv = nn.Conv2d(
            in_channels, out_channels, (height, width), stride, padding, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=BN_EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, h', w')."""
        return F.relu(conv_bn(self.conv, self.bn, x))


class Branches(nn.Module):
    """Apply several branches to the same map and concatenate their outputs.

    Args:
        *branches: Branches in the order of their channels in the output; they are named
            ``branch0`` and so on.
    """

    def __init__(self, *branches: nn.Module):
        super().__init__()
        self.num_branches = len(branches)
        for index, branch in enumerate(branches):
            self.add_module(f'branch{index}', branch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, sum of the branches' channels, h', w')."""
        return torch.cat([getattr(self, f'branch{i}')(x) for i in range(self.num_branches)], dim=1)


class ResidualBranches(Branches):
    """``x + scale * conv2d(branches)``: the residual unit of the paper.

    Args:
        *branches: See :class:`Branches`.
        channels: Channels of the map.
        inner: Channels of all branches together.
        scale: Factor of the residual (section 3.3 of the paper).
        relu: Apply ReLU to the sum.
    """

    def __init__(
        self, *branches: nn.Module, channels: int, inner: int, scale: float, relu: bool = True
    ):
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(inner, channels, 1)
        self.scale = scale
        self.relu = relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to the same shape."""
        out = x + self.scale * self.conv2d(super().forward(x))
        return F.relu(out) if self.relu else out


def chain(in_channels: int, *layers: Sequence) -> nn.Sequential:
    """Return a sequence of ConvBNReLU layers; each is (channels, kernel[, stride, same])."""
    modules = []
    for out_channels, *settings in layers:
        modules.append(ConvBNReLU(in_channels, out_channels, *settings))
        in_channels = out_channels
    return nn.Sequential(*modules)


def block35() -> ResidualBranches:
    """Return figure 10, the unit of the largest maps (35x35 in the paper, 17x17 for 160x160)."""
    return ResidualBranches(
        ConvBNReLU(256, 32),
        chain(256, (32, 1), (32, 3)),
        chain(256, (32, 1), (32, 3), (32, 3)),
        channels=256,
        inner=96,
        scale=0.17,
    )


def block17() -> ResidualBranches:
    """Return figure 11, the unit of the middle maps (8x8 for a 160x160 face)."""
    return ResidualBranches(
        ConvBNReLU(896, 128),
        chain(896, (128, 1), (128, (1, 7)), (128, (7, 1))),
        channels=896,
        inner=256,
        scale=0.1,
    )


def block8(scale: float = 0.2, relu: bool = True) -> ResidualBranches:
    """Return figure 13, the unit of the smallest maps (3x3 for a 160x160 face)."""
    return ResidualBranches(
        ConvBNReLU(1792, 192),
        chain(1792, (192, 1), (192, (1, 3)), (192, (3, 1))),
        channels=1792,
        inner=384,
        scale=scale,
        relu=relu,
    )


@MODELS.register_module()
class InceptionResnetV1(FaceBackbone):
    """Inception-ResNet-v1.

    The size of the input is free from ``min_size`` on, as the last map is averaged. The published
    weights were trained on 160x160 RGB faces, (x - 127.5) / 128.

    Args:
        embed_dims: Size D of the embedding.
        dropout: Dropout probability in front of the last linear layer.
        frozen_bn, frozen_stages, with_cp: See :class:`FaceBackbone`; the stages are the stem and
            the units of figures 10, 11 and 13 with the reductions in front of them.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Example:
        >>> import torch
        >>> backbone = InceptionResnetV1(embed_dims=64).eval()
        >>> feature_map, embedding = backbone(torch.zeros(1, 3, 96, 96))
        >>> tuple(feature_map.shape), tuple(embedding.shape)
        ((1, 1792, 1, 1), (1, 64))
    """

    #: Smallest side in pixels for which the unpadded convolutions leave at least one position.
    min_size = 75
    folds = (('last_linear', 'last_bn'),)
    tail_layers = ('dropout', 'last_linear', 'last_bn')

    def __init__(
        self,
        embed_dims: int = 512,
        dropout: float = 0.0,
        frozen_bn: bool = False,
        frozen_stages: int = 0,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(frozen_bn, frozen_stages, with_cp, init_cfg)
        self.embed_dims = embed_dims
        self.feat_channels = 1792

        self.conv2d_1a = ConvBNReLU(3, 32, 3, 2, same=False)
        self.conv2d_2a = ConvBNReLU(32, 32, 3, same=False)
        self.conv2d_2b = ConvBNReLU(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvBNReLU(64, 80)
        self.conv2d_4a = ConvBNReLU(80, 192, 3, same=False)
        self.conv2d_4b = ConvBNReLU(192, 256, 3, 2, same=False)
        self.repeat_1 = nn.Sequential(*(block35() for _ in range(5)))
        self.mixed_6a = Branches(
            ConvBNReLU(256, 384, 3, 2, same=False),
            chain(256, (192, 1), (192, 3), (256, 3, 2, False)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_2 = nn.Sequential(*(block17() for _ in range(10)))
        self.mixed_7a = Branches(
            chain(896, (256, 1), (384, 3, 2, False)),
            chain(896, (256, 1), (256, 3, 2, False)),
            chain(896, (256, 1), (256, 3), (256, 3, 2, False)),
            nn.MaxPool2d(3, 2),
        )
        self.repeat_3 = nn.Sequential(*(block8() for _ in range(5)))
        self.block8 = block8(scale=1.0, relu=False)
        self.dropout = nn.Dropout(dropout)
        self.last_linear = nn.Linear(self.feat_channels, embed_dims, bias=False)
        self.last_bn = nn.BatchNorm1d(embed_dims, eps=BN_EPS)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem and three stages of residual units with their reductions."""
        stem = [self.conv2d_1a, self.conv2d_2a, self.conv2d_2b, self.maxpool_3a]
        return [
            [*stem, self.conv2d_3b, self.conv2d_4a, self.conv2d_4b],
            list(self.repeat_1),
            [self.mixed_6a, *self.repeat_2],
            [self.mixed_7a, *self.repeat_3, self.block8],
        ]

    def extract_map(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map faces (B, 3, H, W) to the map (B, 1792, h, w); 160x160 gives 3x3 positions.

        Raises:
            ValueError: The faces are smaller than ``min_size``.
        """
        if min(inputs.shape[-2:]) < self.min_size:
            raise ValueError(
                f'InceptionResnetV1 needs faces of {self.min_size} pixels or more, got '
                f'{tuple(inputs.shape[-2:])}; enlarge them in the pipeline (ResizeFace) and set '
                'data_preprocessor.size'
            )
        return super().extract_map(inputs)

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        """See :class:`FaceBackbone`."""
        return self.last_bn(self.last_linear(self.dropout(feature_map.mean(dim=(2, 3)))))
