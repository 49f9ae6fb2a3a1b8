"""Data of both pages."""

import numpy as np
import pytest

from mmvlr.evaluation.functional import Curve
from mmvlr.evaluation.systems import Score
from mmvlr.reports import (
    ActivationRow,
    AttentionCard,
    ComparisonData,
    DiscardCurve,
    FaceCard,
    Metric,
    ReportData,
    ScoreTable,
    WrongMatch,
    render_comparison,
    render_report,
)


def make_face(rng, height=20, width=16):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def make_table(*scores, columns=('rank-1',), title='TinyFace', note=''):
    """Each score in a row of its own."""
    rows = {f'method {index}': [score] for index, score in enumerate(scores)}
    return ScoreTable(title, columns, rows, note)


@pytest.fixture(scope='session')
def report_data():
    rng = np.random.default_rng(0)
    steps = np.arange(1, 121)
    ranks = np.arange(1, 51)
    rates = 1 - 0.6 * ranks**-0.5
    alarms = np.geomspace(0.001, 1, 61)
    hits = alarms**0.2
    curve = Curve(alarms, hits, hits * 0.9, np.minimum(hits * 1.1, 1))
    shares = np.arange(0, 1, 0.05)
    errors = 0.4 * (1 - shares)
    right = FaceCard(make_face(rng), ('RI 1.70',), 'right')
    wrong = FaceCard(make_face(rng), ('RI 0.21',), 'wrong')
    return ReportData(
        title='RI-Face on synthetic faces',
        subtitle='A test page',
        facts={'Method': 'RI-Face', 'mmvlr': '0.1.0'},
        notes=['These faces are synthetic.'],
        command='python tools/analysis/report.py work_dirs/run',
        reading=['RI is a worse judge than norm.'],
        headline=[
            Metric('rank-1', 0.8125, 0.79, 0.83, {'pixels': 0.42}, group='Recognition'),
            Metric('area', 0.1234, unit='number', lower_is_better=True, group='Quality'),
        ],
        spectrum=[wrong, right],
        scalars={
            'loss': (steps, 20.0 / steps),
            'xi_hat': (steps, rng.random(120)),
            'd_ui': (steps, rng.random(120)),
            'effective_rank': (steps, rng.random(120)),
            'tinyface/rank1': (steps[::40], rng.random(3)),
            'retain/rank1': (steps[::40], np.linspace(0.9, 0.8, 3)),
            'lr': (steps, np.full(120, 1e-4)),
        },
        epoch_steps=np.array([40, 80, 120]),
        cmc={
            'RI-Face': Curve(ranks, rates, rates - 0.02, rates + 0.02),
            'base': Curve(ranks, rates / 2),
        },
        open_set={'RI-Face': curve, 'base': Curve(alarms, hits / 2)},
        verification={'RI-Face': curve},
        quality={
            name: {
                key: rng.normal(size=50) + 2 * (key != 'ui') for key in ('probe', 'gallery', 'ui')
            }
            for name in ('RI', 'ERS', 'norm')
        },
        discard={
            'RI': DiscardCurve(shares, errors, errors - 0.02, errors + 0.02, 0.2),
            'norm': DiscardCurve(shares, errors, auc=0.25),
        },
        discard_bounds={'random': DiscardCurve(shares, np.array([0.4]), auc=0.38)},
        lowest=[wrong] * 3,
        highest=[right] * 3,
        attention=[AttentionCard(make_face(rng), rng.random((7, 7)), ('RI 0.80',))],
        failures=[WrongMatch(wrong, [wrong, wrong, right], right), WrongMatch(wrong, [wrong])],
        details={'Counts': {'probes': 12345, 'left out': 0}, 'Environment': {'torch': '2.4'}},
    )


@pytest.fixture(scope='session')
def comparison_data():
    rng = np.random.default_rng(0)
    shares = np.arange(0, 1, 0.1)
    errors = 0.4 * (1 - shares)
    curve = DiscardCurve(shares, errors, errors - 0.02, errors + 0.02, 0.2)
    best = Score(0.8125, 0.79, 0.83, 0.80, 0.82, 3, best=True)
    near = Score(0.8, 0.78, 0.82, 0.77, 0.81, 3, p=0.05)
    worse = Score(0.4, 0.38, 0.42, p=0.0499)
    area = Score(0.1234, unit='number', lower_is_better=True, best=True)
    right = FaceCard(make_face(rng), ('0.71',), 'right')
    wrong = FaceCard(make_face(rng), ('0.21',), 'wrong')
    maps = {'RI-Face': rng.random((7, 7)), 'ArcFace': np.eye(7)}
    return ComparisonData(
        title='Methods compared',
        subtitle='A test page',
        facts={'Data sets': ['TinyFace', 'SCface'], 'Seeds': 3},
        notes=['These faces are synthetic.'],
        command='python tools/reproduce.py --out work_dirs',
        reading=['RI-Face is best.', 'AdaFace cannot be told from it.'],
        recognition=[make_table(best, near, worse, None, note='Fine-tuned.'), make_table(best)],
        ablation=[make_table(near, title='Parts')],
        quality={
            'TinyFace': {
                'RI': {key: rng.normal(size=50) for key in ('probe', 'gallery', 'ui')},
                'none': {'probe': np.full(3, np.nan)},
            },
            'SCface': {'ERS': {'probe': np.array([1.0, 2.0]), 'ui': np.array([0.0, 1.0])}},
        },
        quality_tables=[make_table(best, title='AUC against UI')],
        discard={'TinyFace': {'RI': curve, 'norm': curve}, 'SCface': {'RI': curve}},
        discard_bounds={'TinyFace': {'random': DiscardCurve(shares, np.array([0.4]), auc=0.38)}},
        discard_tables=[make_table(area, title='Areas')],
        hard_faces={'TinyFace': {'ERS': [right, wrong], 'RI': [wrong, wrong]}},
        activation=[
            ActivationRow(make_face(rng), maps, ('A',)),
            ActivationRow(make_face(rng), {'AdaFace': np.zeros((7, 7))}),
        ],
        activation_note='Grad-CAM of the cosine.',
        runs=[
            {'run': 'a', 'status': 'done', 'seconds': 3725.4, 'seed': 0},
            {'run': 'b', 'status': 'done', 'seconds': 61, 'seed': 1},
            {'run': 'c', 'status': 'failed', 'reason': 'collapsed', 'seconds': None},
        ],
        missing=['CosFace on SCface: not run.'],
        details={'Bootstrap': {'resamples': 12345}, 'Nothing': {}},
    )


@pytest.fixture(scope='session')
def report_page(report_data):
    return render_report(report_data)


@pytest.fixture(scope='session')
def comparison_page(comparison_data):
    return render_comparison(comparison_data)
