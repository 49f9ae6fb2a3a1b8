"""Write checkpoints, and check that they fit a model."""

import hashlib
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
        **meta: Further plain values: source, license, backbone config.

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


def unwrap_state_dict(checkpoint: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    """Return the weights of a checkpoint, whether wrapped in ``state_dict`` or bare."""
    state = checkpoint.get('state_dict', checkpoint)
    return {key.removeprefix('module.'): value for key, value in state.items()}


def digest_state(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of named weights, independent of their order and of the file format."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if name.endswith('num_batches_tracked'):
            continue
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f'{name} {array.dtype} {array.shape};'.encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


#: State that is nan until it has been measured.
_MEASURED = ('ui_mean', 'ui_std')


def check_values(
    found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], source: str
) -> None:
    """Raise :class:`CheckpointMismatchError` for a weight of a wrong type or with nan or inf.

    Complex numbers and integers would be converted on copying, and a weight of nan makes every
    embedding nan.

    Args:
        found: Weights of the checkpoint; those that the model lacks are not checked.
        wanted: Weights of the model.
        source: File name, for the message.
    """
    for key in wanted.keys() & found.keys():
        value = found[key]
        if not isinstance(value, torch.Tensor):
            wrong = f'is a {type(value).__name__}, no tensor'
        elif wanted[key].is_floating_point() and not value.is_floating_point():
            wrong = f'is of type {str(value.dtype).removeprefix("torch.")}, not a real number'
        elif key not in _MEASURED and value.is_floating_point() and not value.isfinite().all():
            wrong = 'holds values that are not finite (nan or inf): its training has failed'
        else:
            continue
        raise CheckpointMismatchError(
            f'{source}: the weight {key} {wrong}. Use another checkpoint, or convert this one again'
        )


def check_architecture(
    model: nn.Module, checkpoint: Mapping[str, Any], source: str, prefix: str = 'backbone.'
) -> None:
    """Raise :class:`CheckpointMismatchError` unless the checkpoint fits the model.

    All weights under ``prefix`` must be present with the same shapes; weights of other parts must
    have the same shapes where both sides have them. Parts that only one side has are accepted, but
    for the adapter of a checkpoint: a pretrained backbone has no head, and a test needs none.
    Values are checked too, see :func:`check_values`.

    Args:
        model: The model about to be loaded.
        checkpoint: Content of ``source``.
        source: File name, for the error message.
        prefix: Prefix of the part that must be complete.
    """
    found = unwrap_state_dict(checkpoint)
    wanted = model.state_dict()
    check_values(found, wanted, source)
    complete = (prefix, 'adapter.') if any(k.startswith('adapter.') for k in found) else prefix
    missing = [
        key
        for key in wanted
        if key.startswith(complete) and key not in found and 'num_batches_tracked' not in key
    ]
    unknown = [key for key in found if key.startswith(complete) and key not in wanted]
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
        'checkpoint was trained with, or convert it (mmvlr convert).'
    )
