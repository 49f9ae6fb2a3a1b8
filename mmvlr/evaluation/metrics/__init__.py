"""Metrics for mmengine, thin wrappers around ``mmvlr.evaluation.functional``."""

from .base import QUALITIES, FaceMetric, Observations
from .closed_set import ClosedSetMetric, SCfaceMetric, TinyFaceMetric
from .dump import EmbeddingDump
from .open_set import OpenSetMetric
from .verification import VerificationMetric

__all__ = [
    'QUALITIES',
    'ClosedSetMetric',
    'EmbeddingDump',
    'FaceMetric',
    'Observations',
    'OpenSetMetric',
    'SCfaceMetric',
    'TinyFaceMetric',
    'VerificationMetric',
]
