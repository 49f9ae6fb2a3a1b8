"""TransFIRA: read from the embedding how near it lies to its person, and how far from others.

*TransFIRA: Transfer Learning for Face Image Recognizability Assessment* (FG 2026).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmvlr.models.heads.read_out import ALPHAS, fit_read_out
from mmvlr.models.losses import Proximities
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.registry import MODELS, QUALITIES

from .base import Extract, FaceBatch, QualityMeasure


@QUALITIES.register_module()
class CCSQuality(QualityMeasure):
    """CCS: predicted cosine of a face to the center of its own class.

    A linear read-out of the finished network, fitted as RI's is at the end of a training: in closed
    form, to cosines against class means that leave the face out, on training faces and degraded
    copies of them. It is fitted anew for each scoring and no part of a checkpoint.

    Args:
        dataloader: Name of the config's loader over the training faces without augmentation.
        degraded_dataloader: Name of the config's loader over the same faces with ``DegradeFace``.
        copies: Degraded copies of every face.
        regression: Config of the read-out, a linear :class:`PerceptibilityRegression`; the paper's
            is of the embedding alone.
        alphas: Strengths of the ridge to choose from.
        name: See :class:`QualityMeasure`.

    Attributes:
        summary: What was fitted, in words.
    """

    name = 'ccs'
    needs_training_faces = True

    def __init__(
        self,
        dataloader: str = 'prototype_dataloader',
        degraded_dataloader: str = 'degraded_dataloader',
        copies: int = 3,
        regression: Mapping[str, Any] | None = None,
        alphas: Sequence[float] = ALPHAS,
        name: str | None = None,
    ):
        super().__init__(name)
        self.loaders = [(dataloader, 0), *((degraded_dataloader, copy) for copy in range(copies))]
        self.regression = dict(type='PerceptibilityRegression', with_norm=False, dropout=0.0)
        self.regression |= regression or {}
        self.alphas = tuple(alphas)
        self.head: torch.nn.Module | None = None
        self.summary = ''

    @staticmethod
    def target(distances: Proximities) -> torch.Tensor:
        """Return the value to predict, (B,)."""
        return 1 - distances.d_p

    def prepare(self, model: FaceRecognizer, extract: Extract) -> None:
        """See :class:`QualityMeasure`; fits the read-out."""
        sizes = dict(feat_channels=model.backbone.feat_channels, embed_dims=model.embed_dims)
        head = MODELS.build(sizes | self.regression).eval()

        def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            feature_map, embeddings = model.extract_feat(inputs)
            read = head.to(embeddings.device).inputs(feature_map, embeddings)
            return dict(backbone_embedding=embeddings.float(), regression_input=read.float())

        key = f'input of {self.regression}'
        passes = [extract(loader, predict, copy, key) for loader, copy in self.loaders]
        values, self.summary = fit_read_out(passes, self.target, model.ui_center, self.alphas)
        head.set_read_out(*values)
        self.head, self.is_prepared = head, True

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the prediction (B,)."""
        return self.head.to(faces.embedding.device)(faces.feature_map, faces.embedding)


@QUALITIES.register_module()
class CCASQuality(CCSQuality):
    """CCAS: predicted CCS minus the cosine to the nearest other class center.

    Above 0 the face lies nearer to its own center than to any other. See :class:`CCSQuality`.
    """

    name = 'ccas'

    @staticmethod
    def target(distances: Proximities) -> torch.Tensor:
        """Return the value to predict, (B,)."""
        return distances.d_n - distances.d_p
