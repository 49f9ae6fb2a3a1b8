"""Reading and writing checkpoints: safe loading, architecture check, published weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmvlr.version import __version__

from .contract import CONTRACT_KEY
from .io import sha256_of, write_atomic


class CheckpointMismatchError(ValueError):
    """A checkpoint belongs to another architecture than the model."""


def save_pretrained(
    path: str | Path, backbone: nn.Module, contract: Mapping[str, Any], **meta: Any
) -> str:
    """Write a backbone as an mmvlr checkpoint that loads with ``weights_only=True``.

    Args:
        path: The file to write, atomically.
        backbone: Its state goes under ``backbone.`` so that ``load_from`` takes it.
        contract: The preprocessing contract (``FaceDataPreprocessor.contract``).
        **meta: Plain values kept beside it: source, license, backbone config.

    Returns:
        str: SHA-256 of the file.
    """
    state = {f'backbone.{key}': value.cpu() for key, value in backbone.state_dict().items()}
    checkpoint = dict(
        state_dict=state,
        meta={CONTRACT_KEY: dict(contract), 'mmvlr_version': __version__, **meta},
    )
    write_atomic(path, lambda temporary: torch.save(checkpoint, temporary))
    return sha256_of(path)


def state_dict_of(checkpoint: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    """Return the weights of a checkpoint, whether wrapped in ``state_dict`` or bare."""
    state = checkpoint.get('state_dict', checkpoint)
    return {key.removeprefix('module.'): value for key, value in state.items()}


def check_architecture(
    model: nn.Module, checkpoint: Mapping[str, Any], source: str, prefix: str = 'backbone.'
) -> None:
    """Raise :class:`CheckpointMismatchError` unless the checkpoint fits the model.

    Everything under ``prefix`` must be there with the same shapes; what the checkpoint holds for
    other parts of the model must have the same shapes. Parts that only one side has are fine: a
    pretrained backbone has no head, and a test needs none.

    Args:
        model: The model about to be loaded.
        checkpoint: What was read from ``source``.
        source: File name, for the message.
        prefix: The part that must be complete.
    """
    found = state_dict_of(checkpoint)
    wanted = model.state_dict()
    missing = [
        key
        for key in wanted
        if key.startswith(prefix) and key not in found and 'num_batches_tracked' not in key
    ]
    unknown = [key for key in found if key.startswith(prefix) and key not in wanted]
    shapes = [
        f'{key}: checkpoint {tuple(found[key].shape)}, model {tuple(wanted[key].shape)}'
        for key in found
        if key in wanted and found[key].shape != wanted[key].shape
    ]
    if not (missing or unknown or shapes):
        return
    parts = []
    if missing:
        parts.append(f'{len(missing)} weights of the model are not in it, such as {missing[0]}')
    if unknown:
        parts.append(f'{len(unknown)} of its weights are unknown, such as {unknown[0]}')
    if shapes:
        parts.append(f'{len(shapes)} have another shape, such as {shapes[0]}')
    raise CheckpointMismatchError(
        f'{source} belongs to another architecture: {"; ".join(parts)}. Use the config the '
        'checkpoint was trained with, or convert it (tools/model_converters).'
    )
