"""Evaluate a checkpoint, with or without a cache of its embeddings, or embeddings of any model."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

from mmvlr.datasets.storage import file_status
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.metrics import FaceMetric
from mmvlr.evaluation.metrics.dump import relative_name
from mmvlr.evaluation.table import read_fields
from mmvlr.registry import DATASETS, METRICS, MODELS
from mmvlr.utils.checkpoint import state_dict_of
from mmvlr.utils.io import sha256_of
from mmvlr.version import __version__

from .runner import build_tester, prepare, state_alignment


def evaluate_checkpoint(
    config: Config, checkpoint: str, cache: str | Path | None = None, **options: Any
) -> tuple[dict[str, float], list[FaceMetric]]:
    """Test a checkpoint on the config's test set.

    With ``cache`` the embeddings are kept in that folder, and reused where everything that they
    depend on is the same: the checkpoint's content, the preprocessing contract, model and pipeline
    of the config, mmvlr's version, and names, sizes and times of the images. Metrics are not a
    part of it: other metrics can be computed from the same file.

    Args:
        config: As :func:`load_config` returns it; changed.
        checkpoint: The checkpoint.
        cache: Folder of the cache.
        **options: Arguments for all metrics, such as ``intervals=True``.

    Returns:
        Metrics by name, and the metrics' objects, which hold the curves on the main rank.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no test set.
    """
    prepare(config)
    evaluators = config.test_evaluator
    evaluators = [evaluators] if isinstance(evaluators, Mapping) else evaluators
    config.test_evaluator = evaluators = [{**evaluator, **options} for evaluator in evaluators]
    file = None
    if cache is not None:
        key, meta = cache_key(config, checkpoint)
        stem = f'{Path(checkpoint).stem}-{config.test_dataloader.dataset.type}'
        file = Path(cache) / f'{stem}-{key[:16]}.npz'
        if file.is_file():
            faces = FaceTable.load(file)
            print_log(f'{len(faces):,} embeddings taken from {file}', logger='current')
            metrics = build_metrics(evaluators)
            return evaluate_faces(faces, metrics), metrics
        dump = dict(type='EmbeddingDump', out=str(file), root=meta['data_root'], meta=meta)
        config.test_evaluator = [*evaluators, dump]
    runner = build_tester(config, checkpoint)
    result = runner.test()
    # A rank that runs ahead must not look for the file before it is there.
    barrier()
    if file is not None:
        print_log(f'embeddings kept in {file}', logger='current')
    return result, list(runner.test_loop.evaluator.metrics)


def cache_key(config: Config, checkpoint: str) -> tuple[str, dict[str, Any]]:
    """Return what identifies the embeddings of a checkpoint on a test set, and the same as facts.

    Args:
        config: The config.
        checkpoint: The checkpoint.

    Returns:
        64 hexadecimal digits, and plain values for the cache file.
    """
    state = state_dict_of(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    with DefaultScope.overwrite_default_scope('mmvlr'):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        state_alignment(config, config.test_dataloader.dataset)
        preprocessor = config.model.get('data_preprocessor') or dict(type='FaceDataPreprocessor')
        contract = MODELS.build(preprocessor).contract
        images = {'test': fingerprint(dataset)}
        # A checkpoint without a UI center gets one before the test: ERS depends on that set too.
        if 'ui_center' not in state or not state['ui_center'].any():
            for hook in config.get('custom_hooks') or []:
                if hook['type'] == 'UICenterHook':
                    loader = hook['dataloader']
                    loader = config[loader] if isinstance(loader, str) else loader
                    images['ui'] = fingerprint(DATASETS.build(loader['dataset']))
    meta = dict(
        checkpoint=Path(checkpoint).name,
        checkpoint_sha256=sha256_of(checkpoint),
        preprocessing=contract,
        model=plain({k: v for k, v in config.model.items() if k != 'head'}),
        pipeline=plain(config.test_dataloader.dataset.get('pipeline', [])),
        images=images,
        mmvlr=__version__,
    )
    text = json.dumps({k: v for k, v in meta.items() if k != 'checkpoint'}, sort_keys=True)
    meta['data_root'] = dataset.data_root
    return hashlib.sha256(text.encode()).hexdigest(), meta


def fingerprint(dataset: Any) -> str:
    """Return a digest of names, roles, identities, sizes and times of a data set's images."""
    digest = hashlib.sha256(json.dumps(plain(dataset.metainfo), sort_keys=True).encode())
    for info in dataset.infos():
        name = info.get('img_path', '')
        facts = [relative_name(name, dataset.data_root), info['role'], info['identity']]
        status = file_status(name)
        if status is not None:
            facts += [status.st_size, status.st_mtime_ns]
        else:
            # An image without a file is made by the data set; its settings are what counts.
            facts += [hashlib.sha256(np.ascontiguousarray(info.get('img', 0))).hexdigest()]
        digest.update(json.dumps(plain(facts)).encode())
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """Return a value made of what JSON knows, other things as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def build_metrics(
    evaluators: Mapping[str, Any] | Iterable[Mapping[str, Any]], **options: Any
) -> list[FaceMetric]:
    """Build the metrics of a config's ``test_evaluator``.

    Args:
        evaluators: Config of a metric, or several.
        **options: Arguments for all of them, such as ``intervals=True``.
    """
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    with DefaultScope.overwrite_default_scope('mmvlr'):
        return [METRICS.build({**config, **options}) for config in evaluators]


def evaluate_faces(faces: FaceTable, metrics: Iterable[FaceMetric]) -> dict[str, float]:
    """Compute metrics on a table of faces.

    Raises:
        ValueError: Two metrics give the same name, or the table lacks what one of them needs.
    """
    result: dict[str, float] = {}
    for metric in metrics:
        found = metric.report(faces)
        twice = sorted(set(found) & set(result))
        if twice:
            raise ValueError(f'two metrics are called {twice[0]}; give them different prefixes')
        result |= found
    return result


def compare_faces(
    faces: FaceTable, other: FaceTable, metrics: Iterable[FaceMetric]
) -> dict[str, float]:
    """Compare two models on the same faces, resampling people.

    Returns:
        For every number NAME that both have ``NAME_difference`` (first minus second),
        ``NAME_difference_low`` and ``_high``, its 95 % interval, and ``NAME_p``, the two-sided
        p-value of there being no difference.

    Raises:
        ValueError: The tables are of different faces.
    """
    result: dict[str, float] = {}
    for metric in metrics:
        for name, found in metric.difference(faces, other).items():
            result[f'{name}_difference'] = found.difference
            result[f'{name}_difference_low'] = found.low
            result[f'{name}_difference_high'] = found.high
            result[f'{name}_p'] = found.p_value
    return result


def load_faces(path: str | Path, dataset: Any = None) -> FaceTable:
    """Read embeddings of any model from an ``.npz`` file.

    Args:
        path: File with ``embedding`` and either ``role`` and ``identity`` (and, for verification,
            ``pairs`` and ``same``), or ``name``, file names that ``dataset`` knows.
        dataset: A test set that says role, identity and pairs of each image by its name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A field is missing, or names and data set do not fit.
    """
    fields = read_fields(path)
    if {'role', 'identity'} <= set(fields):
        return FaceTable.load(path)
    if 'embedding' not in fields or 'name' not in fields:
        raise ValueError(
            f'{path} has the fields {", ".join(sorted(fields)) or "none"}; needed are embedding '
            'with role and identity, or embedding with name and a config of the data set'
        )
    if dataset is None:
        raise ValueError(
            f'{path} has names but no roles and identities: say by --config of which test set'
        )
    return label_by_name(fields, dataset, str(path))


def label_by_name(fields: Mapping[str, np.ndarray], dataset: Any, source: str) -> FaceTable:
    """Give embeddings the records of a test set's images, found by name.

    Args:
        fields: ``embedding`` (N, D) and ``name`` (N,): files below the data set's root, or bare
            file names where these are unique; further columns (N,) go along.
        dataset: The test set.
        source: What the embeddings come from, for the messages.

    Raises:
        ValueError: An image of the data set has no embedding, two have the same name, or a bare
            name stands for several images.
    """
    names = [str(name).replace('\\', '/') for name in fields['name']]
    place = {name: row for row, name in enumerate(names)}
    if len(place) != len(names):
        twice = next(name for row, name in enumerate(names) if place[name] != row)
        raise ValueError(f'{source}: the name {twice} stands twice')
    infos = list(dataset.infos())
    full = [relative_name(info['img_path'], dataset.data_root) for info in infos]
    if not any(name in place for name in full):
        bare = [name.rsplit('/', 1)[-1] for name in full]
        if len(set(bare)) != len(bare):
            twice = next(name for row, name in enumerate(bare) if bare.index(name) != row)
            raise ValueError(
                f'{source}: bare file names such as {twice} stand for several images of '
                f'{dataset.data_root}; give names below that folder, such as {full[0]}'
            )
        full = bare
    missing = [name for name in full if name not in place]
    if missing:
        raise ValueError(
            f'{source} has no embedding of {len(missing)} of {len(full)} images, such as '
            f'{missing[0]}'
        )
    rows = np.array([place[name] for name in full])
    unused = len(names) - len(rows)
    if unused:
        print_log(f'{source}: {unused:,} embeddings of other images are left out', 'current')
    columns = {
        name: values[rows]
        for name, values in fields.items()
        if name not in ('embedding', 'pairs', 'same', 'meta', 'role', 'identity')
    }
    for name in ('distance', 'camera'):
        if any(name in info for info in infos):
            columns[name] = np.array([info.get(name, 0) for info in infos])
    known = dataset.metainfo
    return FaceTable(
        embedding=fields['embedding'][rows],
        role=np.array([info['role'] for info in infos]),
        identity=np.array([info['identity'] for info in infos]),
        columns=columns,
        pairs=known.get('pairs'),
        same=known.get('same'),
        meta=json.loads(str(fields['meta'])) if 'meta' in fields else {},
    )
