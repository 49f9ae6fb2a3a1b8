"""Run a model over a whole data set and gather what it predicts, on any number of ranks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmvlr.models.recognizers import predict_in_full_batches


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside a distributed wrapper, or the model itself."""
    return model.module if is_model_wrapper(model) else model


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


@torch.no_grad()
def extract_predictions(
    model: nn.Module,
    dataloader: Iterable,
    predict: Callable[[torch.Tensor], dict[str, torch.Tensor]] | None = None,
) -> dict[str, Any]:
    """Predict every image of a loader, in eval mode and with the current weights.

    The model is left in the mode it was in. Over several ranks, each of which runs over its shard,
    the results are merged by ``sample_idx``: order and duplicates of the sampler do not matter,
    and every rank returns the same.

    Args:
        model: A recognizer, wrapped or not.
        dataloader: A loader of packed faces.
        predict: Maps network input (B, 3, H, W) to named tensors with leading dimension B; the
            model's ``predictions`` if not given.

    Returns:
        dict: ``sample_idx`` (N,) and every prediction as a CPU tensor with leading dimension N,
        and ``samples``, the N data samples (without predictions), in index order.
    """
    model = unwrap(model)
    predict = predict or model.predictions
    was_training = model.training
    model.eval()
    mine: list[tuple[list[Any], dict[str, torch.Tensor]]] = []
    try:
        for batch in dataloader:
            data = model.data_preprocessor(batch, False)
            result = predict_in_full_batches(predict, data['inputs'])
            mine.append((batch['data_samples'], {k: v.cpu() for k, v in result.items()}))
    finally:
        model.train(was_training)
    # Whole batches: a row that is sent by itself takes the memory of its batch along.
    parts = [batch for rank in all_gather_object(mine) for batch in rank]
    if not parts:
        raise ValueError('there is no image to extract embeddings from')
    samples = [sample for batch, _ in parts for sample in batch]
    place = {sample.sample_idx: row for row, sample in enumerate(samples)}
    indices = sorted(place)
    rows = [place[index] for index in indices]
    return dict(
        sample_idx=torch.tensor(indices),
        samples=[samples[row] for row in rows],
        **{name: torch.cat([values[name] for _, values in parts])[rows] for name in parts[0][1]},
    )
