"""Optimizer construction."""

from .part_rates import PartRateConstructor

__all__ = ['PartRateConstructor']
