"""Metrics for mmengine, thin wrappers around ``mmvlr.evaluation.functional``."""

from .base import QUALITIES, FaceMetric
from .closed_set import ClosedSetMetric, SCfaceMetric, TinyFaceMetric
from .open_set import OpenSetMetric
from .verification import VerificationMetric

__all__ = [
    'QUALITIES',
    'ClosedSetMetric',
    'FaceMetric',
    'OpenSetMetric',
    'SCfaceMetric',
    'TinyFaceMetric',
    'VerificationMetric',
]
