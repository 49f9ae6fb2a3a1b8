"""Who is it: templates, the gallery of known people, search, and whether to answer at all."""

from .calibrating import SearchedFaces, TargetNotReachedError, calibrate
from .decision import Decision, Verdict
from .gallery import Gallery, GalleryChangedError
from .gallery_state import Enrolled, Matches
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
    'Decision',
    'Enrolled',
    'ExactSearch',
    'FaissSearch',
    'Gallery',
    'GalleryChangedError',
    'ImageTemplates',
    'Matches',
    'MeanTemplate',
    'NormWeightedTemplate',
    'RIWeightedTemplate',
    'SearchedFaces',
    'TargetNotReachedError',
    'TemplateRule',
    'Verdict',
    'calibrate',
]
