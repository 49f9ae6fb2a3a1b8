"""Build a Runner for training or testing from a config file."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.logging import MMLogger, print_log
from mmengine.runner import CheckpointLoader, Runner

from mmvlr.datasets import find_alignment
from mmvlr.datasets.transforms import FlipFace, PackFace, RescaleFace, ResizeFace, RotateFace
from mmvlr.registry import DATASETS, METRICS, MODELS, RUNNERS, TRANSFORMS
from mmvlr.utils import compat
from mmvlr.utils.checkpoint import unwrap_state_dict
from mmvlr.utils.config_keys import check_file_keys, check_options
from mmvlr.utils.shipped import find_config
from mmvlr.utils.zoo import ZOO, find_model

from .runner import QuietRunner, quiet_console
from .work_dir import keep_work_dir_writable


def load_config(path: str | Path, options: dict[str, Any] | None = None) -> Config:
    """Read a config, set its scope to mmvlr and merge options into it.

    Args:
        path: The file, or the name of a config of mmvlr; see :func:`find_config`.
        options: Values of ``--cfg-options``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: File or options hold a key that is not read, such as a misspelled one.
    """
    path = find_config(path)
    compat.apply()
    config = Config.fromfile(path)
    if Config._is_lazy_import(str(path)):
        # Checkpoints carry the config, and names say what classes cannot: what to build.
        config = Config(_name_types(config.to_dict()), cfg_text=config.text, filename=str(path))
    check_file_keys(config, config.text, str(path))
    if options:
        check_options(config, options, config.text)
        config.merge_from_dict(options)
    config.setdefault('default_scope', 'mmvlr')
    if config.get('load_from') in ZOO:
        config.load_from = str(find_model(config.load_from))
    if config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(path).parent.name / Path(path).stem)
    return config


def _name_types(value: Any) -> Any:
    """Return a lazy config with mmvlr's classes under their registered names."""
    if isinstance(value, dict):
        value = {key: _name_types(each) for key, each in value.items()}
        kind = value.get('type')
        # With one dot it is a scope and a name, as text configs write it.
        if isinstance(kind, str) and kind.startswith('mmvlr.') and kind.count('.') > 1:
            value['type'] = kind.rpartition('.')[2]
        return value
    return type(value)(map(_name_types, value)) if isinstance(value, (list, tuple)) else value


def resolve_num_classes(
    config: Config, num_classes: int | None, source: str = 'the training set'
) -> None:
    """Set the number of classes in ``config.model.head``.

    Args:
        config: Changed in place. Not changed without a head.
        num_classes: Number of classes of data or checkpoint; None if neither is available.
        source: Origin of that number, for the error message.

    Raises:
        ValueError: The config states another number.
    """
    head = config.model.get('head')
    if head is None:
        return
    stated = head.get('num_classes')
    if stated is None:
        if num_classes is None:
            raise ValueError('num_classes is neither in model.head nor in the training set')
        head.num_classes = num_classes
    elif num_classes is not None and stated != num_classes:
        raise ValueError(
            f'model.head.num_classes is {stated}, but {source} has {num_classes} people; leave it '
            'out of the config to take it from there'
        )


@RUNNERS.register_module()
class FaceRunner(QuietRunner):
    """The Runner of mmvlr's configs (``runner_type``): tools of the family build it by itself.

    ``RUNNERS.build(config)`` and ``FaceRunner.from_cfg(config)`` are :func:`build_trainer`, or
    :func:`build_tester` of ``load_from`` where the config has no training set. The config is not
    changed.
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'FaceRunner':
        """Build the Runner from a config."""
        config = copy.deepcopy(cfg)
        if config.get('train_dataloader') is None and config.get('load_from'):
            return build_tester(config, config.load_from)
        return build_trainer(config)

    @classmethod
    def from_prepared(cls, config: Config) -> 'FaceRunner':
        """Build the Runner from a config in which everything is settled."""
        return super().from_cfg(config)


def build_trainer(config: Config) -> Runner:
    """Return a Runner for training.

    The training set is built first, as it determines the number of classes of the head.

    Raises:
        ValueError: ``num_classes`` of the config contradicts the training set, or the training
            would not make a single step.
    """
    prepare(config)
    check_resizing(config)
    state_alignment(config, config.train_dataloader.dataset)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    resolve_num_classes(config, getattr(dataset, 'num_classes', None))
    name_compile_hook(config)
    name_shard_hook(config)
    name_retain_hook(config)
    runner = FaceRunner.from_prepared(config)
    require_steps(runner)
    return runner


def require_steps(runner: Runner) -> None:
    """Raise :class:`ValueError` if a training would end without a single step."""
    config = runner.cfg
    for name in ('max_epochs', 'max_iters'):
        if config.train_cfg.get(name, 1) < 1:
            raise ValueError(f'train_cfg.{name} is {config.train_cfg[name]}: nothing to train')
    loader = runner.train_dataloader
    # An infinite sampler starts over to fill a batch.
    if len(loader) == 0 and not isinstance(loader.sampler, InfiniteSampler):
        count = len(loader.sampler)
        ranks = f' ({count} on each of {runner.world_size} ranks)' if runner.world_size > 1 else ''
        raise ValueError(
            f'not a single step: the training set has {len(loader.dataset)} images{ranks}, fewer '
            f'than train_dataloader.batch_size={loader.batch_size}, and drop_last leaves an '
            f'incomplete batch out. Set train_dataloader.batch_size to at most {count}, or '
            'train_dataloader.drop_last=False'
        )
    refuse_drop_last(config, 'val_dataloader')
    require_monitored(config)


def require_monitored(config: Config) -> None:
    """Raise :class:`ValueError` if no metric of the validation makes what ``save_best`` names."""
    best = ((config.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    metrics = config.get('val_evaluator')
    # What is retained has metrics of its own, and a key for both, which its hook checks.
    hooks = [hook['type'] for hook in config.get('custom_hooks') or ()]
    if not best or not metrics or 'RetainHook' in hooks:
        return
    metrics = [metrics] if isinstance(metrics, Mapping) else metrics
    prefixes = [
        metric.get('prefix') or METRICS.get(metric['type']).default_prefix for metric in metrics
    ]
    for key in [best] if isinstance(best, str) else best:
        prefix = key.rpartition('/')[0]
        if key != 'auto' and prefix not in [each or '' for each in prefixes]:
            there = ', '.join(f'{each or ""}/...' for each in prefixes)
            raise ValueError(
                f'default_hooks.checkpoint.save_best is {key!r}, but the metrics of val_evaluator '
                f'are named {there}: set val_evaluator.prefix={prefix!r}, or name one of them in '
                'save_best'
            )


def refuse_drop_last(config: Config, name: str) -> None:
    """Raise :class:`ValueError` if a loader of an evaluation would leave images out."""
    if (config.get(name) or {}).get('drop_last'):
        raise ValueError(f'{name}.drop_last leaves images out of the evaluation: remove it')


def build_tester(config: Config, checkpoint: str) -> Runner:
    """Return a Runner for testing ``checkpoint``; the training set is not needed.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        CheckpointMismatchError, ContractMismatchError: It does not fit the config.
    """
    prepare(config)
    refuse_drop_last(config, 'test_dataloader')
    state = unwrap_state_dict(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    check_resizing(config, ('test_dataloader', 'ui_dataloader'))
    state_alignment(config, config.test_dataloader.dataset)
    weight = state.get('head.weight')
    if weight is None:
        # A bare backbone is tested without a head, which would have random weights.
        config.model.head = None
    else:
        resolve_num_classes(config, len(weight), str(checkpoint))
    keep_work_dir_writable(config)
    config.load_from, config.resume = checkpoint, False
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        config[key] = None
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        config[key] = None
    # Hooks for training would require data that a test does not have.
    training_only = (
        *('CompileHook', 'FaceEMAHook', 'PrototypeInitHook', 'RegressionFitHook'),
        *('RetainHook', 'TeacherHook'),
    )
    config.custom_hooks = [
        hook
        for hook in config.get('custom_hooks') or []
        if hook['type'].split('.')[-1] not in training_only
    ]
    return FaceRunner.from_prepared(config)


def name_compile_hook(config: Config) -> None:
    """Replace the entry ``compile`` by a :class:`CompileHook`.

    mmengine would compile ``train_step``, which fails on data samples and on stateful losses.

    Args:
        config: Changed in place. ``compile`` is True, or a dict of arguments of
            :func:`torch.compile`.
    """
    options = config.pop('compile', None)
    if options is None or options is False:
        return
    hook = dict(type='CompileHook', **({} if options is True else options))
    config.custom_hooks = [*(config.get('custom_hooks') or []), hook]


def name_shard_hook(config: Config) -> None:
    """Add a :class:`ShardCheckpointHook` for a head whose prototypes are sharded.

    Args:
        config: Changed in place.
    """
    head = config.model.get('head')
    if head is None or not getattr(MODELS.get(head['type']), 'sharded', ()):
        return
    hooks = config.get('custom_hooks') or []
    if not any(hook['type'].split('.')[-1] == 'ShardCheckpointHook' for hook in hooks):
        config.custom_hooks = [*hooks, dict(type='ShardCheckpointHook')]


def name_retain_hook(config: Config) -> None:
    """Replace the entry ``retain_evaluator`` by a :class:`RetainHook`.

    Args:
        config: Changed in place.

    Raises:
        ValueError: There is no ``retain_dataloader``, or no validation beside which it would run.
    """
    evaluator = config.pop('retain_evaluator', None)
    combine = config.pop('retain_combine', ())
    if evaluator is None:
        return
    for name in ('retain_dataloader', 'val_dataloader'):
        if config.get(name) is None:
            raise ValueError(f'retain_evaluator needs a {name}, and the config has none')
    hook = dict(type='RetainHook', evaluator=evaluator, combine=combine)
    config.custom_hooks = [*(config.get('custom_hooks') or []), hook]


def state_alignment(config: Config, dataset: Mapping[str, Any]) -> None:
    """Set the alignment of a data set's folder in the preprocessing contract.

    Args:
        config: Changed in place, unless it states an alignment itself.
        dataset: Config of the data set; one inside a wrapper is found.
    """
    while dataset.get('data_root') is None and 'dataset' in dataset:
        dataset = dataset['dataset']
    found = find_alignment(dataset['data_root']) if dataset.get('data_root') else None
    preprocessor = config.model.get('data_preprocessor') or dict(type='FaceDataPreprocessor')
    if found is not None and preprocessor.get('alignment', 'none') == 'none':
        config.model.data_preprocessor = {**preprocessor, 'alignment': found.recipe.name}


#: Transforms that may follow ``ResizeFace`` without changing the size.
_SIZE_STAYS = (FlipFace, RotateFace, RescaleFace, PackFace)


def check_resizing(config: Config, loaders: Iterable[str] | None = None) -> None:
    """Check that the pipelines resize faces as the preprocessing contract states.

    Otherwise training would see other faces than users of the checkpoint's contract.

    Args:
        config: The config.
        loaders: Names of the loaders; all that the config has by default.

    Raises:
        ValueError: A ``ResizeFace`` has another size or interpolation.
    """
    preprocessor = MODELS.build(
        {'type': 'FaceDataPreprocessor', **(config.model.get('data_preprocessor') or {})}
    )
    for name in loaders or [key for key in config if key.endswith('_dataloader')]:
        for pipeline in _find_pipelines((config.get(name) or {}).get('dataset')):
            kinds = [_get_transform(step) for step in pipeline]
            places = [i for i, kind in enumerate(kinds) if kind is ResizeFace]
            if not places:
                continue
            last = places[-1]
            resize = TRANSFORMS.build(pipeline[last])
            size_stays = all(kind in _SIZE_STAYS for kind in kinds[last + 1 :])
            for field in ('interpolation', *['size'] * size_stays):
                found, stated = getattr(resize, field), getattr(preprocessor, field, None)
                if stated not in (None, found):
                    raise ValueError(
                        f'ResizeFace.{field} in the pipeline of {name} is {found!r}, but '
                        f'model.data_preprocessor.{field} is {stated!r}: set both to the same'
                    )


def _find_pipelines(dataset: Any) -> Iterator[list]:
    """Iterate over the pipelines of a data set's config, also of those inside a wrapper."""
    if isinstance(dataset, Mapping):
        if dataset.get('pipeline'):
            yield dataset['pipeline']
        else:
            for inner in (dataset.get('dataset'), *(dataset.get('datasets') or ())):
                yield from _find_pipelines(inner)


def _get_transform(step: Any) -> Any:
    kind = step.get('type') if isinstance(step, Mapping) else None
    return TRANSFORMS.get(kind) if isinstance(kind, str) else kind


def prepare(config: Config) -> None:
    """Name the loops of faces, and apply the workarounds a Runner needs on this machine."""
    wrapper = str((config.get('optim_wrapper') or {}).get('type')).split('.')[-1]
    if wrapper == 'AmpOptimWrapper' and not torch.cuda.is_available():
        raise ValueError(
            "optim_wrapper.type='AmpOptimWrapper' is mmengine's and needs a GPU; "
            "'FaceAmpOptimWrapper' (mmvlr train --amp) runs on CPU and GPU alike"
        )
    compat.apply()
    quiet_console(MMLogger.get_current_instance(), fresh=True)
    for key, loop in (('val_cfg', 'FaceValLoop'), ('test_cfg', 'FaceTestLoop')):
        if config.get(key) is not None:
            config[key].setdefault('type', loop)
    if not torch.cuda.is_available():
        compat.keep_freed_memory()
    if config.get('launcher', 'none') == 'pytorch' and not torch.cuda.is_available():
        compat.use_cpu_process_group(config.get('env_cfg', {}).get('dist_cfg', {}).get('timeout'))
        # mmengine's defaults, which it does not set if this entry exists.
        wrapper = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
        config.setdefault('model_wrapper_cfg', wrapper)
        config.model_wrapper_cfg.device_ids = None
        print_log('no GPU: distributed over gloo on CPU', logger='current')
