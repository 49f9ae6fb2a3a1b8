"""Metrics for mmengine, thin wrappers around ``mmvlr.evaluation.functional``."""

from .base import QUALITIES, FaceMetric
from .closed_set import ClosedSetMetric, TinyFaceMetric

__all__ = ['QUALITIES', 'ClosedSetMetric', 'FaceMetric', 'TinyFaceMetric']
