"""What drives training: hooks, optimizer construction, extraction."""

from .extraction import build_loader, extract_predictions, unwrap
from .hooks import (
    BufferedRuntimeInfoHook,
    CheckpointGuardHook,
    CollapseGuardHook,
    CompileHook,
    EpochSeedHook,
    FaceEMAHook,
    PrototypeInitHook,
    RegressionFitHook,
    ResumeHook,
    ShardCheckpointHook,
    TrainingCollapsedError,
    UICenterHook,
)
from .optimizers import FaceAmpOptimWrapper, PartRateConstructor

__all__ = [
    'BufferedRuntimeInfoHook',
    'CheckpointGuardHook',
    'CollapseGuardHook',
    'CompileHook',
    'EpochSeedHook',
    'FaceAmpOptimWrapper',
    'FaceEMAHook',
    'PartRateConstructor',
    'PrototypeInitHook',
    'RegressionFitHook',
    'ResumeHook',
    'ShardCheckpointHook',
    'TrainingCollapsedError',
    'UICenterHook',
    'build_loader',
    'extract_predictions',
    'unwrap',
]
