import math

import numpy as np
import pytest
from scipy.stats import norm

from mmvlr.identification.conformal import (
    BinnedThresholds,
    ConformalThreshold,
    binned_thresholds,
    conformal_threshold,
    find_bins,
    people_needed,
    quality_edges,
)

DRAWS = 1000


def mean_and_error(rates):
    return np.mean(rates), np.std(rates, ddof=1) / math.sqrt(len(rates))


def check_target(rates, fpir, lowest):
    """The mean rate is not significantly above the target, nor below what is to be had."""
    mean, error = mean_and_error(rates)
    assert mean <= fpir + 2.5 * error, (mean, error)
    assert mean >= lowest - 2.5 * error, (mean, error)


# With n continuous scores the rate is 1 - ceil((1 - a)(n + 1)) / (n + 1) on average, exactly.
@pytest.mark.parametrize(
    ('count', 'fpir'), [(9, 0.1), (12, 0.1), (50, 0.1), (99, 0.01), (250, 0.01), (30, 0.25)]
)
def test_rate_of_continuous_scores(count, fpir):
    rng = np.random.default_rng(count)
    rates = [1 - conformal_threshold(rng.random(count), fpir).threshold for _ in range(DRAWS)]
    exact = 1 - math.ceil(round((1 - fpir) * (count + 1), 6)) / (count + 1)
    assert fpir - 1 / (count + 1) < exact <= fpir + 1e-12
    check_target(rates, fpir, exact)
    assert np.mean(rates) == pytest.approx(exact, abs=4 * mean_and_error(rates)[1])


@pytest.mark.parametrize('count', [19, 40, 200])
def test_rate_of_scores_with_ties(count):
    rng = np.random.default_rng(count)
    levels, fpir = 20, 0.1
    rates = []
    for _ in range(DRAWS):
        threshold = conformal_threshold(rng.integers(0, levels, count), fpir).threshold
        rates.append((levels - 1 - threshold) / levels)
    check_target(rates, fpir, fpir - 1 / (count + 1) - 1 / levels)


def people_of(rng, count, often):
    """Scores of people whose number of faces goes with their scores: (scores, people)."""
    mean = rng.normal(size=count)
    faces = 1 + rng.poisson(np.clip(3 + often * 3 * mean, 0, None))
    person = np.repeat(np.arange(count), faces)
    return mean[person] + 0.5 * rng.normal(size=len(person)), person


@pytest.mark.parametrize('often', [-1, 0, 1])
@pytest.mark.parametrize(('count', 'fpir'), [(15, 0.1), (60, 0.1), (400, 0.01)])
def test_rate_of_a_new_person(often, count, fpir):
    rng = np.random.default_rng(count)
    rates = []
    for _ in range(DRAWS):
        scores, person = people_of(rng, count, often)
        threshold = conformal_threshold(scores, fpir, person).threshold
        rates.append(norm.sf(threshold, scale=math.sqrt(1.25)))
    check_target(rates, fpir, 0.55 * fpir)


def test_faces_taken_as_people_break_the_guarantee():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(DRAWS):
        # Who scores high is seen rarely, and hardly counts if faces do.
        scores, _ = people_of(rng, 60, often=-1)
        rates.append(norm.sf(conformal_threshold(scores, 0.1).threshold, scale=math.sqrt(1.25)))
    mean, error = mean_and_error(rates)
    assert mean > 0.1 + 10 * error


def by_hand(similarity, fpir, people):
    """The quantile of the distribution in which each person has weight 1 / (K + 1), in loops."""
    names = sorted(set(people))
    for candidate in sorted(similarity):
        below = 0.0
        for name in names:
            own = [s for s, p in zip(similarity, people, strict=True) if p == name]
            below += sum(s <= candidate for s in own) / len(own) / (len(names) + 1)
        if below >= 1 - fpir - 1e-9:
            return candidate
    return math.inf


def test_threshold_equals_the_definition():
    rng = np.random.default_rng(3)
    for _ in range(200):
        count = int(rng.integers(1, 25))
        people = rng.integers(0, rng.integers(1, 20), count)
        similarity = rng.integers(0, 8, count) / 8
        fpir = float(rng.choice([0.05, 0.1, 0.2, 0.5]))
        found = conformal_threshold(similarity, fpir, people)
        expected = by_hand(similarity.tolist(), fpir, people.tolist())
        assert found.threshold == expected
        assert found.num_people == len(set(people.tolist()))
        assert (found.shortage == '') == math.isfinite(expected)


def test_one_face_a_person_is_the_plain_rule():
    similarity = np.random.default_rng(0).random(137)
    for fpir in (0.01, 0.05, 0.1, 0.3):
        plain = conformal_threshold(similarity, fpir)
        assert plain == conformal_threshold(similarity, fpir, np.arange(137).astype(str))
        place = math.ceil((1 - fpir) * 138 - 1e-9)
        assert plain.threshold == np.sort(similarity)[place - 1]


@pytest.mark.parametrize('fpir', [0.3, 0.1, 0.05, 0.01, 0.001])
def test_people_needed_is_where_thresholds_begin(fpir):
    needed = people_needed(fpir)
    similarity = np.arange(needed) / needed
    assert conformal_threshold(similarity, fpir).threshold == similarity[-1]
    few = conformal_threshold(np.r_[similarity[1:], similarity[1:]], fpir, [*range(needed - 1)] * 2)
    assert few.threshold == math.inf
    assert f'at least {needed} people' in few.shortage
    assert f'there are {needed - 1}' in few.shortage


def test_realized_rate_of_one_calibration():
    rng = np.random.default_rng(1)
    found = [conformal_threshold(rng.random(60), 0.1) for _ in range(2000)]
    for probability in (0.5, 0.9):
        bound = found[0].realized_fpir(probability)
        share = np.mean([1 - one.threshold <= bound for one in found])
        assert share == pytest.approx(probability, abs=0.025)


def test_realized_rate_with_several_faces_is_cautious():
    rng = np.random.default_rng(2)
    inside = []
    for _ in range(DRAWS):
        scores, person = people_of(rng, 60, 0)
        found = conformal_threshold(scores, 0.1, person)
        inside.append(norm.sf(found.threshold, scale=math.sqrt(1.25)) <= found.realized_fpir(0.9))
    assert 0.88 <= np.mean(inside) <= 0.995


def faces_of_qualities(rng, count):
    """Scores that are higher where quality is low: (scores, qualities)."""
    quality = rng.random(count)
    return 1 - quality + 0.2 * rng.normal(size=count), quality


def test_rate_holds_in_each_bin():
    rng = np.random.default_rng(4)
    scores, quality = faces_of_qualities(rng, 10_000)
    edges = quality_edges(rng.random(100), 4)
    place = find_bins(quality, edges)
    inside = {'binned': [], 'plain': []}
    for _ in range(DRAWS):
        own, own_quality = faces_of_qualities(rng, 160)
        binned = binned_thresholds(own, own_quality, edges, 0.1)
        assert binned.num_merged == 0
        levels = [t.threshold for t in binned.thresholds]
        inside['binned'].append([(scores[place == b] > levels[b]).mean() for b in range(4)])
        level = conformal_threshold(own, 0.1).threshold
        inside['plain'].append([(scores[place == b] > level).mean() for b in range(4)])
    for rates in np.transpose(inside['binned']):
        # Few faces in a bin cost up to 1 / (n + 1), n about 40.
        check_target(rates, 0.1, 0.1 - 1 / 30)
    assert np.mean(inside['plain'], axis=0)[0] > 0.2


def test_bins_with_too_few_people_are_merged():
    quality = np.repeat([0.5, 1.5, 2.5, 3.5], [30, 4, 12, 30])
    similarity = np.random.default_rng(0).random(76)
    found = binned_thresholds(similarity, quality, (1, 2, 3), 0.1)
    # Four faces are too few for ten per cent; the smaller neighbor has twelve.
    assert found.edges == (1, 3) and found.num_merged == 1
    assert [t.num_faces for t in found.thresholds] == [30, 16, 30]
    for index, members in enumerate([quality < 1, (quality > 1) & (quality < 3), quality > 3]):
        assert found.thresholds[index] == conformal_threshold(similarity[members], 0.1)
    assert (found(quality[:1]) == found.thresholds[0].threshold).all()


def test_people_count_in_bins_and_not_faces():
    # Enough faces, but of three people.
    quality = np.repeat([0.0, 1.0], 30)
    people = np.r_[np.arange(30), 100 + np.arange(30) % 3]
    found = binned_thresholds(np.arange(60) / 60, quality, (0.5,), 0.1, people)
    assert found.edges == () and found.thresholds[0].num_people == 33
    nobody = binned_thresholds([0.1, 0.2], [0, 1], (0.5,), 0.1)
    assert nobody.edges == () and nobody.thresholds[0].threshold == math.inf


def test_edges():
    quality = np.random.default_rng(0).normal(size=1000)
    edges = quality_edges(quality, 5)
    assert (np.bincount(find_bins(quality, edges)) == 200).all()
    assert quality_edges(quality, 1) == ()
    assert quality_edges([20] * 50 + [24], 4) == ()
    assert quality_edges([20] * 50 + [24] * 50, 4) == (22, 24)
    assert find_bins([1.0, 2.0, 3.0], (2.0,)).tolist() == [0, 1, 1]
    levels = BinnedThresholds((2.0,), tuple(ConformalThreshold(t, 0.1, 9, 9) for t in (0.5, 0.7)))
    assert levels([1.9, 2.0]).tolist() == [0.5, 0.7]


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: conformal_threshold([0.1], 0), 'must lie in'),
        (lambda: conformal_threshold([0.1], 1), 'must lie in'),
        (lambda: conformal_threshold([], 0.1), r'similarity must be numbers \(N,\)'),
        (lambda: conformal_threshold([0.1, np.nan], 0.1), 'similarity: face 1 is NaN'),
        (lambda: conformal_threshold([0.1], 0.1, [1, 2]), 'people must be 1 integers or texts'),
        (lambda: conformal_threshold([0.1], 0.1, [0.5]), 'people must be 1 integers or texts'),
        (lambda: binned_thresholds([0.1], [1, 2], (), 0.1), 'quality must have 1 entries'),
        (lambda: binned_thresholds([0.1], [1], (2, 1), 0.1), 'edges must rise'),
        (lambda: quality_edges([1.0], 0), 'num_bins must be at least 1'),
        (lambda: ConformalThreshold(0.5, 0.1, 9, 9).realized_fpir(1), 'probability must lie'),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rounded_shares_do_not_lose_the_largest():
    """999 people at 0.1 %: the threshold is the maximum, however many faces share a weight."""
    for faces in (3, 52, 97, 129):
        people = np.repeat(np.arange(999), faces)
        similarity = np.random.default_rng(faces).random(len(people))
        found = conformal_threshold(similarity, 0.001, people)
        assert found.threshold == similarity.max()
