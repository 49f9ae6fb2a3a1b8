"""From the scored faces of many runs to tables, figures and the page that compares methods."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope

from mmvlr.datasets.transforms import read_image
from mmvlr.engine import unwrap
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import (
    discard_auc_bounds,
    rank1_error_versus_discard,
    resample,
    roc_area,
)
from mmvlr.evaluation.metrics import ClosedSetMetric, FaceMetric, Observations
from mmvlr.evaluation.table import MEASURES
from mmvlr.registry import DATASETS
from mmvlr.utils.io import write_csv
from mmvlr.version import __version__
from mmvlr.visualization import DiscardCurve, FaceCard
from mmvlr.visualization.comparison import (
    ActivationRow,
    ComparisonData,
    Score,
    ScoreRow,
    ScoreTable,
    render_comparison,
)

from .activation import activation_maps
from .evaluation import build_metrics
from .report import shown_name
from .reproduction import PRETRAINED, Failure, Run
from .runner import build_tester

#: The method whose errors the quality measures foretell, if it is there; else the first one.
RECOGNIZER = 'riface'
#: Measures of other methods' networks that are worth a row: method, measure.
JUDGES = (('magface', 'norm'), ('adaface', 'norm'), ('crfiqa', 'crfiqa'))
#: Methods of the columns of activation maps.
ACTIVATED = ('riface', 'arcface', 'softmax', 'magface', 'adaface')
NUM_HARD, NUM_ACTIVATED, MAX_ACTIVATED = 16, 8, 6
#: Beyond this p-value a system counts as not distinguishable from the best.
ALPHA = 0.05
SHOWN = dict(
    riface='RI-Face',
    arcface='ArcFace',
    softmax='softmax',
    normface='NormFace',
    cosface='CosFace',
    curricularface='CurricularFace',
    magface='MagFace',
    adaface='AdaFace',
    crfiqa='CR-FIQA',
)


# What is compared -----------------------------------------------------------------------------


def over_seeds(parts: Sequence[Observations]) -> Observations:
    """Join what several seeds of a method observed of the same probes: numbers become their means.

    The people are resampled once for all seeds, so an interval says how far other test people would
    move the mean.

    Args:
        parts: One a seed, of the same probes in the same order.

    Raises:
        ValueError: The seeds were tested on different probes.
    """
    first = parts[0]
    if any(not np.array_equal(part.groups, first.groups) for part in parts):
        raise ValueError('the seeds of a method were tested on different faces')

    # The number of seeds is read off the values, so that systems with more and fewer can be paired.
    def means(kept: np.ndarray) -> dict[str, float]:
        found = [first.statistics(kept[:, seed]) for seed in range(kept.shape[1])]
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    values = np.stack([np.asarray(part.values, np.float64) for part in parts], axis=1)
    return Observations(values, first.groups, means, first.strata)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p-values for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    Example:
        >>> holm(dict(a=0.01, b=0.04, c=0.03))
        {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted, highest = {}, 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p) in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p))
        adjusted[name] = highest
    return adjusted


def compare(
    observed: Mapping[str, Sequence[Observations]],
    lower_is_better: bool = False,
    unit: str = 'rate',
    num_resamples: int = 1000,
) -> dict[str, dict[str, Score]]:
    """Compare systems on the same probes.

    Args:
        observed: System to what each of its seeds observed.
        lower_is_better: Whether the lowest is the best.
        unit: See :class:`Score`.
        num_resamples: Resamples of people.

    Returns:
        Number to system to score. ``p`` is of the paired test against the best system of that
        number, adjusted by :func:`holm` for all others.
    """
    joined = {system: over_seeds(parts) for system, parts in observed.items()}
    resampled = {
        system: resample(
            part.values, part.groups, part.statistics, num_resamples, strata=part.strata
        )
        for system, part in joined.items()
    }
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for system, draws in resampled.items():
        each = [one.statistics(np.asarray(one.values)) for one in observed[system]]
        for name, interval in draws.intervals().items():
            of_seeds = [float(numbers[name]) for numbers in each]
            scores.setdefault(name, {})[system] = dict(
                mean=interval.estimate,
                low=interval.low,
                high=interval.high,
                lowest=min(of_seeds),
                highest=max(of_seeds),
                num_seeds=len(of_seeds),
                lower_is_better=lower_is_better,
                unit=unit,
            )
    best = {
        name: (min if lower_is_better else max)(systems, key=lambda s: systems[s]['mean'])
        for name, systems in scores.items()
    }
    p_values: dict[str, dict[str, float]] = {name: {} for name in scores}
    for winner in dict.fromkeys(best.values()):
        for system in joined:
            if system == winner:
                continue
            if not np.array_equal(joined[system].groups, joined[winner].groups):
                raise ValueError(f'{system} and {winner} were tested on different faces')
            for name, difference in resampled[system].minus(resampled[winner]).items():
                if best[name] == winner:
                    p_values[name][system] = difference.p_value
    return {
        name: {
            system: Score(**score, p=adjusted.get(system), best=system == best[name])
            for system, score in systems.items()
        }
        for name, systems in scores.items()
        for adjusted in [holm(p_values[name])]
    }


# From runs ------------------------------------------------------------------------------------


def discard_area(kept: np.ndarray) -> dict[str, float]:
    """Return the area of rank-1 error over discard of [quality, correct], (N, 2)."""
    return dict(area=float(rank1_error_versus_discard(kept[:, 0], kept[:, 1])['auc']))


def shown(method: str) -> str:
    """Return a method's name as a reader would say it."""
    return SHOWN.get(method, method)


class TestSet:
    """The runs of one training set and one test set, with their scored faces.

    Args:
        runs: Finished runs that share both.
    """

    def __init__(self, runs: Sequence[Run]):
        self.data, self.test = runs[0].data, runs[0].test
        self.runs = sorted(runs, key=lambda run: -1 if run.seed is None else run.seed)
        self.faces = {run.scores: FaceTable.load(run.scores) for run in self.runs}
        self.metrics: list[FaceMetric] = build_metrics(runs[0].config.test_evaluator)

    @property
    def title(self) -> str:
        """Name of the test set, and of the training set if it is another."""
        return self.test if self.test == self.data else f'{self.test}, trained on {self.data}'

    def systems(self, group: str) -> dict[str, list[Run]]:
        """Return the runs of each method of a group, in order of their seeds."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.group == group:
                found.setdefault(run.method, []).append(run)
        return found

    def numbers(self, run: Run) -> dict[str, float]:
        """Return every metric of a run by its full name, without interval."""
        result: dict[str, float] = {}
        for metric in self.metrics:
            result |= metric.report(self.faces[run.scores])
        return result

    def recognition(self, group: str) -> dict[str, dict[str, Score]]:
        """Compare the methods of a group in every rate of recognition."""
        systems = self.systems(group)
        scores: dict[str, dict[str, Score]] = {}
        for metric in self.metrics:
            observed: dict[str, dict[str, list[Observations]]] = {}
            for method, runs in systems.items():
                for run in runs:
                    faces = self._of(run, metric)
                    # Without their columns no quality is judged, which would take its time.
                    bare = {k: v for k, v in faces.columns.items() if k not in MEASURES}
                    for name, part in metric.observations(replace(faces, columns=bare)).items():
                        observed.setdefault(name, {}).setdefault(method, []).append(part)
            for part in observed.values():
                scores |= compare(part)
        return {name: found for name, found in scores.items() if not name.startswith('threshold')}

    def recognizer(self) -> str:
        """Return the method whose errors the quality measures are to foretell."""
        trained = [method for method in self.systems('method') if method != PRETRAINED]
        return RECOGNIZER if RECOGNIZER in trained or not trained else trained[0]

    @cached_property
    def judged(self) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """Measure to (quality (P,), correct (P,)) of the recognizer's probes for each seed."""
        systems = self.systems('method')
        judges = [metric for metric in self.metrics if isinstance(metric, ClosedSetMetric)]
        if not judges or self.recognizer() not in systems:
            return {}
        own = {run.seed: run for run in systems[self.recognizer()]}
        correct = {
            seed: judges[0].found_first(self._of(run, judges[0])) for seed, run in own.items()
        }
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for seed, run in own.items():
            for measure, quality in self._of(run).only('probe').qualities.items():
                found.setdefault(MEASURES[measure], []).append((quality, correct[seed]))
        for method, measure in JUDGES:
            others = {run.seed: run for run in systems.get(method, [])}
            if method == self.recognizer() or not set(own) <= set(others):
                continue
            name = MEASURES[measure]
            name = name if name == shown(method) else f'{name} of {shown(method)}'
            for seed in own:
                quality = self._of(others[seed]).only('probe').columns[measure]
                found.setdefault(name, []).append((quality, correct[seed]))
        # A measure that only some seeds have cannot be compared.
        return {name: pairs for name, pairs in found.items() if len(pairs) == len(own)}

    def discard(self) -> dict[str, Score]:
        """Compare the measures in the area of rank-1 error over the discarded share."""
        groups = self._probes().groups
        observed = {
            name: [Observations(np.stack(pair, axis=1), groups, discard_area) for pair in pairs]
            for name, pairs in self.judged.items()
        }
        return compare(observed, True, 'number')['area'] if observed else {}

    def own_areas(self, group: str) -> dict[str, dict[str, Score]]:
        """Compare the methods of a group in how well their own measures foretell their own errors.

        Returns:
            ``discard_auc_ri`` and ``discard_auc_norm`` to method to score, as far as there are any.
        """
        judges = [metric for metric in self.metrics if isinstance(metric, ClosedSetMetric)]
        found: dict[str, dict[str, Score]] = {}
        if not judges:
            return found
        for measure in ('ri', 'norm'):
            observed = {
                method: [self._judgment(run, judges[0], measure) for run in runs]
                for method, runs in self.systems(group).items()
                if all(measure in self._of(run).columns for run in runs)
            }
            if observed:
                found[f'discard_auc_{measure}'] = compare(observed, True, 'number')['area']
        return found

    def _judgment(self, run: Run, judge: ClosedSetMetric, measure: str) -> Observations:
        faces = self._of(run, judge)
        probes = faces.only('probe')
        values = np.stack([probes.columns[measure], judge.found_first(faces)], axis=1)
        return Observations(values, probes.groups, discard_area)

    def discard_curves(self) -> tuple[dict[str, DiscardCurve], dict[str, DiscardCurve]]:
        """Return error over discard of each measure, and the reference curves; means of seeds."""

        def mean_curve(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> DiscardCurve:
            curves = [rank1_error_versus_discard(*pair) for pair in pairs]
            error = np.mean([curve['error'] for curve in curves], axis=0)
            return DiscardCurve(
                curves[0]['discard'], error, float(np.mean([curve['auc'] for curve in curves]))
            )

        drawn = {name: mean_curve(pairs) for name, pairs in self.judged.items()}
        correct = [pair[1] for pair in next(iter(self.judged.values()), [])]
        if not correct:
            return drawn, {}
        error = float(np.mean([1 - one.mean() for one in correct]))
        random = float(np.mean([discard_auc_bounds(one)['random'] for one in correct]))
        perfect = mean_curve((one.astype(float), one) for one in correct)
        bounds = {
            'random': DiscardCurve(perfect.shares, np.array([error]), random),
            'perfect knowledge': perfect,
        }
        return drawn, bounds

    def told_from_ui(self) -> dict[str, Score]:
        """Compare the recognizer's measures in telling probes from UI faces (area under ROC)."""
        runs = self.systems('method').get(self.recognizer(), [])
        observed: dict[str, list[Observations]] = {}
        for run in runs:
            faces = self._of(run).only('probe', 'ui')
            kind = (faces.role == 'ui').astype(int)
            if kind.sum() < 2:
                continue

            def told(kept: np.ndarray) -> dict[str, float]:
                ui = kept[:, 1] > 0
                return dict(auc=roc_area(kept[~ui, 0], kept[ui, 0]))

            for measure, quality in faces.qualities.items():
                part = Observations(np.stack([quality, kind], axis=1), faces.groups, told, kind)
                observed.setdefault(MEASURES[measure], []).append(part)
        complete = {name: parts for name, parts in observed.items() if len(parts) == len(runs)}
        return compare(complete)['auc'] if complete else {}

    def distributions(self) -> dict[str, dict[str, np.ndarray]]:
        """Return measure to set of faces to values, of the recognizer's first seed."""
        runs = self.systems('method').get(self.recognizer(), [])
        if not runs:
            return {}
        faces = self._of(runs[0])
        sets = dict(probe=('probe',), gallery=('gallery', 'distractor'), ui=('ui',))
        return {
            MEASURES[measure]: {
                name: values[np.isin(faces.role, roles)]
                for name, roles in sets.items()
                if np.isin(faces.role, roles).any()
            }
            for measure, values in faces.qualities.items()
        }

    def hard_faces(self) -> dict[str, list[FaceCard]]:
        """Return the probes of lowest ERS and of lowest RI, with whether they were found."""
        runs = self.systems('method').get(self.recognizer(), [])
        if not runs or not self.judged:
            return {}
        faces, correct = self._of(runs[0]), next(iter(self.judged.values()))[0][1]
        images = Images(runs[0])
        probe = np.flatnonzero(faces.role == 'probe')
        rows: dict[str, list[FaceCard]] = {}
        for measure in ('ers', 'ri'):
            if measure in faces.columns:
                quality = faces.columns[measure][probe]
                rows[MEASURES[measure]] = [
                    FaceCard(
                        images(probe[place]),
                        (f'{quality[place]:.2f}',),
                        'right' if correct[place] else 'wrong',
                    )
                    for place in np.argsort(quality, kind='stable')[:NUM_HARD]
                ]
        return rows

    def activation(self) -> list[ActivationRow]:
        """Return probes over the range of RI with the activation maps of several methods."""
        systems = self.systems('method')
        order = [m for m in ACTIVATED if m in systems]
        # Methods of the user come next; the starting weights have trained nothing.
        order += [m for m in systems if m not in SHOWN and m != PRETRAINED]
        runs = {method: systems[method][0] for method in order[:MAX_ACTIVATED]}
        if not runs:
            return []
        first = self._of(next(iter(runs.values())))
        probe = np.flatnonzero(first.role == 'probe')
        quality = first.columns.get('ri', first.columns['norm'])[probe]
        name = 'RI' if 'ri' in first.columns else 'norm'
        order = np.argsort(quality, kind='stable')
        places = np.linspace(0, len(order) - 1, min(NUM_ACTIVATED, len(order))).round().astype(int)
        chosen = probe[order[places]]
        maps: dict[str, np.ndarray] = {}
        for run in runs.values():
            maps |= activations(run, self._of(run), chosen)
        images = Images(next(iter(runs.values())))
        return [
            ActivationRow(
                images(row),
                {method: found[place] for method, found in maps.items()},
                (f'{name} {quality[order[places[place]]]:.2f}',),
            )
            for place, row in enumerate(chosen)
        ]

    def _of(self, run: Run, metric: FaceMetric | None = None) -> FaceTable:
        faces = self.faces[run.scores]
        return faces if metric is None else faces.only(*metric.roles)

    def _probes(self) -> FaceTable:
        return self.faces[self.runs[0].scores].only('probe')


class Images:
    """The images of a run's test set in native size, by their row in its scored faces."""

    def __init__(self, run: Run):
        with DefaultScope.overwrite_default_scope('mmvlr'):
            self.dataset = DATASETS.build(run.config.test_dataloader.dataset)

    def __call__(self, row: int) -> np.ndarray:
        """Return a face (h, w, 3), uint8 RGB."""
        info = self.dataset.get_data_info(int(row))
        return info['img'] if 'img' in info else read_image(info['img_path'])


def activations(run: Run, faces: FaceTable, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return where in some faces their similarity to their person's gallery images comes from.

    Args:
        run: A finished run.
        faces: Its scored faces.
        rows: (R,) rows of probes.

    Returns:
        The method's name to maps (R, h, w) in [0, 1]; of a network with spatial attention also
        that, under the method's name and ``attention``.
    """
    config = run.config.copy()
    config.update(work_dir=str(run.scores.parent / 'test'), log_level='WARNING')
    runner = build_tester(config, str(run.checkpoint()))
    runner.load_or_resume()
    model = unwrap(runner.model).eval()
    dataset = Images(run).dataset
    batch = dict(inputs=[], data_samples=[])
    for row in rows:
        item = dataset[int(row)]
        batch['inputs'].append(item['inputs'])
        batch['data_samples'].append(item['data_samples'])
    inputs = model.data_preprocessor(batch, False)['inputs']
    unit = faces.unit.numpy()
    gallery = np.isin(faces.role, ('gallery', 'distractor'))
    references = np.stack(
        [unit[gallery & (faces.identity == faces.identity[row])].mean(axis=0) for row in rows]
    )
    maps = {shown(run.method): activation_maps(model, inputs, references)}
    if getattr(model, 'attention', None) is not None:
        with torch.no_grad():
            spatial = model.attention.attention(model.extract_feat(inputs)[0])[1]
        maps[f'{shown(run.method)}, PAM'] = spatial[:, 0].float().cpu().numpy()
    return maps


# The page and its files ------------------------------------------------------------------------


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
        runs: All runs of a plan; those that are not finished are named as missing.
        out: Folder of the files.
        failures: Why runs are not finished, where it is known.
        command: The command line, for the reader.
        progress: Told what is being computed.

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
    areas: dict[str, dict[str, Score]] = {}
    told: dict[str, dict[str, Score]] = {}
    page: dict[str, dict[str, Any]] = dict(quality={}, discard={}, discard_bounds={}, hard_faces={})
    rows: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    reading: list[str] = []
    activation: list[ActivationRow] = []
    timed: set[Path] = set()
    for (data, test), its_runs in by_test.items():
        tests = TestSet(its_runs)
        where = {'trained on': data, 'tested on': test}
        progress(f'{tests.title}: recognition')
        for group, known in tables.items():
            if not tests.systems(group):
                continue
            found = tests.recognition(group)
            if group == 'ablation':
                found |= tests.own_areas(group)
            known.append(score_table(tests.title, tests.systems(group), found))
            scores += csv_rows(where | dict(table=group), found)
            if group == 'method':
                reading.append(in_words(tests.title, found))
        progress(f'{tests.title}: quality')
        areas[tests.title], told[tests.title] = tests.discard(), tests.told_from_ui()
        scores += csv_rows(where | dict(table='discard'), dict(area=areas[tests.title]))
        scores += csv_rows(where | dict(table='UI faces'), dict(auc=told[tests.title]))
        if areas[tests.title]:
            reading.append(judges_in_words(tests.title, areas[tests.title]))
        page['quality'][tests.title] = tests.distributions()
        curves, bounds = tests.discard_curves()
        page['discard'][tests.title], page['discard_bounds'][tests.title] = curves, bounds
        page['hard_faces'][tests.title] = tests.hard_faces()
        if not activation:
            progress(f'{tests.title}: activation maps')
            activation = tests.activation()
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
                | tests.numbers(run)
            )
    reasons = {failure.run: failure.message for failure in failures}
    missing = [
        f'{run.method} on {run.test}, trained on {run.data}, seed {run.seed}: '
        + reasons.get(run, 'not finished')
        for run in runs
        if not run.finished
    ]
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    for name, table in (('scores.csv', scores), ('runs.csv', rows)):
        columns = list(dict.fromkeys(key for row in table for key in row))
        write_csv(out / name, columns, table)
    data = ComparisonData(
        title='Comparison of methods',
        subtitle='Who finds the right person, and who knows when not to try?',
        facts={
            'Data sets': ', '.join(dict.fromkeys(run.data for run in runs)),
            'Seeds': ', '.join(map(str, seeds)),
            'Runs': f'{sum(map(len, by_test.values()))} of {len(runs)}',
            'Made': time.strftime('%Y-%m-%d %H:%M'),
            'mmvlr': __version__,
        },
        command=command,
        reading=reading,
        recognition=tables['method'],
        ablation=tables['ablation'],
        quality_tables=measure_tables(told),
        discard_tables=measure_tables(areas),
        activation=activation,
        activation_note=(
            'Grad-CAM of the last feature map; the target is the cosine to the mean of the '
            "person's gallery embeddings. PAM: RI-Face's own spatial attention."
        ),
        runs=[
            {name: row[name] for name in ('trained on', 'tested on', 'method', 'seed', 'seconds')}
            for row in rows
        ],
        missing=missing,
        **{name: {k: v for k, v in found.items() if v} for name, found in page.items()},
    )
    return render_comparison(data, out / 'report.html')


def score_table(
    title: str, systems: Iterable[str], found: Mapping[str, Mapping[str, Score]]
) -> ScoreTable:
    """Return a table with systems in rows and numbers in columns."""
    rows = [ScoreRow(shown(s), [of_all.get(s) for of_all in found.values()]) for s in systems]
    return ScoreTable(title, '', [shown_name(name) for name in found], rows)


def measure_tables(found: Mapping[str, Mapping[str, Score]]) -> list[ScoreTable]:
    """Return a table with measures in rows and test sets in columns, or none if it is empty."""
    found = {title: scores for title, scores in found.items() if scores}
    measures = dict.fromkeys(name for scores in found.values() for name in scores)
    rows = [ScoreRow(m, [scores.get(m) for scores in found.values()]) for m in measures]
    return [ScoreTable('', '', list(found), rows, kind='Measure')] if found else []


def in_words(title: str, found: Mapping[str, Mapping[str, Score]]) -> str:
    """Say who is first in the main rate of a test set, and who cannot be told from it."""
    name = 'mean_rank1' if 'mean_rank1' in found else next(iter(found))
    scores = found[name]
    best = next(system for system, score in scores.items() if score.best)
    level = [shown(s) for s, one in scores.items() if one.p is not None and one.p >= ALPHA]
    text = (
        f'{title}: {shown(best)} is first in {shown_name(name)} ({100 * scores[best].mean:.1f} %)'
    )
    return f'{text}; not distinguishable from it: {", ".join(level) or "none"}.'


def judges_in_words(title: str, scores: Mapping[str, Score]) -> str:
    """Say which measure foretells errors best, and which place RI has."""
    order = sorted(scores, key=lambda name: scores[name].mean)
    level = [name for name in order if scores[name].p is not None and scores[name].p >= ALPHA]
    text = f'{title}: {order[0]} foretells errors best (area {scores[order[0]].mean:.3f})'
    text += f'; not distinguishable from it: {", ".join(level) or "none"}'
    if 'RI' in scores and order[0] != 'RI':
        text += f'. RI is number {order.index("RI") + 1} of {len(order)} ({scores["RI"].mean:.3f})'
    return text + '.'


def csv_rows(
    where: Mapping[str, Any], found: Mapping[str, Mapping[str, Score]]
) -> list[dict[str, Any]]:
    """Return one row for each number of each system."""
    return [
        dict(where)
        | dict(system=system, number=name, mean=score.mean, low=score.low, high=score.high)
        | dict(lowest_seed=score.lowest, highest_seed=score.highest, seeds=score.num_seeds)
        | dict(best=score.best, p_against_best=score.p)
        for name, scores in found.items()
        for system, score in scores.items()
    ]
