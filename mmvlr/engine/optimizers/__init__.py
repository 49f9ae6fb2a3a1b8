"""Optimizer construction and mixed precision."""

from .amp import FaceAmpOptimWrapper
from .part_rates import PartRateConstructor

__all__ = ['FaceAmpOptimWrapper', 'PartRateConstructor']
