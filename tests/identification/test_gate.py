"""The gate: which images are kept out of a gallery, and what is remembered of those let in."""

import numpy as np
import pytest
from scipy.stats import binom

from mmvlr.apis import FaceInferencer
from mmvlr.identification import Decision, Gallery, Gate, Identifier
from mmvlr.identification.conformal import BinnedThresholds, ConformalThreshold
from mmvlr.structures import FaceTable
from tests.identification.test_identifier import Pixels, face, write_people


def make_decision(threshold=0.5, fingerprint=None, fpir=0.1, edges=(), bin_quality=None):
    levels = [threshold] if np.isscalar(threshold) else threshold
    bounds = tuple(ConformalThreshold(level, fpir, 99, 99) for level in levels)
    return Decision(
        fingerprint or {}, fpir, bin_quality, BinnedThresholds(edges, bounds), None, None, {}, {}
    )


def make_faces(embedding, **columns):
    count = len(embedding)
    columns['name'] = np.array([f'{number}.png' for number in range(count)])
    return FaceTable(
        np.asarray(embedding, float), np.full(count, 'probe'), np.full(count, -100), columns
    )


@pytest.fixture
def faces():
    rng = np.random.default_rng(0)
    strangers = make_faces(rng.normal(size=(40, 4)), ri=rng.normal(size=40))
    return strangers, make_faces(rng.normal(size=(9, 4)), ri=rng.normal(size=9))


def test_strangers_are_counted_in_plain_loops(faces):
    strangers, images = faces
    people = [str(number // 2) for number in range(40)]
    edge = float(np.median(strangers.columns['ri']))
    decision = make_decision((0.8, 0.95), edges=(edge,), bin_quality='ri')
    gate = Gate(decision, strangers, people, percentile=20)
    judged = gate(images)
    level = np.percentile(strangers.columns['ri'], 20)
    for row, image in enumerate(images.embedding):
        found = set()
        for number, stranger in enumerate(strangers.embedding):
            cosine = image @ stranger / np.linalg.norm(image) / np.linalg.norm(stranger)
            if cosine > (0.8 if strangers.columns['ri'][number] < edge else 0.95):
                found.add(people[number])
        assert judged.matched[row] == len(found)
        # Clopper and Pearson: so few or fewer are found with a probability of 5 % at the bound.
        assert binom.cdf(len(found), 20, judged.bound[row]) == pytest.approx(0.05, abs=1e-6)
        poor = images.columns['ri'][row] < level
        assert len(judged.reasons[row]) == sum([poor, len(found) > 0.1 * 20])
    assert judged.passed.tolist() == [not reasons for reasons in judged.reasons]
    assert 0 < judged.passed.sum() < 9


def test_the_level_may_be_switched_off(faces):
    strangers, images = faces
    gate = Gate(make_decision(0.9), strangers, percentile=0, most=1)
    assert gate.levels == {} and gate(images).passed.all()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(percentile=100), 'percentile'),
        (dict(most=1.5), 'most'),
        (dict(confidence=1.0), 'confidence'),
        (dict(people=['a']), '1 people of 40'),
    ],
)
def test_bad_options(faces, options, message):
    with pytest.raises(ValueError, match=message):
        Gate(make_decision(), faces[0], **options)
    with pytest.raises(ValueError, match='none'):
        Gate(make_decision(), faces[0].take(np.array([], int)))
    with pytest.raises(ValueError, match="'ri'"):
        Gate(make_decision(), faces[0])(make_faces(np.eye(4)))


def test_a_smear_is_refused_or_remembered(tmp_path):
    """Whom strangers match is refused; by force it is enrolled, which the gallery remembers."""
    inferencer = FaceInferencer(Pixels())
    strangers = inferencer.embed([face(50 + number % 4, number) for number in range(20)])
    gate = Gate(make_decision(0.6, inferencer.fingerprint), strangers, percentile=0)
    people = write_people(tmp_path / 'people', dict(Ann=0, Smear=51))
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    done = identifier.enroll(people, gate=gate)
    assert (done.enrolled, len(done.refused)) == (dict(Ann=2), 2)
    assert {(r.person, r.matched, r.forced) for r in done.refused} == {('Smear', 5, False)}
    assert '5 of 20' in done.refused[0].reasons[0]
    done = identifier.enroll(people, gate=gate, force=True)
    assert done.enrolled == dict(Smear=2) and done.refused[0].forced
    gallery = Gallery.load(tmp_path / 'gallery')
    for person, forced in (('Ann', 0), ('Smear', 1)):
        assert gallery.images(person)[2]['forced'].tolist() == [forced] * 2
    assert gallery.images('Smear')[2]['attracts'][0] == pytest.approx(done.refused[0].bound)
    # All of them refused: nothing is enrolled, and that is no error.
    done = Identifier(inferencer, tmp_path / 'other').enroll([face(51)], 'Smear', gate=gate)
    assert (done.people, done.enrolled, len(done.refused)) == (0, {}, 1)
    named = Gate(make_decision(0.6), strangers, ['Ann'] * 20)
    with pytest.raises(ValueError, match='among the strangers, such as Ann'):
        identifier.enroll(people, gate=named)
