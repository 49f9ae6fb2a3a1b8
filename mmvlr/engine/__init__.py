"""Training and scoring: hooks, loops, optimizer construction, extraction."""

from .building import FaceRunner
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
from .loops import FaceTestLoop, FaceValLoop
from .optimizers import FaceAmpOptimWrapper, PartRateConstructor

__all__ = [
    'BufferedRuntimeInfoHook',
    'CheckpointGuardHook',
    'CollapseGuardHook',
    'CompileHook',
    'EpochSeedHook',
    'FaceAmpOptimWrapper',
    'FaceEMAHook',
    'FaceRunner',
    'FaceTestLoop',
    'FaceValLoop',
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
