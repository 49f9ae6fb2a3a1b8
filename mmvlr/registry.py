"""The registries of mmvlr: one child for every root registry of mmengine.

A child registry lists the modules to import (``locations``) before a name is looked up. Without
them a component whose module was not imported would be reported as unregistered, so every registry
has at least one, and ``tests/test_registry.py`` tests all of them.

``MODELS`` holds backbones, heads, losses, recognizability formulas and recognizers, as in every
OpenMMLab project: a config names a type, and the argument it is given to determines which kind it
must be. ``QUALITIES`` and ``TEMPLATES`` have no root, as mmengine has no such components.
"""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import EVALUATOR as MMENGINE_EVALUATOR
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import INFERENCERS as MMENGINE_INFERENCERS
from mmengine.registry import LOG_PROCESSORS as MMENGINE_LOG_PROCESSORS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_PARAM_SCHEDULERS
from mmengine.registry import RUNNER_CONSTRUCTORS as MMENGINE_RUNNER_CONSTRUCTORS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import STRATEGIES as MMENGINE_STRATEGIES
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import VISUALIZERS as MMENGINE_VISUALIZERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

_ENGINE = ['mmvlr.engine']

RUNNERS = Registry('runner', parent=MMENGINE_RUNNERS, locations=_ENGINE)
RUNNER_CONSTRUCTORS = Registry(
    'runner constructor', parent=MMENGINE_RUNNER_CONSTRUCTORS, locations=_ENGINE
)
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, locations=_ENGINE)
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, locations=_ENGINE)
LOG_PROCESSORS = Registry('log processor', parent=MMENGINE_LOG_PROCESSORS, locations=_ENGINE)
STRATEGIES = Registry('strategy', parent=MMENGINE_STRATEGIES, locations=_ENGINE)
OPTIMIZERS = Registry('optimizer', parent=MMENGINE_OPTIMIZERS, locations=_ENGINE)
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, locations=_ENGINE)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    locations=_ENGINE,
)
PARAM_SCHEDULERS = Registry(
    'parameter scheduler', parent=MMENGINE_PARAM_SCHEDULERS, locations=_ENGINE
)

DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, locations=['mmvlr.datasets'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, locations=['mmvlr.datasets']
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, locations=['mmvlr.datasets.transforms']
)
FUNCTIONS = Registry('function', parent=MMENGINE_FUNCTIONS, locations=['mmvlr.datasets'])

MODELS = Registry(
    'model', parent=MMENGINE_MODELS, locations=['mmvlr.models', 'mmvlr.models.quality']
)
MODEL_WRAPPERS = Registry(
    'model wrapper', parent=MMENGINE_MODEL_WRAPPERS, locations=['mmvlr.models']
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer', parent=MMENGINE_WEIGHT_INITIALIZERS, locations=['mmvlr.models']
)
TASK_UTILS = Registry('task util', parent=MMENGINE_TASK_UTILS, locations=['mmvlr.preparation'])

METRICS = Registry('metric', parent=MMENGINE_METRICS, locations=['mmvlr.evaluation'])
EVALUATOR = Registry('evaluator', parent=MMENGINE_EVALUATOR, locations=['mmvlr.evaluation'])

VISUALIZERS = Registry('visualizer', parent=MMENGINE_VISUALIZERS, locations=['mmvlr.reports'])
VISBACKENDS = Registry(
    'visualizer backend', parent=MMENGINE_VISBACKENDS, locations=['mmvlr.reports']
)
INFERENCERS = Registry('inferencer', parent=MMENGINE_INFERENCERS, locations=['mmvlr.apis'])

QUALITIES = Registry('quality measure', locations=['mmvlr.models.quality'])

TEMPLATES = Registry('template', locations=['mmvlr.evaluation.templates'])


def check_registered(config: Any, registry: Registry, source: str) -> None:
    """Raise an error unless every ``type`` in a config from a file is a name of the registry.

    mmengine's registries import any dotted name or ``_scope_``, so a file could name any function
    of any installed package.

    Args:
        config: Dicts, lists and plain values.
        registry: Registry of the types.
        source: File name, for the error message.

    Raises:
        ValueError: A type is not registered, or there is a ``_scope_``.
    """
    registry.import_from_location()
    if isinstance(config, Mapping):
        if '_scope_' in config:
            raise ValueError(f'{source}: its config names a _scope_, {config["_scope_"]!r:.100}')
        kind = config.get('type')
        known = isinstance(kind, str) and kind.removeprefix('mmvlr.') in registry.module_dict
        if 'type' in config and not known:
            raise ValueError(
                f'{source}: {kind!r:.100} is not registered as {registry.name} in mmvlr. If it is '
                'a part of your own, import it first: a config with custom_imports does (--config)'
            )
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for value in config:
            check_registered(value, registry, source)
