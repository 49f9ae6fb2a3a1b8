"""The audit of a gallery: it finds what was planted, and nothing in a sound gallery."""

import numpy as np
import pytest

from mmvlr.identification import Gallery, audit

DIMS = 32


def make_images(people=40, images=4, noise=0.5, seed=0):
    """Return people, names and embeddings: a direction a person, and noise."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(people), images)
    directions = rng.normal(size=(people, DIMS))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    embedding = directions[owner] + noise * rng.normal(size=(len(owner), DIMS)) / DIMS**0.5
    names = [f'{who}_{number}.png' for number, who in enumerate(owner)]
    return [f'p{who}' for who in owner], names, embedding


def make_gallery(people, names, embedding, **qualities):
    gallery = Gallery(dict(embedding=dict(dims=DIMS)))
    gallery.enroll_many(people, embedding, qualities, names)
    return gallery


def find(done, kind):
    return [one for one in done.findings if one.kind == kind]


def test_a_sound_gallery():
    gallery = make_gallery(*make_images())
    before = gallery.digest
    done = audit(gallery)
    assert (done.findings, done.people, done.images) == ([], 40, 160)
    assert done.about['own_similarity'] > 0.5 > done.about['other_similarity'] + 0.3
    assert gallery.digest == before


def test_images_that_are_exchanged():
    people, names, embedding = make_images()
    embedding[[0, 80]] = embedding[[80, 0]]
    found = find(audit(make_gallery(people, names, embedding)), 'wrong person')
    assert {(one.person, one.image, one.other_person) for one in found} == {
        ('p0', names[0], 'p20'),
        ('p20', names[80], 'p0'),
    }
    assert all(one.probability > 0.5 and one.value < 0.5 for one in found)


def test_an_image_of_nobody():
    people, names, embedding = make_images()
    embedding[5] = np.random.default_rng(9).normal(size=DIMS)
    done = audit(make_gallery(people, names, embedding))
    (found,) = find(done, 'stranger')
    assert (found.person, found.image, found.other_person) == ('p1', names[5], '')
    # It is named once.
    assert not find(done, 'lowers')


def test_an_image_that_lowers_the_others():
    people, names, embedding = make_images()
    embedding[5] = embedding[5] + np.random.default_rng(9).normal(size=DIMS) / DIMS**0.5
    (found,) = find(audit(make_gallery(people, names, embedding), gain=0.003), 'lowers')
    assert found.image == names[5] and found.value > 0.003


def test_a_person_under_two_names():
    people, names, embedding = make_images()
    people[2] = people[3] = 'p0 again'
    (found,) = find(audit(make_gallery(people, names, embedding)), 'collision')
    assert {found.person, found.other_person} == {'p0', 'p0 again'}
    assert found.probability > 0.5 and 0 < found.confusion < 0.5


def test_confusion_is_that_of_new_images():
    """Of many people under two names, drawn like the model, as many are confused as estimated."""
    people, names, embedding = make_images(300, 8)
    for person in range(100):
        for image in range(4):
            people[8 * person + image] = f'p{person} again'
    found = find(audit(make_gallery(people, names, embedding), wrong=0.2), 'collision')
    assert len(found) >= 95
    rng = np.random.default_rng(3)
    base = np.random.default_rng(0).normal(size=(300, DIMS))
    confused = []
    gallery = make_gallery(people, names, embedding)
    for one in found:
        number = int(one.person.split()[0][1:])
        new = base[number] / np.linalg.norm(base[number])
        new = new + 0.5 * rng.normal(size=(50, DIMS)) / DIMS**0.5
        first, second = (gallery.find_templates(name)[0] for name in (one.person, one.other_person))
        # Both names are the same person: half of the images go to either.
        confused.append((new @ second > new @ first).mean())
    assert np.mean(confused) == pytest.approx(0.5, abs=0.05)
    assert 0.2 < np.mean([one.confusion for one in found]) < 0.5


def test_copies():
    people, names, embedding = make_images()
    extra = np.stack([embedding[0], embedding[0], embedding[8]])
    gallery = make_gallery(
        [*people, 'p0', 'p0', 'p9'], [*names, 'a', 'b', 'c'], np.concatenate([embedding, extra])
    )
    done = audit(gallery)
    found = find(done, 'duplicate')
    assert [(one.image, one.other_image) for one in found] == [('a', names[0]), ('b', names[0])]
    (found,) = find(done, 'two names')
    assert {found.image, found.other_image} == {'c', names[8]}
    assert {found.person, found.other_person} == {'p2', 'p9'}
    # What is told as a copy is not told again.
    assert not find(done, 'wrong person')


def test_poor_people_and_exceptions():
    people, names, embedding = make_images()
    ri = np.tile([1.0, 2.0, 3.0, 4.0], 40)
    ri[:4] = 0.1
    forced = np.zeros(len(names))
    forced[7] = 1
    gallery = make_gallery(people, names, embedding, ri=ri, forced=forced)
    done = audit(gallery)
    assert [one.person for one in find(done, 'no good image')] == ['p0']
    assert [one.image for one in find(done, 'forced')] == [names[7]]
    assert [one.person for one in find(audit(gallery, least=4.5), 'no good image')][:2] == [
        'p0',
        'p1',
    ]
    with pytest.raises(ValueError, match="'norm'"):
        audit(gallery, quality='norm')


@pytest.mark.parametrize('count', [1, 2, 3])
def test_few_people(count):
    assert audit(make_gallery(*make_images(count, 1))).findings == []
    assert audit(make_gallery(*make_images(count, 2))).people == count


@pytest.mark.parametrize('options', [dict(wrong=0), dict(wrong=1.0), dict(alike=1.0)])
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        audit(make_gallery(*make_images(3)), **options)
    with pytest.raises(ValueError, match='empty'):
        audit(Gallery(dict(embedding=dict(dims=2))))
