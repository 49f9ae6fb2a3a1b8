"""Curves against the functions for a single rate, and what every curve must look like."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvlr.evaluation.functional import (
    OpenSetScores,
    bootstrap_interval,
    cmc,
    cmc_curve,
    discard_curve,
    open_set_curve,
    open_set_rates,
    rank1_error_versus_discard,
    roc_curve,
    verification_rates,
)
from mmvlr.evaluation.functional.curves import split_kinds, stack_kinds

# Few levels, so that scores tie.
LEVELS = st.integers(-4, 4).map(lambda level: level / 4)
FINITE = st.lists(LEVELS, min_size=1, max_size=30)
MATED = st.lists(LEVELS | st.just(-np.inf), min_size=1, max_size=30)


def draw_open_set(seed=0, num_mated=50, num_unmated=40):
    rng = np.random.default_rng(seed)
    mated = np.where(rng.random(num_mated) < 0.1, -np.inf, rng.normal(1, 1, num_mated))
    scores = OpenSetScores(mated, rng.normal(0, 1, num_unmated), np.ones(num_mated, int))
    return scores, rng.integers(0, 15, num_mated), rng.integers(0, 12, num_unmated)


def draw_pairs(seed=0, num=90):
    rng = np.random.default_rng(seed)
    people = rng.integers(0, 20, (num, 2))
    people[: num // 3, 1] = people[: num // 3, 0]
    same = people[:, 0] == people[:, 1]
    return rng.normal(1.2 * same, 1), same, people


def open_set_rate(scores, fpir):
    rates = open_set_rates(scores.mated_score, scores.unmated_score, (fpir,))
    return rates[f'tpir@fpir{fpir:g}']


def assert_band(curve, intervals):
    np.testing.assert_array_equal(curve.y, [interval.estimate for interval in intervals])
    np.testing.assert_array_equal(curve.low, [interval.low for interval in intervals])
    np.testing.assert_array_equal(curve.high, [interval.high for interval in intervals])
    assert (curve.low < curve.high).any()


def test_open_set_curve_equals_single_rates():
    scores, mated_groups, unmated_groups = draw_open_set()
    curve = open_set_curve(scores, mated_groups, unmated_groups, 40)
    assert curve.y.tolist() == [open_set_rate(scores, x) for x in curve.x]
    # By counting, where the target is met just so: 2 of 40 unmated scores may be accepted.
    third = np.sort(scores.unmated_score)[-3]
    assert open_set_rate(scores, 0.05) == (scores.mated_score > third).mean()
    values, kind = stack_kinds(scores.mated_score, scores.unmated_score)
    groups = np.concatenate([mated_groups, unmated_groups])

    def rate(x):
        def statistic(kept):
            mated, unmated = split_kinds(kept)
            return open_set_rates(mated, unmated, (x,))[f'tpir@fpir{x:g}']

        return statistic

    intervals = [
        bootstrap_interval(values, groups, rate(x), num_resamples=40, strata=kind) for x in curve.x
    ]
    assert_band(curve, intervals)


def test_roc_curve_equals_single_rates():
    score, same, people = draw_pairs()
    curve = roc_curve(score, same, people, 40)

    def rate(x, score, same):
        return verification_rates(score, same, (x,), folds=2)[f'tar@far{x:g}']

    assert curve.y.tolist() == [rate(x, score, same) for x in curve.x]
    values = np.stack([score, same], axis=1)
    intervals = [
        bootstrap_interval(values, people, lambda v, x=x: rate(x, *v.T), num_resamples=40)
        for x in curve.x
    ]
    assert_band(curve, intervals)


def test_cmc_curve_equals_single_ranks():
    rng = np.random.default_rng(0)
    ranks, people = rng.geometric(0.3, 60), rng.integers(0, 15, 60)
    curve = cmc_curve(ranks, 12, people, 40)
    assert curve.x.tolist() == list(range(1, 13))
    np.testing.assert_array_equal(curve.y, cmc(ranks, 12))
    intervals = [
        bootstrap_interval(ranks <= k, people, lambda v: v.mean(), num_resamples=40)
        for k in range(1, 13)
    ]
    assert_band(curve, intervals)


def test_discard_curve_equals_single_shares():
    rng = np.random.default_rng(0)
    quality, people = rng.integers(0, 9, 60), rng.integers(0, 15, 60)
    correct = rng.random(60) < 0.3 + quality / 15
    curve = discard_curve(quality, correct, people, 40)
    assert curve.x.tolist() == [round(0.05 * step, 2) for step in range(20)]
    assert curve.y.tolist() == rank1_error_versus_discard(quality, correct)['error'].tolist()
    values = np.stack([quality, correct], axis=1)
    intervals = [
        bootstrap_interval(
            values,
            people,
            lambda v, x=x: rank1_error_versus_discard(*v.T, [x])['error'][0],
            num_resamples=40,
        )
        for x in curve.x
    ]
    assert_band(curve, intervals)


@pytest.mark.parametrize('num', [1, 2, 3, 7, 10, 1000, 6000])
def test_rates_go_from_one_error_to_all(num):
    rng = np.random.default_rng(num)
    scores, score = rng.normal(size=5), rng.normal(size=num + 5)
    curves = (
        open_set_curve(OpenSetScores(scores, score[5:], np.ones(5, int))),
        roc_curve(score, np.arange(num + 5) < 5),
    )
    for curve in curves:
        assert (curve.x[0], curve.x[-1]) == (1 / num, 1.0)
        assert (np.diff(curve.x) > 0).all()
        assert curve.y[-1] == 1.0
        # At least 20 points for each power of ten, and the usual targets just so.
        assert (curve.x[1:] / curve.x[:-1] <= 10 ** (1 / 20) + 1e-9).all()
        assert {rate for rate in (0.3, 0.2, 0.1, 0.01, 0.001) if rate > 1 / num} <= {*curve.x}


@settings(deadline=None)
@given(MATED, FINITE)
def test_tpir_grows_with_fpir(mated, unmated):
    scores = OpenSetScores(np.array(mated), np.array(unmated), np.ones(len(mated), int))
    curve = open_set_curve(scores)
    assert (np.diff(curve.y) >= 0).all()
    # At the least FPIR one unmated probe may pass, at FPIR 1 all that is within the rank does.
    second = sorted([-np.inf, *unmated])[-2]
    assert curve.y[0] == np.mean([score > second for score in mated])
    assert curve.y[-1] == np.isfinite(mated).mean()
    for x, y in zip(curve.x, curve.y, strict=True):
        refused = [u for u in unmated if np.mean(np.array(unmated) >= u) > x + 1e-9]
        assert y == np.mean([score > max(refused, default=-np.inf) for score in mated])


@settings(deadline=None)
@given(FINITE, FINITE)
def test_tar_grows_with_far(genuine, impostor):
    score = np.array([*genuine, *impostor])
    same = np.arange(len(score)) < len(genuine)
    curve = roc_curve(score, same)
    assert (np.diff(curve.y) >= 0).all()
    assert curve.y[-1] == 1.0
    for x, y in zip(curve.x, curve.y, strict=True):
        allowed = [t for t in [*score, 2.0] if np.mean(np.array(impostor) >= t) <= x + 1e-9]
        assert y == np.mean(np.array(genuine) >= min(allowed))


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 40))
def test_cmc_grows_with_the_rank(ranks, last):
    curve = cmc_curve(ranks, last)
    assert (np.diff(curve.y) >= 0).all()
    assert curve.y[-1] == sum(rank <= last for rank in ranks) / len(ranks)


def test_band_only_where_people_are_given():
    scores, *_ = draw_open_set()
    score, same, _ = draw_pairs()
    curves = (
        open_set_curve(scores),
        roc_curve(score, same),
        cmc_curve([1, 2], 3),
        discard_curve([0.5, 0.6], [True, False]),
    )
    assert all(curve.low is None and curve.high is None for curve in curves)


@pytest.mark.filterwarnings('error')
def test_resamples_of_one_kind_are_left_out_of_the_band():
    # No threshold below FAR 1 accepts a pair of one person; without pairs of two all would be.
    people = np.array([[0, 0], [1, 1], [2, 3], [2, 2], [3, 1]])
    curve = roc_curve([0.7, 0.4, 0.8, 0.1, 0.9], [1, 1, 0, 1, 0], people, 500)
    assert curve.x[0] == 0.5
    assert curve.y[0] == curve.low[0] == curve.high[0] == 0.0
    assert curve.y[-1] == curve.low[-1] == curve.high[-1] == 1.0


@pytest.mark.parametrize('same', [[1, 1, 1], [0, 0, 0]])
def test_pairs_of_one_kind_have_no_curve(same):
    with pytest.raises(ValueError, match='same: needs pairs of one person and pairs of two'):
        roc_curve([0.1, 0.2, 0.3], same)


def test_kinds_are_stacked_and_split_alike():
    positive, negative = np.array([0.5, -np.inf, 0.1]), np.array([0.3, 0.5])
    values, kind = stack_kinds(positive, negative)
    assert kind.tolist() == [0, 0, 0, 1, 1]
    for found, expected in zip(split_kinds(values[::-1]), (positive, negative), strict=True):
        np.testing.assert_array_equal(found, expected[::-1])
