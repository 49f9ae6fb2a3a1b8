"""Hooks."""

from .checkpoint_guard import CheckpointGuardHook
from .collapse_guard import CollapseGuardHook, TrainingCollapsedError
from .compile import CompileHook
from .ema import FaceEMAHook
from .epoch_seed import EpochSeedHook
from .prototype_init import PrototypeInitHook
from .regression_fit import RegressionFitHook
from .resume import ResumeHook
from .retain import RetainHook
from .runtime_info import BufferedRuntimeInfoHook
from .shard_checkpoint import ShardCheckpointHook
from .teacher import TeacherHook
from .ui_center import UICenterHook

__all__ = [
    'BufferedRuntimeInfoHook',
    'CheckpointGuardHook',
    'CollapseGuardHook',
    'CompileHook',
    'EpochSeedHook',
    'FaceEMAHook',
    'PrototypeInitHook',
    'RegressionFitHook',
    'ResumeHook',
    'RetainHook',
    'ShardCheckpointHook',
    'TeacherHook',
    'TrainingCollapsedError',
    'UICenterHook',
]
