"""The keys of a config without running it, so that a misspelled one is found before PyTorch loads.

What cannot be read this way (an import, a function, a variable of another file) is left to
:func:`mmvlr.apis.load_config`, which finds the same mistakes in whatever a config does.
"""

import ast
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .config_keys import KNOWN_KEYS, check_arguments, check_file_keys, check_options
from .shipped import find_configs


def check_early(path: Path, options: Iterable[str] = ()) -> None:
    """Raise an error if a config, or an option ``KEY=VALUE``, has a misspelled key.

    Args:
        path: The config.
        options: What ``--cfg-options`` gives.

    Raises:
        ValueError: See :func:`check_file_keys` and :func:`check_options`.
    """
    texts: list[str] = []
    config = read_outline(path, texts)
    if config is not None:
        check_file_keys(config, '\n'.join(texts), str(path))
        if 'custom_imports' not in config:
            check_arguments({key: config[key] for key in config.keys() & KNOWN_KEYS}, str(path))
        keys = [option.partition('=')[0] for option in options]
        check_options(config, keys, '\n'.join(texts), warn=False)


def find_weights(path: Path, options: Iterable[str] = ()) -> str | None:
    """Return ``load_from`` of a config; None where it has none, or it is not to be known.

    Args:
        path: The config.
        options: What ``--cfg-options`` gives.
    """
    stated = dict(option.split('=', 1) for option in options).get('load_from')
    if stated is not None:
        return None if stated == 'None' else stated
    weights = (read_outline(path, []) or {}).get('load_from')
    return weights if isinstance(weights, str) else None


def check_folders(path: Path, options: Iterable[str], loaders: Iterable[str]) -> None:
    """Raise an error if the folder of a data set of a config does not exist.

    Args:
        path: The config.
        options: What ``--cfg-options`` gives; where it is about data, nothing is checked.
        loaders: Names of the loaders, such as ``'train_dataloader'``.

    Raises:
        FileNotFoundError: A folder is missing; the message names the variable that sets it.
    """
    texts: list[str] = []
    config = read_outline(path, texts) or {}
    if any('root' in option or 'dataset' in option for option in options):
        return
    variables = re.findall(r"environ\.get\('(\w+)'\) or '([^']+)'", '\n'.join(texts))
    for loader in loaders:
        dataset = config.get(loader)
        while isinstance(dataset, dict) and 'data_root' not in dataset:
            dataset = dataset.get('dataset')
        root = dataset.get('data_root') if isinstance(dataset, dict) else None
        # What lies inside of a pack is left to who reads it.
        if not isinstance(root, str) or os.path.exists(os.path.expanduser(root)) or '.pack' in root:
            continue
        setting = [name for name, default in variables if root in (os.environ.get(name), default)]
        told = f'export {setting[0]}=FOLDER, where you have it' if setting else 'name another'
        raise FileNotFoundError(
            f'{loader}: {dataset.get("type")}: folder {root} does not exist; {told}'
        )


def read_outline(path: Path, texts: list[str]) -> dict[str, Any] | None:
    """Return the nested keys of a config, with texts and those of the environment as values.

    None stands for other values, and for what is not to be known.

    Args:
        path: The config.
        texts: The sources of it and of its bases are added.
    """
    try:
        source = path.read_text(encoding='utf-8')
        tree = ast.parse(source)
    except (OSError, ValueError, SyntaxError):
        return None
    texts.append(source)
    base: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for line in tree.body:
        match line:
            case ast.Expr(ast.Constant()):
                pass
            case ast.Assign([ast.Name('_base_')], value):
                read = _read_bases(path, value, texts)
                if read is None:
                    return None
                base = read
            case ast.Assign(targets, value) if all(isinstance(t, ast.Name) for t in targets):
                own |= {target.id: _outline(value, own, base) for target in targets}
            case ast.Assign([ast.Tuple(names)], ast.Tuple(values)) if len(names) == len(values):
                found = [_outline(value, own, base) for value in values]
                own |= {getattr(n, 'id', ''): v for n, v in zip(names, found, strict=True)}
            case ast.Assign([ast.Subscript(target, ast.Constant(key))], value):
                changed = _outline(target, own, base)
                if not isinstance(changed, dict):
                    return None
                changed[key] = _outline(value, own, base)
            case _:
                return None
    return _merge(base, own)


def _read_bases(path: Path, value: ast.expr, texts: list[str]) -> dict[str, Any] | None:
    try:
        names = ast.literal_eval(value)
    except ValueError:
        return None
    merged: dict[str, Any] = {}
    for name in [names] if isinstance(names, str) else names:
        package, _, rest = name.rpartition('::')
        if package not in ('', 'mmvlr') or '{{' in name:
            return None
        file = find_configs() / f'{rest.removesuffix(".py")}.py' if package else path.parent / name
        read = read_outline(file, texts)
        if read is None:
            return None
        merged |= read
    return merged


def _outline(node: ast.expr, own: dict[str, Any], base: dict[str, Any]) -> Any:
    match node:
        case ast.Constant(str(text)):
            return _fill_in(text)
        case ast.BoolOp(ast.Or(), [ast.Call(reader, [ast.Constant(str(name))]), default]) if (
            ast.unparse(reader) in ("__import__('os').environ.get", 'os.environ.get')
        ):
            return os.environ.get(name) or _outline(default, own, base)
        case ast.Dict(keys, values):
            pairs = [
                (getattr(key, 'value', None), value)
                for key, value in zip(keys, values, strict=True)
            ]
        case ast.Call(ast.Name('dict'), [], keywords):
            pairs = [(word.arg, word.value) for word in keywords]
        case ast.Name(name):
            return own.get(name)
        case ast.Attribute(ast.Name('_base_'), name):
            return base.get(name)
        case ast.Subscript(value, ast.Constant(key)):
            inner = _outline(value, own, base)
            return inner.get(key) if isinstance(inner, dict) else None
        case ast.List(values) | ast.Tuple(values):
            found = [_outline(value, own, base) for value in values]
            # Where a star is among them, places are not to be known.
            return None if any(isinstance(v, ast.Starred) for v in values) else found
        case _:
            return None
    result: dict[str, Any] = {}
    for key, value in pairs:
        inner = _outline(value, own, base)
        if key is not None:
            result[key] = inner
        elif isinstance(inner, dict):
            result = result | inner
        else:
            return None
    return result


def _fill_in(text: str) -> str | None:
    if '{{' not in text:
        return text
    found = re.fullmatch(r'\{\{\$(\w+):(\S+?)\}\}', text.replace(' ', ''))
    return (os.environ.get(found[1]) or found[2]) if found else None


def _merge(base: Any, own: Any) -> Any:
    if not isinstance(own, dict):
        return own
    if '_delete_' in own or not isinstance(base, dict):
        return {key: _merge(None, value) for key, value in own.items() if key != '_delete_'}
    merged = dict(base)
    for key, value in own.items():
        # A dict changes what the base has, which need not be known.
        is_unknown = isinstance(value, dict) and base.get(key, value) is None
        merged[key] = None if is_unknown else _merge(base.get(key), value)
    return merged
