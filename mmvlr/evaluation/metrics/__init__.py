"""Registered metrics: functions of a table of faces, by ``mmvlr.evaluation.functional``."""

from .base import FaceMetric, Observations
from .closed_set import ClosedSetMetric, SCfaceMetric, TinyFaceMetric
from .open_set import OpenSetMetric
from .verification import VerificationMetric

__all__ = [
    'ClosedSetMetric',
    'FaceMetric',
    'Observations',
    'OpenSetMetric',
    'SCfaceMetric',
    'TinyFaceMetric',
    'VerificationMetric',
]
