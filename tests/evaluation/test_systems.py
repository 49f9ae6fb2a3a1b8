"""Comparison of systems over seeds, against plain loops."""

import numpy as np
import pytest

from mmvlr.evaluation.metrics import Observations
from mmvlr.evaluation.systems import adjust_p_values, compare_systems, join_seeds


def mean(kept):
    return dict(rate=float(kept.mean()))


def parts_of(rng, rates, groups):
    return [Observations(rng.random(len(groups)) < rate, groups, mean) for rate in rates]


def test_join_seeds_is_the_mean_of_the_seeds():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 3)
    parts = parts_of(rng, (0.2, 0.5, 0.9), groups)
    joined = join_seeds(parts)
    expected = sum(part.values.mean() for part in parts) / 3
    assert joined.statistics(joined.values)['rate'] == pytest.approx(expected, abs=1e-12)
    other = Observations(parts[0].values, groups[::-1], mean)
    with pytest.raises(ValueError, match='different faces'):
        join_seeds([parts[0], other])


def test_join_seeds_takes_statistics_of_several_columns():
    rng = np.random.default_rng(1)
    groups = np.arange(40)
    pairs = [np.stack([rng.random(40), rng.random(40) < 0.5], axis=1) for _ in range(2)]

    def spread(kept):
        return dict(spread=float(kept[:, 0].max() - kept[:, 1].mean()))

    joined = join_seeds([Observations(pair, groups, spread) for pair in pairs])
    expected = np.mean([spread(pair)['spread'] for pair in pairs])
    assert joined.statistics(joined.values)['spread'] == pytest.approx(expected, abs=1e-12)


def test_adjusted_p_values_against_the_step_down_procedure():
    """A hypothesis is rejected at a level exactly if its adjusted p-value does not exceed it."""
    rng = np.random.default_rng(2)
    for _ in range(50):
        p = dict(enumerate(rng.random(6) ** 3))
        adjusted = adjust_p_values(p)
        for level in (0.01, 0.05, 0.2, 0.5):
            rejected = set()
            for place, name in enumerate(sorted(p, key=p.get)):
                if p[name] > level / (len(p) - place):
                    break
                rejected.add(name)
            assert rejected == {name for name, value in adjusted.items() if value <= level}


def test_comparison_against_plain_loops():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 2)
    observed = dict(
        good=parts_of(rng, (0.8, 0.75), groups),
        near=parts_of(rng, (0.78, 0.74), groups),
        bad=parts_of(rng, (0.2,), groups),
    )
    scores = compare_systems(observed, num_resamples=2000)['rate']
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


def test_comparison_knows_when_lower_is_better():
    groups = np.arange(10)
    observed = dict(
        low=[Observations(np.arange(10.0), groups, mean)],
        high=[Observations(np.arange(10.0) + 5, groups, mean)],
    )
    scores = compare_systems(observed, True, 'number')['rate']
    assert scores['low'].best and scores['low'].lower_is_better and scores['low'].unit == 'number'
    assert not compare_systems(observed)['rate']['low'].best


def test_comparison_refuses_different_faces():
    observed = dict(
        one=[Observations(np.ones(4), np.arange(4), mean)],
        two=[Observations(np.zeros(4), np.arange(1, 5), mean)],
    )
    with pytest.raises(ValueError, match='different faces'):
        compare_systems(observed)
