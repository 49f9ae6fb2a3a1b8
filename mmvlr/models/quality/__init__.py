"""Face quality: every measure gives one number per face, higher is better, by one interface."""

from .base import FaceBatch, QualityMeasure
from .calibration import IsotonicCalibration
from .crfiqa import CRFIQA, CRFIQAQuality, relative_classifiability
from .embedding import ERSQuality, NormQuality, RecognizabilityQuality
from .image import SharpnessQuality, SizeQuality
from .serfiq import SERFIQQuality, split_at_dropout

__all__ = [
    'CRFIQA',
    'CRFIQAQuality',
    'ERSQuality',
    'FaceBatch',
    'IsotonicCalibration',
    'NormQuality',
    'QualityMeasure',
    'RecognizabilityQuality',
    'SERFIQQuality',
    'SharpnessQuality',
    'SizeQuality',
    'relative_classifiability',
    'split_at_dropout',
]
