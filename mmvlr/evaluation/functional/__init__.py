"""Exact metrics of face recognition and face quality: arrays in, plain numbers and arrays out.

Embeddings may be numpy arrays or torch tensors, on the CPU or a GPU, in single or half precision;
nothing here knows of mmengine. Large score matrices are walked through block by block and never
held. A comparison is accepted when its score is at or above the threshold, and a tie always
counts against the probe.
"""

from ._curves import roc_area
from .bootstrap import Interval, PairedDifference, bootstrap_interval, paired_bootstrap
from .identification import (
    ClosedSetRanks,
    closed_set_identification,
    closed_set_ranks,
    cmc,
    open_set_identification,
)
from .quality import discard_auc_bounds, error_versus_discard, rank1_error_versus_discard
from .verification import verification

__all__ = [
    'ClosedSetRanks',
    'Interval',
    'PairedDifference',
    'bootstrap_interval',
    'closed_set_identification',
    'closed_set_ranks',
    'cmc',
    'discard_auc_bounds',
    'error_versus_discard',
    'open_set_identification',
    'paired_bootstrap',
    'rank1_error_versus_discard',
    'roc_area',
    'verification',
]
