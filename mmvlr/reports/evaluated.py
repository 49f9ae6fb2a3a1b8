"""Evaluate a model on its test set, for reports of one run and of many."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmvlr.datasets.synthesis import pixel_correlation_embedding
from mmvlr.datasets.transforms import read_image
from mmvlr.engine import build_loader
from mmvlr.engine.building import build_tester
from mmvlr.engine.scoring import (
    configured_measures,
    load_tested_model,
    prepare_measures,
    score_loader,
)
from mmvlr.evaluation.functional import (
    Curve,
    discard_auc_bounds,
    rank1_error_versus_discard,
)
from mmvlr.evaluation.metrics import ClosedSetMetric
from mmvlr.evaluation.tables import build_metrics, evaluate_faces
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.structures.face_table import MEASURES, FaceTable

from .curve_files import collect_curves
from .faces import FaceCard
from .figures import DiscardCurve

#: Limit of images up to which the pixel baseline, which reads every image again, is computed.
MAX_PIXEL_IMAGES = 20_000
NUM_MATCHES = 5


class EvaluatedModel:
    """A model's predictions for a test set, and results computed from them.

    Args:
        config: Config with model and test set.
        checkpoint: The checkpoint.

    Raises:
        ValueError: The test set has no face of role gallery or probe.
    """

    def __init__(self, config: Config, checkpoint: Path):
        self.runner = build_tester(config, str(checkpoint))
        self.config = config
        self.model = load_tested_model(self.runner)
        self.loader = Runner.build_dataloader(config.test_dataloader)
        self.measures = configured_measures(config)
        prepare_measures(self.model, self.measures, config)
        self.faces = score_loader(self.model, self.loader, self.measures)
        self.identity = self.faces.identity
        self.gallery = np.flatnonzero(np.isin(self.faces.role, ('gallery', 'distractor')))
        self.probe = np.flatnonzero(self.faces.role == 'probe')
        if not len(self.gallery) or not len(self.probe):
            raise ValueError('the report needs a test set with the roles gallery and probe')
        self.has_several_people = len(np.unique(self.identity[self.probe])) > 1
        options = dict(intervals=self.has_several_people, curves=self.has_several_people)
        self.metrics = build_metrics(config.test_evaluator, **options)
        self.numbers = evaluate_faces(self.faces, self.metrics)
        # Follow the protocol: an open-set search uses templates instead of images.
        judges = [metric for metric in self.metrics if isinstance(metric, ClosedSetMetric)]
        self.ranks = (judges or [ClosedSetMetric()])[0].search(self.faces)
        self.correct = self.ranks.rank == 1
        self.probe_quality = {q: v[self.probe] for q, v in self.faces.qualities.items()}

    def measure_pixels(self) -> tuple[dict[str, float], dict[str, dict[str, Curve]]]:
        """Return numbers and curves of plain pixel correlation, nothing for a large test set."""
        if len(self.faces) > MAX_PIXEL_IMAGES:
            return {}, {}
        images = [self.read_face(index) for index in range(len(self.faces))]
        kept = {k: v for k, v in self.faces.columns.items() if k not in MEASURES}
        pixels = pixel_correlation_embedding(images)
        metrics = build_metrics(self.config.test_evaluator, curves=True, num_resamples=1)
        numbers = evaluate_faces(replace(self.faces, embedding=pixels, columns=kept), metrics)
        return numbers, collect_curves(metrics)

    def read_face(self, index: int) -> np.ndarray:
        """Return a face of the test set in native size."""
        return read_face(self.loader.dataset, index)

    def measure_ui(self) -> dict[str, np.ndarray]:
        """Return the measures over UI faces: those of the test set, else the training's."""
        if self.faces.has('ui'):
            return self.faces.only('ui').qualities
        hooks = self.config.get('custom_hooks') or []
        loaders = [hook['dataloader'] for hook in hooks if hook['type'] == 'UICenterHook']
        if not loaders:
            return {}
        loader = build_loader(self.config, loaders[0])
        return score_loader(self.model, loader, self.measures).qualities

    def attend(self, indices: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return faces as network input (H, W, 3) and their spatial attention (N, h, w)."""
        images, inputs = load_inputs(self.model, self.loader.dataset, indices)
        return images, compute_attention(self.model, inputs)


def read_face(dataset: Any, row: int) -> np.ndarray:
    """Return a face of a data set in native size, (h, w, 3) uint8 RGB."""
    info = dataset.get_data_info(int(row))
    return info['img'] if 'img' in info else read_image(info['img_path'])


def load_inputs(
    model: FaceRecognizer, dataset: Any, rows: Iterable[int]
) -> tuple[list[np.ndarray], torch.Tensor]:
    """Return faces of a data set before and after the model's preprocessor."""
    items = [dataset[int(row)] for row in rows]
    batch = {key: [item[key] for item in items] for key in ('inputs', 'data_samples')}
    images = [inputs.permute(1, 2, 0).numpy() for inputs in batch['inputs']]
    return images, model.data_preprocessor(batch, False)['inputs']


@torch.no_grad()
def compute_attention(model: FaceRecognizer, inputs: torch.Tensor) -> np.ndarray:
    """Return the spatial attention (N, h, w) of a model with an attention module."""
    return model.attention.attention(model.extract_feat(inputs)[0])[1][:, 0].float().cpu().numpy()


def make_cards(
    read: Callable[[int], np.ndarray],
    rows: Iterable[int],
    quality: np.ndarray,
    correct: np.ndarray,
    name: str = '',
) -> list[FaceCard]:
    """Return cards of probes with their quality and whether they were identified correctly.

    Args:
        read: Returns the image of a probe.
        rows: The probes.
        quality: Quality of all probes, (P,).
        correct: Whether a probe was identified correctly, (P,).
        name: Text before the quality.
    """
    return [
        FaceCard(read(row), (f'{name}{quality[row]:.3g}',), 'right' if correct[row] else 'wrong')
        for row in rows
    ]


def average_discard(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> DiscardCurve:
    """Return the mean over several seeds of error over discard of (quality, correct), (P,) each."""
    curves = [rank1_error_versus_discard(*pair) for pair in pairs]
    error = np.mean([curve['error'] for curve in curves], axis=0)
    area = float(np.mean([curve['auc'] for curve in curves]))
    return DiscardCurve(curves[0]['discard'], error, auc=area)


def average_bounds(correct: Sequence[np.ndarray]) -> dict[str, DiscardCurve]:
    """Return error over discard of random and of perfect measures, means of seeds."""
    perfect = average_discard((one.astype(float), one) for one in correct)
    error = np.array([np.mean([1 - one.mean() for one in correct])])
    area = float(np.mean([discard_auc_bounds(one)['random'] for one in correct]))
    random = DiscardCurve(perfect.x, error, auc=area)
    return {'random': random, 'perfect knowledge': perfect}


def split_qualities(
    faces: FaceTable, ui: Mapping[str, np.ndarray] | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Return the measures' values over probes, gallery and UI faces, for histograms.

    Args:
        faces: Scored faces.
        ui: Measure to values of UI faces; None: those of the table.
    """
    if ui is None:
        ui = faces.only('ui').qualities if faces.has('ui') else {}
    # Counted as on the rest of the page, where distractors are not of the gallery.
    gallery = 'gallery and distractors' if faces.has('distractor') else 'gallery'
    rows = {'probe': faces.role == 'probe', gallery: np.isin(faces.role, ('gallery', 'distractor'))}
    return {
        MEASURES[measure]: {name: values[kept] for name, kept in rows.items() if kept.any()}
        | ({'ui': ui[measure]} if measure in ui else {})
        for measure, values in faces.qualities.items()
    }


def spread(order: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` entries of ``order``, evenly from the first to the last."""
    places = np.linspace(0, len(order) - 1, min(count, len(order)))
    return order[np.unique(places.round().astype(int))]
