"""PAM: the perceptibility attention module."""

import torch
from mmengine.model import BaseModule
from torch import nn

from mmvlr.registry import MODELS

from ..backbones import BackboneTail, FaceBackbone


@MODELS.register_module()
class PerceptibilityAttention(BaseModule):
    """Channel then spatial attention on the last feature map, projected to an embedding.

    RI-Face (arXiv 2304.10066), section 3.4, after CBAM (Woo et al., ECCV 2018): the channel gate
    is a shared two-layer network on the average- and on the max-pooled map; the spatial gate a 7x7
    convolution on the channel-wise average and maximum. The paper does not say how the attended map
    becomes v_attn.

    With ``projection='tail'`` it goes through a copy of the backbone's own layers after the map,
    which keep the positions that attention selects. The copy starts from the backbone's weights
    when a checkpoint without PAM is loaded. The gates are 2 * sigmoid(0) = 1 at the start, so
    v_attn starts as v_b.

    With ``projection='pooled'`` the attended map is averaged over its positions and mapped by a new
    linear layer; the gates are sigmoids. Its embedding recognizes far worse (docs/benchmarks.md).

    Args:
        backbone: The backbone of the model, from which sizes and tail are copied.
        reduction: Factor by which the channel gate narrows.
        kernel_size: Side of the spatial gate's kernel.
        projection: ``'tail'`` (what mmvlr's recipes use) or ``'pooled'``.
        init_cfg: See :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        backbone: FaceBackbone,
        reduction: int = 16,
        kernel_size: int = 7,
        projection: str = 'pooled',
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if projection not in ('tail', 'pooled'):
            raise ValueError(f"projection must be 'tail' or 'pooled', not {projection!r}")
        channels = backbone.feat_channels
        hidden = max(channels // reduction, 1)
        self.channel_gate = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels)
        )
        self.spatial_gate = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2)
        self.gain = 1.0
        if projection == 'pooled':
            self.project = nn.Linear(channels, backbone.embed_dims)
            return
        self.gain = 2.0
        self.tail = BackboneTail(backbone)
        for gate in (self.channel_gate[-1], self.spatial_gate):
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)

    def attention(self, feature_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the attended map (B, C, h, w) and the spatial attention (B, 1, h, w).

        The attention lies in (0, 2) with ``projection='tail'``, else in (0, 1).
        """
        pooled = feature_map.mean((2, 3)), feature_map.amax((2, 3))
        channel = torch.sigmoid(self.channel_gate(pooled[0]) + self.channel_gate(pooled[1]))
        feature_map = feature_map * (self.gain * channel[:, :, None, None])
        summary = torch.cat(
            [feature_map.mean(1, keepdim=True), feature_map.amax(1, keepdim=True)], dim=1
        )
        spatial = self.gain * torch.sigmoid(self.spatial_gate(summary))
        return feature_map * spatial, spatial

    def forward(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) to the attended embedding v_attn (B, D)."""
        attended, _ = self.attention(feature_map)
        if self.gain == 1.0:
            return self.project(attended.mean((2, 3)))
        return self.tail(attended)

    def start_tail(self, state: dict, attention: str, backbone: str) -> None:
        """Add the tail's weights to weights that hold a backbone and no PAM.

        Args:
            state: Names to tensors; changed in place.
            attention: Prefix of this module's names, such as ``'attention.'``.
            backbone: Prefix of the backbone's names.
        """
        if self.gain == 1.0 or any(name.startswith(attention) for name in state):
            return
        for name in self.tail.state_dict():
            if backbone + name in state:
                state[f'{attention}tail.{name}'] = state[backbone + name]
