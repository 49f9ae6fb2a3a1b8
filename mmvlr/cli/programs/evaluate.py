"""Evaluate embeddings of any model.

  mmvlr evaluate FILE.npz [--config CONFIG] [--out result.json]

The file holds ``embedding`` (N, D) and

- ``role`` (gallery, distractor, probe, unmated, pair, ui) and ``identity`` (N,), for verification
  also ``pairs`` (P, 2) and ``same`` (P,); or
- ``name`` (N,), file names below the data set's folder, and --config says of which test set.

Further fields: the quality measures ``ri``, ``ers``, ``norm``, and ``distance``, (N,) each. The
metrics are those of the config, or follow from the roles.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from mmvlr.utils.shipped import find_config

from ..arguments import existing_file, output_file, output_folder
from ..common import add_cfg_options, read_config

if TYPE_CHECKING:
    from mmvlr.evaluation import FaceTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('embeddings', type=existing_file, metavar='FILE.npz', help='the embeddings')
    parser.add_argument(
        '--config', type=find_config, help='config whose test set and metrics are meant'
    )
    parser.add_argument(
        '--out', type=output_file, metavar='result.json', help='write all metrics here'
    )
    parser.add_argument(
        '--intervals', action='store_true', help='also give 95 %% intervals, resampling people'
    )
    parser.add_argument(
        '--against',
        type=existing_file,
        metavar='OTHER.npz',
        help='compare with these embeddings of the same images: differences, intervals, p-values',
    )
    parser.add_argument(
        '--curves', type=output_folder, metavar='DIR', help='write the curves with their bands here'
    )
    parser.add_argument(
        '--conventions',
        nargs='+',
        metavar='NAME',
        default=(),
        help='also evaluate qualities on pairs by these conventions of published work, or all',
    )
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate; return the exit code."""
    from mmengine.registry import DefaultScope

    from mmvlr.apis import (
        build_metrics,
        compare_faces,
        evaluate_faces,
        load_faces,
        mark_unmeasurable,
    )
    from mmvlr.registry import DATASETS
    from mmvlr.utils.io import write_atomic

    dataset = evaluators = None
    if args.config:
        config = read_config(args)
        evaluators = config.test_evaluator
        with DefaultScope.overwrite_default_scope('mmvlr'):
            dataset = DATASETS.build(config.test_dataloader.dataset)
    faces = load_faces(args.embeddings, dataset)
    evaluators = evaluators or default_evaluators(faces)
    if args.conventions:
        names = 'all' if args.conventions == ['all'] else args.conventions
        evaluators = add_conventions(evaluators, names)
    # What is not asked for stays as the config has it.
    options = {name: True for name in ('intervals', 'curves') if getattr(args, name)}
    if not args.config and (unknown := find_unknown_measures(faces)):
        print(
            f'mmvlr evaluate: {", ".join(unknown)} in {args.embeddings}: no quality measure of '
            'mmvlr, so not evaluated; --config names the config that imports a measure of your own',
            file=sys.stderr,
        )
    metrics = build_metrics(evaluators, **options)
    result = evaluate_faces(faces, metrics)
    if args.against:
        other = load_faces(args.against, dataset)
        result |= compare_faces(faces, other, metrics)
    text = json.dumps(mark_unmeasurable(result, metrics), indent=2)
    if args.out:
        write_atomic(args.out, lambda path: path.write_text(text + '\n', encoding='utf-8'))
    if args.curves:
        from mmvlr.reports.curve_files import write_curves

        for path in write_curves(metrics, args.curves):
            print(path)
    print(text)
    return 0


def find_unknown_measures(faces: 'FaceTable') -> list[str]:
    """Return the columns that look like quality measures and are none of those known here."""
    return [
        name
        for name, values in faces.columns.items()
        if values.dtype.kind == 'f' and name not in (*faces.qualities, 'distance')
    ]


def add_conventions(evaluators: dict | list[dict], names: str | list[str]) -> list[dict]:
    """Return metrics where those of pairs also follow conventions of published work.

    Raises:
        ValueError: There is no such convention, or no metric of pairs.
    """
    from mmvlr.evaluation.functional import find_conventions

    names = list(find_conventions(names))
    evaluators = [evaluators] if isinstance(evaluators, dict) else list(evaluators)
    kinds = [str(config['type']).rpartition('.')[2] for config in evaluators]
    if 'VerificationMetric' not in kinds:
        raise ValueError('--conventions: needs pairs of faces, and these have none')
    return [
        dict(config, conventions=names) if kind == 'VerificationMetric' else config
        for config, kind in zip(evaluators, kinds, strict=True)
    ]


def default_evaluators(faces: 'FaceTable') -> list[dict]:
    """Return the metrics that the roles of a table call for.

    Raises:
        ValueError: The roles belong to no protocol.
    """
    found = []
    if faces.has('gallery', 'probe', 'unmated'):
        found.append(dict(type='OpenSetMetric'))
    elif faces.has('gallery', 'probe'):
        by_distance = 'distance' in faces.columns
        found.append(dict(type='SCfaceMetric' if by_distance else 'ClosedSetMetric'))
    if faces.pairs is not None:
        found.append(dict(type='VerificationMetric'))
    if not found:
        roles = ', '.join(sorted(set(faces.role.tolist())))
        raise ValueError(
            f'the roles {roles} make no test: needed are gallery and probe (and unmated), or pairs'
        )
    return found
