"""Registered metrics, which apply ``mmvlr.evaluation.functional`` to a table of faces."""

from .base import FaceMetric, Observations
from .closed_set import ClosedSetMetric, SCfaceMetric, TinyFaceMetric
from .open_set import OpenSetMetric
from .verification import GalleryVerificationMetric, VerificationMetric

__all__ = [
    'ClosedSetMetric',
    'FaceMetric',
    'GalleryVerificationMetric',
    'Observations',
    'OpenSetMetric',
    'SCfaceMetric',
    'TinyFaceMetric',
    'VerificationMetric',
]
