"""PAM: the perceptibility attention module."""

import torch
from mmengine.model import BaseModule
from torch import nn

from mmvlr.registry import MODELS


@MODELS.register_module()
class PerceptibilityAttention(BaseModule):
    """Channel then spatial attention on the last feature map, pooled and projected.

    RI-Face (arXiv 2304.10066), section 3.4, after CBAM (Woo et al., ECCV 2018): the channel gate
    is a shared two-layer network on the average- and on the max-pooled map; the spatial gate a 7x7
    convolution on the channel-wise average and maximum. The projection to D is our choice.

    Args:
        feat_channels: Channels C of the feature map.
        embed_dims: Size D of the embedding.
        reduction: Factor by which the channel gate narrows.
        kernel_size: Side of the spatial gate's kernel.
        init_cfg: See :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        feat_channels: int,
        embed_dims: int,
        reduction: int = 16,
        kernel_size: int = 7,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        hidden = max(feat_channels // reduction, 1)
        self.channel_gate = nn.Sequential(
            nn.Linear(feat_channels, hidden), nn.ReLU(), nn.Linear(hidden, feat_channels)
        )
        self.spatial_gate = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)
        self.project = nn.Linear(feat_channels, embed_dims)

    def attention(self, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attended map (B, C, h, w) and the spatial attention (B, 1, h, w) in (0, 1)."""
        pooled = feature_map.mean((2, 3)), feature_map.amax((2, 3))
        channel = torch.sigmoid(self.channel_gate(pooled[0]) + self.channel_gate(pooled[1]))
        feature_map = feature_map * channel[:, :, None, None]
        summary = torch.cat(
            [feature_map.mean(1, keepdim=True), feature_map.amax(1, keepdim=True)], dim=1
        )
        spatial = torch.sigmoid(self.spatial_gate(summary))
        return feature_map * spatial, spatial

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to the attended embedding v_attn (B, D)."""
        attended, _ = self.attention(feature_map)
        return self.project(attended.mean((2, 3)))
