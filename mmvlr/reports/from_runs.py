"""Make tables, figures and the comparison page from the scored faces of many runs."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope

from mmvlr.engine import unwrap
from mmvlr.engine.building import build_tester
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import CONVENTIONS
from mmvlr.evaluation.systems import Score
from mmvlr.evaluation.tables import evaluate_faces
from mmvlr.experiments import PRETRAINED, Failure, Run
from mmvlr.models.activation import activation_maps
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.registry import DATASETS
from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.io import write_csv
from mmvlr.version import __version__

from .compared import ComparedRuns
from .comparison import ActivationRow, ComparisonData, ScoreTable, render_comparison
from .evaluated import compute_attention, load_inputs, make_cards, read_face, spread
from .faces import FaceCard, warn_of_border
from .page import collect, join_keys, write_page
from .words import METHODS, describe_judges, describe_methods, name_method, name_metric

#: Methods of the columns of activation maps.
ACTIVATED = ('riface', 'arcface', 'softmax', 'magface', 'adaface')
NUM_HARD, NUM_ACTIVATED, MAX_ACTIVATED = 16, 8, 6
Scores = Mapping[str, Mapping[str, Score]]


def write_comparison(
    runs: Sequence[Run],
    out: Path,
    failures: Sequence[Failure] = (),
    command: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write ``report.html``, ``scores.csv`` and ``runs.csv`` about the finished runs.

    ``scores.csv`` holds every mean over seeds with its interval and test; ``runs.csv`` every number
    of every run.

    Args:
        runs: All runs of a plan; those that are not finished are listed as missing.
        out: Folder of the files.
        failures: Reasons why runs are not finished, where known.
        command: The command line, shown on the page.
        progress: Called with a description of each step.

    Returns:
        The page.

    Raises:
        ValueError: No run is finished.
    """
    by_test: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.finished:
            by_test.setdefault((run.data, run.test), []).append(run)
    if not by_test:
        raise ValueError('no run is finished: there is nothing to compare')
    tables: dict[str, list[ScoreTable]] = dict(method=[], ablation=[])
    areas: dict[str, Mapping[str, Score]] = {}
    told: dict[str, Mapping[str, Score]] = {}
    conventions: list[ScoreTable] = []
    page: dict[str, dict[str, Any]] = dict(quality={}, discard={}, discard_bounds={}, hard_faces={})
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    reading: list[str] = []
    activation: list[ActivationRow] = []
    timed: set[Path] = set()
    for (data, test), its_runs in by_test.items():
        tests = ComparedRuns(its_runs)
        title, where = tests.title, {'trained on': data, 'tested on': test}
        progress(f'{title}: recognition')
        for group, known in tables.items():
            systems = tests.group_systems(group)
            if not systems:
                continue
            found = tests.compare_methods(group)
            known.append(make_method_table(title, systems, found, tests.unmeasurable))
            scores += list_scores(where | dict(table=group), found, tests.unmeasurable)
            if group == 'method':
                reading.append(describe_methods(title, found))
        progress(f'{title}: quality')
        areas[title], told[title] = tests.compare_judges(), tests.compare_ui()
        by_convention = tests.compare_conventions()
        if by_convention:
            conventions.append(make_convention_table(title, by_convention))
        scores += list_scores(where | dict(table='discard'), dict(area=areas[title]))
        scores += list_scores(where | dict(table='conventions'), by_convention)
        scores += list_scores(where | dict(table='UI faces'), dict(auc=told[title]))
        if areas[title]:
            reading.append(describe_judges(title, areas[title]))
        page['quality'][title] = tests.split_qualities()
        page['discard'][title], page['discard_bounds'][title] = tests.average_discard()
        page['hard_faces'][title] = find_hard_faces(tests)
        if not activation:
            progress(f'{title}: activation maps')
            activation = find_activations(tests)
        for run in its_runs:
            # Runs may share a training, whose time counts once.
            facts = {}
            if run.training and run.training.folder not in timed:
                facts = run.training.facts()
                timed.add(run.training.folder)
            rows.append(
                where
                | dict(table=run.group, method=run.method, seed=run.seed)
                | dict(seconds=facts.get('seconds'), resumed=facts.get('resumed'))
                | evaluate_faces(tests.faces[run.scores], tests.metrics)
            )
    methods = join_keys(row.maps for row in activation)
    reading += warn_of_border({m: collect((row.maps for row in activation), m) for m in methods})
    reasons = {failure.run: failure.message for failure in failures}
    for name, table in (('scores.csv', scores), ('runs.csv', rows)):
        write_csv(out / name, join_keys(table), table)
    data = ComparisonData(
        title='Comparison of methods',
        subtitle='Who finds the right person, and who knows when not to try?',
        facts={
            'Data sets': ', '.join(dict.fromkeys(run.data for run in runs)),
            'Seeds': ', '.join(map(str, sorted({r.seed for r in runs if r.seed is not None}))),
            'Runs': f'{sum(map(len, by_test.values()))} of {len(runs)}',
            'Made': time.strftime('%Y-%m-%d %H:%M'),
            'mmvlr': __version__,
        },
        command=command,
        reading=reading,
        recognition=tables['method'],
        ablation=tables['ablation'],
        quality_tables=make_measure_tables(told),
        discard_tables=make_measure_tables(areas) + conventions,
        activation=activation,
        activation_note=(
            'Grad-CAM of the last feature map; the target is the cosine to the mean of the '
            "person's gallery embeddings. PAM: RI-Face's own spatial attention."
        ),
        runs=[
            {name: row[name] for name in ('trained on', 'tested on', 'method', 'seed', 'seconds')}
            for row in rows
        ],
        missing=[
            f'{run.method} on {run.test}, trained on {run.data}, seed {run.seed}: '
            + reasons.get(run, 'not finished')
            for run in runs
            if not run.finished
        ],
        **{name: {k: v for k, v in found.items() if v} for name, found in page.items()},
    )
    return write_page(render_comparison(data), out / 'report.html')


def make_method_table(
    title: str, systems: Iterable[str], found: Scores, unmeasurable: Mapping[str, int]
) -> ScoreTable:
    """Return a table with systems in rows and numbers in columns."""
    rows = {name_method(s): [of_all.get(s) for of_all in found.values()] for s in systems}
    return ScoreTable(title, [name_metric(name, unmeasurable.get(name)) for name in found], rows)


def make_measure_tables(found: Scores) -> list[ScoreTable]:
    """Return a table with measures in rows and test sets in columns, or none if it is empty."""
    found = {title: scores for title, scores in found.items() if scores}
    rows = {m: [scores.get(m) for scores in found.values()] for m in join_keys(found.values())}
    return [ScoreTable('', list(found), rows, kind='Measure')] if found else []


def make_convention_table(title: str, found: Scores) -> ScoreTable:
    """Return a table with measures in rows and conventions in columns."""
    rows = {m: [scores.get(m) for scores in found.values()] for m in join_keys(found.values())}
    titles = [CONVENTIONS[name].title for name in found]
    return ScoreTable(f'{title}: FNMR over discarded pairs', titles, rows, kind='Measure')


def list_scores(
    where: Mapping[str, Any], found: Scores, unmeasurable: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """Return one row per number and system; ``too_few_trials`` marks rates that are too small."""
    unmeasurable = unmeasurable or {}
    return [
        dict(where)
        | dict(system=system, number=name, mean=score.mean, low=score.low, high=score.high)
        | dict(lowest_seed=score.lowest, highest_seed=score.highest, seeds=score.num_seeds)
        | dict(best=score.best, p_against_best=score.p)
        | dict(too_few_trials=unmeasurable.get(name))
        for name, scores in found.items()
        for system, score in scores.items()
    ]


def find_hard_faces(tests: ComparedRuns) -> dict[str, list[FaceCard]]:
    """Return the probes of lowest ERS and of lowest RI, with whether they were found."""
    if not tests.judged:
        return {}
    run, correct = tests.recognizer[0], next(iter(tests.judged.values()))[0][1]
    dataset, probe = build_dataset(run), np.flatnonzero(tests.faces[run.scores].role == 'probe')
    qualities = tests.take_probes(run).qualities
    lowest = {q: np.argsort(v, kind='stable')[:NUM_HARD] for q, v in qualities.items()}
    return {
        MEASURES[q]: make_cards(
            lambda place: read_face(dataset, probe[place]), lowest[q], qualities[q], correct
        )
        for q in ('ers', 'ri')
        if q in qualities
    }


def find_activations(tests: ComparedRuns) -> list[ActivationRow]:
    """Return probes over the range of RI with the activation maps of several methods."""
    systems = tests.group_systems('method')
    order = [m for m in ACTIVATED if m in systems]
    # Methods of the user come next; the starting weights have trained nothing.
    order += [m for m in systems if m not in METHODS and m != PRETRAINED]
    runs = [systems[method][0] for method in order[:MAX_ACTIVATED]]
    if not runs:
        return []
    first = tests.faces[runs[0].scores]
    name = 'ri' if 'ri' in first.columns else 'norm'
    probe = np.flatnonzero(first.role == 'probe')
    quality = first.columns[name]
    chosen = spread(probe[np.argsort(quality[probe], kind='stable')], NUM_ACTIVATED)
    maps: dict[str, np.ndarray] = {}
    for run in runs:
        maps |= compute_activations(run, tests.faces[run.scores], chosen)
    dataset = build_dataset(runs[0])
    return [
        ActivationRow(
            read_face(dataset, row),
            {method: found[place] for method, found in maps.items()},
            (f'{MEASURES[name]} {quality[row]:.3g}',),
        )
        for place, row in enumerate(chosen)
    ]


def build_dataset(run: Run) -> Any:
    """Return the test set of a run, whose order is that of its scored faces."""
    with DefaultScope.overwrite_default_scope('mmvlr'):
        return DATASETS.build(run.config.test_dataloader.dataset)


def compute_activations(run: Run, faces: FaceTable, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return activation maps of faces for the similarity to their person's gallery images.

    Args:
        run: A finished run.
        faces: Its scored faces.
        rows: (R,) rows of probes.

    Returns:
        The method's name to maps (R, h, w) in [0, 1]; of a network with spatial attention also
        that, under the method's name and ``PAM``.
    """
    config = run.config.copy()
    config.update(work_dir=str(run.scores.parent / 'test'), log_level='WARNING')
    runner = build_tester(config, str(run.checkpoint()))
    runner.load_or_resume()
    model = unwrap(runner.model).eval()
    _, inputs = load_inputs(model, build_dataset(run), rows)
    unit = faces.unit.numpy()
    gallery = np.isin(faces.role, ('gallery', 'distractor'))
    references = np.stack(
        [unit[gallery & (faces.identity == faces.identity[row])].mean(axis=0) for row in rows]
    )
    return compute_maps(model, name_method(run.method), inputs, references)


def compute_maps(
    model: FaceRecognizer, method: str, inputs: torch.Tensor, references: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the maps of :func:`compute_activations` of a model."""
    maps = {method: activation_maps(model, inputs, references)}
    if getattr(model, 'attention', None) is not None:
        # Gates that start as the identity reach up to 2.
        gain = getattr(model.attention, 'gain', 1.0)
        maps[f'{method}, PAM'] = compute_attention(model, inputs) / gain
    return maps
