"""Adapters: few weights beside a backbone that stays as it is."""

from .gates import FixedGate, QualityGate
from .lora import LoRA, LowRank

__all__ = ['FixedGate', 'LoRA', 'LowRank', 'QualityGate']
