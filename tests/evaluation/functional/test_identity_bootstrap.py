"""Identity-clustered bootstrap: coverage in simulation, and agreement of its two paths."""

import dataclasses

import numpy as np
import pytest
import torch

from mmvlr.evaluation.functional import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    paired_bootstrap,
    rank1_error_versus_discard,
)


def draw_people(rng, num_people=60):
    """Outcomes of pictures of people who each have a success rate of their own, 0.6 on average."""
    rate = rng.beta(0.9, 0.6, num_people)
    groups = np.repeat(np.arange(num_people), rng.integers(1, 10, num_people))
    return rng.random(len(groups)) < rate[groups], groups


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered, covered_by_pictures = [], []
    for trial in range(300):
        values, groups = draw_people(rng)
        by_people = bootstrap_interval(values, groups, num_resamples=300, seed=trial)
        by_pictures = bootstrap_interval(
            values, np.arange(len(values)), num_resamples=300, seed=trial
        )
        covered.append(by_people.low <= 0.6 <= by_people.high)
        covered_by_pictures.append(by_pictures.low <= 0.6 <= by_pictures.high)
    assert 0.90 <= np.mean(covered) <= 0.98
    # The reason for all this: pictures as independent observations cover far too seldom.
    assert np.mean(covered_by_pictures) < 0.8


def test_level_is_what_lies_between_the_ends():
    values, groups = draw_people(np.random.default_rng(1))
    narrow, wide = (bootstrap_interval(values, groups, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < values.mean() < narrow.high < wide.high
    assert (narrow.level, wide.level) == (0.5, 0.99)
    assert narrow.estimate == wide.estimate == values.mean()


def test_fast_path_of_the_mean_equals_the_general_one():
    values, groups = draw_people(np.random.default_rng(2))
    fast = bootstrap_interval(values, groups, seed=3)
    general = bootstrap_interval(values, groups, statistic=lambda kept: kept.mean(), seed=3)
    assert dataclasses.astuple(fast) == pytest.approx(dataclasses.astuple(general))


def test_whole_identities_are_drawn():
    groups = np.array([7, 3, 7, 3, 9, 7])
    values = np.arange(6)
    seen = []

    def statistic(kept):
        seen.append(sorted(kept.tolist()))
        return 0.0

    bootstrap_interval(values, groups, statistic, num_resamples=50)
    whole = [[0, 2, 5], [1, 3], [4]]
    possible = [sorted(a + b + c) for a in whole for b in whole for c in whole]
    assert all(kept in possible for kept in seen[1:] if kept != values.tolist())
    assert len({tuple(kept) for kept in seen}) > 5


def test_statistic_of_several_columns():
    rng = np.random.default_rng(3)
    correct, groups = draw_people(rng)
    quality = correct + rng.standard_normal(len(correct))

    def area(columns):
        return rank1_error_versus_discard(columns[:, 0], columns[:, 1])['auc']

    interval = bootstrap_interval(
        np.stack([quality, correct], axis=1), groups, area, num_resamples=100
    )
    assert interval.estimate == rank1_error_versus_discard(quality, correct)['auc']
    assert interval.low < interval.estimate < interval.high


def test_same_seed_same_interval():
    values, groups = draw_people(np.random.default_rng(4))
    assert bootstrap_interval(values, groups) == bootstrap_interval(values, groups)
    assert bootstrap_interval(values, groups) != bootstrap_interval(values, groups, seed=1)


def test_order_and_names_of_identities():
    values, groups = draw_people(np.random.default_rng(5))
    expected = bootstrap_interval(values, groups)
    shuffled = np.random.default_rng(0).permutation(len(values))
    assert bootstrap_interval(values[shuffled], groups[shuffled]) == expected
    names = np.array([f'person {group:02d}' for group in groups])
    assert bootstrap_interval(torch.from_numpy(values), names) == expected


def test_paired_difference_rejects_as_often_as_it_says_if_there_is_none():
    rng = np.random.default_rng(6)
    rejected = []
    for trial in range(300):
        _, groups = draw_people(rng, 40)
        hard = rng.random(40)[groups]
        first, second = (rng.random(len(groups)) < hard for _ in range(2))
        result = paired_bootstrap(first, second, groups, num_resamples=200, seed=trial)
        rejected.append(result.p_value < 0.05)
    assert 0.02 <= np.mean(rejected) <= 0.09


def test_paired_difference_finds_what_single_intervals_do_not():
    rng = np.random.default_rng(7)
    worse, groups = draw_people(rng)
    better = worse | (rng.random(len(worse)) < 0.1)
    result = paired_bootstrap(better, worse, groups)
    assert isinstance(result, PairedDifference)
    assert result.difference == pytest.approx(better.mean() - worse.mean())
    assert 0 < result.low < result.difference < result.high
    assert result.p_value < 0.01
    alone = [bootstrap_interval(values, groups) for values in (better, worse)]
    assert alone[0].low < alone[1].high


def test_paired_difference_changes_sign_with_the_order():
    rng = np.random.default_rng(8)
    first, groups = draw_people(rng)
    second = rng.random(len(first)) < 0.5
    forth, back = paired_bootstrap(first, second, groups), paired_bootstrap(second, first, groups)
    assert forth.difference == -back.difference
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.p_value == back.p_value


def test_paired_difference_of_equal_methods():
    values, groups = draw_people(np.random.default_rng(9))
    assert paired_bootstrap(values, values, groups) == PairedDifference(0.0, 0.0, 0.0, 0.95, 1.0)


def test_smallest_p_value():
    groups = np.repeat(np.arange(30), 2)
    result = paired_bootstrap(np.ones(60), np.tile([0, 1], 30), groups, num_resamples=99)
    # The difference is one half in every resample, so none departs from it.
    assert result.p_value == 1 / 100


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Interval(0.5, 0.4, 0.6, 0.95).low = 0.0


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(groups=[1, 2]), 'groups must have 3 entries'),
        (dict(groups=[1, 1, 1]), 'groups: needs at least two identities'),
        (dict(values=[]), 'values must hold at least one observation'),
        (dict(values=[1, np.nan, 0]), 'values must hold real numbers, no NaN'),
        (dict(level=1.0), 'level'),
        (dict(num_resamples=0), 'num_resamples'),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**(dict(values=[1, 0, 1], groups=[1, 2, 3]) | change))


def test_paired_values_must_match():
    with pytest.raises(ValueError, match='values_a and values_b must have as many entries'):
        paired_bootstrap([1, 0], [1, 0, 1], [1, 2])
