"""Isotonic calibration against pool-adjacent-violators written out, and its file."""

import json

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from mmvlr.models.quality import IsotonicCalibration


def pool_adjacent_violators(quality, correct):
    """Return the fitted value of every distinct quality."""
    blocks = []
    for value in sorted(set(quality)):
        hits = [c for q, c in zip(quality, correct, strict=True) if q == value]
        blocks.append([[value], sum(hits), len(hits)])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][2] >= blocks[-1][1] / blocks[-1][2]:
            values, hits, count = blocks.pop()
            blocks[-1][0] += values
            blocks[-1][1] += hits
            blocks[-1][2] += count
    return {value: hits / count for values, hits, count in blocks for value in values}


def faces(seed, count=200, levels=None):
    rng = np.random.default_rng(seed)
    quality = rng.normal(20, 5, count)
    if levels:
        quality = np.round(quality / levels) * levels
    return quality, rng.random(count) < 1 / (1 + np.exp(-(quality - 20) / 3))


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('levels', [None, 1.0, 10.0])
def test_equals_pool_adjacent_violators(seed, levels):
    quality, correct = faces(seed, levels=levels)
    calibration = IsotonicCalibration().fit(quality, correct)
    expected = pool_adjacent_violators(quality.tolist(), correct.tolist())
    np.testing.assert_allclose(
        calibration(quality), [expected[value] for value in quality.tolist()], rtol=0, atol=1e-12
    )


def test_rises_between_and_beyond_what_was_seen():
    quality, correct = faces(0)
    calibration = IsotonicCalibration().fit(quality, correct)
    asked = np.linspace(quality.min() - 10, quality.max() + 10, 3001)
    found = calibration(asked)
    assert (np.diff(found) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert found[0] == calibration(quality.min()[None])[0]
    assert found[-1] == calibration(quality.max()[None])[0]
    direct = IsotonicRegression(y_min=0, y_max=1, out_of_bounds='clip')
    np.testing.assert_allclose(found, direct.fit(quality, correct).predict(asked), atol=1e-12)


def test_probabilities_hold_on_other_people():
    calibration = IsotonicCalibration().fit(*faces(0, 20_000))
    quality, correct = faces(1, 20_000)
    found = calibration(quality)
    for low in (0.1, 0.3, 0.5, 0.7):
        there = (found >= low) & (found < low + 0.2)
        assert correct[there].mean() == pytest.approx(found[there].mean(), abs=0.04)


def test_a_quality_that_points_the_wrong_way_says_nothing():
    quality, correct = faces(0)
    found = IsotonicCalibration().fit(-quality, correct)([-30, -20, -10])
    assert np.ptp(found) < 0.2
    assert IsotonicCalibration().fit([3, 2, 1], [0, 1, 1])([1, 3]).tolist() == [2 / 3] * 2


@pytest.mark.parametrize('outcome', [0, 1])
def test_one_outcome_gives_a_constant(outcome):
    calibration = IsotonicCalibration().fit([1, 2, 3], [outcome] * 3)
    assert calibration([-9, 2, 9]).tolist() == [outcome] * 3
    single = IsotonicCalibration().fit([2.0], [outcome])
    assert single([-9, 9]).tolist() == [outcome] * 2


def test_file(tmp_path):
    quality, correct = faces(0)
    people = np.arange(200) // 4
    calibration = IsotonicCalibration('serfiq').fit(quality, correct, people)
    path = calibration.save(tmp_path / 'new' / 'calibration.json')
    again = IsotonicCalibration.load(path)
    asked = np.linspace(-5, 50, 997)
    np.testing.assert_array_equal(again(asked), calibration(asked))
    assert again.measure == 'serfiq'
    assert again.identities.tolist() == list(range(50))
    assert [entry.name for entry in path.parent.iterdir()] == ['calibration.json']
    assert json.loads(path.read_text())['version'] == 2
    without = IsotonicCalibration().fit(quality, correct)
    assert IsotonicCalibration.load(without.save(path)).identities is None


@pytest.mark.parametrize('numbers', [True, False])
def test_people_must_be_others(tmp_path, numbers):
    def named(people):
        return people if numbers else [f'person {person}' for person in people]

    calibration = IsotonicCalibration().fit([1, 2, 3], [0, 1, 1], named([5, 6, -100]))
    calibration = IsotonicCalibration.load(calibration.save(tmp_path / 'c.json'))
    assert len(calibration([1, 2], named([7, 8]))) == 2
    assert len(calibration([1, 2])) == 2
    with pytest.raises(ValueError, match=r'1 of 2 people were in the fit .* such as .*6'):
        calibration([1, 2], named([7, 6]))
    with pytest.raises(ValueError, match='text in one of fit and use'):
        calibration([1, 2], ['7', '8'] if numbers else [7, 8])
    # Nobody is nobody in both.
    assert not numbers or len(calibration([1, 2], [7, -100])) == 2
    assert len(IsotonicCalibration().fit([1, 2], [0, 1])([1], [5])) == 1


def test_errors(tmp_path):
    calibration = IsotonicCalibration()
    with pytest.raises(RuntimeError, match='call fit or load'):
        calibration([1.0])
    with pytest.raises(RuntimeError, match='call fit before'):
        calibration.save(tmp_path / 'c.json')
    for quality, correct in (([1, 2], [1]), ([], []), ([1, 2], [[1, 0]])):
        with pytest.raises(ValueError, match='of the same faces'):
            calibration.fit(quality, correct)
    for quality in ([1, np.nan], [1, np.inf], [[1, 2]]):
        with pytest.raises(ValueError, match='finite and'):
            calibration.fit(quality, [0, 1])
    with pytest.raises(ValueError, match='True or False'):
        calibration.fit([1, 2], [0, 0.5])
    for people in ([1], [1.5, 2.5], [None, 'a']):
        with pytest.raises(ValueError, match='identities must be 2'):
            calibration.fit([1, 2], [0, 1], people)
    calibration.fit([1, 2], [0, 1])
    with pytest.raises(ValueError, match='finite and'):
        calibration([np.nan])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(format='another'), 'no calibration'),
        (dict(version=3), 'has version 3; this mmvlr reads 1 and 2'),
        (dict(version=1, measure='ri'), 'fit the calibration again'),
        (dict(quality=[2.0, 1.0]), 'no rising function'),
        (dict(quality=[1.0, 1.0]), 'no rising function'),
        (dict(quality=[1.0]), 'no rising function'),
        (dict(quality=[], probability=[]), 'no rising function'),
        (dict(probability=[0.6, 0.5]), 'no rising function'),
        (dict(probability=[-0.1, 0.5]), r'must lie in \[0, 1\]'),
        (dict(probability=[0.1, 1.5]), r'must lie in \[0, 1\]'),
        (dict(probability=None), 'is damaged'),
        (dict(identities=[1.5]), 'is damaged'),
    ],
)
def test_damaged_files(tmp_path, change, message):
    path = IsotonicCalibration().fit([1, 2], [0, 1]).save(tmp_path / 'c.json')
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        IsotonicCalibration.load(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        IsotonicCalibration.load(tmp_path / 'none.json')
    for text in ('', '[1]', '{"version": 1}', '\xff'):
        (tmp_path / 'c.json').write_text(text, encoding='latin-1')
        with pytest.raises(ValueError, match=r'c\.json'):
            IsotonicCalibration.load(tmp_path / 'c.json')
