"""Metrics: ``functional`` is arrays in, numbers out; ``metrics`` wraps it for mmengine."""

from mmvlr.structures import FaceTable

from . import metrics

__all__ = ['FaceTable', 'metrics']
