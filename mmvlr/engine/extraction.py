"""Run a model over a whole data set and gather its predictions, on any number of ranks."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmvlr.datasets import FaceDataset
from mmvlr.datasets.transforms import FlipFace, LoadFace, PackFace, ResizeFace, read_image
from mmvlr.models.recognizers import predict_in_full_batches
from mmvlr.structures import FaceDataSample

#: Transforms after which the image of the record still is the face in native size.
_HARMLESS = (LoadFace, FlipFace, ResizeFace, PackFace)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a distributed wrapper, or the model itself."""
    return model.module if is_model_wrapper(model) else model


@contextmanager
def eval_mode(model: nn.Module | None) -> Iterator[None]:
    """Put a model into eval mode and restore its mode afterwards."""
    was_training = model is not None and model.training
    try:
        if model is not None:
            model.eval()
        yield
    finally:
        if model is not None:
            model.train(was_training)


def build_loader(
    config: Mapping[str, Any], loader: Mapping[str, Any] | str, seed: int | None = None
) -> DataLoader:
    """Build a data loader from its config, or from the name of an entry of the run's config.

    Args:
        config: The run's config (``runner.cfg``).
        loader: Config of a loader, or a name such as ``'prototype_dataloader'``.
        seed: Seed of the loader's sampler and workers.

    Raises:
        KeyError: The config has no entry of that name.
    """
    if isinstance(loader, str):
        if loader not in config:
            names = ', '.join(sorted(name for name in config if name.endswith('dataloader')))
            raise KeyError(f'the config has no data loader {loader!r}; it has {names or "none"}')
        loader = config[loader]
    return Runner.build_dataloader(loader, seed=seed)


class Extraction:
    """Gather the predictions of a model for a data set, batch by batch, then over all ranks.

    Args:
        model: A recognizer in eval mode, not wrapped; None if only the images are used.
        predict: Maps network input (B, 3, H, W) to named tensors with leading dimension B; the
            model's ``predictions`` if not given. With ``images`` it takes a second argument: the B
            faces in native size, uint8 RGB.
        images: Whether ``predict`` uses the images.
    """

    def __init__(
        self,
        model: nn.Module | None,
        predict: Callable[..., dict[str, torch.Tensor]] | None = None,
        images: bool = False,
    ):
        self.model = model
        self.predict = predict or model.predictions
        self.images = images
        self._mine: list[tuple[list[FaceDataSample], dict[str, torch.Tensor]]] = []

    @torch.no_grad()
    def add(self, batch: Mapping[str, Any], dataset: Any = None) -> None:
        """Predict the faces of a batch of packed faces of ``dataset``."""
        samples = batch['data_samples']
        native = [native_image(sample, dataset) for sample in samples] if self.images else None
        if self.model is None:
            result = self.predict(None, native)
        else:
            inputs = self.model.data_preprocessor(batch, False)['inputs']
            predict = self.predict if native is None else self._predict_portions(native)
            result = predict_in_full_batches(predict, inputs)
        self._mine.append((samples, {name: value.cpu() for name, value in result.items()}))

    def _predict_portions(
        self, images: list[np.ndarray]
    ) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
        waiting = iter(images)

        def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            own = list(islice(waiting, len(inputs)))
            # The last portion was filled up with copies of the last face.
            own += own[-1:] * (len(inputs) - len(own))
            return self.predict(inputs, own)

        return predict

    def gather(self, size: int | None = None) -> dict[str, Any]:
        """Return the predictions of all ranks, the same on every rank.

        They are merged by ``sample_idx``: order and duplicates of the sampler do not matter.

        Args:
            size: Number of images of the data set; None if unknown.

        Returns:
            dict: ``sample_idx`` (N,) and every prediction as a CPU tensor with leading dimension N,
            and ``samples``, the N data samples (without predictions), in index order.

        Raises:
            ValueError: There is no image, or fewer than ``size``.
        """
        # Send whole batches: pickling a single row would send the memory of its batch.
        parts = [batch for rank in all_gather_object(self._mine) for batch in rank]
        self._mine = []
        if not parts:
            raise ValueError('there is no image to extract embeddings from')
        samples = [sample for batch, _ in parts for sample in batch]
        place = {sample.sample_idx: row for row, sample in enumerate(samples)}
        indices = sorted(place)
        if size is not None and len(indices) != size:
            raise ValueError(
                f'{len(indices)} of {size} images were embedded; the loader must run over all of '
                'them: remove its drop_last'
            )
        rows = [place[index] for index in indices]
        return dict(
            sample_idx=torch.tensor(indices),
            samples=[samples[row] for row in rows],
            **{name: torch.cat([part[name] for _, part in parts])[rows] for name in parts[0][1]},
        )


def extract_predictions(
    model: nn.Module | None,
    dataloader: Iterable,
    predict: Callable[..., dict[str, torch.Tensor]] | None = None,
    images: bool = False,
    what: str = 'embedding',
) -> dict[str, Any]:
    """Predict every image of a loader, in eval mode and with the current weights.

    The model is left in the mode it was in. Over several ranks, each of which runs over its shard,
    every rank returns the same.

    Args:
        model: A recognizer, wrapped or not; None where the images alone are looked at.
        dataloader: A loader of packed faces.
        predict: See :class:`Extraction`.
        images: See there.
        what: What the pass is for, which its log lines begin with.

    Returns:
        dict: See :meth:`Extraction.gather`.
    """
    model = None if model is None else unwrap(model)
    dataset = getattr(dataloader, 'dataset', None)
    extraction = Extraction(model, predict, images)
    with eval_mode(model):
        for batch in tell_progress(dataloader, what):
            extraction.add(batch, dataset)
    return extraction.gather(None if dataset is None else len(dataset))


def tell_progress(dataloader: Iterable, what: str, every: float = 10) -> Iterator[Any]:
    """Iterate over a loader; log what runs, and every ``every`` seconds how far it is."""
    batches = len(dataloader) if hasattr(dataloader, '__len__') else None
    images = len(dataloader.dataset) if hasattr(dataloader, 'dataset') else None
    print_log(f'{what}{"" if images is None else f": {images:,} images"} ...', logger='current')
    begin = told = time.monotonic()
    for done, batch in enumerate(dataloader, 1):
        yield batch
        now = time.monotonic()
        if batches and done < batches and now - told >= every:
            told = now
            left = (now - begin) / done * (batches - done)
            print_log(f'{what}: {done / batches:.0%}, {left:.0f} s to go', logger='current')


def native_image(sample: FaceDataSample, dataset: Any = None) -> np.ndarray:
    """Return a face before it was resized for the network, uint8 RGB (h, w, 3).

    ``sample.image`` where the pipeline kept it, else the image of the data set's record, else
    the file ``sample.img_path``. A pipeline keeps it by a transform that copies ``img`` to
    ``image`` in front of ``ResizeFace``, and ``PackFace`` with ``'image'`` in ``meta_keys``.

    Args:
        sample: The face's record.
        dataset: The data set that it comes from.

    Raises:
        ValueError: The pipeline changes more than the size of faces, so that the record's image is
            not the one that the model sees.
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
