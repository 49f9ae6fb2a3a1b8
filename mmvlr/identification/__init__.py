"""Who is it: templates, the gallery of known people, search, and whether to answer at all."""

from .decision import (
    Decision,
    DecisionFileError,
    SearchedFaces,
    TargetNotReachedError,
    Verdict,
    calibrate,
)
from .gallery import Gallery, GalleryFileError, Matches
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
    'DecisionFileError',
    'ExactSearch',
    'FaissSearch',
    'Gallery',
    'GalleryFileError',
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
