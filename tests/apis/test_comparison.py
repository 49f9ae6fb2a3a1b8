"""Comparison of systems over seeds: against plain loops, and the page of a small set of runs."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config

from mmvlr.apis.comparison import (
    TestSet,
    compare,
    discard_area,
    holm,
    over_seeds,
    write_comparison,
)
from mmvlr.apis.reproduction import Failure, Run
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.metrics import Observations

TestSet.__test__ = False  # not a test, whatever pytest thinks of its name


def mean(kept):
    return dict(rate=float(kept.mean()))


def parts_of(rng, rates, groups):
    return [Observations(rng.random(len(groups)) < rate, groups, mean) for rate in rates]


def test_over_seeds_is_the_mean_of_the_seeds():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 3)
    parts = parts_of(rng, (0.2, 0.5, 0.9), groups)
    joined = over_seeds(parts)
    expected = sum(part.values.mean() for part in parts) / 3
    assert joined.statistics(joined.values)['rate'] == pytest.approx(expected, abs=1e-12)
    other = Observations(parts[0].values, groups[::-1], mean)
    with pytest.raises(ValueError, match='different faces'):
        over_seeds([parts[0], other])


def test_over_seeds_takes_statistics_of_several_columns():
    rng = np.random.default_rng(1)
    groups = np.arange(40)
    pairs = [np.stack([rng.random(40), rng.random(40) < 0.5], axis=1) for _ in range(2)]
    joined = over_seeds([Observations(pair, groups, discard_area) for pair in pairs])
    expected = np.mean([discard_area(pair)['area'] for pair in pairs])
    assert joined.statistics(joined.values)['area'] == pytest.approx(expected, abs=1e-12)


def test_holm_against_the_step_down_procedure():
    """A hypothesis is rejected at a level exactly if its adjusted p-value does not exceed it."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        p = dict(enumerate(rng.random(6) ** 3))
        adjusted = holm(p)
        for level in (0.01, 0.05, 0.2, 0.5):
            rejected = set()
            for place, name in enumerate(sorted(p, key=p.get)):
                if p[name] > level / (len(p) - place):
                    break
                rejected.add(name)
            assert rejected == {name for name, value in adjusted.items() if value <= level}


def test_compare_against_plain_loops():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 2)
    observed = dict(
        good=parts_of(rng, (0.8, 0.75), groups),
        near=parts_of(rng, (0.78, 0.74), groups),
        bad=parts_of(rng, (0.2,), groups),
    )
    scores = compare(observed, num_resamples=2000)['rate']
    means = {
        system: np.mean([part.values.mean() for part in parts])
        for system, parts in observed.items()
    }
    best = max(means, key=means.get)
    for system, score in scores.items():
        values = [part.values.mean() for part in observed[system]]
        assert score.mean == pytest.approx(means[system])
        assert (score.lowest, score.highest) == pytest.approx((min(values), max(values)))
        assert score.num_seeds == len(values) and score.best == (system == best)
        assert (score.p is None) == score.best
        # The ends by resampling people in plain loops; quantiles of 2,000 draws are not exact.
        draws = []
        for _ in range(2000):
            people = rng.integers(30, size=30)
            rows = np.concatenate([np.flatnonzero(groups == person) for person in people])
            draws.append(np.mean([part.values[rows].mean() for part in observed[system]]))
        low, high = np.quantile(draws, [0.025, 0.975])
        assert score.low == pytest.approx(low, abs=0.03)
        assert score.high == pytest.approx(high, abs=0.03)
    assert scores['bad'].p < 0.02
    assert {scores[name].p for name in ('good', 'near') if name != best}.pop() > 0.1


def test_compare_knows_when_lower_is_better():
    groups = np.arange(10)
    observed = dict(
        low=[Observations(np.arange(10.0), groups, mean)],
        high=[Observations(np.arange(10.0) + 5, groups, mean)],
    )
    scores = compare(observed, True, 'number')['rate']
    assert scores['low'].best and scores['low'].lower_is_better and scores['low'].unit == 'number'
    assert not compare(observed)['rate']['low'].best


def test_compare_refuses_different_faces():
    observed = dict(
        one=[Observations(np.ones(4), np.arange(4), mean)],
        two=[Observations(np.zeros(4), np.arange(1, 5), mean)],
    )
    with pytest.raises(ValueError, match='different faces'):
        compare(observed)


# Runs whose scores are made up: no network is in them.

PEOPLE, DIMS = 12, 8
TEST = dict(type='SyntheticFaces', split='test', num_people=PEOPLE, images_per_person=4)


def faces_of(seed, noise, ri=None):
    """Two gallery images and two probes of every person in the order of the data set, and UI."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(PEOPLE, DIMS))
    role = np.array(['gallery', 'gallery', 'probe', 'probe'] * PEOPLE + ['ui'] * 6)
    identity = np.concatenate([np.repeat(np.arange(PEOPLE), 4), np.full(6, -100)])
    error = noise * rng.normal(size=(len(role), DIMS)) * rng.random((len(role), 1))
    embedding = np.concatenate([np.repeat(centers, 4, axis=0), rng.normal(size=(6, DIMS))]) + error
    size = np.linalg.norm(error, axis=1)
    columns = dict(norm=rng.random(len(role)), ers=-size + rng.random(len(role)))
    if ri:
        columns['ri'] = -size
    return FaceTable(embedding.astype(np.float32), role, identity, columns)


@pytest.fixture
def runs(tmp_path):
    config = Config(
        dict(test_dataloader=dict(dataset=TEST), test_evaluator=dict(type='TinyFaceMetric'))
    )
    made = []
    for method, noise in (('riface', 2.0), ('magface', 3.0), ('mine', 9.0)):
        for seed in (0, 1):
            facts = SimpleNamespace(
                folder=Path(f'{method}{seed}'), facts=lambda: dict(seconds=60.0, resumed=False)
            )
            file = tmp_path / f'{method}{seed}.npz'
            faces_of(seed, noise, method == 'riface').save(file)
            made.append(Run('synthetic', 'synthetic', method, 'method', seed, facts, config, file))
    return made


@pytest.fixture
def without_networks(monkeypatch):
    monkeypatch.setattr(
        'mmvlr.apis.comparison.activations',
        lambda run, faces, rows: {run.method: np.ones((len(rows), 2, 2), np.float32)},
    )


def test_measures_of_other_networks_judge_the_same_errors(runs):
    tests = TestSet(runs)
    assert tests.recognizer() == 'riface'
    assert list(tests.judged) == ['RI', 'ERS', 'norm', 'norm of MagFace']
    own, other = (FaceTable.load(run.scores).only('probe') for run in (runs[1], runs[3]))
    quality, correct = tests.judged['norm of MagFace'][1]
    assert (quality == other.columns['norm']).all()
    # The errors of RI-Face by brute force, not those of MagFace.
    gallery = FaceTable.load(runs[1].scores).only('gallery')
    nearest = (own.unit @ gallery.unit.T).argmax(dim=1).numpy()
    assert (correct == (gallery.identity[nearest] == own.identity)).all()
    assert (tests.judged['RI'][1][1] == correct).all()


def test_told_from_ui_counts_pairs(runs):
    scores = TestSet(runs).told_from_ui()
    values = []
    for run in runs[:2]:
        faces = FaceTable.load(run.scores)
        probe, ui = (faces.only(role).columns['norm'] for role in ('probe', 'ui'))
        values.append(np.mean([(p > u) + 0.5 * (p == u) for p in probe for u in ui]))
    assert scores['norm'].mean == pytest.approx(np.mean(values))


def test_writes_page_and_files(runs, tmp_path, without_networks):
    lacking = Run('synthetic', 'synthetic', 'lost', 'method', 0, None, runs[0].config, Path('no'))
    failures = [Failure(lacking, 'it ran out of <luck>')]
    told = []
    page = write_comparison(
        [*runs, lacking], tmp_path / 'out', failures, 'the command', told.append
    )
    text = page.read_text()
    assert 'RI-Face' in text and 'mine' in text and 'the command' in text
    assert 'it ran out of &lt;luck&gt;' in text
    assert any('recognition' in step for step in told)
    with open(tmp_path / 'out' / 'runs.csv') as file:
        rows = list(csv.DictReader(file))
    assert [(row['method'], row['seed']) for row in rows] == [
        (run.method, str(run.seed)) for run in runs
    ]
    with open(tmp_path / 'out' / 'scores.csv') as file:
        scores = list(csv.DictReader(file))
    (score,) = [row for row in scores if (row['system'], row['number']) == ('mine', 'rank1')]
    values = [float(row['tinyface/rank1']) for row in rows if row['method'] == 'mine']
    assert float(score['mean']) == pytest.approx(np.mean(values))
    assert {row['table'] for row in scores} == {'method', 'discard', 'UI faces'}
    with pytest.raises(ValueError, match='no run is finished'):
        write_comparison([lacking], tmp_path / 'other')
    assert not (tmp_path / 'other').exists()
