"""IResNet, the residual network of the ArcFace family.

Architecture: Deng et al., *ArcFace*, CVPR 2019 (arXiv 1801.07698), with the improved residual unit
(BN, conv, BN, PReLU, conv, BN) and a first stage that starts on the full-size map, so that a
112x112 face keeps 7x7 positions at the end. Parameter names are those of insightface's public
``backbone.pth`` files, which therefore load unchanged. Depth 50 has 43,590,848 parameters at 512
dimensions.

AdaFace (Kim et al., CVPR 2022, arXiv 2204.00964) and face.evoLVe (github.com/ZhaoJ9014/face.evoLVe)
publish networks of the same family, called IR, that differ in three places; each is a variant here.
``mmvlr convert`` renames the weights in their files to the names of this module.
"""

from collections.abc import Iterable

import torch
from torch import nn

from mmvlr.registry import MODELS

from .base import FaceBackbone, conv_bn, conv_output_size


class IBasicBlock(nn.Module):
    """BN, 3x3 convolution, BN, PReLU, 3x3 convolution with the stride, BN, plus the shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the second convolution and of the shortcut.
        bn_eps: Epsilon of the BN layers (1e-5 in insightface, 2e-5 in MagFace).
        inner_bn: BN between the first convolution and the PReLU.
        conv_shortcut: The shortcut is a 1x1 convolution and a BN wherever the map shrinks. Without
            it, a shortcut that keeps its channels takes every ``stride``-th position instead.
    """

    folds = (('conv1', 'bn2'), ('conv2', 'bn3'), ('downsample.0', 'downsample.1'))

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        bn_eps: float,
        inner_bn: bool = True,
        conv_shortcut: bool = True,
    ):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, eps=bn_eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=bn_eps) if inner_bn else None
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels, eps=bn_eps)
        self.stride = stride
        self.downsample = None
        if in_channels != out_channels or (stride != 1 and conv_shortcut):
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels, eps=bn_eps),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, in, h, w) to (B, out, h / stride, w / stride)."""
        out = self.bn1(x)
        out = self.conv1(out) if self.bn2 is None else conv_bn(self.conv1, self.bn2, out)
        out = conv_bn(self.conv2, self.bn3, self.prelu(out))
        if self.downsample is not None:
            return out + conv_bn(*self.downsample, x)
        # The sources write MaxPool2d(1, stride), which picks the same positions.
        return out + (x if self.stride == 1 else x[..., :: self.stride, :: self.stride])


@MODELS.register_module()
class IResNet(FaceBackbone):
    """IResNet-18, -34, -50 or -100.

    Args:
        depth: 18, 34, 50 or 100.
        embed_dims: Size D of the embedding.
        input_size: Side of the square input in pixels.
        dropout: Dropout probability in front of the last linear layer.
        bn_eps: Epsilon of all BN layers.
        variant: ``'insightface'`` (MagFace too, with ``bn_eps=2e-5``), ``'adaface'`` or
            ``'faceevolve'``: whose network this is.
        frozen_bn, frozen_stages, with_cp: See :class:`FaceBackbone`; the stages are the stem and
            the four of the paper.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Compared with insightface's network, ``'adaface'`` has no convolution in the shortcut at the
    start of its first stage, and no scale and offset in the last BN (43,585,600 parameters at depth
    50); ``'faceevolve'`` lacks that convolution too, and the BN between the first convolution of a
    block and its PReLU (43,574,976).

    Example:
        >>> import torch
        >>> backbone = IResNet(18, input_size=32, embed_dims=64).eval()
        >>> feature_map, embedding = backbone(torch.zeros(2, 3, 32, 32))
        >>> tuple(feature_map.shape), tuple(embedding.shape)
        ((2, 512, 2, 2), (2, 64))
    """

    folds = (('conv1', 'bn1'), ('fc', 'features'))
    tail_layers = ('dropout', 'fc', 'features')
    arch_settings = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
    variants: dict[str, dict] = {
        'insightface': dict(inner_bn=True, conv_shortcut=True, last_affine=True),
        'adaface': dict(inner_bn=True, conv_shortcut=False, last_affine=False),
        'faceevolve': dict(inner_bn=False, conv_shortcut=False, last_affine=True),
    }

    def __init__(
        self,
        depth: int = 50,
        embed_dims: int = 512,
        input_size: int = 112,
        dropout: float = 0.0,
        bn_eps: float = 1e-5,
        variant: str = 'insightface',
        frozen_bn: bool = False,
        frozen_stages: int = 0,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(frozen_bn, frozen_stages, with_cp, init_cfg)
        if depth not in self.arch_settings:
            raise ValueError(f'depth must be one of {sorted(self.arch_settings)}, not {depth}')
        if variant not in self.variants:
            raise ValueError(f'variant must be one of {sorted(self.variants)}, not {variant!r}')
        block_settings = dict(self.variants[variant])
        last_affine = block_settings.pop('last_affine')
        self.depth = depth
        self.variant = variant
        self.embed_dims = embed_dims
        self.feat_channels = 512

        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps=bn_eps)
        self.prelu = nn.PReLU(64)
        in_channels = 64
        stages = zip((64, 128, 256, 512), self.arch_settings[depth], strict=True)
        for index, (channels, num_blocks) in enumerate(stages, start=1):
            blocks = []
            for block in range(num_blocks):
                stride = 2 if block == 0 else 1
                blocks.append(IBasicBlock(in_channels, channels, stride, bn_eps, **block_settings))
                in_channels = channels
            setattr(self, f'layer{index}', nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm2d(512, eps=bn_eps)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(512 * conv_output_size(input_size, 4) ** 2, embed_dims)
        self.features = nn.BatchNorm1d(embed_dims, eps=bn_eps, affine=last_affine)
        self._init_parameters()

    def _init_parameters(self) -> None:
        """Initialize as insightface does: small Gaussian convolutions, BN as identity."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0, 0.1)
        for module in self.modules():
            # A residual branch that starts at zero lets a deep network train from scratch.
            if isinstance(module, IBasicBlock):
                nn.init.zeros_(module.bn3.weight)
        if self.variant == 'insightface':
            # As insightface trains it: its files hold ones here.
            self.features.weight.requires_grad_(False)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem and the four stages of residual units."""
        return [[self.conv1, self.bn1, self.prelu], *(list(self.layers(i)) for i in range(1, 5))]

    def layers(self, index: int) -> nn.Sequential:
        """Return stage 1, 2, 3 or 4."""
        return getattr(self, f'layer{index}')

    def run_blocks(self, blocks: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
        """See :class:`FaceBackbone`; BN of the stem is folded where it does not learn."""
        if next(iter(blocks)) is self.conv1:
            return self.prelu(conv_bn(self.conv1, self.bn1, x))
        return super().run_blocks(blocks, x)

    def extract_map(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map faces (B, 3, H, W) to the feature map (B, 512, H/16, W/16)."""
        return self.bn2(super().extract_map(inputs))

    def embed(self, feature_map: torch.Tensor) -> torch.Tensor:
        """See :class:`FaceBackbone`."""
        return self.features(self.fc(self.dropout(feature_map.flatten(1))))
