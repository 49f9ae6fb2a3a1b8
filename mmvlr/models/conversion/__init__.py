"""Convert public checkpoints to mmvlr checkpoints."""

from .families import FAMILIES
from .public import convert_checkpoint
from .sface import convert_sface
from .tfjs import convert_mobilefacenet

__all__ = ['FAMILIES', 'convert_checkpoint', 'convert_mobilefacenet', 'convert_sface']
