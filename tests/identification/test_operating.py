"""Probability of a match, and rates by size and quality."""

from functools import partial

import numpy as np
import pytest
from scipy.stats import beta

from mmvlr.identification import Decision, SearchedFaces, calibrate
from mmvlr.identification.operating import (
    describe_operation,
    find_probability,
    fit_probability,
    tabulate_operation,
)
from mmvlr.utils.schema import FileFormatError

FINGERPRINT = dict(embedding=dict(dims=4))


def draw(seed, people=300, images=3):
    """Faces whose answer is right with a known probability, by similarity and RI."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), images)
    mated = person < people // 2
    ri, similarity = rng.uniform(size=len(person)), rng.uniform(size=len(person))
    chance = 1 / (1 + np.exp(-(8 * similarity * (0.3 + ri) - 4)))
    right = rng.random(len(person)) < chance
    qualities = dict(ri=ri, size=rng.uniform(6, 40, len(person)))
    return SearchedFaces(
        similarity, mated | right, right, np.arange(len(person)), qualities
    ), chance


def make(faces, **options):
    return calibrate(faces, FINGERPRINT, target_fpir=0.1, **options)


def test_probability_is_right_on_other_people():
    """That of the truth, and higher for a better face of the same similarity."""
    faces, _ = draw(0)
    decision = make(faces)
    fitted = fit_probability(faces, decision, 'ri')
    others, chance = draw(1)
    found = fitted(decision, others.similarity, others.qualities)
    assert np.abs(found[:, 0] - chance).mean() < 0.04
    assert ((found[:, 1] <= chance) & (chance <= found[:, 2])).mean() > 0.6
    assert (found[:, 1] <= found[:, 0]).mean() > 0.99 and (found[:, 0] <= found[:, 2]).mean() > 0.99
    poor, good = fitted(decision, [0.8, 0.8], dict(ri=[0.1, 0.9]))[:, 0]
    assert good > poor + 0.3
    alone = fit_probability(faces, decision)
    same = alone(decision, [0.8, 0.8], {})
    assert same[0, 0] == same[1, 0]
    with pytest.raises(ValueError, match="'ri'"):
        fitted(decision, [0.8], {})


def test_an_increasing_change_of_the_scale_changes_nothing():
    faces, _ = draw(0)
    changed = SearchedFaces(
        faces.similarity, faces.mated, faces.correct, faces.people,
        dict(ri=np.exp(3 * faces.quality('ri')) - 9),
    )  # fmt: skip
    results = []
    for some in (faces, changed):
        decision = make(some)
        found = fit_probability(some, decision, 'ri')
        results.append(found(decision, some.similarity, some.qualities)[:, 0])
    np.testing.assert_allclose(*results, atol=0.01)


def test_answers_of_one_kind_say_nothing():
    faces, _ = draw(0)
    wrong = SearchedFaces(faces.similarity, faces.mated, faces.correct & False, faces.people, {})
    with pytest.raises(ValueError, match='right and wrong'):
        fit_probability(wrong, make(wrong))


def test_rates_in_plain_loops():
    """Without held-out people the rates are those of the decision, cell by cell."""
    faces, _ = draw(2, people=40, images=2)

    def fit(some):
        if len(some) < len(faces):
            raise ValueError('too few people')
        return decision

    decision = make(faces.take(np.ones(len(faces), bool)))
    found = tabulate_operation(faces, fit, 'ri')
    assert not found['held_out']
    threshold = decision.thresholds.thresholds[0].threshold
    assert {row['by'] for row in found['rows']} == {'all', 'size', 'ri'}
    for row in found['rows']:
        if row['by'] == 'ri':
            continue
        mated, tpir, unmated, fpir = 0, 0, 0, 0
        for number in range(len(faces)):
            size = faces.quality('size')[number]
            if not (row['low'] or 0) <= size < (row['high'] or 99):
                continue
            accepted = faces.similarity[number] > threshold
            if faces.mated[number]:
                mated, tpir = mated + 1, tpir + (accepted and faces.correct[number])
            else:
                unmated, fpir = unmated + 1, fpir + accepted
        assert (row['mated_faces'], row['unmated_faces']) == (mated, unmated)
        assert row['tpir'] == (tpir / mated if mated else None)
        assert row['fpir'] == (fpir / unmated if unmated else None)
        assert row['answered'] == 1
        if tpir and tpir < mated:
            # Everybody has one face here.
            low = beta.ppf(0.025, tpir, mated - tpir + 1)
            assert row['tpir_low'] == pytest.approx(low)


def test_nobody_is_judged_by_thresholds_of_his_own():
    faces, _ = draw(3)
    people = np.repeat(np.arange(len(faces) // 3), 3)
    mated = people < 150
    faces = SearchedFaces(
        faces.similarity, mated, faces.correct & mated, people, dict(faces.qualities)
    )
    seen = []

    def fit(some):
        seen.append({*some.people.tolist()})
        return make(some)

    found = tabulate_operation(faces, fit, 'ri')
    assert found['held_out'] and len(seen) == 5
    assert all(sum(who in people for people in seen) == 4 for who in np.unique(people).tolist())
    (whole,) = (row for row in found['rows'] if row['by'] == 'all')
    assert whole['fpir'] == pytest.approx(0.1, abs=0.04)


def test_both_are_kept_with_the_decision(tmp_path):
    faces, _ = draw(0)
    decision = make(faces)
    about = describe_operation(faces, decision, partial(calibrate, fingerprint=FINGERPRINT), 'ri')
    assert describe_operation(faces.take(~faces.mated), decision, make, 'ri') == {}
    stated = {**decision.calibrated_on, **about}
    file = Decision(**{**vars(decision), 'calibrated_on': stated}).save(tmp_path / 'd.json')
    loaded = Decision.load(file)
    first, second = (
        one(decision, faces.similarity, faces.qualities)
        for one in (fit_probability(faces, decision, 'ri'), find_probability(loaded))
    )
    np.testing.assert_allclose(first, second)
    assert find_probability(decision) is None and find_probability(None) is None
    stated['probability'] = dict(quality='ri', coefficients=[[1.0]])
    with pytest.raises(FileFormatError, match='coefficients'):
        find_probability(Decision(**{**vars(decision), 'calibrated_on': stated}))
