"""Losses: they map cosines or predictions to a scalar."""

from .adaface import AdaFaceLoss
from .arcface import ArcFaceLoss, add_angle
from .cosface import CosFaceLoss
from .curricularface import CurricularFaceLoss
from .distillation import (
    CosineDistillationLoss,
    DistillationLoss,
    FeatureSimilarityDistillationLoss,
    RelationalDistillationLoss,
)
from .index_diversion import IndexDiversionLoss
from .magface import MagFaceLoss
from .margin import MarginSoftmaxLoss, PrototypeLoss, cosine_matrix
from .moments import batch_moments
from .normface import NormFaceLoss
from .recognizability import Proximities, RecognizabilityIndex, proximities
from .regression import AttentionLoss, IndexRegressionLoss, attention_target
from .softmax import SoftmaxLoss

__all__ = [
    'AdaFaceLoss',
    'ArcFaceLoss',
    'AttentionLoss',
    'CosFaceLoss',
    'CosineDistillationLoss',
    'CurricularFaceLoss',
    'DistillationLoss',
    'FeatureSimilarityDistillationLoss',
    'IndexDiversionLoss',
    'IndexRegressionLoss',
    'MagFaceLoss',
    'MarginSoftmaxLoss',
    'NormFaceLoss',
    'PrototypeLoss',
    'Proximities',
    'RecognizabilityIndex',
    'RelationalDistillationLoss',
    'SoftmaxLoss',
    'add_angle',
    'attention_target',
    'batch_moments',
    'cosine_matrix',
    'proximities',
]
