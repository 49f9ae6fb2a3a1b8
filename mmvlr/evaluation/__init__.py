"""Metrics: pure functions of arrays in ``functional``, wrapped for mmengine in ``metrics``."""

from mmvlr.structures import FaceTable

from . import metrics

__all__ = ['FaceTable', 'metrics']
