"""Build a Runner for training or testing from a config file."""

import atexit
import contextlib
import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader, Runner

from mmvlr.datasets import find_alignment
from mmvlr.datasets.transforms import FlipFace, PackFace, RescaleFace, ResizeFace, RotateFace
from mmvlr.registry import DATASETS, MODELS, TRANSFORMS
from mmvlr.utils import compat
from mmvlr.utils.checkpoint import state_dict_of
from mmvlr.utils.config_keys import check_file_keys, check_options
from mmvlr.utils.outputs import OutputFolder, is_own
from mmvlr.utils.shipped import find_config
from mmvlr.utils.zoo import ZOO, find_model


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


#: Names under which mmengine saves checkpoints.
_CHECKPOINT = re.compile(r'(best_.+_)?(epoch|iter)_\d+\.pth')


class _Runner(Runner):
    """A Runner that does not overwrite a config in the work dir unless a training wrote it."""

    def dump_config(self) -> None:
        """Write the config into the work dir."""
        path = Path(self.work_dir, Path(self.cfg.filename or f'{self.timestamp}.py').name)
        if not os.path.lexists(path) or is_own(path):
            super().dump_config()
        else:
            self.logger.info(f'{path} is there already and stays as it is')


@contextlib.contextmanager
def hold_work_dir(
    config: Config,
    tool: str = 'train',
    resume: bool = False,
    fresh: bool = False,
    more: Iterable[str] = (),
) -> Iterator[OutputFolder | None]:
    """Lock ``config.work_dir`` for one training, and protect files of others in it.

    With several ranks only the main one does so.

    Args:
        config: The config, with its launcher.
        tool: Name of the tool that trains.
        resume: Whether checkpoints in the folder may be resumed and replaced, also those of older
            versions of mmvlr, which are not noted.
        fresh: Remove the files that the tool has noted before.
        more: Further files that the tool will write.

    Yields:
        The folder; None on the other ranks.

    Raises:
        LockedError: Another training is running there.
        FileExistsError: It holds a config, a checkpoint or another file that this training would
            overwrite and that the tool is not noted to have written.
    """
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    rank = next((os.environ[name] for name in ranks if name in os.environ), '0')
    if config.get('launcher', 'none') != 'none' and rank != '0':
        yield None
        return
    with OutputFolder(config.work_dir, tool) as folder:
        if fresh:
            folder.remove()
        there = set(os.listdir(folder.folder))
        wanted = {'last_checkpoint', *more, *filter(_CHECKPOINT.fullmatch, there)}
        if resume and not folder.names:
            folder.adopt(wanted & there)
        # A resumed run leaves the config that is there.
        wanted |= {Path(config.filename or '').name} - ({''} | (there if resume else set()))
        folder.claim(wanted)
        try:
            yield folder
        except OSError as error:
            # mmengine's logs do not name the full disk.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and not error.filename:
                error.filename = str(folder.folder)
            raise


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
    runner = _Runner.from_cfg(config)
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
    state = state_dict_of(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
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
    return _Runner.from_cfg(config)


def keep_work_dir_writable(config: Config) -> None:
    """Replace a work dir that is not writable by a temporary folder.

    A test writes only its log there.

    Args:
        config: Changed in place.
    """
    folder = Path(config.work_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return
    temporary = tempfile.mkdtemp(prefix='mmvlr-test-')
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    print_log(
        f'no right to write to {folder}: the log of this test is not kept (set --work-dir)',
        logger='current',
        level=logging.WARNING,
    )
    config.work_dir = temporary


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
    compat.apply()
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
