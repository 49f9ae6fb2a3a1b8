"""PreFIQs: measure how little an embedding changes when the network is pruned.

*PreFIQs* (arXiv 2605.13396).
"""

import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.registry import QUALITIES

from .base import FaceBatch, QualityMeasure
from .copies import BackboneCopy


@torch.no_grad()
def prune_smallest(network: nn.Module, share: float, scope: str = 'layer') -> None:
    """Set the weights of least absolute value of convolutions and linear layers to zero.

    Args:
        network: Changed in place.
        share: Share of the weights that become zero, rounded to whole weights.
        scope: ``'layer'``: that share of every layer; ``'global'``: of all layers together.

    Example:
        >>> layer = nn.Linear(4, 1)
        >>> layer.weight.data = torch.tensor([[0.3, -0.1, 0.2, -0.9]])
        >>> prune_smallest(layer, 0.5)
        >>> [round(x, 1) for x in layer.weight[0].tolist()]
        [0.3, 0.0, 0.0, -0.9]
    """
    weights = [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    for group in [weights] if scope == 'global' else [[weight] for weight in weights]:
        flat = torch.cat([weight.flatten() for weight in group])
        smallest = flat.abs().topk(round(share * len(flat)), largest=False, sorted=False).indices
        flat[smallest] = 0
        for weight, values in zip(group, flat.split([w.numel() for w in group]), strict=True):
            weight.copy_(values.view_as(weight))


@QUALITIES.register_module()
class PreFIQsQuality(QualityMeasure):
    """PreFIQs: 1 - ||f - f_pruned|| / 2 with unit embeddings, in [0, 1].

    f_pruned is the embedding of a copy of the backbone, a share of whose weights of least absolute
    value is zero. Faces that the network knows well depend on its strong weights alone. Any
    backbone will do; a face takes a second pass.

    Args:
        share: Share of the weights that become zero, in (0, 1).
        scope: See :func:`prune_smallest`.
        name: See :class:`QualityMeasure`.
    """

    name = 'prefiqs'

    def __init__(self, share: float = 0.4, scope: str = 'layer', name: str | None = None):
        super().__init__(name)
        if not 0 < share < 1:
            raise ValueError(f'share must lie in (0, 1), not {share}')
        if scope not in ('layer', 'global'):
            raise ValueError(f"scope must be 'layer' or 'global', not {scope!r}")
        self.pruned = BackboneCopy(lambda network: prune_smallest(network, share, scope))

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the quality (B,)."""
        _, embedding = self.pruned(faces.model.backbone)(faces.inputs)
        unit, pruned = (F.normalize(x.double(), dim=1) for x in (faces.embedding, embedding))
        return 1 - (unit - pruned).norm(dim=1) / 2
