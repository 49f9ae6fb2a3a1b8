"""Losses of distillation: a student that sees degraded faces, a teacher that saw good ones."""

import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.registry import MODELS


class DistillationLoss(nn.Module):
    """Base of the losses between a student's and a teacher's features of the same faces.

    A subclass sets ``name``, under which the loss is logged, and implements :meth:`compare`.

    Args:
        loss_weight: Factor of the loss.

    Attributes:
        needs_map: Whether the teacher's feature map is compared, not its embedding.
        any_size: Whether features of student and teacher may have different sizes.
    """

    name: str
    needs_map = False
    any_size = False

    def __init__(self, loss_weight: float = 1.0):
        super().__init__()
        self.loss_weight = loss_weight

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of features of the same B faces, float32."""
        raise NotImplementedError

    def forward(
        self, student: tuple[torch.Tensor, torch.Tensor], teacher: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return the weighted loss.

        Args:
            student: Feature map (B, C, h, w) and embedding (B, D) of the student.
            teacher: ``embedding`` and, with ``needs_map``, ``feature_map`` of the teacher.

        Raises:
            ValueError: The loss needs features of one shape, and they have another.
        """
        own, other = student[not self.needs_map], teacher[self.kind]
        if own.shape != other.shape and not self.any_size:
            raise ValueError(
                f'{type(self).__name__} compares the {self.kind} of student and teacher, which '
                f'have the shapes {tuple(own.shape[1:])} and {tuple(other.shape[1:])}; use '
                'RelationalDistillationLoss, or a teacher of the same network'
            )
        return self.loss_weight * self.compare(own.float(), other.to(own.device).float())

    @property
    def kind(self) -> str:
        """Name of the features that are compared."""
        return 'feature_map' if self.needs_map else 'embedding'


@MODELS.register_module()
class CosineDistillationLoss(DistillationLoss):
    """Mean of 1 - cos(student, teacher) of the embeddings, which must have one size."""

    name = 'cosine'

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """See :class:`DistillationLoss`."""
        return 1 - F.cosine_similarity(student, teacher, dim=1).mean()


@MODELS.register_module()
class FeatureSimilarityDistillationLoss(DistillationLoss):
    """Mean of 1 - cos of the flattened feature maps of student and teacher.

    Shin, Yu, Lee, *Enhancing Low-resolution Face Recognition with Feature Similarity Knowledge
    Distillation*, 2023 (arXiv 2303.04681), who compare the maps of several stages; here it is the
    last one, which every backbone has. Student and teacher must be of one architecture.
    """

    name = 'feature_similarity'
    needs_map = True

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """See :class:`DistillationLoss`."""
        return 1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1), dim=1).mean()


@MODELS.register_module()
class RelationalDistillationLoss(DistillationLoss):
    """Mean squared difference of the cosines between the faces of a batch.

    The student's embeddings shall lie to each other as the teacher's do, whatever the sizes of
    both. After Park, Kim, Lu, Cho, *Relational Knowledge Distillation*, CVPR 2019
    (arXiv 1904.05068), with cosines in place of distances.
    """

    name = 'relational'
    any_size = True

    def compare(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """See :class:`DistillationLoss`."""
        units = [F.normalize(one, dim=1) for one in (student, teacher)]
        own, wanted = (unit @ unit.T for unit in units)
        others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
        return F.mse_loss(own[others], wanted[others])
