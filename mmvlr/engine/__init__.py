"""What drives training: hooks, optimizer construction, extraction."""

from mmvlr.utils import compat

from .extraction import build_loader, extract_predictions, unwrap
from .hooks import (
    CheckpointGuardHook,
    CollapseGuardHook,
    EpochSeedHook,
    PrototypeInitHook,
    RegressionFitHook,
    TrainingCollapsedError,
    UICenterHook,
)
from .optimizers import PartRateConstructor

__all__ = [
    'CheckpointGuardHook',
    'CollapseGuardHook',
    'EpochSeedHook',
    'PartRateConstructor',
    'PrototypeInitHook',
    'RegressionFitHook',
    'TrainingCollapsedError',
    'UICenterHook',
    'build_loader',
    'compat',
    'extract_predictions',
    'unwrap',
]
