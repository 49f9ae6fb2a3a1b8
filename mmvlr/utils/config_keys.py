"""Find misspelled keys of a config, which would not be read.

A key that is not read has no effect, and the training would silently use the old value.
"""

import difflib
import inspect
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner

#: Top-level keys that mmengine and mmvlr read: arguments of the Runner, and more.
KNOWN_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'degraded_dataloader',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'prototype_dataloader',
    'quality_measures',
    'retain_combine',
    'retain_dataloader',
    'retain_evaluator',
    'sync_bn',
    'ui_dataloader',
}


def check_file_keys(config: Mapping[str, Any], text: str, source: str) -> None:
    """Raise an error if a top-level key of a config file is misspelled.

    User-defined variables are accepted: they are used in the files, or resemble no known key.

    Args:
        config: The config.
        text: Text of the file and of those that it inherits from.
        source: Name of the file, for the message.

    Raises:
        ValueError: A key resembles a known one and is not used in the files.
    """
    for key in config:
        if key not in KNOWN_KEYS and not key.startswith('_') and not _is_used(key, text):
            near = _nearest(key, KNOWN_KEYS)
            if near:
                raise ValueError(
                    f'{source}: the key {key!r} is not read; did you mean {near!r}? Rename or '
                    'remove it'
                )


def check_options(config: Mapping[str, Any], options: Iterable[str], text: str) -> None:
    """Raise an error if an option of ``--cfg-options`` has a misspelled key.

    New keys below a known one are accepted (``model.backbone.with_cp=True``), unless they resemble
    an existing one.

    Args:
        config: The config that the options will be merged into.
        options: Their keys, such as ``'train_dataloader.batch_size'``.
        text: Text of the config's files.

    Raises:
        ValueError: A key is not known at the top level, or resembles an existing one.
    """
    for option in options:
        first, *rest = option.split('.')
        if first not in config and first not in KNOWN_KEYS:
            near = difflib.get_close_matches(first, {*KNOWN_KEYS, *config}, n=1)
            raise ValueError(_unknown(option, first, near[0] if near else None))
        if first not in KNOWN_KEYS and _is_used(first, text) and not _is_named(first, text):
            print_log(
                f'--cfg-options {option}: {first} is a variable of the config file, and what the '
                'file has made of it keeps its value; override that instead',
                logger='current',
                level=logging.WARNING,
            )
        value = config.get(first)
        for part in rest:
            if isinstance(value, Mapping) and part not in value:
                near = _nearest(part, value)
                if near:
                    raise ValueError(_unknown(option, part, near))
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, Sequence) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                break


def _unknown(option: str, part: str, near: str | None) -> str:
    hint = f'; did you mean {near!r}?' if near else ''
    return f'--cfg-options {option}: the config has no key {part!r}{hint}'


def _is_used(key: str, text: str) -> bool:
    """Return whether a text uses a name, other than by assigning it or writing an entry of it."""
    text = re.sub('#.*', '', text)
    return bool(re.search(rf'\b{re.escape(key)}\b(?!["\']?\s*(?:=(?!=)|:))', text))


def _is_named(key: str, text: str) -> bool:
    """Return whether a text holds a name in quotes, as hooks name their loaders."""
    return bool(re.search(rf'["\']{re.escape(key)}["\']', text))


def _nearest(key: str, others: Iterable[str]) -> str | None:
    """Return a key that differs by a letter or two but not by a whole word, or None."""
    for other in difflib.get_close_matches(key, [str(other) for other in others], cutoff=0.85):
        match = difflib.SequenceMatcher(a=key, b=other, autojunk=False)
        spans = [(b - a, d - c) for tag, a, b, c, d in match.get_opcodes() if tag != 'equal']
        if sum(map(max, spans)) <= 2:
            return other
    return None
