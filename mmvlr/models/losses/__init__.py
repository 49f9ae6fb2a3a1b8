"""Losses: cosines or predictions in, a scalar out."""

from .arcface import ArcFaceLoss
from .index_diversion import IndexDiversionLoss
from .margin import MarginSoftmaxLoss, cosine_matrix
from .recognizability import Proximities, RecognizabilityIndex, proximities
from .regression import AttentionLoss, IndexRegressionLoss, attention_target

__all__ = [
    'ArcFaceLoss',
    'AttentionLoss',
    'IndexDiversionLoss',
    'IndexRegressionLoss',
    'MarginSoftmaxLoss',
    'Proximities',
    'RecognizabilityIndex',
    'attention_target',
    'cosine_matrix',
    'proximities',
]
