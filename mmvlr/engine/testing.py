"""Test a checkpoint on a config's test set, with or without a cache of its embeddings."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader

from mmvlr.evaluation.metrics import FaceMetric
from mmvlr.evaluation.tables import build_metrics, evaluate_faces
from mmvlr.registry import DATASETS, MODELS
from mmvlr.structures import FaceTable
from mmvlr.structures.face_table import VERSION
from mmvlr.utils.checkpoint import unwrap_state_dict
from mmvlr.utils.io import sha256_of
from mmvlr.version import __version__

from .building import build_tester, prepare, state_alignment
from .sources import digest_dataset, digest_images, digest_sources, make_plain


def evaluate_checkpoint(
    config: Config, checkpoint: str, cache: str | Path | None = None, **options: Any
) -> tuple[dict[str, float], list[FaceMetric]]:
    """Test a checkpoint on the config's test set.

    With ``cache`` the embeddings are stored in that folder, and reused if everything that they
    depend on is unchanged: the checkpoint's content, the preprocessing contract, model and pipeline
    of the config, the source of mmvlr and of the modules that the config names, and names, sizes
    and times of the images. They do not depend on metrics: other metrics can be computed from the
    same file.

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
    if cache is not None:
        key, meta = cache_key(config, checkpoint)
        stem = f'{Path(checkpoint).stem}-{config.test_dataloader.dataset.type}'
        file = Path(cache) / f'{stem}-{key[:16]}.npz'
        if file.is_file():
            faces = FaceTable.load(file)
            print_log(f'{len(faces):,} embeddings taken from {file}', logger='current')
            metrics = build_metrics(evaluators)
            for metric in metrics:
                metric.dataset_meta = dict(warnings=meta['warnings'])
            return evaluate_faces(faces, metrics), metrics
    runner = build_tester(config, checkpoint)
    result = runner.test()
    if cache is not None:
        if is_main_process():
            replace(runner.test_loop.faces, meta=meta).save(file)
        # A faster rank must not look for the file before it exists.
        barrier()
        print_log(f'embeddings kept in {file}', logger='current')
    return result, list(runner.test_loop.evaluator.metrics)


def cache_key(config: Config, checkpoint: str) -> tuple[str, dict[str, Any]]:
    """Return the key of the embeddings of a checkpoint on a test set, and the facts it hashes.

    Args:
        config: The config.
        checkpoint: The checkpoint.

    Returns:
        64 hexadecimal digits, and plain values for the cache file.
    """
    state = unwrap_state_dict(CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu'))
    with DefaultScope.overwrite_default_scope('mmvlr'):
        dataset = DATASETS.build(config.test_dataloader.dataset)
        state_alignment(config, config.test_dataloader.dataset)
        preprocessor = config.model.get('data_preprocessor') or dict(type='FaceDataPreprocessor')
        contract = MODELS.build(preprocessor).contract
    images = {'test': digest_dataset(dataset)}
    # A checkpoint without a UI center gets one before the test: ERS depends on that set too.
    if 'ui_center' not in state or not state['ui_center'].any():
        for hook in config.get('custom_hooks') or []:
            if hook['type'] == 'UICenterHook':
                loader = hook['dataloader']
                loader = config[loader] if isinstance(loader, str) else loader
                images |= digest_images(dict(ui=loader), ['ui'])
    meta = dict(
        checkpoint=Path(checkpoint).name,
        checkpoint_sha256=sha256_of(checkpoint),
        preprocessing=contract,
        model=make_plain({k: v for k, v in config.model.items() if k != 'head'}),
        pipeline=make_plain(config.test_dataloader.dataset.get('pipeline', [])),
        images=images,
        mmvlr=__version__,
        table=VERSION,
        sources=digest_sources(config),
    )
    text = json.dumps({k: v for k, v in meta.items() if k != 'checkpoint'}, sort_keys=True)
    meta['data_root'] = dataset.data_root
    meta['warnings'] = dataset.metainfo.get('warnings', [])
    return hashlib.sha256(text.encode()).hexdigest(), meta
