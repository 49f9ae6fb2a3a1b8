"""Identity-clustered bootstrap: coverage in simulation, and agreement of its two paths."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import norm

from mmvlr.evaluation.functional import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    bootstrap_intervals,
    paired_bootstrap,
    rank1_error_versus_discard,
)
from mmvlr.evaluation.functional.curves import split_kinds, stack_kinds


def draw_people(rng, num_people=60):
    """Outcomes of images of people who each have a success rate of their own, 0.6 on average."""
    rate = rng.beta(0.9, 0.6, num_people)
    groups = np.repeat(np.arange(num_people), rng.integers(1, 10, num_people))
    return rng.random(len(groups)) < rate[groups], groups


@pytest.mark.slow
def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered, covered_by_images = [], []
    for trial in range(300):
        values, groups = draw_people(rng)
        by_people = bootstrap_interval(values, groups, num_resamples=300, seed=trial)
        by_images = bootstrap_interval(
            values, np.arange(len(values)), num_resamples=300, seed=trial
        )
        covered.append(by_people.low <= 0.6 <= by_people.high)
        covered_by_images.append(by_images.low <= 0.6 <= by_images.high)
    assert 0.90 <= np.mean(covered) <= 0.98
    # The reason for all this: images as independent observations cover far too seldom.
    assert np.mean(covered_by_images) < 0.8


def rate_at_tenth(kept):
    """TPIR at FPIR 0.1, or TAR at FAR 0.1, of rows (score, is it one to refuse).

    That the functions and metrics compute the same is tested elsewhere; this is quick.
    """
    wanted, refused = split_kinds(kept)
    if not len(wanted) or not len(refused):
        return np.nan
    return (wanted > np.sort(refused)[-1 - len(refused) // 10]).mean()


@pytest.mark.slow
def test_interval_of_tpir_covers_the_truth_as_often_as_it_says():
    """60 mated and 60 unmated people of 10 images, whose scores have variance 1 in all."""
    rng = np.random.default_rng(0)
    # Unmated scores are N(0, 1), mated ones N(1.5, 1).
    truth = norm.sf(norm.isf(0.1) - 1.5)
    person = np.repeat(np.arange(60), 10)
    covered, covered_by_images = [], []
    for trial in range(300):
        scores = [
            mean + 0.8 * rng.standard_normal(60)[person] + 0.6 * rng.standard_normal(len(person))
            for mean in (1.5, 0.0)
        ]
        values, kind = stack_kinds(*scores)
        people = np.concatenate([person, person + 60])
        for groups, found in ((people, covered), (np.arange(len(values)), covered_by_images)):
            # Few trials tell 0.95 from far less.
            if found is covered_by_images and trial >= 50:
                continue
            interval = bootstrap_interval(
                values, groups, rate_at_tenth, num_resamples=200, seed=trial, strata=kind
            )
            found.append(interval.low <= truth <= interval.high)
    assert 0.90 <= np.mean(covered) <= 0.98
    assert np.mean(covered_by_images) < 0.8


@pytest.mark.slow
def test_interval_of_tar_covers_the_truth_as_often_as_it_says():
    """50 people in 4 pairs with themselves and 8 with others: both sides leave their mark."""
    rng = np.random.default_rng(0)
    # Pairs of two are N(0, 1), of one N(1.5, 1).
    truth = norm.sf(norm.isf(0.1) - 1.5)
    covered, covered_by_pairs = [], []
    first = np.arange(50)
    people = [np.stack([first, first], axis=1)] * 4
    people += [np.stack([first, (first + step) % 50], axis=1) for step in range(1, 9)]
    people = np.concatenate(people)
    same = people[:, 0] == people[:, 1]
    for trial in range(200):
        own, with_others = rng.standard_normal((2, 50))
        effect = np.where(
            same,
            1.5 + 0.8 * own[people[:, 0]],
            0.8 / np.sqrt(2) * with_others[people].sum(axis=1),
        )
        score = effect + 0.6 * rng.standard_normal(len(same))
        values = np.stack([score, ~same], axis=1)
        for groups, found in ((people, covered), (np.arange(len(same)), covered_by_pairs)):
            if found is covered_by_pairs and trial >= 50:
                continue
            interval = bootstrap_interval(
                values, groups, rate_at_tenth, num_resamples=150, seed=trial
            )
            found.append(interval.low <= truth <= interval.high)
    # The pigeonhole bootstrap errs on the wide side.
    assert 0.90 <= np.mean(covered) <= 1.0
    assert np.mean(covered_by_pairs) < 0.8


def test_weight_of_a_pair_is_the_product_of_the_draws_of_its_people():
    """Pairs of people with themselves tell how often each was drawn."""
    people = np.array([4, 8, 15, 16, 23])
    pairs = [(p, p) for p in people] + [(p, q) for p in people for q in people if p < q]
    order = np.random.default_rng(0).permutation(len(pairs))
    pairs = np.array(pairs)[order]
    rows = np.stack([np.arange(len(pairs)), 10 * np.arange(len(pairs))], axis=1)
    seen = []
    interval = bootstrap_interval(
        rows, pairs, lambda kept: seen.append(kept) or len(kept), num_resamples=60
    )
    # The statistic of the data is taken too, with every pair once.
    whole = [kept for kept in seen if len(kept) == len(pairs) and (kept == rows).all()]
    assert whole
    sizes = []
    for kept in seen:
        drawn = dict.fromkeys(people, 0)
        for row in kept[:, 0]:
            if pairs[row, 0] == pairs[row, 1]:
                drawn[pairs[row, 0]] += 1
        expected = []
        for row, (p, q) in enumerate(pairs):
            expected += [rows[row]] * (drawn[p] if p == q else drawn[p] * drawn[q])
        np.testing.assert_array_equal(kept, np.array(expected))
        assert sum(drawn.values()) == len(people)
        sizes.append(len(kept))
    assert len(set(sizes)) > 3
    assert interval.low < interval.high


def test_side_of_a_pair_does_not_matter():
    rng = np.random.default_rng(0)
    pairs, values = rng.integers(0, 12, (80, 2)), rng.random(80)
    turned = np.where(rng.random(80)[:, None] < 0.5, pairs, pairs[:, ::-1])
    assert bootstrap_interval(values, turned) == bootstrap_interval(values, pairs)
    names = np.char.add('person ', (pairs + 10).astype(str))
    assert bootstrap_interval(values, names) == bootstrap_interval(values, pairs)
    # Pairs of a person with itself are single observations of the person.
    alone = np.stack([pairs[:, 0], pairs[:, 0]], axis=1)
    general = bootstrap_interval(values, pairs[:, 0], lambda kept: kept.mean())
    assert bootstrap_interval(values, alone) == general


def test_strata_keep_their_number_of_people():
    # Persons 0 to 5 and 20 have two images of kind a; 6 to 8 and 20 three of kind b.
    groups = np.array([*np.repeat([0, 1, 2, 3, 4, 5, 20], 2), *np.repeat([6, 7, 8, 20], 3)])
    strata = np.repeat(['a', 'b'], [14, 12])
    order = np.random.default_rng(0).permutation(26)
    of_kind_b = (strata == 'b').astype(int)
    values = np.stack([of_kind_b, groups], axis=1)[order]
    seen = []

    def statistic(kept):
        seen.append(kept)
        return 0.0

    bootstrap_interval(values, groups[order], statistic, num_resamples=100, strata=strata[order])
    shared = []
    for kept in seen:
        assert (kept[:, 0] == 0).sum() == 14
        assert (kept[:, 0] == 1).sum() == 12
        for kind, size in ((0, 2), (1, 3)):
            _, times = np.unique(kept[kept[:, 0] == kind, 1], return_counts=True)
            assert (times % size == 0).all()
        own = kept[kept[:, 1] == 20, 0]
        shared.append(((own == 0).sum() // 2, (own == 1).sum() // 3))
    # Who is of both kinds is drawn anew for each.
    assert {a == b for a, b in shared} == {True, False}
    seen.clear()
    bootstrap_interval(values, groups[order], statistic, num_resamples=100)
    assert len({(kept[:, 0] == 0).sum() for kept in seen}) > 1


def test_means_in_strata_equal_the_general_path():
    values, groups = draw_people(np.random.default_rng(2))
    fast = bootstrap_interval(values, groups, strata=groups % 3)
    general = bootstrap_interval(values, groups, lambda v: v.mean(), strata=groups % 3)
    assert dataclasses.astuple(fast) == pytest.approx(dataclasses.astuple(general))
    assert fast != bootstrap_interval(values, groups)


@pytest.mark.parametrize('is_array', [False, True])
def test_resamples_that_define_nothing_are_left_out(is_array):
    """A third of the resamples lack person 0, and define nothing."""
    rng = np.random.default_rng(0)
    values, seen = np.stack([np.repeat(np.arange(6), 3), rng.random(18)], axis=1), []

    def statistic(kept):
        seen.append(kept[:, 1].mean() if (kept[:, 0] == 0).any() else np.nan)
        return np.array([seen[-1], kept[:, 1].mean()]) if is_array else seen[-1]

    found = bootstrap_interval(values, values[:, 0], statistic, num_resamples=100)
    seen.remove(values[:, 1].mean())
    defined = [value for value in seen if not np.isnan(value)]
    assert len(seen) == 100
    assert 50 < len(defined) < 85
    low, high = np.quantile(defined, [0.025, 0.975])
    if is_array:
        # The other entry misses none.
        alone = bootstrap_interval(values[:, 1], values[:, 0], num_resamples=100)
        assert found.low == pytest.approx([low, alone.low])
        assert found.high == pytest.approx([high, alone.high])
    else:
        assert (found.low, found.high) == (low, high)


@pytest.mark.filterwarnings('error')
def test_what_no_resample_defines_is_nan():
    found = bootstrap_interval([1, 2, 3], [1, 2, 3], lambda kept: np.array([np.nan, 1.0]))
    assert np.isnan([found.estimate[0], found.low[0], found.high[0]]).all()
    assert (found.estimate[1], found.low[1], found.high[1]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize('kind', ['people', 'strata', 'pairs'])
def test_statistics_together_equal_those_one_by_one(kind):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 2))
    groups = rng.integers(0, 14, (60, 2)) if kind == 'pairs' else rng.integers(0, 14, 60)
    options = dict(num_resamples=80, level=0.9, seed=4)
    if kind == 'strata':
        options['strata'] = rng.integers(0, 2, 60)
    statistics = dict(
        mean=lambda v: v[:, 0].mean(), high=lambda v: np.quantile(v[:, 1], 0.8), num=len
    )
    alone = {
        name: bootstrap_interval(values, groups, statistic, **options)
        for name, statistic in statistics.items()
    }
    together = bootstrap_intervals(
        values, groups, lambda v: {name: s(v) for name, s in statistics.items()}, **options
    )
    assert together == alone
    assert list(together) == list(statistics)
    grid = bootstrap_interval(
        values,
        groups,
        lambda v: np.array([[s(v)] for s in statistics.values()]),
        **options,
    )
    assert grid.estimate.shape == grid.low.shape == grid.high.shape == (3, 1)
    for row, interval in enumerate(alone.values()):
        assert grid.estimate[row, 0] == interval.estimate
        assert (grid.low[row, 0], grid.high[row, 0]) == (interval.low, interval.high)


def test_same_seed_same_interval_of_pairs_and_strata():
    rng = np.random.default_rng(0)
    values, groups = rng.random(60), rng.integers(0, 14, (60, 2))
    assert bootstrap_interval(values, groups, seed=1) == bootstrap_interval(values, groups, seed=1)
    assert bootstrap_interval(values, groups, seed=1) != bootstrap_interval(values, groups)
    options = dict(groups=groups[:, 0], strata=groups[:, 1] % 2)
    assert bootstrap_interval(values, **options) == bootstrap_interval(values, **options)
    assert bootstrap_interval(values, **options, seed=1) != bootstrap_interval(values, **options)


@pytest.mark.parametrize('kind', ['strata', 'pairs'])
def test_paired_difference_to_a_constant_is_the_interval(kind):
    rng = np.random.default_rng(0)
    values, groups = rng.random(60), rng.integers(0, 14, (60, 2))
    options = dict(groups=groups)
    if kind == 'strata':
        options = dict(groups=groups[:, 0], strata=groups[:, 1] % 2)
    alone = bootstrap_interval(values, **options)
    paired = paired_bootstrap(values, np.full(60, 0.25), **options)
    found = np.array([paired.difference, paired.low, paired.high]) + 0.25
    assert found == pytest.approx([alone.estimate, alone.low, alone.high])


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
        (dict(groups=[[1, 2], [2, 3]]), r'groups must have shape \(3, 2\), got \(2, 2\)'),
        (dict(groups=[[1, 2, 3]] * 3), r'groups must have shape \(3, 2\), got \(3, 3\)'),
        (dict(groups=[[1, 1]] * 3), 'groups: needs at least two identities to resample'),
        (dict(groups=[[1, 2], [2, 3], [1, 3]], strata=[0, 0, 1]), 'strata need one identity'),
        (dict(strata=[0, 1]), 'strata must have 3 entries'),
        (dict(strata=[0, 0, 1]), 'at least two identities of each of the strata'),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**(dict(values=[1, 0, 1], groups=[1, 2, 3]) | change))


def test_paired_values_must_match():
    with pytest.raises(ValueError, match='values_a and values_b must have as many entries'):
        paired_bootstrap([1, 0], [1, 0, 1], [1, 2])
