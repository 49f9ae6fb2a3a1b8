"""Compute digests of what a run depends on besides its config: source files and images."""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

import mmvlr
from mmvlr.datasets.storage import file_status
from mmvlr.evaluation.tables import relative_name
from mmvlr.registry import DATASETS

_PACKAGE = Path(mmvlr.__file__).resolve().parent
#: Where the walk through mmvlr's own files starts: its programs, and what registries import.
_ROOTS = (
    'mmvlr.cli.programs.train',
    'mmvlr.cli.programs.score',
    'mmvlr.datasets',
    'mmvlr.models',
    'mmvlr.models.quality',
    'mmvlr.evaluation',
    'mmvlr.engine',
)
_INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ('stdlib', 'purelib', 'platlib')]


def digest_sources(config: Mapping[str, Any]) -> str:
    """Return a digest of the Python files that decide what a training or a test does.

    These are mmvlr's own files, as far as they are involved, those of the modules that
    ``custom_imports`` and dotted types name, and the modules that these import, except the standard
    library and installed packages, whose versions users change deliberately. Only static imports
    are followed; modules imported by a computed name are not found.

    Args:
        config: A whole config.
    """
    return digest_files(find_own_sources() | find_sources(named_modules(config)))


def digest_files(files: Mapping[str, Path | None]) -> str:
    """Return a digest of the names and contents of files; None stands for a missing file."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path else 'missing'
        digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()


@functools.cache
def find_own_sources() -> dict[str, Path]:
    """Return mmvlr's own files that a training or a test may run, without pages and reports.

    The package ``mmvlr.cli`` is left out except for two programs, as it imports all commands.
    """
    return find_sources(_ROOTS, lambda path: path.is_relative_to(_PACKAGE))


def named_modules(config: Mapping[str, Any]) -> list[str]:
    """Return the modules that a config names: ``custom_imports``, and types with a dot in them."""
    names = (config.get('custom_imports') or {}).get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    waiting: list[Any] = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            kind = value.get('type')
            if isinstance(kind, str) and '.' in kind:
                names.append(kind.rpartition('.')[0])
            elif kind is not None and not isinstance(kind, str):
                names.append(getattr(kind, '__module__', ''))
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return sorted({name for name in names if name})


def find_sources(
    modules: Iterable[str], wanted: Callable[[Path], bool] | None = None
) -> dict[str, Path | None]:
    """Return the files of modules and of all that they import.

    Args:
        modules: Names of modules.
        wanted: Function that selects files; by default those neither installed nor mmvlr's own.

    Returns:
        Name of the module to its file; None for one of ``modules`` that cannot be found.
    """
    wanted = wanted or _is_users
    found: dict[str, Path | None] = {}
    waiting = [(name, True) for name in modules]
    while waiting:
        name, is_named = waiting.pop()
        if name in found:
            continue
        path = _find_file(name)
        if path is not None and wanted(path):
            found[name] = path
            # Importing a part of a package runs the package.
            parent = [name.rpartition('.')[0]] if wanted is _is_users else []
            waiting += [(other, False) for other in (*parent, *_read_imports(name, path)) if other]
        elif path is None and is_named:
            found[name] = None
    return found


def _is_users(path: Path) -> bool:
    return not any(path.is_relative_to(folder) for folder in (_PACKAGE, *_INSTALLED))


def _find_file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith('.py'):
        return None
    return Path(spec.origin).resolve()


def _read_imports(name: str, path: Path) -> Iterator[str]:
    package = name if path.name == '__init__.py' else name.rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                above = package.split('.')[: len(package.split('.')) - node.level + 1]
                base = '.'.join([*above, *([base] if base else [])])
            yield base
            # A name may be a module of the package.
            yield from (f'{base}.{alias.name}' for alias in node.names if alias.name != '*')


def digest_images(
    config: Mapping[str, Any], loaders: Iterable[str], known: dict[str, str] | None = None
) -> dict[str, str]:
    """Return a digest of the images of each data set that some loaders of a config read.

    Args:
        config: A whole config; its custom modules are imported.
        loaders: Names of entries, such as ``'train_dataloader'``; missing ones are left out.
        known: Cache of earlier results by data set; updated.

    Returns:
        Digest by name of the loader, or ``'missing'`` if there is no such data set.
    """
    known = {} if known is None else known
    found = {}
    for name in loaders:
        dataset = (config.get(name) or {}).get('dataset')
        if dataset is None:
            continue
        while dataset.get('data_root') is None and 'dataset' in dataset:
            dataset = dataset['dataset']
        dataset = {key: value for key, value in dataset.items() if key != 'pipeline'}
        key = json.dumps(make_plain(dataset), sort_keys=True)
        if key not in known:
            try:
                # Warnings about a set are logged when it is used.
                with DefaultScope.overwrite_default_scope('mmvlr'), _quiet():
                    known[key] = digest_dataset(DATASETS.build(dict(dataset)))
            except FileNotFoundError:
                known[key] = 'missing'
        found[name] = known[key]
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def digest_dataset(dataset: Any) -> str:
    """Return a digest of names, roles, identities, sizes and times of a data set's images."""
    digest = hashlib.sha256(json.dumps(make_plain(dataset.metainfo), sort_keys=True).encode())
    for info in dataset.infos():
        name = info.get('img_path', '')
        facts = [relative_name(name, dataset.data_root), info.get('role'), info.get('identity')]
        status = file_status(name)
        if status is not None:
            facts += [status.st_size, status.st_mtime_ns]
        else:
            # An image without a file is generated by the data set, so its pixels are hashed.
            facts += [hashlib.sha256(np.ascontiguousarray(info.get('img', 0))).hexdigest()]
        digest.update(json.dumps(make_plain(facts)).encode())
    return digest.hexdigest()


def make_plain(value: Any) -> Any:
    """Convert a value to types of JSON, other types to text."""
    if isinstance(value, Mapping):
        return {str(key): make_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
