"""MobileFaceNet and the variants in which it is published.

Architecture: Chen et al., *MobileFaceNets*, 2018 (arXiv 1804.07573): inverted residuals with
PReLU, a global depthwise convolution instead of pooling. The public models differ in width, in
what follows the stem, in the layers behind the global convolution and in the padding; each is a
set of arguments here (``variants``).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.registry import MODELS

from .base import FaceBackbone, conv_bn, conv_output_size


class ConvBN(nn.Module):
    """Convolution, BN and, unless ``linear``, PReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel.
        stride: Stride.
        groups: Groups of the convolution.
        linear: Leave the PReLU out.
        padding: ``'symmetric'`` (k // 2 on each side), ``'tf_same'`` (TensorFlow's SAME: at stride
            2 an even input is padded at its end only) or ``'valid'``.
    """

    folds = (('conv', 'bn'),)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
        padding: str = 'symmetric',
    ):
        super().__init__()
        symmetric = kernel // 2 if padding == 'symmetric' else 0
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, symmetric, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.Identity() if linear else nn.PReLU(out_channels)
        self.tf_same = padding == 'tf_same' and kernel > 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, h', w')."""
        if self.tf_same:
            x = self._pad_same(x)
        return self.act(conv_bn(self.conv, self.bn, x))

    def _pad_same(self, x: torch.Tensor) -> torch.Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(
            x.shape[:1:-1], self.conv.kernel_size[::-1], self.conv.stride[::-1], strict=True
        ):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection; a shortcut where shapes match."""

    def __init__(self, in_channels: int, expanded: int, out_channels: int, stride: int, pad: str):
        super().__init__()
        self.expand = ConvBN(in_channels, expanded)
        self.depthwise = ConvBN(expanded, expanded, 3, stride, groups=expanded, padding=pad)
        self.project = ConvBN(expanded, out_channels, linear=True)
        self.with_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, h / stride, w / stride)."""
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.with_shortcut else out


@MODELS.register_module()
class MobileFaceNet(FaceBackbone):
    """MobileFaceNet.

    Args:
        embed_dims: Size D of the embedding.
        input_size: Side of the square input in pixels.
        stem_channels: Channels of the stem.
        stem_groups: Groups of the stem's second convolution; None for one per channel.
            insightface's ``mbf`` has 64 groups at 128 channels.
        stages: Rows (expanded channels, output channels, repeats, stride of the first).
        last_channels: Channels C of the last feature map.
        stem_pointwise: A linear 1x1 convolution follows the stem's depthwise one.
        tail: ``'linear'``: global depthwise convolution, linear layer, BatchNorm1d.
            ``'conv'``: global depthwise convolution, linear 1x1 to ``last_channels``, linear 1x1
            to ``embed_dims``, each with a BN.
        padding: ``'symmetric'`` (PyTorch models) or ``'tf_same'`` (TensorFlow models).
        dropout: Dropout probability in front of the layer that makes the embedding.
        frozen_bn, frozen_stages, with_cp: See :class:`FaceBackbone`; a stage is the stem, an
            inverted residual or the last convolution.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    ``MobileFaceNet(**MobileFaceNet.variants['insightface'])`` is insightface's ``mbf`` (2,059,520
    parameters), ``'slim'`` the one of half the width with a 512-d head (1,200,512), ``'tfjs'`` the
    192-d TensorFlow.js model (1,303,424). Configs write ``variant='tfjs'``; further arguments
    override the variant's.

    Example:
        >>> import torch
        >>> backbone = MobileFaceNet(variant='tfjs').eval()
        >>> feature_map, embedding = backbone(torch.zeros(1, 3, 112, 112))
        >>> tuple(feature_map.shape), tuple(embedding.shape)
        ((1, 512, 7, 7), (1, 192))
    """

    folds = (('embedding', 'features'),)
    tail_layers = ('global_depthwise', 'tail', 'dropout', 'embedding', 'features')
    variants: dict[str, dict] = {
        'insightface': dict(
            stem_channels=128,
            stem_groups=64,
            stages=(
                (128, 128, 5, 2),
                (256, 256, 1, 2),
                (256, 256, 6, 1),
                (512, 256, 1, 2),
                (256, 256, 2, 1),
            ),
        ),
        'slim': dict(),
        'tfjs': dict(embed_dims=192, stem_pointwise=True, tail='conv', padding='tf_same'),
    }

    def __init__(self, variant: str | None = None, init_cfg: dict | None = None, **kwargs):
        if variant is not None and variant not in self.variants:
            raise ValueError(f'variant must be one of {sorted(self.variants)}, not {variant!r}')
        common = {n: kwargs.pop(n, 0) for n in ('frozen_bn', 'frozen_stages', 'with_cp')}
        super().__init__(**common, init_cfg=init_cfg)
        self._build(**{**self.variants.get(variant, {}), **kwargs})

    def _build(
        self,
        embed_dims: int = 512,
        input_size: int = 112,
        stem_channels: int = 64,
        stem_groups: int | None = None,
        stages: Sequence[Sequence[int]] = (
            (128, 64, 5, 2),
            (256, 128, 1, 2),
            (256, 128, 6, 1),
            (512, 128, 1, 2),
            (256, 128, 2, 1),
        ),
        last_channels: int = 512,
        stem_pointwise: bool = False,
        tail: str = 'linear',
        padding: str = 'symmetric',
        dropout: float = 0.0,
    ) -> None:
        if tail not in ('linear', 'conv'):
            raise ValueError(f"tail must be 'linear' or 'conv', not {tail!r}")
        if padding not in ('symmetric', 'tf_same'):
            raise ValueError(f"padding must be 'symmetric' or 'tf_same', not {padding!r}")
        self.embed_dims = embed_dims
        self.feat_channels = last_channels
        channels = stem_channels
        self.stem = ConvBN(3, channels, 3, 2, padding=padding)
        self.stem_depthwise = ConvBN(
            channels, channels, 3, groups=stem_groups or channels, padding=padding
        )
        self.stem_pointwise = (
            ConvBN(channels, channels, linear=True) if stem_pointwise else nn.Identity()
        )
        blocks, num_strides = [], 1
        for expanded, out_channels, repeats, stride in stages:
            num_strides += stride == 2
            for index in range(repeats):
                blocks.append(
                    InvertedResidual(
                        channels, expanded, out_channels, stride if index == 0 else 1, padding
                    )
                )
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)
        self.last = ConvBN(channels, last_channels)
        map_size = conv_output_size(input_size, num_strides)
        self.global_depthwise = ConvBN(
            last_channels,
            last_channels,
            map_size,
            groups=last_channels,
            linear=True,
            padding='valid',
        )
        self.dropout = nn.Dropout(dropout)
        if tail == 'conv':
            self.tail = ConvBN(last_channels, last_channels, linear=True)
            self.embedding = ConvBN(last_channels, embed_dims, linear=True)
            self.features = nn.Identity()
        else:
            self.tail = nn.Identity()
            self.embedding = nn.Conv2d(last_channels, embed_dims, 1, bias=False)
            self.features = nn.BatchNorm1d(embed_dims)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, every inverted residual and the last convolution."""
        stem = [self.stem, self.stem_depthwise, self.stem_pointwise]
        return [stem, *([block] for block in self.blocks), [self.last]]

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        """See :class:`FaceBackbone`."""
        x = self.tail(self.global_depthwise(feature_map))
        return self.features(self.embedding(self.dropout(x)).flatten(1))
