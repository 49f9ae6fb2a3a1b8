"""Identification: the gallery of known people, search, thresholds, and abstention."""

from mmvlr.evaluation.templates import (
    BestTemplate,
    ImageTemplates,
    MeanTemplate,
    MediaTemplate,
    NormWeightedTemplate,
    RIWeightedTemplate,
    TemplateRule,
)

from .answers import Calibration, Comparison, Enrollment, Identification
from .calibrating import SearchedFaces, TargetNotReachedError, calibrate
from .decision import Decision, Verdict
from .gallery import Gallery, GalleryChangedError
from .gallery_state import Enrolled, Matches
from .identifier import BrokenModelError, Identifier
from .people import UnknownOwnerError
from .search import ExactSearch, FaissSearch
from .tracks import TrackRule, Tracks

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
    'MediaTemplate',
    'NormWeightedTemplate',
    'RIWeightedTemplate',
    'SearchedFaces',
    'TargetNotReachedError',
    'TemplateRule',
    'TrackRule',
    'Tracks',
    'UnknownOwnerError',
    'Verdict',
    'calibrate',
]
