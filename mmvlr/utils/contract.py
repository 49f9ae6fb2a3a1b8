"""The preprocessing contract: how images must be preprocessed for a network.

A contract is a flat dict of plain values. It is made by ``FaceDataPreprocessor.contract`` and
stored in a checkpoint under ``meta.preprocessing``. Two contracts are compatible only if they are
equal (with one exception, see :func:`check_contract`): with another color order or scaling a
network still gives numbers, but worse ones, without any visible reason.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field

from .schema import FileModel, validate

CONTRACT_KEY = 'preprocessing'
_REMEDY = 'get the file again, or make it again with this version of mmvlr'
_Side = Annotated[int, Field(ge=1, le=2048)]
_Text = Annotated[str, Field(max_length=200)]


class Contract(FileModel):
    """The preprocessing contract in a file; see :class:`FaceDataPreprocessor`."""

    size: Annotated[list[_Side], Field(min_length=2, max_length=2)]
    interpolation: Literal['nearest', 'bilinear', 'bicubic', 'area']
    #: Files of mmvlr 0.1 spell it the other way.
    color_order: Literal['RGB', 'BGR'] = Field(
        validation_alias=AliasChoices('color_order', 'colour_order')
    )
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
    alignment: _Text


class Embedding(FileModel):
    """How an embedding is made, in a file."""

    model_config = ConfigDict(extra='allow')
    dims: Annotated[int, Field(ge=1, le=2**16)]


class Fingerprint(FileModel):
    """Fingerprint of a model in a file, from :func:`mmvlr.apis.network.fingerprint_model`."""

    model_config = ConfigDict(extra='allow')
    weights: _Text
    preprocessing: Contract
    embedding: Embedding


def tell_training(note: str | None, model: str) -> str:
    """Return what a user must know of the faces that a model learned from; '' if nothing.

    Args:
        note: What the training set says of its faces.
        model: The model, for the sentence.
    """
    if note is None:
        return ''
    return (
        f'the training set of {model} says: "{note}" What the model makes of other faces is not '
        'to be relied on.'
    )


class ContractMismatchError(ValueError):
    """A checkpoint was made with another preprocessing contract than the config states."""


class ModelMismatchError(ValueError):
    """Embeddings or thresholds were made with another model than the one in use."""


def contract_of_checkpoint(
    checkpoint: Mapping[str, Any], source: str | Path = 'the checkpoint'
) -> dict[str, Any] | None:
    """Return the contract a checkpoint carries, or None if it carries none.

    Args:
        checkpoint: The loaded checkpoint.
        source: File name, for the message.

    Raises:
        FileFormatError: The contract is malformed.
    """
    meta = checkpoint.get('meta')
    found = meta.get(CONTRACT_KEY) if isinstance(meta, Mapping) else None
    if found is None:
        return None
    return validate({CONTRACT_KEY: found}, _Carrier, source, _REMEDY).preprocessing.model_dump()


class _Carrier(FileModel):
    preprocessing: Contract


def check_contract(
    expected: Mapping[str, Any], found: Mapping[str, Any], source: str = 'the checkpoint'
) -> None:
    """Raise :class:`ContractMismatchError` unless two contracts are equal.

    A checkpoint with alignment ``'none'``, such as a public one, does not state how its faces were
    aligned, and fits data of any alignment. One that names a recipe requires faces of that recipe.

    Args:
        expected: The contract of the config's ``data_preprocessor``.
        found: The contract of the checkpoint.
        source: File name, for the message.

    Example:
        >>> check_contract({'mean': [127.5]}, {'mean': [127.5]})
        >>> check_contract({'color_order': 'RGB'}, {'color_order': 'BGR'}, 'a.pth')
        Traceback (most recent call last):
        mmvlr.utils.contract.ContractMismatchError: a.pth was made with another preprocessing ...
    """
    different = [
        f'{key}: checkpoint {found.get(key)!r}, config {expected.get(key)!r}'
        for key in sorted({*expected, *found})
        if found.get(key) != expected.get(key)
        and not (key == 'alignment' and found.get(key) == 'none')
    ]
    if different:
        raise ContractMismatchError(
            f'{source} was made with another preprocessing than the config states '
            f'({"; ".join(different)}). Set model.data_preprocessor in the config to the values '
            "of the checkpoint, or use the checkpoint's own config."
        )


def check_fingerprint(
    expected: Mapping[str, Any], found: Mapping[str, Any], source: str = 'the file'
) -> None:
    """Raise :class:`ModelMismatchError` unless two models make comparable embeddings.

    Args:
        expected: Fingerprint of the model in use, see :func:`mmvlr.apis.network.fingerprint_model`.
        found: Fingerprint of the model that the file was made with.
        source: File name, for the error message.
    """
    # Converted by JSON like the one on disk, where lists and tuples are the same.
    expected, found = (json.loads(json.dumps(fingerprint)) for fingerprint in (expected, found))
    preprocessing = found.get(CONTRACT_KEY)
    if isinstance(preprocessing, dict) and 'colour_order' in preprocessing:
        preprocessing['color_order'] = preprocessing.pop('colour_order')
    different = []
    for part in sorted({*expected, *found}):
        here, there = expected.get(part), found.get(part)
        if isinstance(here, dict) and isinstance(there, dict):
            different += [
                f'{part}.{key}: {there.get(key)!r} there, {here.get(key)!r} here'
                for key in sorted({*here, *there})
                if here.get(key) != there.get(key)
            ]
        elif here != there:
            shown = [str(value)[:16] if value else 'nothing' for value in (there, here)]
            different.append(f'{part}: {shown[0]} there, {shown[1]} here')
    if different:
        raise ModelMismatchError(
            f'{source} was made with another model or preprocessing ({"; ".join(different)}): '
            'embeddings of different models cannot be compared. Use that model, or make the file '
            'again with this one.'
        )
