"""PRM: the perceptibility regression module, which predicts the recognizability index."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn

from mmvlr.registry import MODELS


@MODELS.register_module()
class PerceptibilityRegression(BaseModule):
    """Predict xi_hat from the embedding or the pooled feature map.

    ``PerceptibilityRegression(source='embedding', hidden=())`` is the paper's module,
    Linear(Dropout(v_b)).

    Args:
        embed_dims: Size D of the embedding.
        feat_channels: Channels C of the feature map.
        source: ``'embedding'`` (v_b), ``'pooled'`` (average and maximum of the feature map) or
            ``'both'``.
        hidden: Widths of the hidden layers, with ReLU; empty for a linear read-out.
        dropout: Dropout on the inputs.
        zero_init: Start the last layer at zero: xi_hat starts as a constant and no gradient of a
            random read-out reaches the backbone.
        init_cfg: See :class:`mmengine.model.BaseModule`.
    """

    def __init__(
        self,
        embed_dims: int,
        feat_channels: int,
        source: str = 'embedding',
        hidden: Sequence[int] = (),
        dropout: float = 0.9,
        zero_init: bool = True,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        widths = dict(
            embedding=embed_dims, pooled=2 * feat_channels, both=embed_dims + 2 * feat_channels
        )
        if source not in widths:
            raise ValueError(f'source must be one of {sorted(widths)}, not {source!r}')
        self.source = source
        self.dropout = nn.Dropout(dropout)
        layers: list[nn.Module] = []
        width = widths[source]
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        last = nn.Linear(width, 1)
        if zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, feature_map: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) and (B, D) to xi_hat (B,)."""
        inputs = [embeddings] if self.source != 'pooled' else []
        if self.source != 'embedding':
            inputs += [feature_map.mean((2, 3)), feature_map.amax((2, 3))]
        return self.layers(self.dropout(torch.cat(inputs, dim=1))).squeeze(1)
