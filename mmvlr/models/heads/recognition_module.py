"""RM: the recognition module, prototypes and a loss on the similarities with them."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import nn

from mmvlr.registry import MODELS


@MODELS.register_module()
class RecognitionModule(BaseModule):
    """One prototype w_j for each identity and a margin softmax over the cosines with them.

    The loss defines how an embedding is compared with the prototypes
    (:meth:`MarginSoftmaxLoss.similarities`): cosines, or inner products for :class:`SoftmaxLoss`.

    Args:
        num_classes: Number of identities C; ``mmvlr train`` fills it in from the training set.
        embed_dims: Size D of the embedding.
        dropout: Dropout on the embedding in front of the comparison.
        loss: Config of the margin loss.
        init_cfg: See :class:`mmengine.model.BaseModule`.

    Attributes:
        weight: The prototypes (C, D), of unit length at the start. Losses on cosines do not depend
            on their length, but with Adam, whose steps have a fixed length, it determines how fast
            their directions change.
        sharded: Names of parameters of which every rank holds a part of its own.
    """

    sharded: tuple[str, ...] = ()

    def __init__(
        self,
        num_classes: int | None = None,
        embed_dims: int | None = None,
        dropout: float = 0.2,
        loss: dict | None = None,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg=init_cfg)
        if not isinstance(num_classes, int) or num_classes < 2:
            raise ValueError(
                f'model.head.num_classes must be at least 2, not {num_classes!r}; leave it out of '
                'the config and build the Runner by mmvlr.apis.build_trainer(config) (or mmvlr '
                'train), which takes it from the training set'
            )
        self.num_classes = num_classes
        self.embed_dims = embed_dims
        self.weight = nn.Parameter(self.first_prototypes())
        self.dropout = nn.Dropout(dropout)
        self.loss_module = MODELS.build(loss or dict(type='ArcFaceLoss'))

    def first_prototypes(self) -> torch.Tensor:
        """Return random unit vectors (C, D)."""
        return F.normalize(torch.randn(self.num_classes, self.embed_dims), dim=1)

    @torch.no_grad()
    def set_prototypes(self, prototypes: torch.Tensor) -> None:
        """Replace all prototypes by the directions of ``prototypes`` (C, D).

        Raises:
            ValueError: The shape is another one.
        """
        if prototypes.shape != self.weight.shape:
            raise ValueError(
                f'prototypes have shape {tuple(prototypes.shape)}, not {tuple(self.weight.shape)}'
            )
        self.weight.copy_(F.normalize(prototypes.to(self.weight), dim=1))

    def loss(self, embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``loss_cls`` of raw embeddings (B, D) with labels (B,)."""
        similarities = self.loss_module.similarities(self.dropout(embeddings), self.weight)
        norms = embeddings.float().norm(dim=1)
        return dict(loss_cls=self.loss_module(similarities, labels, norms))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the similarities (B, C) of embeddings (B, D) with all prototypes."""
        return self.loss_module.similarities(embeddings, self.weight)
