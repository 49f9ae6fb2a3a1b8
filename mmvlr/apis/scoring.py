"""Score the faces of a test set: embeddings, and what every quality measure says of each face."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmvlr.engine import build_loader, extract_predictions, unwrap
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.metrics import QUALITIES
from mmvlr.evaluation.metrics.dump import relative_name
from mmvlr.quality import FaceBatch, measure_quality
from mmvlr.registry import QUALITIES as MEASURE_REGISTRY

from .runner import build_tester

#: Measures beside those that the model predicts: one is of the network, two of the image.
MEASURES = (dict(type='SERFIQQuality'), dict(type='SizeQuality'), dict(type='SharpnessQuality'))


def score_faces(
    config: Config, checkpoint: str, measures: Sequence[Mapping[str, Any]] = MEASURES
) -> FaceTable:
    """Embed the config's test set and its UI faces, and measure the quality of each face.

    The UI faces are those of the config's ``ui_dataloader``; a test set that has some of its own
    (role ``ui``) is left as it is.

    Args:
        config: Config with model and test set; changed.
        checkpoint: The checkpoint.
        measures: Configs of quality measures beside those that the model predicts.

    Returns:
        Embeddings of all faces with role, identity, name and a column for each quality.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no test set.
    """
    runner = build_tester(config, checkpoint)
    runner.load_or_resume()
    runner.call_hook('before_test')
    model = unwrap(runner.model).eval()
    loader = Runner.build_dataloader(config.test_dataloader)
    faces = _score(model, loader, measures)
    if not faces.has('ui') and 'ui_dataloader' in config:
        faces = join(faces, _score(model, build_loader(config, 'ui_dataloader'), measures))
    return faces


def table_of(result: Mapping[str, Any], loader: DataLoader) -> FaceTable:
    """Make a table of what :func:`mmvlr.engine.extract_predictions` returned for a loader."""
    samples = result['samples']
    columns = {q: result[key].numpy() for q, key in QUALITIES.items() if key in result}
    dataset = loader.dataset
    for name in ('distance', 'camera'):
        if any(name in sample for sample in samples):
            columns[name] = np.array([sample.get(name, 0) for sample in samples])
    columns['name'] = np.array(
        [relative_name(str(sample.get('img_path', '')), dataset.data_root) for sample in samples]
    )
    return FaceTable(
        embedding=result['embedding'].float().numpy(),
        role=np.array([sample.role for sample in samples]),
        identity=np.array([sample.identity for sample in samples]),
        columns=columns,
        pairs=dataset.metainfo.get('pairs'),
        same=dataset.metainfo.get('same'),
    )


def join(faces: FaceTable, others: FaceTable) -> FaceTable:
    """Put the rows of ``others`` behind those of ``faces``.

    Columns that only one of them has are left out, except what the data set tells of its own faces:
    numbers and names of the others are 0 and empty then.
    """
    columns = {}
    for name, values in faces.columns.items():
        if name in others.columns:
            more = others.columns[name]
        elif name in ('distance', 'camera'):
            more = np.zeros(len(others), values.dtype)
        else:
            continue
        columns[name] = np.concatenate([values, more])
    return FaceTable(
        embedding=np.concatenate([faces.embedding, others.embedding]),
        role=np.concatenate([faces.role, others.role]),
        identity=np.concatenate([faces.identity, others.identity]),
        columns=columns,
        pairs=faces.pairs,
        same=faces.same,
        meta=faces.meta,
    )


def _score(model: Any, loader: DataLoader, measures: Sequence[Mapping[str, Any]]) -> FaceTable:
    built = [MEASURE_REGISTRY.build(dict(measure)) for measure in measures]
    of_network = [measure for measure in built if measure.needs_model]
    of_image = [measure for measure in built if not measure.needs_model]

    def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        # One pass of the backbone for the embedding and all measures.
        features = model.extract_feat(inputs)
        result = model.feature_predictions(*features)
        if model.flip_fusion != 'none':
            result = model.predictions(inputs)
        faces = FaceBatch(model, inputs, passed=features)
        return result | {measure.name: measure(faces) for measure in of_network}

    result = extract_predictions(model, loader, predict)
    faces = table_of(result, loader)
    columns = {measure.name: result[measure.name].numpy() for measure in of_network}
    if of_image:
        columns |= measure_quality(None, loader, of_image)
    return replace(faces, columns=faces.columns | columns)
