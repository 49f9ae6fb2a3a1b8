"""Find misspelled keys of a config, which would not be read.

A key that is not read has no effect, and the training would silently use the old value.
"""

import difflib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .signatures import READ_BY_OTHERS, find_arguments

#: Top-level keys that mmengine (arguments of its Runner, and more) and mmvlr read.
KNOWN_KEYS = frozenset(
    [
        'activation_checkpointing',
        'auto_scale_lr',
        'common_measures',
        'compile',
        'custom_hooks',
        'custom_imports',
        'data_preprocessor',
        'default_hooks',
        'default_scope',
        'degraded_dataloader',
        'efficient_conv_bn_eval',
        'env_cfg',
        'experiment_name',
        'find_unused_parameters',
        'launcher',
        'load_from',
        'log_level',
        'log_processor',
        'model',
        'model_wrapper_cfg',
        'optim_wrapper',
        'param_scheduler',
        'prototype_dataloader',
        'quality_measures',
        'randomness',
        'resume',
        'retain_combine',
        'retain_dataloader',
        'retain_evaluator',
        'runner_type',
        'sync_bn',
        'test_cfg',
        'test_dataloader',
        'test_evaluator',
        'train_cfg',
        'train_dataloader',
        'ui_dataloader',
        'val_cfg',
        'val_dataloader',
        'val_evaluator',
        'visualizer',
        'work_dir',
    ]
)


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


def check_options(
    config: Mapping[str, Any], options: Iterable[str], text: str, warn: bool = True
) -> None:
    """Raise an error if an option of ``--cfg-options`` has a misspelled key.

    New keys below a known one are accepted (``model.backbone.with_cp=True``), unless they resemble
    an existing one, or a class of mmvlr reads them that has no such argument.

    Args:
        config: The config that the options will be merged into.
        options: Their keys, such as ``'train_dataloader.batch_size'``.
        text: Text of the config's files.
        warn: Warn of what has no effect.

    Raises:
        ValueError: A key is not known at the top level, resembles an existing one, or is no
            argument of its class.
    """
    options = list(options)
    # Where an option names another class, its arguments are those of that one.
    replaced = {o.rpartition('.')[0] + '.' for o in options if o.endswith(('.type', '._delete_'))}
    for option in options:
        is_replaced = any(option.startswith(place) for place in replaced)
        first, *rest = option.split('.')
        if first not in config and first not in KNOWN_KEYS:
            near = difflib.get_close_matches(first, {*KNOWN_KEYS, *config}, n=1)
            raise ValueError(_unknown(option, first, near[0] if near else None))
        is_variable = first not in KNOWN_KEYS and _is_used(first, text)
        if warn and is_variable and not _is_named(first, text):
            from mmengine.logging import print_log

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
                if 'custom_imports' not in config and not is_replaced:
                    new = {key: value[key] for key in ('type',) if key in value} | {part: None}
                    check_arguments(new, f'--cfg-options {option}')
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, Sequence) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                break


def check_arguments(part: Any, source: str) -> None:
    """Raise an error if a part of a config states what its class in mmvlr does not take.

    Args:
        part: Dicts, lists and plain values.
        source: Where it is from, for the message.

    Raises:
        ValueError: A dict has an entry that is no argument of its ``type``.
    """
    if isinstance(part, Mapping):
        arguments = find_arguments(str(part.get('type')))
        for key in part:
            if arguments is not None and key not in arguments:
                known = ', '.join(sorted(arguments - READ_BY_OTHERS))
                raise ValueError(f'{source}: {part["type"]} has no {key!r}, only {known}')
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for value in part:
            check_arguments(value, source)


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
