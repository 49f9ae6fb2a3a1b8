"""SER-FIQ: measure how little an embedding changes under dropout.

Terhoerst, Kolf, Damer, Kirchbuchner, Kuijper, *SER-FIQ: Unsupervised Estimation of Face Image
Quality Based on Stochastic Embedding Robustness*, CVPR 2020 (arXiv 2003.09373).
"""

from collections.abc import Callable
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.models.backbones import InceptionResnetV1, IResNet, MobileFaceNet, SFaceNet
from mmvlr.registry import QUALITIES

from .base import FaceBatch, QualityMeasure

#: Maps the input of the last linear layer (B, F) to the embedding (B, D).
LastLayers = Callable[[torch.Tensor], torch.Tensor]


@singledispatch
def split_at_dropout(
    backbone: nn.Module, feature_map: torch.Tensor
) -> tuple[torch.Tensor, LastLayers]:
    """Split a backbone at its dropout, before the last linear layer.

    Register your own backbone by ``@split_at_dropout.register``, with its class as the type of the
    first argument.

    Args:
        backbone: The backbone, in eval mode.
        feature_map: The feature map that it returned, (B, C, h, w).

    Returns:
        The input of the dropout, (B, F), and the layers after it.

    Raises:
        ValueError: The class of the backbone is not registered.
    """
    raise ValueError(
        f'it is not known where the dropout of a {type(backbone).__name__} stands: register the '
        "class with mmvlr.models.quality.split_at_dropout, or use position='embedding'"
    )


@split_at_dropout.register
def _(backbone: IResNet, feature_map: torch.Tensor) -> tuple[torch.Tensor, LastLayers]:
    return feature_map.flatten(1), lambda x: backbone.features(backbone.fc(x))


@split_at_dropout.register
def _(backbone: MobileFaceNet, feature_map: torch.Tensor) -> tuple[torch.Tensor, LastLayers]:
    def last_layers(x: torch.Tensor) -> torch.Tensor:
        return backbone.features(backbone.embedding(x[:, :, None, None]).flatten(1))

    return backbone.tail(backbone.global_depthwise(feature_map)).flatten(1), last_layers


@split_at_dropout.register
def _(backbone: SFaceNet, feature_map: torch.Tensor) -> tuple[torch.Tensor, LastLayers]:
    return backbone.map_bn(feature_map).flatten(1), lambda x: backbone.features(backbone.linear(x))


@split_at_dropout.register
def _(backbone: InceptionResnetV1, feature_map: torch.Tensor) -> tuple[torch.Tensor, LastLayers]:
    return feature_map.mean((2, 3)), lambda x: backbone.last_bn(backbone.last_linear(x))


@QUALITIES.register_module()
class SERFIQQuality(QualityMeasure):
    """SER-FIQ: 2 / (1 + exp(d)), in (0, 1].

    d is the mean Euclidean distance of all T (T - 1) / 2 pairs of unit embeddings that T dropout
    masks give; the authors' code averages over the pairs too, the paper divides by T^2 / 2.

    Only the layers after the dropout are repeated, on their input from one pass of the backbone:
    with dropout at one place this equals T full passes.

    The masks are drawn once per seed and are the same for every face, rank and device: the quality
    of a face does not depend on the other faces, and differences between faces are not caused by
    different masks.

    What is approximated: the authors require a network that was trained with this dropout, or train
    a small one on top. mmvlr's configs set the dropout before the last layer to 0 and apply dropout
    to the embedding in the recognition module instead. ``position='last_layer'`` therefore probes
    a network with a perturbation it has not learned, unless it was trained with
    ``backbone.dropout`` > 0. ``position='embedding'`` is the perturbation that mmvlr's models are
    trained with, but no layer follows it: d then depends only on how evenly the embedding's length
    is spread over its components.

    Args:
        num_passes: T, at least 2.
        dropout: Dropout probability; give the one that the network was trained with, if any.
        position: ``'last_layer'`` (in front of the backbone's last linear layer) or
            ``'embedding'``.
        seed: Seed of the masks.
        name: See :class:`QualityMeasure`.
    """

    name = 'serfiq'

    def __init__(
        self,
        num_passes: int = 100,
        dropout: float = 0.5,
        position: str = 'last_layer',
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(name)
        if num_passes < 2:
            raise ValueError(f'num_passes must be at least 2, not {num_passes}')
        if not 0 < dropout < 1:
            raise ValueError(f'dropout must lie in (0, 1), not {dropout}')
        if position not in ('last_layer', 'embedding'):
            raise ValueError(f"position must be 'last_layer' or 'embedding', not {position!r}")
        self.num_passes = num_passes
        self.dropout = dropout
        self.position = position
        self.seed = seed

    def masks(self, width: int) -> torch.Tensor:
        """Return which of ``width`` inputs each pass keeps, bool (T, width)."""
        # Always on the CPU: generators of other devices draw different numbers.
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(self.num_passes, width, generator=generator) >= self.dropout

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the robustness (B,)."""
        read, last_layers = faces.embedding, nn.Identity()
        if self.position == 'last_layer':
            read, last_layers = split_at_dropout(faces.model.backbone, faces.feature_map)
        # One pass at a time: all T at once would hold T times the (wide) input.
        passes = [
            last_layers(read * mask / (1 - self.dropout))
            for mask in self.masks(read.shape[1]).to(read.device)
        ]
        # In float64, as 2 - 2 cos of nearly equal embeddings is all rounding in float32.
        # A pass that drops all inputs stays zero; no other embedding is shorter than eps.
        unit = F.normalize(torch.stack(passes, dim=1).double(), dim=2, eps=1e-300)
        squared = (2 - 2 * unit @ unit.mT).clamp_min(0)
        i, j = torch.triu_indices(self.num_passes, self.num_passes, 1)
        return 2 / (1 + squared[:, i, j].sqrt().mean(1).exp())
