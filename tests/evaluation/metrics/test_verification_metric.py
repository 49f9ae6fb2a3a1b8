"""The verification metric by plain loops over pairs, in float64."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmvlr.evaluation.functional import (
    bootstrap_interval,
    discard_areas,
    measure_harm,
    rank_consistency,
    verification_rates,
)
from mmvlr.evaluation.metrics import GalleryVerificationMetric, VerificationMetric
from mmvlr.evaluation.tables import known_pairs

from .faces import check_intervals, evaluate, make_faces, of, saved, unit

FARS = (0.3, 0.1, 0.01, 0.001)


def draw(num_images, num_pairs, disjoint, seed=2):
    """Faces of 15 people and others, pairs of sample indices, 5 of 12 of one person."""
    rng = np.random.default_rng(seed)
    rows = [('pair', person) for person in range(15) for _ in range(num_images)]
    rows += [('gallery', 3)] * 20 + [('unmated', -100)] * 7
    faces = make_faces(rows, rng.standard_normal((15, 8)), lambda *_: 1.1, rng)
    images = of(faces, 'pair')
    pairs, same, used = [], [], set()
    while len(pairs) < num_pairs:
        first, second = rng.choice(images, 2, replace=False)
        rows = {first['sample_idx'], second['sample_idx']}
        of_one = first['identity'] == second['identity']
        if of_one == (12 * len(pairs) < 5 * num_pairs) and not (disjoint and rows & used):
            pairs.append((first['sample_idx'], second['sample_idx']))
            same.append(of_one)
            used |= rows
    return faces, np.array(pairs), np.array(same)


@pytest.fixture
def problem():
    """120 pairs in which images and people come again and again."""
    return draw(6, 120, disjoint=False)


def with_pairs(problem):
    def prepare(metric):
        metric.dataset_meta = dict(pairs=problem[1], same=problem[2])
        return metric

    return prepare


def score_pairs(problem):
    faces, pairs, same = problem
    return np.array([unit(faces[a]) @ unit(faces[b]) for a, b in pairs]), same


def slow_accuracy(score, same, folds):
    """Contiguous folds of either kind; of equally good thresholds the strictest."""
    parts = [np.array_split(np.flatnonzero(kind), folds) for kind in (same, ~same)]
    accuracies = []
    for genuine, impostor in zip(*parts, strict=True):
        test = np.zeros(len(score), bool)
        test[[*genuine, *impostor]] = True
        values = sorted(score[~test])[::-1]
        best, best_right = np.inf, (~same[~test]).sum()
        for threshold in [*((a + b) / 2 for a, b in pairwise(values)), -np.inf]:
            right = ((score[~test] >= threshold) == same[~test]).sum()
            if right > best_right:
                best, best_right = threshold, right
        accuracies.append(((score[test] >= best) == same[test]).mean())
    return np.mean(accuracies)


def slow_fnmr(quality, score, same, fmr, rethreshold):
    """FNMR over the shares 0, 0.05, ..., 0.95, for distinct qualities."""
    order, fnmr = np.argsort(quality), []
    for step in range(20):
        left = order[int(len(order) * step / 20 + 1e-9) :]
        impostor = score[left][~same[left]] if rethreshold else score[~same]
        lowest = min(t for t in [*score, np.inf] if np.mean(impostor >= t) <= fmr)
        fnmr.append(np.mean(score[left][same[left]] < lowest))
    return fnmr


def expected_rates(problem, prefix):
    score, same = score_pairs(problem)
    result = {}
    for far in FARS:
        accepted = [t for t in [*score, np.inf] if np.mean(score[~same] >= t) <= far]
        lowest = min(accepted)
        result[f'{prefix}/tar@far{far}'] = np.mean(score[same] >= lowest)
        result[f'{prefix}/threshold@far{far}'] = lowest
    result[f'{prefix}/verification_auc'] = roc_auc_score(same, score)
    result[f'{prefix}/verification_accuracy'] = slow_accuracy(score, same, 10)
    return result


def test_equals_plain_loops(problem):
    expected = expected_rates(problem, 'survface')
    found = evaluate(with_pairs(problem)(VerificationMetric(prefix='survface')), problem[0])
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    areas = {f'fnmr_discard_{a}_{q}' for a in ('auc', 'pauc') for q in ('ri', 'norm')}
    assert set(found) - set(expected) == {f'survface/{name}' for name in areas}
    assert 0 < expected['survface/tar@far0.01'] < expected['survface/tar@far0.3'] < 1
    assert 0.6 < expected['survface/verification_accuracy'] < 1


@pytest.mark.parametrize('rethreshold', [True, False])
def test_error_over_discard_equals_plain_loops(rethreshold):
    problem = draw(30, 120, disjoint=True)
    faces, pairs, same = problem
    score, _ = score_pairs(problem)
    metric = VerificationMetric(fmr=0.1, rethreshold=rethreshold)
    found = evaluate(with_pairs(problem)(metric), faces)
    for name, key in (('ri', 'recognizability'), ('norm', 'embedding_norm')):
        quality = [min(faces[a][key].item(), faces[b][key].item()) for a, b in pairs]
        fnmr = slow_fnmr(quality, score, same, 0.1, rethreshold)
        assert found[f'verification/fnmr_discard_auc_{name}'] == pytest.approx(
            np.trapezoid(fnmr, dx=0.05)
        )
        assert found[f'verification/fnmr_discard_pauc_{name}'] == pytest.approx(
            np.trapezoid(fnmr[:7], dx=0.05)
        )


def test_options_reach_the_functions(problem):
    score, same = score_pairs(problem)
    metric = with_pairs(problem)(VerificationMetric(fars=(0.2,), method='grid', folds=4))
    found = evaluate(metric, problem[0])
    expected = verification_rates(score, same, (0.2,), 'grid', 4)
    for name, own in (('tar@far0.2', 'tar@far0.2'), ('verification_accuracy', 'accuracy')):
        assert found[f'verification/{name}'] == pytest.approx(expected[own], abs=1e-4)
    assert expected['accuracy'] != verification_rates(score, same, (0.2,), 'grid')['accuracy']


def test_every_probe_against_every_gallery_image(monkeypatch):
    rng = np.random.default_rng(3)
    rows = [(role, person) for role in ('gallery', 'probe', 'probe') for person in range(12)]
    rows += [('distractor', -100)] * 5
    faces = make_faces(rows, rng.standard_normal((12, 8)), lambda *_: 1.1, rng)
    metric = GalleryVerificationMetric(fars=(0.1,))
    found = evaluate(metric, faces)
    probes, gallery = of(faces, 'probe'), of(faces, 'gallery')
    score = np.array([unit(p) @ unit(g) for p in probes for g in gallery])
    same = np.array([p['identity'] == g['identity'] for p in probes for g in gallery])
    assert found['verification/verification_auc'] == pytest.approx(roc_auc_score(same, score))
    rates = verification_rates(score, same, (0.1,))
    assert found['verification/tar@far0.1'] == pytest.approx(rates['tar@far0.1'])
    monkeypatch.setattr(metric, 'most_pairs', 100)
    with pytest.raises(ValueError, match='24 probes and 12'):
        evaluate(metric, faces)


def test_table_of_a_file_gives_the_same(problem, tmp_path):
    faces, pairs, same = problem
    metric = with_pairs(problem)(VerificationMetric(intervals=True, num_resamples=20))
    table = saved(faces, tmp_path / 'faces.npz', pairs=pairs, same=same)
    assert metric.report(table) == evaluate(metric, faces)


def test_intervals(problem):
    faces, pairs, _ = problem
    full = check_intervals(VerificationMetric, faces, with_pairs(problem), fmr=0.1)
    score, same = score_pairs(problem)
    people = [(faces[a]['identity'], faces[b]['identity']) for a, b in pairs]

    def rate(kept):
        return verification_rates(kept[:, 0], kept[:, 1], (0.1,))['tar@far0.1']

    alone = bootstrap_interval(np.stack([score, same], 1), people, rate, num_resamples=200)
    name = 'verification/tar@far0.1'
    assert (full[f'{name}_low'], full[f'{name}_high']) == pytest.approx((alone.low, alone.high))


def test_curves(problem):
    metric = VerificationMetric(fars=(1 / 70, 1.0), curves=True, num_resamples=50)
    found = evaluate(with_pairs(problem)(metric), problem[0])
    assert {kind: list(curves) for kind, curves in metric.drawn.items()} == dict(roc=['pairs'])
    curve = metric.drawn['roc']['pairs']
    assert (curve.x[0], curve.x[-1], curve.y[-1]) == (1 / 70, 1.0, 1.0)
    assert curve.y[0] == found[f'verification/tar@far{1 / 70:g}']
    assert (curve.low <= curve.y).all()
    assert (curve.y <= curve.high).all()


def test_resamples_with_less_than_three_pairs_are_left_out(problem):
    faces = problem[0]
    rows = [[f['sample_idx'] for f in of(faces, 'pair') if f['identity'] == p] for p in range(5)]
    # One pair of one person and two of two: many draws of five people leave two pairs.
    pairs = np.array([rows[0][:2], (rows[1][0], rows[2][0]), (rows[3][0], rows[4][0])])
    metric = with_pairs((faces, pairs, np.array([True, False, False])))(
        VerificationMetric(intervals=True, num_resamples=300)
    )
    found = evaluate(metric, faces)
    for name in ('tar@far0.3', 'verification_auc', 'verification_accuracy'):
        low, high = (found[f'verification/{name}_{end}'] for end in ('low', 'high'))
        assert 0 <= low <= high <= 1


@pytest.mark.parametrize('rethreshold', [True, False])
def test_rates_that_the_pairs_cannot_measure(rethreshold, tmp_path):
    """70 pairs of two people: one of them is more than 0.01; of those left at the end fewer."""
    faces, pairs, same = draw(30, 120, disjoint=True)
    table = saved(faces, tmp_path / 'faces.npz', pairs=pairs, same=same)
    fars = (0.3, 1 / 70, 0.01, 0.001)
    metric = VerificationMetric(fars=fars, fmr=1 / 70, rethreshold=rethreshold)
    found = metric.report(table)
    expected = {f'{name}@far{far}': 70 for name in ('tar', 'threshold') for far in fars[2:]}
    for name, quality in table.qualities.items() if rethreshold else ():
        order = np.argsort(quality[pairs].min(axis=1))
        for area, share in (('auc', 0.95), ('pauc', 0.3)):
            fewest = (~same[order[int(len(order) * share) :]]).sum()
            expected[f'fnmr_discard_{area}_{name}'] = fewest
    assert metric.unmeasurable == {f'verification/{name}': n for name, n in expected.items()}
    assert found['verification/threshold@far0.01'] == found['verification/threshold@far0.001']


@pytest.mark.parametrize('intervals', [False, True])
@pytest.mark.parametrize('rows', [slice(0, 50), slice(50, None), [0, 119]])
def test_pairs_that_define_no_rate(problem, rows, intervals):
    faces, pairs, same = problem
    metric = with_pairs((faces, pairs[rows], same[rows]))(VerificationMetric(intervals=intervals))
    with pytest.raises(ValueError, match='same: needs'):
        evaluate(metric, faces)


@pytest.mark.parametrize('pairs', [None, np.empty((0, 2), int), []])
def test_no_pairs(problem, pairs):
    metric = VerificationMetric()
    metric.dataset_meta = known_pairs({} if pairs is None else dict(pairs=pairs, same=[]))
    assert not metric.dataset_meta
    with pytest.raises(ValueError, match='VerificationMetric: the test set has no pairs'):
        evaluate(metric, problem[0])


def test_pairs_of_other_faces_are_no_pairs(problem, tmp_path):
    faces = problem[0]
    first, second = (face['sample_idx'] for face in of(faces, 'gallery')[:2])
    table = saved(faces, tmp_path / 'faces.npz', pairs=[[first, second]], same=[True])
    with pytest.raises(ValueError, match='VerificationMetric: the test set has no pairs'):
        VerificationMetric().report(table)


def test_difference_is_of_the_same_pairs(problem, tmp_path):
    faces, pairs, same = problem
    table = saved(faces, tmp_path / 'faces.npz', pairs=pairs, same=same)
    metric = VerificationMetric(num_resamples=20)
    assert all(found.difference == 0 for found in metric.difference(table, table).values())
    turned = saved(faces, tmp_path / 'turned.npz', pairs=pairs[::-1], same=same[::-1])
    none = saved(faces, tmp_path / 'none.npz')
    for other in (turned, none):
        with pytest.raises(ValueError, match='the two models were tested on other pairs'):
            metric.difference(table, other)


def test_no_faces_of_pairs(problem):
    rest = [{**f, 'sample_idx': i} for i, f in enumerate(of(problem[0], 'gallery', 'unmated'))]
    with pytest.raises(ValueError, match='no pairs'):
        evaluate(VerificationMetric(), rest)


def test_conventions_of_published_work(problem):
    metric = VerificationMetric(fmr=0.1, conventions='all', intervals=True, num_resamples=50)
    found = evaluate(with_pairs(problem)(metric), problem[0])
    score, same = score_pairs(problem)
    faces, pairs, _ = problem
    quality = np.array([float(face['recognizability']) for face in faces])
    expected = discard_areas(*quality[pairs].T, score, same, 'all', 0.1)
    for name, value in expected.items():
        full = f'verification/fnmr_discard_{name}_ri'
        assert found[full] == pytest.approx(value, abs=1e-5)
        assert found[f'{full}_low'] <= found[full] <= found[f'{full}_high']
    images, harm, margin = measure_harm(pairs, score, same, 0.1)
    own = rank_consistency(quality[images], harm, margin, 3)
    assert found['verification/rce3_ri'] == pytest.approx(own, abs=1e-6)
    # People are resampled, each with all images, and ranked again.
    people = np.array([face['identity'] for face in faces])[images]
    interval = bootstrap_interval(
        np.stack([quality[images], harm, margin], axis=1),
        people,
        lambda kept: rank_consistency(*kept.T, 3),
        num_resamples=50,
    )
    assert found['verification/rce3_ri_low'] == pytest.approx(interval.low, abs=1e-6)
