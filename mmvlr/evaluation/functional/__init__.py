"""Exact metrics of face recognition and face quality: pure functions of arrays.

Embeddings may be NumPy arrays or torch tensors, on the CPU or a GPU, in single or half precision;
mmengine is not needed. Large score matrices are computed block by block and never held as a whole.
A comparison is accepted when its score is at or above the threshold, and a tie always counts
against the probe.
"""

from ._blocks import pair_scores
from ._curves import is_measurable, roc_area
from .bootstrap import (
    Interval,
    PairedDifference,
    Resampled,
    bootstrap_interval,
    bootstrap_intervals,
    paired_bootstrap,
    paired_bootstraps,
    resample,
)
from .conventions import (
    CONVENTIONS,
    DiscardConvention,
    RankConvention,
    discard_areas,
    find_conventions,
    measure_harm,
    rank_consistency,
)
from .curves import Curve, cmc_curve, discard_curve, open_set_curve, roc_curve
from .identification import (
    OpenSetScores,
    closed_set_identification,
    closed_set_ranks,
    open_set_identification,
    open_set_scores,
)
from .quality import discard_auc_bounds, error_versus_discard, rank1_error_versus_discard
from .rates import cmc, open_set_rates
from .search import SearchResult
from .selective import risk_coverage
from .verification import verification, verification_rates

__all__ = [
    'CONVENTIONS',
    'Curve',
    'DiscardConvention',
    'Interval',
    'OpenSetScores',
    'PairedDifference',
    'RankConvention',
    'Resampled',
    'SearchResult',
    'bootstrap_interval',
    'bootstrap_intervals',
    'closed_set_identification',
    'closed_set_ranks',
    'cmc',
    'cmc_curve',
    'discard_areas',
    'discard_auc_bounds',
    'discard_curve',
    'error_versus_discard',
    'find_conventions',
    'is_measurable',
    'measure_harm',
    'open_set_curve',
    'open_set_identification',
    'open_set_rates',
    'open_set_scores',
    'pair_scores',
    'paired_bootstrap',
    'paired_bootstraps',
    'rank1_error_versus_discard',
    'rank_consistency',
    'resample',
    'risk_coverage',
    'roc_area',
    'roc_curve',
    'verification',
    'verification_rates',
]
