"""Run quality measures over a whole data set, on any number of ranks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from torch import nn

from mmvlr.datasets import FaceDataset
from mmvlr.datasets.transforms import FlipFace, LoadFace, PackFace, ResizeFace, read_image
from mmvlr.engine import unwrap
from mmvlr.models.recognizers import predict_in_full_batches
from mmvlr.registry import QUALITIES
from mmvlr.structures import FaceDataSample

from .base import FaceBatch, QualityMeasure

#: Transforms behind which the image of the record is still the face in its native size.
_HARMLESS = (LoadFace, FlipFace, ResizeFace, PackFace)


def measure_quality(
    model: nn.Module | None,
    dataloader: Iterable,
    measures: Sequence[QualityMeasure | Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Measure the quality of every face of a loader; the backbone sees each face once.

    As in :func:`extract_predictions`, the model runs in eval mode and is left in the mode it was
    in, short batches are filled up, and the results of several ranks, each of which runs over its
    shard, are merged by ``sample_idx``: every rank returns the same, whatever the order of the
    loader.

    Args:
        model: A recognizer, wrapped or not; None where no measure needs one.
        dataloader: A loader of packed faces.
        measures: Measures of :mod:`mmvlr.quality`, or their configs.

    Returns:
        Name of the measure -> float32 (N,), higher is better, in index order.

    Raises:
        ValueError: Two measures have the same name, the model or the data set lacks what a measure
            needs, or there is no image.
    """
    measures = [QUALITIES.build(dict(m)) if isinstance(m, Mapping) else m for m in measures]
    names = [measure.name for measure in measures]
    if not names or len(set(names)) != len(names):
        raise ValueError(f'measures must have different names, got {names}')
    asking = [measure.name for measure in measures if measure.needs_model]
    if asking and model is None:
        raise ValueError(f'{", ".join(asking)}: a model is needed')
    with_images = any(measure.needs_images for measure in measures)

    model = unwrap(model) if asking else None
    was_training = model is not None and model.training
    mine: dict[int, np.ndarray] = {}
    try:
        if model is not None:
            model.eval()
        for batch in dataloader:
            samples = batch['data_samples']
            images = None
            if with_images:
                dataset = getattr(dataloader, 'dataset', None)
                images = [native_image(sample, dataset) for sample in samples]
            if model is None:
                faces = FaceBatch(images=images)
                found = {measure.name: measure(faces) for measure in measures}
            else:
                inputs = model.data_preprocessor(batch, False)['inputs']
                found = predict_in_full_batches(_of_portions(measures, model, images), inputs)
            table = np.stack([found[name].cpu().numpy() for name in names], axis=1)
            for sample, row in zip(samples, table, strict=True):
                mine[sample.sample_idx] = row
    finally:
        if model is not None:
            model.train(was_training)
    merged: dict[int, np.ndarray] = {}
    for part in all_gather_object(mine):
        merged.update(part)
    if not merged:
        raise ValueError('there is no image to measure the quality of')
    table = np.stack([merged[index] for index in sorted(merged)])
    return {name: np.ascontiguousarray(table[:, column]) for column, name in enumerate(names)}


def _of_portions(
    measures: Sequence[QualityMeasure], model: nn.Module, images: list[np.ndarray] | None
) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    """Return a function of the network's inputs, portion by portion, to name -> (B,)."""
    waiting = None if images is None else iter(images)

    def measure_portion(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        own = None
        if waiting is not None:
            own = list(islice(waiting, len(inputs)))
            # The last portion was filled up with copies of the last face.
            own += own[-1:] * (len(inputs) - len(own))
        faces = FaceBatch(model, inputs, own)
        return {measure.name: measure(faces) for measure in measures}

    return measure_portion


def native_image(sample: FaceDataSample, dataset: Any = None) -> np.ndarray:
    """Return a face as it was before it was resized for the network, uint8 RGB (h, w, 3).

    ``sample.image`` where the pipeline kept it, else the image of the data set's record, else
    the file ``sample.img_path``. A pipeline keeps it by a transform that copies ``img`` to
    ``image`` in front of ``ResizeFace``, and ``PackFace`` with ``'image'`` in ``meta_keys``.

    Args:
        sample: The face's record.
        dataset: The data set that it comes from.

    Raises:
        ValueError: The pipeline changes faces beyond their size, so that the record's image is
            another one than the model sees.
        FileNotFoundError: There is no such file.
    """
    if 'image' in sample:
        return sample.image
    record = {}
    if isinstance(dataset, FaceDataset):
        changing = [t for t in dataset.pipeline.transforms if not isinstance(t, _HARMLESS)]
        if changing or type(dataset).prepare_data is not FaceDataset.prepare_data:
            by = type(changing[0] if changing else dataset).__name__
            raise ValueError(
                f'{by} changes the faces, so the image of the record is not what the model '
                "sees: copy 'img' to 'image' in front of ResizeFace and give PackFace the "
                "meta_keys (*PackFace.DEFAULT_KEYS, 'image')"
            )
        record = dataset.get_data_info(sample.sample_idx)
    return record['img'] if 'img' in record else read_image(sample.img_path)
