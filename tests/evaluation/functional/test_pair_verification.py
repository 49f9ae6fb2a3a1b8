"""Verification against scikit-learn and plain loops."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from mmvlr.evaluation.functional import verification, verification_rates


def pairs_with(cosines):
    """Pairs of plane unit vectors with the given cosines."""
    cosines = np.asarray(cosines, dtype=float)
    second = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
    return np.tile([1.0, 0.0], (len(cosines), 1)), second


def draw(seed, num=400, dim=16):
    rng = np.random.default_rng(seed)
    same = rng.random(num) < 0.5
    first = rng.standard_normal((num, dim))
    second = np.where(same[:, None], 0.4 * first, 0) + rng.standard_normal((num, dim))
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    return first.astype(np.float32), second.astype(np.float32), same


@pytest.mark.parametrize('seed', range(3))
def test_exact_equals_scikit_learn(seed):
    first, second, same = draw(seed)
    scores = (first.astype(float) * second).sum(axis=1)
    fars = (0.3, 0.1, 0.01, 0.001)
    result = verification(first, second, same, fars)
    far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
    for target in fars:
        best = tar[far <= target].max()
        assert result[f'tar@far{target}'] == pytest.approx(best)
        lowest = thresholds[far <= target].min()
        assert result[f'threshold@far{target}'] == pytest.approx(lowest)
    assert result['auc'] == pytest.approx(roc_auc_score(same, scores))


def test_keys():
    result = verification(*draw(0))
    assert list(result) == [
        f'{name}@far{far}' for far in (0.3, 0.1, 0.01, 0.001) for name in ('tar', 'threshold')
    ] + ['auc', 'accuracy']
    assert all(type(value) is float for value in result.values())


def test_reported_threshold_gives_the_reported_rates():
    first, second, same = draw(4)
    scores = (first.astype(float) * second).sum(axis=1)
    result = verification(first, second, same, fars=(0.2, 0.05))
    for far in (0.2, 0.05):
        accepted = scores >= result[f'threshold@far{far}'] - 1e-9
        assert accepted[same].mean() == pytest.approx(result[f'tar@far{far}'])
        assert accepted[~same].mean() <= far


def test_ties_between_kinds_are_refused_together():
    # One impostor ties with a genuine pair: a FAR of 0 refuses both, one of 1/3 accepts both.
    first, second = pairs_with([0.9, 0.5, 0.5, 0.1, 0.0])
    result = verification(first, second, [1, 1, 0, 0, 0], fars=(0.0, 0.34))
    assert result['tar@far0'] == 0.5
    assert result['tar@far0.34'] == 1.0
    assert result['auc'] == pytest.approx((3 + 2.5) / 6)


def test_far_that_refuses_everything():
    first, second = pairs_with([0.5, 0.4, 0.9])
    result = verification(first, second, [1, 1, 0], fars=(0.1, 1.0))
    assert result['tar@far0.1'] == 0.0
    highest = float(np.float32(0.9))
    assert highest < result['threshold@far0.1'] < highest + 1e-9
    assert result['tar@far1'] == 1.0


def test_far_is_met_in_spite_of_binary_fractions():
    # 0.29 * 100 is below 29 in binary; 29 of 100 may be accepted all the same.
    assert 0.29 * 100 < 29
    first, second = pairs_with(np.concatenate([[0.705], np.arange(100) / 100]))
    result = verification(first, second, [1] + [0] * 100, fars=(0.29,))
    assert result['tar@far0.29'] == 1.0


def test_accuracy_by_hand():
    # Fold 1: same .9, different .1; fold 2: same .4, different .6. Learnt on fold 2, the strictest
    # of the best thresholds refuses everything: half right on fold 1. Learnt on fold 1, it is .5:
    # all wrong on fold 2.
    first, second = pairs_with([0.9, 0.4, 0.1, 0.6])
    assert verification(first, second, [1, 1, 0, 0], folds=2)['accuracy'] == 0.25
    # Now the folds are (.9, .6) and (.4, .1). The first teaches .75, which is half right on the
    # second; the second teaches .25, which is half right on the first.
    first, second = pairs_with([0.9, 0.4, 0.6, 0.1])
    assert verification(first, second, [1, 1, 0, 0], folds=2)['accuracy'] == 0.5


def test_pair_at_the_threshold_is_accepted():
    # Fold 1 teaches .5, at which the other person of fold 2 is accepted wrongly.
    first, second = pairs_with([0.75, 0.875, 0.25, 0.5])
    assert verification(first, second, [1, 1, 0, 0], folds=2)['accuracy'] == 0.75
    # And at which the same person of fold 2 is accepted rightly.
    first, second = pairs_with([0.75, 0.5, 0.25, 0.125])
    assert verification(first, second, [1, 1, 0, 0], folds=2)['accuracy'] == 1.0


def slow_accuracy(scores, same, folds):
    """Plain contiguous folds of the whole list, thresholds tried one by one."""
    accuracies = []
    for test in np.array_split(np.arange(len(scores)), folds):
        train = np.setdiff1d(np.arange(len(scores)), test)
        values = sorted(set(scores[train]), reverse=True)
        midpoints = [(a + b) / 2 for a, b in itertools.pairwise(values)]
        candidates = [np.inf, *midpoints, -np.inf]
        right = [((scores[train] >= t) == same[train]).sum() for t in candidates]
        best = candidates[int(np.argmax(right))]
        accuracies.append(((scores[test] >= best) == same[test]).mean())
    return np.mean(accuracies)


def test_accuracy_of_a_list_in_blocks_uses_plain_contiguous_folds():
    first, second, _ = draw(5, num=200)
    same = np.tile(np.repeat([True, False], 10), 10)  # ten blocks of 10 and 10, as in LFW
    second[same] += first[same]
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    scores = (first.astype(float) * second).sum(axis=1)
    expected = slow_accuracy(scores, same, 10)
    assert 0.6 < expected < 1
    assert verification(first, second, same)['accuracy'] == pytest.approx(expected)


def test_accuracy_does_not_depend_on_how_the_two_kinds_are_interleaved():
    first, second, same = draw(6)
    kinds_apart = np.argsort(~same, kind='stable')
    mixed = verification(first, second, same)
    apart = verification(first[kinds_apart], second[kinds_apart], same[kinds_apart])
    assert apart == mixed


def test_separable_pairs_are_all_right():
    rng = np.random.default_rng(0)
    first, second = pairs_with(np.concatenate([rng.uniform(0.6, 1, 40), rng.uniform(-1, 0.4, 40)]))
    result = verification(first, second, np.repeat([1, 0], 40))
    assert result['accuracy'] == result['tar@far0.001'] == result['auc'] == 1.0
    # On the grid the strictest of the best thresholds lies at the edge of the gap, where a pair
    # that was not there to learn from can fall.
    result = verification(first, second, np.repeat([1, 0], 40), method='grid')
    assert result['tar@far0.001'] == 1.0
    assert 0.95 < result['accuracy'] < 1.0


def test_grid_equals_plain_loops():
    first, second, same = draw(7)
    distance = np.linalg.norm(first.astype(float) - second, axis=1)
    grid = np.linspace(0.2, 2.0, 1801)
    tar = [(distance[same] <= t).mean() for t in grid]
    far = [(distance[~same] <= t).mean() for t in grid]
    fars = (0.3, 0.1, 0.013, 0.001)
    result = verification(first, second, same, fars, method='grid')
    for target in fars:
        last_below = max(i for i in range(1801) if far[i] <= target)
        # The next FAR above the target, at its largest TAR.
        above = max(i for i in range(1801) if far[i] == far[last_below + 1])
        weight = (target - far[last_below]) / (far[above] - far[last_below])
        expected = tar[last_below] + weight * (tar[above] - tar[last_below])
        assert result[f'tar@far{target}'] == pytest.approx(expected)
        at = grid[last_below] + weight * (grid[above] - grid[last_below])
        assert result[f'threshold@far{target}'] == pytest.approx(1 - at**2 / 2)
    area = sum((tar[i] + tar[i + 1]) / 2 * (far[i + 1] - far[i]) for i in range(1800))
    assert result['auc'] == pytest.approx(area)


def test_grid_and_exact_agree_roughly():
    problem = draw(8, num=3000)
    exact, grid = verification(*problem), verification(*problem, method='grid')
    assert exact != grid
    for name in ('tar@far0.3', 'tar@far0.1', 'auc', 'accuracy'):
        assert grid[name] == pytest.approx(exact[name], abs=0.01)


def test_half_precision_and_tensors():
    first, second, same = draw(9)
    first, second = first.astype(np.float16), second.astype(np.float16)
    expected = verification(first, second, same)
    found = verification(torch.from_numpy(first), torch.from_numpy(second), torch.from_numpy(same))
    assert found == expected


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(emb2=np.eye(2)), 'emb1 and emb2 must have'),
        (dict(emb2=np.eye(3)[:2]), 'emb1 and emb2 must have as many rows'),
        (dict(emb1=np.eye(3) * 2), 'emb1: row 0 is not of length one'),
        (dict(same=[1, 0]), 'same must have 3 entries'),
        (dict(same=[1, 0, 2]), 'same must hold only true and false'),
        (dict(same=[1, 1, 1]), 'same: needs pairs of one person and pairs of two'),
        (dict(same=[0, 0, 0]), 'same: needs pairs of one person and pairs of two'),
        (dict(emb1=np.eye(2), emb2=np.eye(2), same=[0, 1]), 'at least three pairs'),
        (dict(method='nearest'), 'method'),
        (dict(folds=1), 'folds'),
        (dict(fars=(-0.1,)), r'fars must lie in \[0, 1\]'),
    ],
)
def test_bad_input_is_named(change, message):
    good = dict(emb1=np.eye(3), emb2=np.eye(3), same=[1, 0, 1])
    with pytest.raises(ValueError, match=message):
        verification(**(good | change))


@pytest.mark.parametrize('kind', ['distinct', 'tied', 'neighbors'])
def test_accuracy_by_every_threshold(kind):
    """Also for scores with no number between them, and folds without pairs of a kind."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        num, folds = int(rng.integers(4, 40)), int(rng.integers(2, 12))
        same = np.arange(num) % 3 == 0
        score = rng.standard_normal(num)
        if kind != 'distinct':
            score = np.round(score) if kind == 'tied' else 1 + np.spacing(1.0) * np.round(3 * score)
        parts = [np.array_split(np.flatnonzero(which), folds) for which in (same, ~same)]
        right = []
        for test in map(np.concatenate, zip(*parts, strict=True)):
            if not len(test):
                continue
            train = np.delete(np.arange(num), test)
            values = np.unique(score[train])[::-1]
            between = [np.inf, *((values[:-1] + values[1:]) / 2), -np.inf]
            best = max(between, key=lambda t, k=train: ((score[k] >= t) == same[k]).sum())
            right.append(((score[test] >= best) == same[test]).mean())
        found = verification_rates(score, same, folds=folds)['accuracy']
        assert found == pytest.approx(np.mean(right), abs=1e-12)


# Mean of ``calculate_roc`` of insightface's verification.py for ``draw_fold_pairs(levels)``.
@pytest.mark.parametrize('levels, published', [(1000, 0.772463768115942), (8, 0.7978260869565218)])
def test_accuracy_by_insightfaces_rule(levels, published):
    score, same = draw_fold_pairs(levels)
    found = verification_rates(score, same, insightface=True)['accuracy_insightface']
    assert found == pytest.approx(published, abs=1e-12)
    # The same by plain loops.
    distance, rows, right = 2 - 2 * score, np.arange(len(same)), []
    for test in np.array_split(rows, 10):
        train = np.delete(rows, test)
        grid = np.arange(0, 4, 0.01)
        best = max(grid, key=lambda t, k=train: ((distance[k] < t) == same[k]).mean())
        right.append(((distance[test] < best) == same[test]).mean())
    assert found == pytest.approx(np.mean(right), abs=1e-12)


def draw_fold_pairs(levels):
    number = np.arange(237)
    same = number // 12 % 2 == 0
    score = np.where(same, 0.35, 0.05) + 0.5 * ((number * 7919 % 1009) / 1009 - 0.5)
    return np.round(score * levels) / levels, same
