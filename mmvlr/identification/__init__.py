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
from .audit import audit
from .calibrating import SearchedFaces, TargetNotReachedError, calibrate
from .decision import Change, Decision, Verdict
from .findings import Audit, Finding
from .gallery import Gallery, GalleryChangedError
from .gallery_state import Enrolled, Matches
from .gate import Gate, Refusal
from .identifier import Identifier
from .model_check import BrokenModelError
from .people import UnknownOwnerError
from .search import ExactSearch, FaissSearch
from .tracks import TrackRule, Tracks

__all__ = [
    'Audit',
    'BestTemplate',
    'BrokenModelError',
    'Calibration',
    'Change',
    'Comparison',
    'Decision',
    'Enrolled',
    'Enrollment',
    'ExactSearch',
    'FaissSearch',
    'Finding',
    'Gallery',
    'GalleryChangedError',
    'Gate',
    'Identification',
    'Identifier',
    'ImageTemplates',
    'Matches',
    'MeanTemplate',
    'MediaTemplate',
    'NormWeightedTemplate',
    'RIWeightedTemplate',
    'Refusal',
    'SearchedFaces',
    'TargetNotReachedError',
    'TemplateRule',
    'TrackRule',
    'Tracks',
    'UnknownOwnerError',
    'Verdict',
    'audit',
    'calibrate',
]
