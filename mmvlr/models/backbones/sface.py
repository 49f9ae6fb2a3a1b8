"""SFace's network as published in OpenCV's model zoo.

Zhong, Deng, Hu, Zhao, Li, Wen, *SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face
Recognition*, IEEE TIP 2021 (arXiv 2205.12010). The published network is a MobileNet of depthwise
and pointwise convolutions (Howard et al., arXiv 1704.04861) with PReLU, a stem that keeps the size
of the face, and a linear layer on the flattened map. ``mmvlr convert-sface`` reads its file.
"""

from collections.abc import Sequence

import torch
from torch import nn

from mmvlr.registry import MODELS

from .base import FaceBackbone, conv_bn, conv_output_size

_CONV_EPS, _TAIL_EPS = 1e-3, 2e-5


class ConvBNPReLU(nn.Module):
    """Convolution of kernel 1 or 3 without bias, BN, PReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel, padded to keep the size at stride 1.
        stride: Stride.
        groups: Groups of the convolution.
    """

    folds = (('conv', 'bn'),)

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, eps=_CONV_EPS)
        self.act = nn.PReLU(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, h / stride, w / stride)."""
        return self.act(conv_bn(self.conv, self.bn, x))


@MODELS.register_module()
class SFaceNet(FaceBackbone):
    """The MobileNet of SFace: 9,642,880 parameters with the default arguments.

    Args:
        embed_dims: Size D of the embedding.
        input_size: Side of the square input in pixels.
        stem_channels: Channels of the stem.
        layers: Rows (output channels, stride) of the depthwise and pointwise pairs.
        dropout: Dropout probability in front of the linear layer (0.4 in the published file).
        frozen_bn, frozen_stages, with_cp: See :class:`FaceBackbone`; a stage is the stem or a pair
            of a depthwise and a pointwise convolution.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Example:
        >>> import torch
        >>> backbone = SFaceNet(input_size=32, stem_channels=4, layers=((8, 1), (16, 2))).eval()
        >>> feature_map, embedding = backbone(torch.zeros(1, 3, 32, 32))
        >>> tuple(feature_map.shape), tuple(embedding.shape)
        ((1, 16, 16, 16), (1, 128))
    """

    folds = (('linear', 'features'),)
    tail_layers = ('map_bn', 'dropout', 'linear', 'features')

    def __init__(
        self,
        embed_dims: int = 128,
        input_size: int = 112,
        stem_channels: int = 32,
        layers: Sequence[Sequence[int]] = (
            (64, 1),
            (128, 2),
            (128, 1),
            (256, 2),
            (256, 1),
            (512, 2),
            *((512, 1),) * 5,
            (1024, 2),
            (1024, 1),
        ),
        dropout: float = 0.0,
        frozen_bn: bool = False,
        frozen_stages: int = 0,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(frozen_bn, frozen_stages, with_cp, init_cfg)
        self.embed_dims = embed_dims
        self.stem = ConvBNPReLU(3, stem_channels, 3)
        pairs, channels = [], stem_channels
        for out_channels, stride in layers:
            depthwise = ConvBNPReLU(channels, channels, 3, stride, groups=channels)
            pairs.append(nn.Sequential(depthwise, ConvBNPReLU(channels, out_channels, 1)))
            channels = out_channels
        self.pairs = nn.Sequential(*pairs)
        self.feat_channels = channels
        side = conv_output_size(input_size, sum(stride == 2 for _, stride in layers))
        self.map_bn = nn.BatchNorm2d(channels, eps=_TAIL_EPS)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels * side**2, embed_dims)
        self.features = nn.BatchNorm1d(embed_dims, eps=_TAIL_EPS)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem and every pair."""
        return [[self.stem], *([pair] for pair in self.pairs)]

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        """See :class:`FaceBackbone`."""
        return self.features(self.linear(self.dropout(self.map_bn(feature_map)).flatten(1)))
