"""Face quality: every measure is one number a face, higher is better, called in one way."""

from .base import FaceBatch, QualityMeasure
from .calibration import IsotonicCalibration
from .crfiqa import CRFIQA, CRFIQAQuality, relative_classifiability
from .embedding import ERSQuality, NormQuality, RecognizabilityQuality
from .image import SharpnessQuality, SizeQuality
from .measuring import measure_quality, native_image
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
    'measure_quality',
    'native_image',
    'relative_classifiability',
    'split_at_dropout',
]
