"""Experiments that compare methods: the plan, and its execution, which can be resumed."""

from .cluster import ClusterExecutor
from .execution import Executor, Failure, estimate_seconds
from .plan import ABLATION, PRETRAINED, Run, Training, find_method_config, plan_runs

__all__ = [
    'ABLATION',
    'PRETRAINED',
    'ClusterExecutor',
    'Executor',
    'Failure',
    'Run',
    'Training',
    'estimate_seconds',
    'find_method_config',
    'plan_runs',
]
