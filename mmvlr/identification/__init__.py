"""Who is it: templates, the gallery of known people, search, and whether to answer at all."""

from .answers import Calibration, Comparison, Enrollment, Identification
from .calibrating import SearchedFaces, TargetNotReachedError, calibrate
from .decision import Decision, Verdict
from .gallery import Gallery, GalleryChangedError
from .gallery_state import Enrolled, Matches
from .identifier import BrokenModelError, Identifier, UnknownOwnerError
from .search import ExactSearch, FaissSearch
from .templates import (
    BestTemplate,
    ImageTemplates,
    MeanTemplate,
    NormWeightedTemplate,
    RIWeightedTemplate,
    TemplateRule,
)

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
