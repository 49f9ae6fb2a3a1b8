"""Draw faces after every transform of a config's pipeline, up to the network's input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from rich.console import Console
from rich.progress import track

from mmvlr.datasets.base import set_epoch
from mmvlr.datasets.transforms import native_collate
from mmvlr.registry import DATASETS, MODELS

from .faces import FaceCard, contact_sheet


class Recorder:
    """Record the face after every transform of a data set's pipeline.

    Args:
        dataset: Data set whose transforms are wrapped in place.

    Attributes:
        steps: (name of the transform, face (h, w, 3) uint8 RGB) since :meth:`clear`.
    """

    def __init__(self, dataset: Any):
        self.steps: list[tuple[str, np.ndarray]] = []
        self._last: np.ndarray | None = None
        transforms = dataset.pipeline.transforms
        transforms[:] = [self._recorded(transform) for transform in transforms]

    def clear(self) -> None:
        """Remove the recorded steps."""
        self.steps, self._last = [], None

    def _add(self, name: str, image: np.ndarray) -> None:
        # Copied: the next transform may work in place.
        self.steps.append((name, image.copy()))

    def _recorded(self, transform: Callable) -> Callable:
        def run(results: dict) -> dict:
            before = results.get('img')
            if self.steps and before is not self._last:
                # Some data sets, such as ValidationSubset, change faces in between.
                self._add('the data set', before)
            results = transform(results)
            if 'inputs' in results:
                self._add(type(transform).__name__, results['inputs'].numpy().transpose(1, 2, 0))
            else:
                self._last = results['img']
                self._add(type(transform).__name__, self._last)
            return results

        return run


def network_input(preprocessor: torch.nn.Module, inputs: Any) -> np.ndarray:
    """Return the network's input after the preprocessor, mapped back to gray levels.

    Args:
        preprocessor: A ``FaceDataPreprocessor``.
        inputs: One face as it takes them: [(3, H, W) uint8 RGB], or that of ``native_collate``.

    Returns:
        (H, W, 3) uint8, RGB also for a network that takes BGR.
    """
    fed = preprocessor(dict(inputs=inputs, data_samples=None))['inputs'][0]
    gray = fed * preprocessor.std + preprocessor.mean
    if preprocessor.color_order == 'BGR':
        gray = gray.flip(0)
    return gray.round().clamp(0, 255).byte().numpy().transpose(1, 2, 0)


def build_dataset(config: Config, split: str) -> Any:
    """Build the data set of a loader.

    Raises:
        ValueError: The config has no such loader, or the data set has no pipeline.
    """
    name = split if split.endswith('dataloader') else f'{split}_dataloader'
    names = sorted(key for key in config if key.endswith('dataloader') and config[key])
    if name not in names:
        raise ValueError(f'the config has no {name}; it has {", ".join(names) or "none"}')
    dataset = DATASETS.build(config[name].dataset)
    if not hasattr(dataset, 'pipeline'):
        raise ValueError(f'{name}: {type(dataset).__name__} has no pipeline of its own')
    return dataset


def draw_transforms(
    config: Config, split: str = 'train', num: int = 8, repeat: int = 1, seed: int = 0
) -> np.ndarray:
    """Draw a sheet of faces after every transform of a config's pipeline.

    Each row shows a face: the native image, the face after each transform, and the output of the
    data preprocessor, mapped back to gray levels.

    Args:
        config: Config with a model.
        split: Loader: train, val, test, ui, ... for ``train_dataloader``, ...
        num: Number of faces.
        repeat: Random draws of the augmentation per face, each as in another epoch.
        seed: Seed of the choice of faces and of the augmentation.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: The data are not there.
        ValueError: See :func:`build_dataset`; or the pipeline does not end with ``PackFace``, or a
            image is damaged or of another size than the preprocessor takes.
    """
    stated = (config.get('model') or {}).get('data_preprocessor')
    if stated is None:
        raise ValueError('the config has no model.data_preprocessor; give the config of a model')
    dataset, preprocessor = build_dataset(config, split), MODELS.build(stated)
    count = min(num, len(dataset))
    chosen = np.random.default_rng(seed).choice(len(dataset), count, replace=False)
    recorder, rows = Recorder(dataset), []
    console = Console(stderr=True)
    for index in track(sorted(chosen.tolist()), description='Drawing', console=console):
        for epoch in range(repeat):
            recorder.clear()
            set_epoch(dataset, epoch, seed)
            packed = dataset.prepare_data(index)
            if 'draws' in packed:
                inputs, sample = native_collate([packed])['inputs'], dataset.get_data_info(index)
            elif 'inputs' in packed:
                inputs, sample = [packed['inputs']], packed['data_samples']
            else:
                raise ValueError(f'the pipeline of {split} does not end with PackFace')
            face = network_input(preprocessor, inputs)
            steps = [*recorder.steps, ('network input', face)]
            row = [FaceCard(image, (name, _size(image))) for name, image in steps]
            first = row[0]
            told = _about(sample, index, epoch if repeat > 1 else None)
            row[0] = FaceCard(first.image, (*first.caption, *told))
            rows.append(row)
    columns = max(map(len, rows))
    blank = FaceCard(np.full((1, 1, 3), 255, np.uint8))
    cards = [card for row in rows for card in row + [blank] * (columns - len(row))]
    return contact_sheet(cards, columns=columns, size=112, interpolation='nearest')


def _size(image: np.ndarray) -> str:
    return f'{image.shape[1]} x {image.shape[0]}'


def _about(sample: Any, index: int, epoch: int | None) -> tuple[str, ...]:
    """Return lines about a face: file or number, role, draw."""
    path = sample.get('img_path')
    name = f'no. {index}' if path is None else Path(path).name
    role = sample.get('role', '')
    return name, role if epoch is None else f'{role}, draw {epoch + 1}'
