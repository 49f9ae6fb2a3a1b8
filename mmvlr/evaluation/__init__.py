"""Metrics: ``functional`` is arrays in, numbers out; ``metrics`` wraps it for mmengine."""

from . import metrics
from .table import FaceTable

__all__ = ['FaceTable', 'metrics']
