from itertools import pairwise, permutations

import numpy as np
import pytest

from mmvlr.evaluation.functional import risk_coverage


def one_order(errors):
    """Risks of faces that are answered in the given order, in plain loops."""
    risks, wrong = [], 0
    for k, error in enumerate(errors, start=1):
        wrong += error
        risks.append(wrong / k)
    return risks


def every_order(errors, confidence):
    """Mean of the risks over all orders in which confidence does not rise."""
    found = []
    for order in permutations(range(len(errors))):
        trust = [confidence[i] for i in order]
        if all(a >= b for a, b in pairwise(trust)):
            found.append(one_order([errors[i] for i in order]))
    return np.mean(found, axis=0)


@pytest.mark.parametrize('levels', [1, 2, 3, 100])
def test_expected_over_all_orders_of_ties(levels):
    rng = np.random.default_rng(levels)
    for _ in range(5):
        errors = rng.integers(0, 2, 7).tolist()
        confidence = rng.integers(0, levels, 7).tolist()
        curve = risk_coverage(errors, confidence)
        expected = every_order(errors, confidence)
        np.testing.assert_allclose(curve['risk'], expected, atol=1e-12)
        np.testing.assert_allclose(curve['coverage'], np.arange(1, 8) / 7)
        assert curve['aurc'] == pytest.approx(expected.mean())
        best = min(np.mean(one_order(order)) for order in permutations(errors))
        assert curve['excess_aurc'] == pytest.approx(expected.mean() - best)


def test_extremes():
    errors = np.repeat([False, True], [70, 30])
    assert risk_coverage(errors, -np.arange(100))['excess_aurc'] == pytest.approx(0)
    knows_nothing = risk_coverage(errors, np.zeros(100))
    assert knows_nothing['aurc'] == pytest.approx(0.3)
    assert (risk_coverage(errors, np.arange(100))['risk'][:30] == 1).all()
    assert risk_coverage([0, 0], [1, 2])['aurc'] == 0


def test_order_of_the_faces_does_not_matter():
    rng = np.random.default_rng(0)
    errors, confidence = rng.random(200) < 0.3, rng.integers(0, 9, 200)
    order = rng.permutation(200)
    first, second = (
        risk_coverage(errors, confidence),
        risk_coverage(errors[order], confidence[order]),
    )
    np.testing.assert_allclose(first['risk'], second['risk'], atol=1e-12)


@pytest.mark.parametrize(
    ('errors', 'confidence', 'message'),
    [
        ([0, 1], [0.5], 'errors must have 1 entries'),
        ([0, 2], [0.5, 0.1], 'errors must hold only true and false'),
        ([0, 1], [0.5, np.nan], 'confidence: entry 1 is NaN'),
        ([], [], 'confidence is empty'),
    ],
)
def test_bad_input(errors, confidence, message):
    with pytest.raises(ValueError, match=message):
        risk_coverage(errors, confidence)
