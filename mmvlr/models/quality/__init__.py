"""Face quality: every measure gives one number per face, higher is better, by one interface."""

from .base import FaceBatch, QualityMeasure
from .calibration import IsotonicCalibration
from .crfiqa import CRFIQA, CRFIQAQuality, relative_classifiability
from .embedding import ERSQuality, NormQuality, RecognizabilityQuality
from .froq import FROQQuality, choose_layers
from .grafiqs import GraFIQsQuality
from .image import SharpnessQuality, SizeQuality
from .prefiqs import PreFIQsQuality, prune_smallest
from .serfiq import SERFIQQuality, split_at_dropout
from .transfira import CCASQuality, CCSQuality

__all__ = [
    'CRFIQA',
    'CCASQuality',
    'CCSQuality',
    'CRFIQAQuality',
    'ERSQuality',
    'FROQQuality',
    'FaceBatch',
    'GraFIQsQuality',
    'IsotonicCalibration',
    'NormQuality',
    'PreFIQsQuality',
    'QualityMeasure',
    'RecognizabilityQuality',
    'SERFIQQuality',
    'SharpnessQuality',
    'SizeQuality',
    'choose_layers',
    'prune_smallest',
    'relative_classifiability',
    'split_at_dropout',
]
