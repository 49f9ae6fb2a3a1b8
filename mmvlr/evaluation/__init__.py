"""Metrics: ``functional`` is arrays in, numbers out; ``metrics`` wraps it for mmengine."""

from . import metrics

__all__ = ['metrics']
