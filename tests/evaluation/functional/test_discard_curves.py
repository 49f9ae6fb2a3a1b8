"""Error against discarded share: by hand, by plain loops, and by trying every order of ties."""

import itertools

import numpy as np
import pytest

from mmvlr.evaluation.functional import (
    discard_auc_bounds,
    error_versus_discard,
    rank1_error_versus_discard,
)

SHARES = [round(0.05 * step, 2) for step in range(20)]


def kept_after(share, num):
    return num - int(np.floor(share * num + 1e-9))


def slow_threshold(impostor, scores, fmr):
    """Lowest score at which no more than ``fmr`` of the impostors match."""
    return min(t for t in [*scores, np.inf] if (impostor >= t).mean() <= fmr)


def draw_pairs(seed, num=300):
    rng = np.random.default_rng(seed)
    same = rng.random(num) < 0.6
    quality1, quality2 = rng.random((2, num))
    noise = rng.standard_normal(num) * (1.5 - np.minimum(quality1, quality2))
    return quality1, quality2, np.where(same, 1.5, 0) + noise, same


@pytest.mark.parametrize('rethreshold', [True, False])
@pytest.mark.parametrize('fmr', [0.1, 1e-3])
def test_equals_plain_loops(rethreshold, fmr):
    quality1, quality2, similarity, same = draw_pairs(3)
    curve = error_versus_discard(quality1, quality2, similarity, same, fmr, rethreshold)
    order = np.argsort(np.minimum(quality1, quality2))
    expected = []
    for share in SHARES:
        left = order[len(order) - kept_after(share, len(order)) :]
        based_on = left if rethreshold else order
        impostor = similarity[based_on][~same[based_on]]
        threshold = slow_threshold(impostor, similarity, fmr)
        expected.append((similarity[left][same[left]] < threshold).mean())
    np.testing.assert_allclose(curve['fnmr'], expected, atol=1e-12)
    assert curve['discard'].tolist() == SHARES
    for name, num in (('auc', 20), ('pauc', 7)):
        area = np.trapezoid(expected[:num], SHARES[:num])
        assert curve[name] == pytest.approx(area)
        width = SHARES[num - 1]
        assert curve[f'{name}_normalized'] == pytest.approx(area / width / expected[0])
    assert expected[0] > 0.1


def test_rethreshold_matters():
    problem = draw_pairs(3)
    again, once = (
        error_versus_discard(*problem, fmr=0.1, rethreshold=choice)['fnmr']
        for choice in (True, False)
    )
    assert again[0] == once[0]
    assert (again != once).any()


def test_by_hand():
    similarity = np.array([0.9, 0.8, 0.3, 0.2, 0.5, 0.4, 0.1, 0.0])
    same = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    # The worst pairs go first: the two genuine ones that fail, then impostors 0.0, 0.1, 0.4.
    quality = np.array([8, 7, 2, 1, 6, 5, 4, 3])
    curve = error_versus_discard(quality, quality + 1, similarity, same)
    # floor(8 r) discarded: 0 up to 0.1, 1 up to 0.2, 2 from 0.25 on.
    assert curve['fnmr'][:13].tolist() == [0.5] * 3 + [pytest.approx(1 / 3)] * 2 + [0.0] * 8
    assert curve['pauc'] == pytest.approx(0.05 * (0.25 + 0.5 + 0.5 + 1 / 3 + 1 / 3 + 0 + 0))
    # Half of the pairs may match falsely: 0.4 is refused, 0.5 is not: 0.2 and 0.3 still fail.
    curve = error_versus_discard(quality, quality, similarity, same, fmr=0.49)
    assert curve['fnmr'][0] == 0.5
    # Three of four may: only 0.0 is refused.
    curve = error_versus_discard(quality, quality, similarity, same, fmr=0.75)
    assert curve['fnmr'][0] == 0.0


def test_tie_with_the_refused_impostor_is_a_false_non_match():
    curve = error_versus_discard([1] * 4, [1] * 4, [0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
    assert curve['fnmr'].tolist() == [0.5] * 20


def test_equal_qualities_at_the_cut_count_in_part():
    # One of ten goes at r = 0.1: half of each of the two pairs of quality 1. Of the impostors 3.5
    # are left, of which 0.15 * 3.5 = 0.525 may match: the half one of score 0.9, not that of 0.5.
    similarity = [0.9, 0.5, 0.4, 0.1, 0.3, 0.95, 0.7, 0.7, 0.6, 0.45]
    same = [0] * 4 + [1] * 6
    quality = [1, 2, 2, 2, 1, 2, 2, 2, 2, 2]
    curve = error_versus_discard(quality, quality, similarity, same, fmr=0.15)
    # Of 5.5 genuine pairs 0.45 and the half one of 0.3 fail.
    assert curve['fnmr'][2] == pytest.approx(1.5 / 5.5)
    # With all pairs not even one impostor may match: only 0.95 passes.
    assert curve['fnmr'][0] == pytest.approx(5 / 6)


def test_quality_of_a_pair_is_the_lower_one():
    quality1, quality2, similarity, same = draw_pairs(1)
    lower = np.minimum(quality1, quality2)
    curve = error_versus_discard(quality1, quality2, similarity, same, fmr=0.05)
    for pair in ((quality2, quality1), (lower, lower), (lower, np.ones_like(lower))):
        np.testing.assert_array_equal(
            error_versus_discard(*pair, similarity, same, fmr=0.05)['fnmr'], curve['fnmr']
        )


@pytest.mark.parametrize('rethreshold', [True, False])
def test_order_of_equal_qualities_does_not_matter(rethreshold):
    rng = np.random.default_rng(2)
    quality1, quality2, similarity, same = draw_pairs(2)
    quality1, quality2 = np.round(4 * quality1), np.round(4 * quality2)
    shuffled = rng.permutation(len(same))
    curve, again = (
        error_versus_discard(
            *(x[order] for x in (quality1, quality2, similarity, same)), 0.05, rethreshold
        )
        for order in (np.arange(len(same)), shuffled)
    )
    np.testing.assert_allclose(curve['fnmr'], again['fnmr'], atol=1e-12)


def test_quality_that_says_nothing_gives_a_flat_curve():
    _, _, similarity, same = draw_pairs(4)
    constant = np.ones(len(same))
    curve = error_versus_discard(constant, constant, similarity, same, fmr=0.05)
    np.testing.assert_allclose(curve['fnmr'], curve['fnmr'][0], atol=1e-12)
    assert curve['auc_normalized'] == pytest.approx(1)
    assert curve['pauc_normalized'] == pytest.approx(1)


def test_nothing_left_is_nan_and_no_error_at_all_has_no_normalized_area():
    # Genuine pairs have the lower quality: from r = 0.5 on none is left.
    quality, similarity, same = [1, 2, 3, 4], [0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]
    curve = error_versus_discard(quality, quality, similarity, same)
    assert curve['fnmr'][:10].tolist() == [0.0] * 10
    assert np.isnan(curve['fnmr'][10:]).all()
    assert np.isnan(curve['auc'])
    assert curve['pauc'] == 0.0
    assert np.isnan(curve['pauc_normalized'])
    # And the other way round no impostor, which matters only if the threshold is chosen again.
    quality = quality[::-1]
    assert np.isnan(error_versus_discard(quality, quality, similarity, same)['fnmr'][10:]).all()
    once = error_versus_discard(quality, quality, similarity, same, rethreshold=False)
    assert once['fnmr'].tolist() == [0.0] * 20


@pytest.mark.parametrize('levels', [2, 3, 7])
def test_rank1_error_is_the_mean_over_all_orders_of_ties(levels):
    rng = np.random.default_rng(levels)
    quality, correct = rng.integers(0, levels, 7), rng.random(7) < 0.5
    shares = [0.0, 0.15, 0.3, 0.5, 0.72, 0.9]
    errors = []
    for order in itertools.permutations(range(7)):
        # A stable sort breaks ties by the order in which the probes come.
        order = np.array(order)
        ranked = order[np.argsort(quality[order], kind='stable')]
        errors.append([(~correct[ranked[7 - kept_after(r, 7) :]]).mean() for r in shares])
    curve = rank1_error_versus_discard(quality, correct, shares)
    np.testing.assert_allclose(curve['error'], np.mean(errors, axis=0), atol=1e-12)
    assert curve['auc'] == pytest.approx(np.trapezoid(np.mean(errors, axis=0), shares))


def test_rank1_error_of_distinct_qualities():
    rng = np.random.default_rng(0)
    quality, correct = rng.permutation(137), rng.random(137) < 0.6
    curve = rank1_error_versus_discard(quality, correct)
    order = np.argsort(quality)
    expected = [(~correct[order[137 - kept_after(r, 137) :]]).mean() for r in SHARES]
    np.testing.assert_allclose(curve['error'], expected, atol=1e-12)
    assert curve['discard'].tolist() == SHARES


def test_number_kept_forgives_binary_fractions():
    # 0.7 * 90 is below 63 in binary; 63 of 90 go all the same, which are the wrong ones.
    assert 0.7 * 90 < 63
    curve = rank1_error_versus_discard(np.arange(90), np.arange(90) >= 63, [0, 0.69, 0.7])
    assert curve['error'].tolist() == [63 / 90, 1 / 28, 0.0]


def test_area_is_not_divided_by_the_width():
    half_wrong = np.tile([True, False], 500)
    curve = rank1_error_versus_discard(np.zeros(1000), half_wrong)
    assert curve['auc'] == pytest.approx(0.5 * 0.95)


def test_bounds_hold_for_any_quality():
    rng = np.random.default_rng(1)
    correct = rng.random(200) < 0.7
    bounds = discard_auc_bounds(correct)
    assert bounds['random'] == pytest.approx((~correct).mean() * 0.95)
    # Wrong ones first: of n probes w are wrong, w - d of n - d are left.
    wrong = (~correct).sum()
    expected = [max(wrong - (200 - kept_after(r, 200)), 0) / kept_after(r, 200) for r in SHARES]
    assert bounds['perfect'] == pytest.approx(np.trapezoid(expected, SHARES))
    areas = [rank1_error_versus_discard(rng.random(200), correct)['auc'] for _ in range(200)]
    assert min(areas) > bounds['perfect']
    assert np.mean(areas) == pytest.approx(bounds['random'], abs=0.02)
    useful = rank1_error_versus_discard(correct + rng.random(200), correct)['auc']
    # Wrong ones all come before right ones, in whatever order: that is perfect.
    assert useful == pytest.approx(bounds['perfect'])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(quality2=[1.0, 2.0]), 'quality2 must have 4 entries, got 2'),
        (dict(quality1=[1.0, np.nan, 1, 1]), 'quality1: entry 1 is NaN or infinite'),
        (dict(similarity=[1.0, 1, 1, np.inf]), 'similarity: entry 3 is NaN or infinite'),
        (dict(similarity=np.ones((4, 1))), 'similarity must be one-dimensional'),
        (dict(quality1=[]), 'quality1 is empty'),
        (dict(same=[1, 1, 1, 1]), 'same: needs pairs'),
        (dict(fmr=2), 'fmr must lie in'),
    ],
)
def test_bad_pairs_are_named(change, message):
    good = dict(
        quality1=[1, 2, 3, 4], quality2=[1, 2, 3, 4], similarity=[1, 2, 3, 4], same=[1, 0, 1, 0]
    )
    with pytest.raises(ValueError, match=message):
        error_versus_discard(**(good | change))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (([1.0, 2], [1, 0, 1]), 'correct must have 2 entries'),
        (([1.0, np.nan], [1, 0]), 'quality: entry 1 is NaN'),
        (([1.0, 2], [1, 3]), 'correct must hold only true and false'),
        (([1.0, 2], [1, 0], [0.0, 1.0]), r'shares must increase and lie in \[0, 1\)'),
        (([1.0, 2], [1, 0], [0.5, 0.5]), 'shares must increase'),
        ((['a', 'b'], [1, 0]), 'quality must hold real numbers'),
    ],
)
def test_bad_probes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        rank1_error_versus_discard(*arguments)
