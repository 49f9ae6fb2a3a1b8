"""Hooks."""

from .checkpoint_guard import CheckpointGuardHook
from .collapse_guard import CollapseGuardHook, TrainingCollapsedError
from .epoch_seed import EpochSeedHook
from .prototype_init import PrototypeInitHook
from .regression_fit import RegressionFitHook
from .ui_center import UICenterHook

__all__ = [
    'CheckpointGuardHook',
    'CollapseGuardHook',
    'EpochSeedHook',
    'PrototypeInitHook',
    'RegressionFitHook',
    'TrainingCollapsedError',
    'UICenterHook',
]
