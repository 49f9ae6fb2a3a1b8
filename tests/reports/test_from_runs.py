"""The comparison of a small set of runs: its numbers, its page and its files."""

import csv
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmvlr.apis import build_metrics, evaluate_faces, mark_unmeasurable
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import CONVENTIONS, discard_areas, identification
from mmvlr.experiments import Failure, Run
from mmvlr.models import RIFace
from mmvlr.reports.compared import ComparedRuns
from mmvlr.reports.comparison import ActivationRow
from mmvlr.reports.from_run import collect_metrics
from mmvlr.reports.from_runs import compute_maps, make_convention_table, write_comparison

from .pages import check_page, cut_section

# Runs whose scores are made up: no network is in them.

PEOPLE, DIMS = 12, 8
TEST = dict(type='SyntheticFaces', split='test', num_people=PEOPLE, images_per_person=4)


def make_faces(seed, noise, ri=None):
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
            make_faces(seed, noise, method == 'riface').save(file)
            made.append(Run('synthetic', 'synthetic', method, 'method', seed, facts, config, file))
    return made


@pytest.fixture
def without_networks(monkeypatch):
    """Activation maps that peak in a corner, whatever the face."""
    attention = np.zeros((7, 7), np.float32)
    attention[0, 0] = 1
    monkeypatch.setattr(
        'mmvlr.reports.from_runs.compute_activations',
        lambda run, faces, rows: {run.method: np.stack([attention] * len(rows))},
    )


@pytest.mark.parametrize('projection', ['tail', 'pooled'])
def test_maps_of_networks_with_attention_can_be_shown(tiny_backbone, tiny_preprocessor, projection):
    """Of every form of PAM, and of a network whose first stages learn nothing."""
    model = RIFace(
        backbone=dict(tiny_backbone, frozen_stages=2),
        attention=dict(type='PerceptibilityAttention', projection=projection, reduction=4),
        data_preprocessor=tiny_preprocessor,
    ).eval()
    torch.nn.init.normal_(model.attention.spatial_gate.weight)
    faces = np.zeros((2, 32, 32, 3), np.uint8)
    maps = compute_maps(model, 'RI-Face', torch.rand(2, 3, 32, 32), np.ones((2, 16), np.float32))
    assert list(maps) == ['RI-Face', 'RI-Face, PAM']
    for place, face in enumerate(faces):
        ActivationRow(face, {name: found[place] for name, found in maps.items()})


def test_measures_of_other_networks_judge_the_same_errors(runs):
    tests = ComparedRuns(runs)
    assert tests.recognizer[0].method == 'riface'
    assert list(tests.judged) == ['RI', 'ERS', 'norm', 'norm of MagFace']
    own, other = (FaceTable.load(run.scores).only('probe') for run in (runs[1], runs[3]))
    quality, correct = tests.judged['norm of MagFace'][1]
    assert (quality == other.columns['norm']).all()
    # The errors of RI-Face by brute force, not those of MagFace.
    gallery = FaceTable.load(runs[1].scores).only('gallery')
    nearest = (own.unit @ gallery.unit.T).argmax(dim=1).numpy()
    assert (correct == (gallery.identity[nearest] == own.identity)).all()
    assert (tests.judged['RI'][1][1] == correct).all()


def test_comparison_with_ui_faces_counts_pairs(runs):
    scores = ComparedRuns(runs).compare_ui()
    values = []
    for run in runs[:2]:
        faces = FaceTable.load(run.scores)
        probe, ui = (faces.only(role).columns['norm'] for role in ('probe', 'ui'))
        values.append(np.mean([(p > u) + 0.5 * (p == u) for p in probe for u in ui]))
    assert scores['norm'].mean == pytest.approx(np.mean(values))


def test_measures_of_pairs_are_compared_by_every_convention(runs):
    first = np.arange(0, 48, 2)
    pairs = np.stack([first, (first + 1 + 6 * (np.arange(24) % 3)) % 48], axis=1)
    made, expected = [], []
    evaluators = [dict(type='TinyFaceMetric'), dict(type='VerificationMetric', fmr=0.1)]
    for run in runs[:2]:
        faces = FaceTable.load(run.scores).take(np.arange(48))
        same = faces.identity[pairs[:, 0]] == faces.identity[pairs[:, 1]]
        replace(faces, role=np.full(48, 'pair'), pairs=pairs, same=same).save(run.scores)
        config = Config(dict(test_dataloader=dict(dataset=TEST), test_evaluator=evaluators))
        made.append(replace(run, config=config))
        unit = faces.unit.numpy().astype(np.float64)
        cosine = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1)
        quality = faces.columns['ri'][pairs].astype(np.float64)
        expected.append(discard_areas(*quality.T, cosine, same, 'dasec')['dasec'])
    scores = ComparedRuns(made).compare_conventions(num_resamples=10)
    assert set(scores) == set(CONVENTIONS)
    assert set(scores['rce0']) == {'RI', 'ERS', 'norm'}
    own = scores['dasec']['RI']
    assert own.mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert own.low <= own.mean <= own.high
    assert own.lower_is_better and not scores['rce3']['RI'].lower_is_better
    table = make_convention_table('SurvFace', scores)
    assert table.rows['RI'][list(scores).index('dasec')] is own
    assert len(table.columns) == len(CONVENTIONS)


@pytest.mark.slow
@pytest.mark.parametrize('group, areas', [('method', False), ('ablation', True)])
def test_methods_of_an_ablation_are_judged_by_their_own_errors(runs, group, areas):
    tests = ComparedRuns([replace(run, group=group) for run in runs])
    scores = tests.compare_methods(group)
    assert list(scores)[:5] == ['rank1', 'rank5', 'rank10', 'rank20', 'mAP']
    assert list(scores)[5:] == (['discard_auc_ri', 'discard_auc_norm'] if areas else [])
    if not areas:
        return
    assert list(scores['discard_auc_ri']) == ['riface']
    expected = []
    for run in runs[2:4]:
        gallery, probe = (FaceTable.load(run.scores).only(role) for role in ('gallery', 'probe'))
        nearest = (probe.unit @ gallery.unit.T).argmax(dim=1).numpy()
        correct = gallery.identity[nearest] == probe.identity
        # 48 probes and 20 steps: what is left are the best 48 - floor(48 r).
        order = np.argsort(-probe.columns['norm'])
        count = len(probe)
        shares = np.arange(20) * 5 / 100
        error = [1 - correct[order[: count - int(count * s + 1e-9)]].mean() for s in shares]
        expected.append(np.trapezoid(error, shares))
    score = scores['discard_auc_norm']['magface']
    assert score.mean == pytest.approx(np.mean(expected))
    assert score.lower_is_better and score.unit == 'number'


def test_writes_page_and_files(runs, tmp_path, without_networks):
    lacking = Run('synthetic', 'synthetic', 'lost', 'method', 0, None, runs[0].config, Path('no'))
    failures = [Failure(lacking, 'it ran out of <luck>')]
    told = []
    page = write_comparison(
        [*runs, lacking], tmp_path / 'out', failures, 'the command', told.append
    )
    text = page.read_text(encoding='utf-8')
    assert 'RI-Face' in text and 'mine' in text and 'the command' in text
    assert 'it ran out of &lt;luck&gt;' in text
    assert any('recognition' in step for step in told)
    shown = ['reading', 'recognition', 'quality', 'discard', 'hard_faces', 'activation', 'runs']
    check_page(text, shown)
    reading = cut_section(text, 'reading')
    assert 'RI-Face is first in rank-1' in reading and 'predicts errors best' in reading
    assert reading.count('meaningless') == len({run.method for run in runs})
    # The lowest come first.
    captions = re.findall(r'caption">\n<span>(-?[\d.]+)<', cut_section(text, 'hard_faces'))
    values = [float(caption) for caption in captions]
    assert len(values) == 32 and values[:16] == sorted(values[:16])
    # The data set has no distractors.
    assert 'distractors' not in text
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


def test_every_run_is_searched_once(runs, tmp_path, without_networks, monkeypatch):
    walks = []
    plain = identification.search
    monkeypatch.setattr(
        identification, 'search', lambda *args, **how: walks.append(1) or plain(*args, **how)
    )
    runs[-2:] = [replace(run, group='ablation') for run in runs[-2:]]
    write_comparison(runs, tmp_path / 'out')
    assert len(walks) == len(runs)


@pytest.mark.slow
def test_rates_of_too_few_trials_are_marked(runs, tmp_path, without_networks):
    evaluator = dict(type='OpenSetMetric', fpirs=(0.5, 0.01), prefix='survface')
    marks = {'survface/tpir20@fpir0.01': 3, 'survface/threshold@fpir0.01': 3}
    for run in runs:
        run.config.test_evaluator = evaluator
        faces = FaceTable.load(run.scores)
        faces.role[-3:] = 'unmated'
        faces.save(run.scores)
    page = write_comparison(runs, tmp_path / 'out').read_text()
    assert 'TPIR20 at FPIR 0.01 (too few trials to measure: 3)' in page
    with open(tmp_path / 'out' / 'scores.csv') as file:
        scores = list(csv.DictReader(file))
    marked = {row['number'] for row in scores if row['too_few_trials'] == '3'}
    assert marked == {'tpir20@fpir0.01'}
    assert {row['too_few_trials'] for row in scores} == {'', '3'}
    # The report of one run marks the same.
    metrics = build_metrics(evaluator)
    numbers = evaluate_faces(FaceTable.load(runs[0].scores), metrics)
    found = mark_unmeasurable(numbers, metrics)
    assert found.pop('unmeasurable') == marks
    assert found == numbers
    rows, _ = collect_metrics(numbers, {}, marks)
    assert [row.name for row in rows.values() if 'too few trials' in row.name] == [
        'TPIR20 at FPIR 0.01 (too few trials to measure: 3)'
    ]
