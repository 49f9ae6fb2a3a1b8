"""PRM: the perceptibility regression module, which predicts the recognizability index."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import nn

from mmvlr.registry import MODELS


@MODELS.register_module()
class PerceptibilityRegression(BaseModule):
    """Predict xi_hat from the embedding, its length, or the pooled feature map.

    ``PerceptibilityRegression(with_norm=False)`` is the paper's module, Linear(Dropout(v_b)). By
    default the length of v_b and its logarithm are inputs too, which a linear read-out of v_b
    cannot compute: the length is itself a good quality measure, and both together are better than
    either (docs/benchmarks.md).

    Args:
        embed_dims: Size D of the embedding.
        feat_channels: Channels C of the feature map.
        source: ``'embedding'`` (v_b), ``'pooled'`` (average and maximum of the feature map) or
            ``'both'``.
        with_norm: Add the length of v_b and its logarithm to the inputs.
        hidden: Widths of hidden layers, with ReLU; empty for a linear read-out.
        dropout: Dropout on the inputs.
        zero_init: Start the last layer at zero: xi_hat starts as a constant and no gradient of a
            random read-out reaches the backbone.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Attributes:
        shift, scale: (F,) buffers; inputs are standardized as (x - shift) / scale. 0 and 1 unless
            :meth:`set_read_out` changes them.
    """

    def __init__(
        self,
        embed_dims: int,
        feat_channels: int,
        source: str = 'embedding',
        with_norm: bool = True,
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
        self.with_norm = with_norm
        self.dropout = nn.Dropout(dropout)
        width = widths[source] + 2 * with_norm
        self.register_buffer('shift', torch.zeros(width))
        self.register_buffer('scale', torch.ones(width))
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        last = nn.Linear(width, 1)
        if zero_init:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    @property
    def is_linear(self) -> bool:
        """Whether the read-out is a single linear layer."""
        return len(self.layers) == 1

    @torch.no_grad()
    def set_read_out(
        self, shift: torch.Tensor, scale: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
    ) -> None:
        """Replace a linear read-out: xi_hat = weight . ((x - shift) / scale) + bias.

        Args:
            shift: (F,).
            scale: (F,), positive.
            weight: (F,).
            bias: Scalar.
        """
        if not self.is_linear:
            raise ValueError('set_read_out needs a linear read-out (hidden=())')
        self.shift.copy_(shift)
        self.scale.copy_(scale)
        self.layers[0].weight.copy_(weight.view(1, -1))
        self.layers[0].bias.copy_(bias.view(1))

    def inputs(self, feature_map: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the inputs of the regression, (B, F), before standardization and dropout."""
        parts = [embeddings] if self.source != 'pooled' else []
        if self.with_norm:
            norm = embeddings.norm(dim=1, keepdim=True)
            parts += [norm, norm.clamp_min(1e-6).log()]
        if self.source != 'embedding':
            parts += [feature_map.mean((2, 3)), feature_map.amax((2, 3))]
        return torch.cat(parts, dim=1)

    def forward(self, feature_map: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) and (B, D) to xi_hat (B,)."""
        inputs = (self.inputs(feature_map, embeddings) - self.shift) / self.scale
        return self.layers(self.dropout(inputs)).squeeze(1)
