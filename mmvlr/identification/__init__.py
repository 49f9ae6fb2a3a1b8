"""Identification: the gallery of known people, search, thresholds, and abstention."""

from mmvlr.evaluation.templates import (
    BestTemplate,
    ImageTemplates,
    MeanTemplate,
    NormWeightedTemplate,
    RIWeightedTemplate,
    TemplateRule,
)

from .answers import Calibration, Comparison, Enrollment, Identification
from .calibrating import SearchedFaces, TargetNotReachedError, calibrate
from .decision import Decision, Verdict
from .gallery import Gallery, GalleryChangedError
from .gallery_state import Enrolled, Matches
from .identifier import BrokenModelError, Identifier, UnknownOwnerError
from .search import ExactSearch, FaissSearch

__all__ = [
    'BestTemplate',
    'BrokenModelError',
    'Calibration',
    'Comparison',
    'Decision',
    'Enrolled',
    'Enrollment',
    'ExactSearch',
    'FaissSearch',
    'Gallery',
    'GalleryChangedError',
    'Identification',
    'Identifier',
    'ImageTemplates',
    'Matches',
    'MeanTemplate',
    'NormWeightedTemplate',
    'RIWeightedTemplate',
    'SearchedFaces',
    'TargetNotReachedError',
    'TemplateRule',
    'UnknownOwnerError',
    'Verdict',
    'calibrate',
]
