"""Score faces: one pass of a model over a loader makes a table of faces."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmvlr.datasets.base import set_epoch
from mmvlr.evaluation.tables import known_pairs, relative_name
from mmvlr.models.quality.base import FaceBatch, QualityMeasure
from mmvlr.registry import QUALITIES
from mmvlr.structures.face_table import MEASURES as KNOWN
from mmvlr.structures.face_table import PREDICTED, FaceTable

from .building import build_tester
from .extraction import Extraction, build_loader, eval_mode, extract_predictions, unwrap

#: Measures in addition to those that the model predicts: one of the network, two of the image.
MEASURES = (dict(type='SERFIQQuality'), dict(type='SizeQuality'), dict(type='SharpnessQuality'))
#: Fields of a sample that are no columns: they have their own place, or do not describe the face.
_NO_COLUMNS = frozenset({'sample_idx', 'img_path', 'role', 'identity'})


class Scorer:
    """Make a :class:`FaceTable` of a data set, batch by batch, on any number of ranks.

    Args:
        model: A recognizer in eval mode, not wrapped.
        measures: Quality measures in addition to those that the model predicts, or their configs.
    """

    def __init__(
        self, model: nn.Module, measures: Sequence[QualityMeasure | Mapping[str, Any]] = ()
    ):
        self.measures = build_measures(measures)
        predict = model.predictions
        if self.measures:
            predict = _predict_and_measure(model, self.measures)
        images = any(measure.needs_images for measure in self.measures)
        self.extraction = Extraction(model, predict, images)

    def add(self, batch: Mapping[str, Any], dataset: Any) -> None:
        """Score the faces of a batch of ``dataset``."""
        self.extraction.add(batch, dataset)

    def table(self, dataset: Any) -> FaceTable:
        """Return the faces of all ranks in the order of the data set, the same on every rank.

        Raises:
            ValueError: Faces of the data set are missing.
        """
        result = self.extraction.gather(len(dataset))
        columns = {q: result[key] for q, key in PREDICTED.items() if key in result}
        columns |= {measure.name: result[measure.name] for measure in self.measures}
        return make_table(result['embedding'], result['samples'], dataset, columns)


def make_table(
    embedding: torch.Tensor,
    samples: Sequence[Any],
    dataset: Any,
    columns: Mapping[str, torch.Tensor],
) -> FaceTable:
    """Make a table of predictions and of the meta information of samples.

    Args:
        embedding: (N, D).
        samples: N samples; numbers and texts of their meta information, such as ``distance``,
            become columns, 0 or empty where a face has none.
        dataset: The data set: its ``data_root``, and ``pairs`` and ``same`` of its ``metainfo``.
        columns: Qualities by name, (N,) each.
    """
    found = {name: values.float().numpy() for name, values in columns.items()}
    known = [dict(sample.metainfo_items()) for sample in samples]
    for name in dict.fromkeys(key for info in known for key in info):
        values = [info[name] for info in known if name in info]
        if name not in _NO_COLUMNS and all(isinstance(v, (bool, int, float, str)) for v in values):
            found[name] = np.array([info.get(name, type(values[0])()) for info in known])
    root = getattr(dataset, 'data_root', '')
    found['name'] = np.array([relative_name(info.get('img_path', ''), root) for info in known])
    return FaceTable(
        embedding=embedding.float().numpy(),
        role=np.array([info['role'] for info in known]),
        identity=np.array([info['identity'] for info in known]),
        columns=found,
        **known_pairs(dataset.metainfo),
    )


def score_loader(
    model: nn.Module, loader: Iterable, measures: Sequence[QualityMeasure | Mapping[str, Any]] = ()
) -> FaceTable:
    """Score every face of a loader in one pass.

    Args:
        model: A recognizer, wrapped or not; it is left in the mode it was in.
        loader: A loader of packed faces of a test set.
        measures: See :class:`Scorer`.
    """
    model = unwrap(model)
    scorer = Scorer(model, measures)
    with eval_mode(model):
        for batch in loader:
            scorer.add(batch, loader.dataset)
    return scorer.table(loader.dataset)


def score_faces(
    config: Config, checkpoint: str, measures: Sequence[Mapping[str, Any]] | None = None
) -> FaceTable:
    """Score the config's test set and its UI faces.

    The UI faces are those of the config's ``ui_dataloader``, if they exist; none are added to a
    test set that has UI faces of its own (role ``ui``).

    Args:
        config: Config with model and test set; changed. Its ``quality_measures`` are measured too.
        checkpoint: The checkpoint.
        measures: Configs of quality measures in addition to those that the model predicts, unless
            the config has one of that name; by default the config's ``common_measures``, and
            without these SER-FIQ, native size and sharpness.

    Returns:
        Embeddings of all faces with role, identity, name and a column for each quality.

    Raises:
        FileNotFoundError: There is no such checkpoint, or no test set.
        ValueError: No table knows the name of one of the ``quality_measures``.
    """
    if measures is None:
        measures = config.get('common_measures', MEASURES)
    own = configured_measures(config)
    names = {measure.name for measure in own}
    measures = [*(one for one in build_measures(measures) if one.name not in names), *own]
    runner = build_tester(config, checkpoint)
    model = load_tested_model(runner)
    prepare_measures(model, measures, config)
    faces = score_loader(model, Runner.build_dataloader(config.test_dataloader), measures)
    if not faces.has('ui') and 'ui_dataloader' in config:
        try:
            loader = build_loader(config, 'ui_dataloader')
        except FileNotFoundError as error:
            print_log(f'{error}. No UI faces are scored', 'current', logging.WARNING)
        else:
            faces = FaceTable.join([faces, score_loader(model, loader, measures)])
    return faces


def configured_measures(config: Mapping[str, Any]) -> list[QualityMeasure]:
    """Build a config's ``quality_measures``.

    Raises:
        ValueError: No table knows the name of one of them.
    """
    measures = build_measures(config.get('quality_measures', ()))
    for measure in measures:
        if measure.name not in KNOWN:
            raise ValueError(
                f'no table knows the quality measure {measure.name!r}; beside its class write '
                f'mmvlr.structures.face_table.MEASURES[{measure.name!r}] = NAME_FOR_READERS'
            )
    return measures


def prepare_measures(
    model: nn.Module, measures: Sequence[QualityMeasure], config: Mapping[str, Any]
) -> None:
    """Fit the measures that need it to training faces of the config."""
    known: dict[tuple, dict[str, Any]] = {}

    def extract(
        loader: str, predict: Callable, copy: int = 0, key: str | None = None
    ) -> dict[str, Any]:
        place = (str(loader), copy, key)
        if key is not None and place in known:
            return known[place]
        built = build_loader(config, loader)
        # Another "epoch" is another draw of the degradation.
        set_epoch(built.dataset, copy)
        found = extract_predictions(model, built, predict)
        if key is not None:
            known[place] = found
        return found

    for measure in measures:
        if measure.needs_training_faces:
            measure.prepare(model, extract)
            if summary := getattr(measure, 'summary', ''):
                print_log(f'read-out of {measure.name} {summary}', logger='current')


def load_tested_model(runner: Runner) -> nn.Module:
    """Load the checkpoint of a tester; return the model, not wrapped, ready to embed."""
    runner.load_or_resume()
    # A model without a UI center gets one here.
    runner.call_hook('before_test')
    return unwrap(runner.model).eval()


def measure_quality(
    model: nn.Module | None,
    dataloader: Iterable,
    measures: Sequence[QualityMeasure | Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Measure the quality of every face of a loader; the backbone sees each face once.

    Args:
        model: A recognizer, wrapped or not; None where no measure needs one.
        dataloader: A loader of packed faces.
        measures: Measures of :mod:`mmvlr.models.quality`, or their configs.

    Returns:
        Name of the measure -> float32 (N,), higher is better, in index order, on every rank.

    Raises:
        ValueError: Two measures have the same name, the model or the data set lacks what a measure
            needs, or there is no image.
    """
    built = build_measures(measures)
    if not built:
        raise ValueError('there is no measure: name one or several with different names')
    asking = [measure.name for measure in built if measure.needs_model]
    if asking and model is None:
        raise ValueError(f'{", ".join(asking)}: a model is needed')
    model = unwrap(model) if asking else None

    def measure_faces(
        inputs: torch.Tensor, images: Sequence[np.ndarray] | None = None
    ) -> dict[str, torch.Tensor]:
        faces = FaceBatch(model, inputs, images)
        return {measure.name: measure(faces) for measure in built}

    images = any(measure.needs_images for measure in built)
    result = extract_predictions(model, dataloader, measure_faces, images)
    return {measure.name: result[measure.name].numpy() for measure in built}


def build_measures(
    measures: Sequence[QualityMeasure | Mapping[str, Any]],
) -> list[QualityMeasure]:
    """Build quality measures from their configs.

    Raises:
        ValueError: Two have the same name.
    """
    built = [QUALITIES.build(dict(m)) if isinstance(m, Mapping) else m for m in measures]
    names = [measure.name for measure in built]
    if len(set(names)) != len(names):
        raise ValueError(f'measures must have different names, got {names}')
    return built


def _predict_and_measure(
    model: nn.Module, measures: Sequence[QualityMeasure]
) -> Callable[..., dict[str, torch.Tensor]]:
    def predict(
        inputs: torch.Tensor, images: Sequence[np.ndarray] | None = None
    ) -> dict[str, torch.Tensor]:
        # One pass of the backbone for the embedding and all measures.
        features = model.extract_feat(inputs)
        result = model.feature_predictions(*features)
        if model.flip_fusion != 'none':
            result = model.predictions(inputs)
        faces = FaceBatch(model, inputs, images, passed=features)
        return result | {measure.name: measure(faces) for measure in measures}

    return predict
