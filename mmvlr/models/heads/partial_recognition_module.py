"""PartialFC: a recognition module whose prototypes are sharded over the ranks and sampled."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.logging import print_log
from torch import nn

from mmvlr.registry import MODELS

from ..losses import PrototypeLoss
from .recognition_module import RecognitionModule
from .sharding import gather_rows, mean_over_ranks, shard_cross_entropy, sum_over_ranks

#: Prototypes that are drawn at once.
_DRAWN = 4096


@MODELS.register_module()
class PartialRecognitionModule(RecognitionModule):
    """A :class:`RecognitionModule` for many identities (PartialFC).

    An et al., *Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition
    CNNs by Partial FC*, CVPR 2022 (arXiv 2203.15565). Of C prototypes rank r of W holds those from
    r * C // W to below (r + 1) * C // W, with their gradients and the optimizer's state. Embeddings
    of all ranks are gathered, every rank compares them with its own prototypes, and the softmax
    runs over all: loss and gradients are those of :class:`RecognitionModule` under
    ``DistributedDataParallel``. With ``rate`` below 1 a rank uses only the prototypes of the
    batch's people and others drawn at random. Prototypes that were not drawn have a gradient of
    zero; weight decay and momentum still change them.

    A checkpoint holds all prototypes and their optimizer state, so training can be resumed with any
    number of ranks or with a :class:`RecognitionModule`. :class:`ShardCheckpointHook`, which
    ``tools/train.py`` adds, gathers the shards for this purpose. Without it, a state dict on more
    than one rank lacks the prototypes.

    Args:
        num_classes: Number of identities C, at least the number of ranks.
        embed_dims: Size D of the embedding.
        rate: Share of its prototypes that a rank uses in a training step, above 0 and up to 1. The
            batch's people count in it, and are used even where they alone exceed it.
        **kwargs: See :class:`RecognitionModule`.

    Attributes:
        weight: This rank's prototypes (C / W, D).
        classes: Their class indices, a range.
    """

    sharded = ('weight',)

    def __init__(
        self,
        num_classes: int | None = None,
        embed_dims: int | None = None,
        rate: float = 1.0,
        **kwargs: Any,
    ):
        if not 0 < rate <= 1:
            raise ValueError(f'rate must be above 0 and at most 1, not {rate!r}')
        # first_prototypes needs them.
        self.num_ranks, self.rank = get_world_size(), get_rank()
        super().__init__(num_classes, embed_dims, **kwargs)
        self.rate = rate
        #: Whether a hook gathers the prototypes for checkpoints by ``gathered``.
        self.is_gathered = False
        self._whole: torch.Tensor | None = None
        loss = self.loss_module
        name = type(loss).__name__
        whole = [key for key in ('forward', 'logits') if _overrides(type(loss), key)]
        if not isinstance(loss, PrototypeLoss) or whole:
            reason = f'overrides {whole[0]}' if whole else 'is no PrototypeLoss'
            raise ValueError(
                f'{name} cannot be sharded: it {reason}; override the steps of PrototypeLoss '
                '(target_cosine, negative_cosines, modified, ...), or use RecognitionModule'
            )

    def assign_classes(self, rank: int) -> range:
        """Return the class indices whose prototypes a rank holds."""
        begin, end = (r * self.num_classes // self.num_ranks for r in (rank, rank + 1))
        return range(begin, end)

    @property
    def classes(self) -> range:
        """Class indices of this rank's prototypes."""
        return self.assign_classes(self.rank)

    def first_prototypes(self) -> torch.Tensor:
        """Return random unit vectors for this rank, the same however many ranks there are."""
        if self.num_classes < self.num_ranks:
            raise ValueError(
                f'{self.num_classes} classes cannot be shared among {self.num_ranks} ranks; use '
                'RecognitionModule'
            )
        own = torch.empty(len(self.classes), self.embed_dims)
        for begin in range(0, self.num_classes, _DRAWN):
            # Drawn also for other ranks: later random numbers must not depend on the rank.
            drawn = torch.randn(min(_DRAWN, self.num_classes - begin), self.embed_dims)
            first = max(begin, self.classes.start)
            last = max(min(begin + len(drawn), self.classes.stop), first)
            own[first - self.classes.start : last - self.classes.start] = drawn[
                first - begin : last - begin
            ]
        # In place, so that a rank never holds more than its part.
        return F.normalize(own, dim=1, out=own)

    @torch.no_grad()
    def set_prototypes(self, prototypes: torch.Tensor) -> None:
        """Replace all prototypes by the directions of ``prototypes`` (C, D), given on every rank.

        Raises:
            ValueError: The shape is another one.
        """
        if prototypes.shape != (self.num_classes, self.embed_dims):
            raise ValueError(
                f'prototypes have shape {tuple(prototypes.shape)}, not '
                f'{(self.num_classes, self.embed_dims)}'
            )
        super().set_prototypes(prototypes[self.classes.start : self.classes.stop])

    def sampled(self, labels: torch.Tensor) -> torch.Tensor:
        """Return the rows of ``weight`` to use in a step, ascending.

        Args:
            labels: (B,) rows of ``weight`` of the batch's people, -1 for those of other shards.
        """
        num = max(int(self.rate * len(self.weight)), 1)
        order = torch.rand(len(self.weight), device=labels.device)
        people = labels[labels >= 0].unique()
        order[people] = 2.0
        return order.topk(max(num, len(people))).indices.sort().values

    def loss(self, embeddings: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return ``loss_cls``, the mean over the faces of all ranks and the same on each.

        Args:
            embeddings: (B, D), raw embeddings of this rank's faces; B is the same on all ranks.
            labels: (B,) int64 class indices.

        Raises:
            IndexError: A label is no class.
            RuntimeError: The ranks have batches of different sizes, or their number has changed
                since the head was made.
        """
        # Synchronizes the GPU: without the check, ranks with different batches would hang.
        self._check(labels)
        if self.training and self.num_ranks > 1 and not self.is_gathered:
            self.is_gathered = True
            print_log(
                'prototypes are sharded and not gathered: checkpoints will lack them; '
                'add ShardCheckpointHook to custom_hooks, or save within head.gathered()',
                logger='current',
                level=logging.WARNING,
            )
        num = len(labels)
        own = slice(self.rank * num, (self.rank + 1) * num)
        norms = gather_rows(embeddings.float().norm(dim=1))
        embeddings = gather_rows(self.dropout(embeddings).float())
        labels = torch.cat(all_gather(labels)) - self.classes.start
        labels = torch.where((labels >= 0) & (labels < len(self.classes)), labels, -1)
        weight = self.weight
        if self.training and self.rate < 1:
            chosen = self.sampled(labels)
            weight = weight[chosen]
            labels = torch.where(labels >= 0, torch.searchsorted(chosen, labels), -1)
        with torch.autocast(embeddings.device.type, enabled=False):
            similarities = self.loss_module.similarities(embeddings, weight).float()
            return dict(loss_cls=self._sharded_loss(similarities, labels, norms, own))

    def _sharded_loss(
        self, similarities: torch.Tensor, labels: torch.Tensor, norms: torch.Tensor, own: slice
    ) -> torch.Tensor:
        """Return the loss of all ranks' faces: the steps of :class:`PrototypeLoss`, over ranks.

        Every rank returns the same mean; its gradient is the part that flows through its columns,
        so the gradients of the faces must be summed over the ranks.

        Args:
            similarities: (B, C) of the faces of all ranks with the prototypes in use here.
            labels: (B,) columns, -1 for faces of other shards' people.
            norms: (B,) of the faces of all ranks.
            own: Rows of this rank's faces.
        """
        loss = self.loss_module
        # A rank has the targets of its own people only, and contributes 0 for all others.
        target = loss.bounded(sum_over_ranks(loss.target(similarities, labels)))
        if loss.training:
            with torch.no_grad():
                loss.update_statistics(target[own], norms[own])
        logits = loss.modified(similarities, target, labels, norms)
        value, extra = shard_cross_entropy(logits, labels), loss.regularizer(norms[own])
        return loss.loss_weight * (value if extra is None else value + mean_over_ranks(extra))

    def _check(self, labels: torch.Tensor) -> None:
        if get_world_size() != self.num_ranks:
            raise RuntimeError(
                f'the head was made for {self.num_ranks} ranks, not {get_world_size()}; start the '
                'process group before the model is built'
            )
        told = torch.stack(
            all_gather(torch.stack([labels.new_tensor(len(labels)), *labels.aminmax()]))
        )
        sizes, lowest, highest = told.T.tolist()
        if len(set(sizes)) > 1:
            raise RuntimeError(
                f'the ranks have batches of {sizes} faces; they must be equal: set drop_last=True '
                'in train_dataloader'
            )
        if min(lowest) < 0 or max(highest) >= self.num_classes:
            raise IndexError(
                f'labels from {min(lowest)} to {max(highest)}, but there are {self.num_classes} '
                'classes'
            )

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the similarities (B, C / W) of embeddings (B, D) with this rank's prototypes."""
        return super().forward(embeddings)

    # Checkpoints --------------------------------------------------------------------------------

    def take_rows(self, whole: torch.Tensor) -> torch.Tensor:
        """Return this rank's rows of a tensor (C, ...)."""
        return whole[self.classes.start : self.classes.stop]

    def whole(self, rows: torch.Tensor) -> torch.Tensor | None:
        """Return all ranks' rows (C, ...) on the CPU of rank 0, None elsewhere.

        To be called on all ranks. Shards arrive one by one, so a GPU need not hold the whole.

        Args:
            rows: (C / W, ...), one row for each of this rank's prototypes.
        """
        rows = rows.detach()
        if self.rank > 0:
            dist.send(rows.contiguous(), 0)
            return None
        whole = torch.empty(self.num_classes, *rows.shape[1:], dtype=rows.dtype)
        whole[: len(rows)] = rows
        for rank in range(1, self.num_ranks):
            classes = self.assign_classes(rank)
            arrived = rows.new_empty(len(classes), *rows.shape[1:])
            dist.recv(arrived, rank)
            whole[classes.start : classes.stop] = arrived
        return whole

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Make rank 0's state dict hold the whole weight; must be entered on all ranks."""
        self._whole = self.whole(self.weight)
        try:
            yield
        finally:
            self._whole = None

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.num_ranks > 1:
            # A shard must not be taken for the whole: mmengine starts every rank with the state
            # dict of rank 0.
            del destination[f'{prefix}weight']
            if self._whole is not None:
                destination[f'{prefix}weight'] = self._whole

    def _load_from_state_dict(
        self, state_dict: Mapping[str, torch.Tensor], prefix: str, *args: Any
    ) -> None:
        key = f'{prefix}weight'
        if key in state_dict:
            shape = (self.num_classes, self.embed_dims)
            if state_dict[key].shape != shape:
                # mmengine would only log it.
                raise ValueError(
                    f'{key} of the checkpoint has shape {tuple(state_dict[key].shape)}, the model '
                    f'needs {shape}: it was trained on other people'
                )
            state_dict = {**state_dict, key: self.take_rows(state_dict[key])}
        super()._load_from_state_dict(state_dict, prefix, *args)


def _overrides(kind: type, name: str) -> bool:
    return issubclass(kind, PrototypeLoss) and getattr(kind, name) is not getattr(
        PrototypeLoss, name
    )


def sharded_head(model: nn.Module) -> PartialRecognitionModule | None:
    """Return the head of a model if it is sharded over more than one rank, else None."""
    head = getattr(model, 'head', None)
    return head if isinstance(head, PartialRecognitionModule) and head.num_ranks > 1 else None
