"""Compare runs of several methods on one test set, in recognition and in quality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import (
    rank1_error_versus_discard,
    roc_area,
)
from mmvlr.evaluation.metrics import (
    ClosedSetMetric,
    FaceMetric,
    Observations,
    VerificationMetric,
)
from mmvlr.evaluation.systems import Score, compare_systems
from mmvlr.evaluation.tables import build_metrics
from mmvlr.experiments import PRETRAINED, Run
from mmvlr.structures.face_table import MEASURES

from .evaluated import average_bounds, average_discard, split_qualities
from .figures import DiscardCurve
from .words import name_method, split_convention

#: The method whose errors the quality measures predict, if it was run; else the first one.
RECOGNIZER = 'riface'
#: Parts of a metric's observations that judge quality measures start so.
JUDGING = ('discard_', 'consistency_', 'ui_')
#: Measures of other methods' networks that have a row: method, measure.
JUDGES = (('magface', 'norm'), ('adaface', 'norm'), ('crfiqa', 'crfiqa'))


def measure_discard_area(kept: np.ndarray) -> dict[str, float]:
    """Return the area of rank-1 error over discard of [quality, correct], (N, 2)."""
    return dict(area=float(rank1_error_versus_discard(kept[:, 0], kept[:, 1])['auc']))


def _by_convention(statistics: Callable[[np.ndarray], Mapping[str, float]]) -> Callable:
    """Return statistics named by the convention alone, so that measures can be compared."""

    def renamed(kept: np.ndarray) -> dict[str, float]:
        found = {split_convention(name): value for name, value in statistics(kept).items()}
        return {known[0]: value for known, value in found.items() if known}

    return renamed


class ComparedRuns:
    """The runs of one training set and one test set, with their scored faces.

    Args:
        runs: Finished runs that share both.
    """

    def __init__(self, runs: Sequence[Run]):
        self.data, self.test = runs[0].data, runs[0].test
        self.runs = sorted(runs, key=lambda run: -1 if run.seed is None else run.seed)
        self.faces = {run.scores: FaceTable.load(run.scores) for run in self.runs}
        self.metrics: list[FaceMetric] = build_metrics(runs[0].config.test_evaluator)
        judges = [metric for metric in self.metrics if isinstance(metric, ClosedSetMetric)]
        #: Numbers without prefix for which the test set is too small -> number of trials.
        self.unmeasurable: dict[str, int] = {}
        #: Metric that tells which probes are identified correctly; None without identification.
        self.judge = judges[0] if judges else None

    @property
    def title(self) -> str:
        """Name of the test set, and of the training set if it is a different one."""
        return self.test if self.test == self.data else f'{self.test}, trained on {self.data}'

    def group_systems(self, group: str) -> dict[str, list[Run]]:
        """Return the runs of each method of a group, in order of their seeds."""
        found: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.group == group:
                found.setdefault(run.method, []).append(run)
        return found

    def compare_methods(self, group: str) -> dict[str, dict[str, Score]]:
        """Compare the methods of a group in every rate of recognition.

        Those of an ablation are also compared in how well their RI and norm predict their own
        errors: ``discard_auc_ri`` and ``discard_auc_norm``, if available.
        """
        scores: dict[str, dict[str, Score]] = {}
        areas: dict[str, dict[str, Score]] = {}
        for metric in self.metrics:
            judges = group == 'ablation' and metric is self.judge
            wanted = ('discard_ri', 'discard_norm') if judges else ()
            observed: dict[str, dict[str, list[Observations]]] = {}
            for method, runs in self.group_systems(group).items():
                for run in runs:
                    faces = metric.select(self.faces[run.scores])
                    for name, part in metric.observations(faces).items():
                        if name in wanted or not name.startswith(JUDGING):
                            observed.setdefault(name, {}).setdefault(method, []).append(part)
                            self.unmeasurable |= part.unmeasurable
            for name, part in observed.items():
                if name.startswith('discard_'):
                    areas |= compare_systems(part, True, 'number')
                else:
                    scores |= compare_systems(part)
        rates = {name: found for name, found in scores.items() if not name.startswith('threshold')}
        return rates | areas

    @cached_property
    def recognizer(self) -> list[Run]:
        """Runs of the method whose errors the quality measures predict; may be empty."""
        systems = self.group_systems('method')
        trained = [method for method in systems if method != PRETRAINED]
        name = RECOGNIZER if RECOGNIZER in trained or not trained else trained[0]
        return systems.get(name, [])

    def take_probes(self, run: Run) -> FaceTable:
        """Return the scored probes of a run."""
        return self.faces[run.scores].only('probe')

    @cached_property
    def judged(self) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
        """(quality (P,), correct (P,)) of the recognizer's probes for each seed, by measure."""
        if self.judge is None or not self.recognizer:
            return {}
        systems = self.group_systems('method')
        own = {run.seed: run for run in self.recognizer}
        correct = {
            seed: self.judge.found_first(self.faces[run.scores]) for seed, run in own.items()
        }
        found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for seed, run in own.items():
            for measure, quality in self.take_probes(run).qualities.items():
                found.setdefault(MEASURES[measure], []).append((quality, correct[seed]))
        for method, measure in JUDGES:
            others = {run.seed: run for run in systems.get(method, [])}
            if method == self.recognizer[0].method or not set(own) <= set(others):
                continue
            name = MEASURES[measure]
            name = name if name == name_method(method) else f'{name} of {name_method(method)}'
            for seed in own:
                quality = self.take_probes(others[seed]).columns[measure]
                found.setdefault(name, []).append((quality, correct[seed]))
        # A measure that only some seeds have cannot be compared.
        return {name: pairs for name, pairs in found.items() if len(pairs) == len(own)}

    def compare_judges(self) -> dict[str, Score]:
        """Compare the measures in the area of rank-1 error over the discarded share."""
        groups = self.take_probes(self.runs[0]).groups
        observed = {
            name: [Observations(np.stack(pair, 1), groups, measure_discard_area) for pair in pairs]
            for name, pairs in self.judged.items()
        }
        return compare_systems(observed, True, 'number')['area'] if observed else {}

    def compare_conventions(self, num_resamples: int = 200) -> dict[str, dict[str, Score]]:
        """Compare the recognizer's own measures on pairs, by every convention of published work.

        Args:
            num_resamples: Resamples of people; ten curves are computed in each.

        Returns:
            Convention to measure to score; empty without verification.
        """
        given = next((m for m in self.metrics if isinstance(m, VerificationMetric)), None)
        if given is None or not self.recognizer:
            return {}
        metric = VerificationMetric(fmr=given.fmr, conventions='all')
        observed: dict[str, dict[str, list[Observations]]] = dict(discard={}, consistency={})
        for run in self.recognizer:
            for name, part in metric.observations(metric.select(self.faces[run.scores])).items():
                kind, _, measure = name.partition('_')
                if kind in observed:
                    own = replace(part, statistics=_by_convention(part.statistics))
                    observed[kind].setdefault(MEASURES[measure], []).append(own)
        scores: dict[str, dict[str, Score]] = {}
        for kind, systems in observed.items():
            complete = {
                m: parts for m, parts in systems.items() if len(parts) == len(self.recognizer)
            }
            if complete:
                scores |= compare_systems(complete, kind == 'discard', 'number', num_resamples)
        return scores

    def average_discard(self) -> tuple[dict[str, DiscardCurve], dict[str, DiscardCurve]]:
        """Return error over discard of each measure, and the reference curves; means of seeds."""
        correct = [pair[1] for pair in next(iter(self.judged.values()), [])]
        drawn = {name: average_discard(pairs) for name, pairs in self.judged.items()}
        return drawn, average_bounds(correct) if correct else {}

    def compare_ui(self) -> dict[str, Score]:
        """Compare the recognizer's measures in separating probes from UI faces (area under ROC)."""
        observed: dict[str, list[Observations]] = {}
        for run in self.recognizer:
            faces = self.faces[run.scores].only('probe', 'ui')
            kind = (faces.role == 'ui').astype(int)
            if kind.sum() < 2:
                continue

            def measure_told(kept: np.ndarray) -> dict[str, float]:
                ui = kept[:, 1] > 0
                return dict(auc=roc_area(kept[~ui, 0], kept[ui, 0]))

            for measure, quality in faces.qualities.items():
                values = np.stack([quality, kind], axis=1)
                part = Observations(values, faces.groups, measure_told, kind)
                observed.setdefault(MEASURES[measure], []).append(part)
        seeds = len(self.recognizer)
        complete = {name: parts for name, parts in observed.items() if len(parts) == seeds}
        return compare_systems(complete)['auc'] if complete else {}

    def split_qualities(self) -> dict[str, dict[str, np.ndarray]]:
        """Return values by measure and set of faces, of the recognizer's first seed."""
        return split_qualities(self.faces[self.recognizer[0].scores]) if self.recognizer else {}
