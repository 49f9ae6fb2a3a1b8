"""Evaluate tables of faces: build metrics, compute them, compare models, read external tables."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from mmvlr.registry import METRICS
from mmvlr.structures.face_table import NO_IDENTITY, FaceTable, read_fields, read_meta

from .metrics import FaceMetric


def build_metrics(
    evaluators: Mapping[str, Any] | Iterable[Mapping[str, Any]], **options: Any
) -> list[FaceMetric]:
    """Build the metrics of a config's ``test_evaluator``.

    Args:
        evaluators: Config of a metric, or several.
        **options: Arguments for all of them, such as ``intervals=True``.
    """
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    with DefaultScope.overwrite_default_scope('mmvlr'):
        return [METRICS.build({**config, **options}) for config in evaluators]


def evaluate_faces(faces: FaceTable, metrics: Iterable[FaceMetric]) -> dict[str, float]:
    """Compute metrics on a table of faces.

    Raises:
        ValueError: Two metrics give the same name, or the table lacks what one of them needs.
    """
    result: dict[str, float] = {}
    for metric in metrics:
        found = metric.report(faces)
        twice = sorted(set(found) & set(result))
        if twice:
            raise ValueError(f'two metrics are called {twice[0]}; give them different prefixes')
        result |= found
    return result


def add_warnings(result: Mapping[str, Any], metrics: Iterable[FaceMetric]) -> dict[str, Any]:
    """Add the warnings about the test set to the numbers of an evaluation.

    Args:
        result: Metrics by name.
        metrics: The metrics' objects, evaluated.

    Returns:
        The same, with ``warnings`` if there are any: one line for each kind of image that was left
        out of the test set or looks suspicious.
    """
    found = [(metric.dataset_meta or {}).get('warnings') for metric in metrics]
    warnings = next((lines for lines in found if lines), None)
    return {**result, **({'warnings': warnings} if warnings else {})}


def mark_unmeasurable(result: Mapping[str, Any], metrics: Iterable[FaceMetric]) -> dict[str, Any]:
    """Add to the numbers of an evaluation the names of those that need a larger test set.

    Args:
        result: Metrics by name.
        metrics: The metrics' objects, evaluated.

    Returns:
        The same, with ``unmeasurable`` if there are any: the number of trials, by name, of numbers
        at an error rate below one over that number of trials.
    """
    found = {name: trials for one in metrics for name, trials in one.unmeasurable.items()}
    return {**result, **({'unmeasurable': found} if found else {})}


def tell_unmeasurable(metrics: Iterable[FaceMetric]) -> None:
    """Log the numbers of an evaluation for which the test set is too small."""
    for metric in metrics:
        if metric.unmeasurable:
            named = ', '.join(f'{k} ({trials:,})' for k, trials in metric.unmeasurable.items())
            text = f'too few trials to measure, as one error is a higher rate: {named}'
            print_log(text, logger='current', level=logging.WARNING)


def compare_faces(
    faces: FaceTable, other: FaceTable, metrics: Iterable[FaceMetric]
) -> dict[str, float]:
    """Compare two models on the same faces, resampling people.

    Returns:
        For every number NAME of both: ``NAME_difference`` (first minus second),
        ``NAME_difference_low`` and ``_high``, its 95 % interval, and ``NAME_p``, the two-sided
        p-value of no difference.

    Raises:
        ValueError: The tables are of different faces.
    """
    result: dict[str, float] = {}
    for metric in metrics:
        for name, found in metric.difference(faces, other).items():
            result[f'{name}_difference'] = found.difference
            result[f'{name}_difference_low'] = found.low
            result[f'{name}_difference_high'] = found.high
            result[f'{name}_p'] = found.p_value
    return result


def load_faces(path: str | Path, dataset: Any = None) -> FaceTable:
    """Read embeddings of any model from an ``.npz`` file.

    Args:
        path: File with ``embedding`` and either ``role`` and ``identity`` (and, for verification,
            ``pairs`` and ``same``), or ``name``, file names that ``dataset`` knows.
        dataset: A test set with role, identity and pairs of each image, by its name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A field is missing, or names and data set do not fit.
    """
    fields = read_fields(path)
    if {'role', 'identity'} <= set(fields) and not (dataset is not None and is_unlabeled(fields)):
        return FaceTable.from_fields(fields, path)
    if 'embedding' not in fields or 'name' not in fields:
        raise ValueError(
            f'{path} has the fields {", ".join(sorted(fields)) or "none"}; needed are embedding '
            'with role and identity, or embedding with name and a config of the data set'
        )
    if dataset is None:
        raise ValueError(
            f'{path} has names but no roles and identities: say by --config of which test set'
        )
    return label_by_name(fields, dataset, str(path))


def label_by_name(fields: Mapping[str, np.ndarray], dataset: Any, source: str) -> FaceTable:
    """Give embeddings the records of a test set's images, found by name.

    Args:
        fields: ``embedding`` (N, D) and ``name`` (N,): paths that end like those below the data
            set's root, or file names where these are unique; further columns (N,) are kept.
        dataset: The test set.
        source: Origin of the embeddings, for error messages.

    Raises:
        ValueError: An image of the data set has no embedding, two have the same name, or a bare
            name matches several images.
    """
    names = [str(name).replace('\\', '/') for name in fields['name']]
    if np.ndim(fields['embedding']) != 2 or len(fields['embedding']) != len(names):
        raise ValueError(
            f'{source}: embedding must be ({len(names)}, D), as name has {len(names)} entries, got '
            f'{np.shape(fields["embedding"])}'
        )
    infos = list(dataset.infos())
    full = [relative_name(info['img_path'], dataset.data_root) for info in infos]
    rows = match_names(names, full, source, str(dataset.data_root))
    unused = len(names) - len(rows)
    if unused:
        print_log(f'{source}: {unused:,} embeddings of other images are left out', 'current')
    columns = {
        name: values[rows]
        for name, values in fields.items()
        if name not in ('embedding', 'pairs', 'same', 'meta', 'role', 'identity')
    }
    for name in ('distance', 'camera'):
        if any(name in info for info in infos):
            columns[name] = np.array([info.get(name, 0) for info in infos])
    return FaceTable(
        embedding=fields['embedding'][rows],
        role=np.array([info['role'] for info in infos]),
        identity=np.array([info['identity'] for info in infos]),
        columns=columns,
        **known_pairs(dataset.metainfo),
        meta=read_meta(fields, source),
    )


def is_unlabeled(fields: Mapping[str, np.ndarray]) -> bool:
    """Return whether the faces have no identities, as those of ``mmvlr embed``."""
    nobody = np.all(np.asarray(fields['identity']) == NO_IDENTITY)
    return 'name' in fields and bool(nobody and np.all(np.asarray(fields['role']) == 'probe'))


def match_names(given: Sequence[str], wanted: Sequence[str], source: str, root: str) -> np.ndarray:
    """Match names: each wanted name to the given name that equals it or ends in it, or vice versa.

    Args:
        given: Names of the faces that were embedded, with ``/``.
        wanted: Names of the images of a data set, below ``root``.
        source: Origin of the embeddings, for error messages.
        root: Folder of the data set, for error messages.

    Raises:
        ValueError: A wanted name is missing, or a given one occurs twice or matches several images.
    """
    whole: dict[str, int] = {}
    for row, name in enumerate(given):
        if whole.setdefault(name, row) != row:
            raise ValueError(f'{source}: the name {name} stands twice')
    longer: dict[str, list[int]] = {}
    for row, name in enumerate(given):
        for end in _ends(name)[1:]:
            longer.setdefault(end, []).append(row)
    rows: dict[int, str] = {}
    missing = []
    for name in wanted:
        found = longer.get(name, ())
        if name in whole:
            row = whole[name]
        elif len(found) > 1:
            raise ValueError(
                f'{source}: {given[found[0]]} and {given[found[1]]} both end in {name}, an image '
                f'of {root}; embed the images of one folder'
            )
        else:
            row = found[0] if found else next((whole[e] for e in _ends(name) if e in whole), None)
        if row is None:
            missing.append(name)
        elif row in rows:
            raise ValueError(
                f'{source}: {given[row]} stands for several images of {root}, such as '
                f'{rows[row]} and {name}; give names below that folder'
            )
        else:
            rows[row] = name
    if missing:
        raise ValueError(
            f'{source} has no embedding of {len(missing)} of {len(wanted)} images, such as '
            f'{missing[0]}'
        )
    return np.array(list(rows))


def _ends(name: str) -> list[str]:
    """Return a path and its ends: without its first folder, without its first two, and so on."""
    parts = name.split('/')
    return ['/'.join(parts[start:]) for start in range(len(parts))]


def known_pairs(metainfo: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return ``pairs`` and ``same`` of a data set, or nothing if it has no pairs."""
    if metainfo.get('pairs') is None or not len(metainfo['pairs']):
        return {}
    return {name: np.asarray(metainfo[name]) for name in ('pairs', 'same')}


def relative_name(path: str, root: str) -> str:
    """Return a file's name below ``root`` with forward slashes, or the whole path."""
    path = str(path)
    if root and Path(path).is_relative_to(root):
        return Path(path).relative_to(root).as_posix()
    return path
