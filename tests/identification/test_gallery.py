"""The gallery in memory: enrollment, search, threads."""

import itertools
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmvlr.identification import (
    Gallery,
    ImageTemplates,
    RIWeightedTemplate,
)
from mmvlr.registry import TEMPLATES

from .galleries import DIMS, IDENTITY, NAMES, faces, same
from .test_search import slow_search


@pytest.mark.parametrize('template', ['mean', 'norm', 'ri', 'best', 'images'])
@pytest.mark.parametrize('search', ['exact', 'faiss'])
def test_search_is_that_of_the_templates(rng, template, search):
    if search == 'faiss':
        pytest.importorskip('faiss')
    gallery = Gallery(IDENTITY, template, search)
    given = {}
    # In turns, so that a person's images are not in a row, and the order is not the alphabet's.
    for turn in range(3):
        for name in ('Eve', 'Ann', 'Bob'):
            if turn == 0 or name != 'Ann':
                embeddings, qualities = faces(rng, turn + 1)
                gallery.enroll(name, embeddings, qualities)
                given.setdefault(name, []).append((embeddings, qualities))
    rule = TEMPLATES.build(gallery.template)
    templates = []
    for parts in given.values():
        embeddings = np.concatenate([part[0] for part in parts])
        qualities = {q: np.concatenate([part[1][q] for part in parts]) for q in ('ri', 'norm')}
        templates.append(rule(embeddings, qualities))
    owner = np.repeat(np.arange(3), [len(part) for part in templates])
    probes = rng.standard_normal((9, DIMS))
    unit = (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)
    expected = slow_search(unit, np.concatenate(templates), owner, 3)
    found = gallery.search(probes, k=7)
    assert len(found) == 9
    assert found.person.tolist() == [[list(given)[i] for i in row] for row in expected[0].tolist()]
    np.testing.assert_allclose(found.similarity, expected[1], atol=3e-7)
    assert (gallery.num_images, len(gallery)) == (13, 3)


def test_enrolled_at_once_as_one_by_one(rng):
    people = [NAMES[i] for i in rng.integers(0, 6, 40)]
    embeddings, qualities = faces(rng, 40)
    names = [f'{i}.png' for i in range(40)]
    at_once, singly = Gallery(IDENTITY, 'ri'), Gallery(IDENTITY, 'ri')
    at_once.enroll_many(np.array(people, object), embeddings, qualities, names)
    for i, person in enumerate(people):
        one = {name: values[i : i + 1] for name, values in qualities.items()}
        singly.enroll(person, embeddings[i : i + 1], one, names[i : i + 1])
        if i % 7 == 0:
            singly.search(embeddings[:1])
    same(at_once, singly, rng)


def test_removed_people_are_gone_and_come_back_last(gallery, rng):
    before = gallery.search(rng.standard_normal((1, DIMS)), k=99).person[0]
    assert sorted(before) == sorted(NAMES)
    for name in (NAMES[2], NAMES[0]):
        kept = gallery.images(name)
        gallery.remove(name)
        assert name not in gallery
        assert name not in gallery.search(kept[1], k=99).person
    with pytest.raises(KeyError, match="'Zoë' is not in the gallery of 8 people"):
        gallery.remove('Zoë')
    with pytest.raises(KeyError, match='is not in the gallery'):
        gallery.images('Zoë')
    gallery.enroll('Zoë', kept[1], kept[2])
    assert gallery.people == [*NAMES[1:2], *NAMES[3:], 'Zoë']
    assert gallery.search(kept[1][:1], k=1).person[0, 0] == 'Zoë'
    assert gallery.images('Zoë')[0] == ['']
    for name in gallery.people:
        gallery.remove(name)
    assert (len(gallery), gallery.num_images) == (0, 0)
    with pytest.raises(ValueError, match='the gallery is empty'):
        gallery.search(kept[1])


def test_the_rule_can_be_changed_later(gallery, rng):
    other = Gallery(IDENTITY, 'images')
    for name in NAMES:
        names, unit, qualities = gallery.images(name)
        other.enroll(name, unit * 9, qualities, names)
    gallery.search(rng.standard_normal((1, DIMS)))
    gallery.template = 'images'
    probes = rng.standard_normal((6, DIMS))
    np.testing.assert_allclose(
        gallery.search(probes).similarity, other.search(probes).similarity, atol=3e-7
    )
    gallery.enroll('blurred', rng.standard_normal((2, DIMS)), dict(norm=[3, 4]), ['a', 'b'])
    with pytest.raises(ValueError, match=r"quality 'ri' .* a of 'blurred' was enrolled"):
        gallery.template = 'ri'
    with pytest.raises(ValueError, match='there is no template rule'):
        gallery.template = 'median'
    assert gallery.template == dict(type='ImageTemplates')
    gallery.template = dict(type='NormWeightedTemplate')
    assert isinstance(gallery._state.rule, type(TEMPLATES.build(gallery.template)))


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(embeddings=[[1.0] * DIMS, [0.0] * DIMS]), "p1.png of 'Ann' is zero"),
        (dict(embeddings=[[np.nan] * DIMS, [1.0] * DIMS]), "p0.png of 'Ann' holds NaN"),
        (dict(embeddings=[[1.0] * 3, [1.0] * 3]), r'must be \(n, 8\), .* got \(2, 3\)'),
        (dict(embeddings=[[1.0] * DIMS]), '1 embeddings, 1 people and 2 names'),
        (dict(names=None, embeddings=[[1.0] * DIMS, [0.0] * DIMS]), "image 2 of 'Ann' is zero"),
        (dict(qualities=dict(norm=[1, 2])), "the quality 'ri' .* p0.png of 'Ann' comes with: norm"),
        (dict(qualities=dict(ri=[1, np.nan])), "the quality 'ri' of p1.png of 'Ann' is NaN"),
        (dict(qualities=dict(ri=[1])), "'ri' must be one number for each of the 2 images"),
        (dict(embeddings=[]), "'Ann' has no image"),
        (dict(person=7), 'names of people must be text, got 7'),
        (dict(person=''), 'a person is without name'),
        (dict(names=['a', None]), 'names of images must be text, got None'),
    ],
)
def test_what_cannot_be_enrolled_leaves_no_trace(kwargs, message):
    gallery = Gallery(IDENTITY, 'ri')
    gallery.enroll('Bob', [[1.0] * DIMS], dict(ri=[0.0]))
    wanted = dict(
        person='Ann',
        embeddings=np.ones((2, DIMS)),
        qualities=dict(ri=[0.1, 0.2]),
        names=['p0.png', 'p1.png'],
    )
    with pytest.raises(ValueError, match=message):
        gallery.enroll(**(wanted | kwargs))
    assert (gallery.people, gallery.num_images) == (['Bob'], 1)
    gallery.enroll(**wanted)
    assert (gallery.people, gallery.num_images) == (['Bob', 'Ann'], 3)


def test_what_cannot_be_searched(gallery):
    for probes, k, message in (
        (np.ones((1, 3)), 1, r'probes must be \(P, 8\)'),
        (np.zeros((1, DIMS)), 1, 'probe 0 is zero'),
        (np.ones((1, DIMS)), 0, 'k must be at least 1'),
    ):
        with pytest.raises(ValueError, match=message):
            gallery.search(probes, k)
    with pytest.raises(ValueError, match="'exact' or 'faiss', got 'annoy'"):
        Gallery(IDENTITY, search='annoy')
    with pytest.raises(ValueError, match=r'fingerprint lacks embedding.dims'):
        Gallery(dict(weights='00'))


@pytest.mark.parametrize('enroll', ['enroll_many', 'enroll_new'])
def test_images_that_cancel_out_are_refused_at_once(enroll):
    """And not at every search afterwards."""
    one = np.ones((1, DIMS))
    gallery = Gallery(IDENTITY)
    gallery.enroll('Ann', np.eye(DIMS)[:2])
    add = getattr(gallery, enroll)
    with pytest.raises(ValueError, match="'Bob' cancel out"):
        add(['Bob', 'Eve', 'Bob'], np.concatenate([one, one, -one]))
    add(['Bob'], one)
    # Together with those that are there already.
    with pytest.raises(ValueError, match="'Bob' cancel out"):
        add(['Eve', 'Bob'], np.concatenate([one, -3 * one]))
    assert gallery.counts == dict(Ann=2, Bob=1)
    assert gallery.search(one, k=1).person.tolist() == [['Bob']]
    # Each image a template of its own is a rule for such people, the mean is none.
    gallery.template = 'images'
    add(['Bob'], -one)
    with pytest.raises(ValueError, match="'Bob' cancel out"):
        gallery.template = 'mean'
    assert gallery.template == dict(type='ImageTemplates')
    assert len(gallery.search(one)) == 1


@pytest.mark.parametrize('length', [1e-310, 1e-44, 1e-30, 1e-20, 1.0, 1e18, 1e25, 3e38, 1e300])
def test_length_of_an_embedding_means_nothing(length):
    """Also where its square, or itself, leaves the range of float32."""
    direction = np.array([3.0, 4.0] + [0.0] * (DIMS - 2))
    gallery = Gallery(IDENTITY)
    gallery.enroll('Ann', [direction * length])
    gallery.enroll('Bob', [[0.0] * (DIMS - 1) + [length]])
    np.testing.assert_allclose(gallery.images('Ann')[1], [direction / 5], rtol=1e-6)
    found = gallery.search([[length] + [0.0] * (DIMS - 1)])
    assert found.person[0, 0] == 'Ann'
    assert found.similarity[0].tolist() == pytest.approx([0.6, 0.0])


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('', 'blank'),
        (' \u00a0\u200b', 'blank'),
        ('a\nb', 'control'),
        ('Ann\x1b[2J', 'control'),
        ('x\0', 'control'),
        ('a\u2028b', 'control'),
        ('nnA\u202e', 'control'),
        (7, 'must be text'),
    ],
)
def test_names_that_nobody_has_are_refused(gallery, name, message):
    before = gallery.counts
    for enroll in (gallery.enroll_many, gallery.enroll_new):
        with pytest.raises(ValueError, match=message):
            enroll(['Eve', name], np.eye(DIMS)[:2])
    assert gallery.counts == before


def test_one_name_in_two_spellings_is_one_person(gallery):
    composed, decomposed = 'Zoë', 'Zoe\u0308'
    gallery.enroll(decomposed, np.ones((1, DIMS)))
    assert gallery.counts[composed] == 2
    assert decomposed in gallery and gallery.images(decomposed)[0] == ['Zoë_0.png', '']
    gallery.remove(decomposed)
    assert composed not in gallery


def test_the_same_image_is_noticed(gallery):
    unit = gallery.images('Ann')[1]
    other = np.eye(DIMS)
    given = np.concatenate([unit[:1] * 7, other[:1], other[:1], other[:1], unit[1:2], other[1:2]])
    people = ['Ann', 'Eve', 'Eve', 'Bob', 'Eve', 'Eve']
    found = gallery.enroll_new(people, given, names=[f'{i}.png' for i in range(6)])
    assert (found.rows, found.known) == ([1, 3, 4, 5], [0, 2])
    assert found.shared == [(3, 'Eve', '1.png'), (4, 'Ann', 'Ann_1.png')]
    assert (gallery.counts['Eve'], gallery.counts['Bob'], gallery.counts['Ann']) == (3, 1, 3)
    assert gallery.find_same(given) == [
        (0, 'Ann', 'Ann_0.png'),
        *((row, 'Eve', '1.png') for row in (1, 2, 3)),
        (4, 'Ann', 'Ann_1.png'),
        (5, 'Eve', '5.png'),
    ]
    assert gallery.find_same(-given) == []
    # Nothing new: nothing changes.
    before = gallery._state
    assert gallery.enroll_new(['Ann'], unit[:1]).rows == []
    assert gallery._state is before


def run_threads(gallery, seconds):
    """Let 4 threads change a gallery and 4 search it; return counts of work and of faults.

    The embeddings of p0 to p7 are orthogonal, so the right answer to each of them is known: its
    person, or, while that one is removed, somebody at a low similarity.
    """
    unit = np.linalg.qr(np.random.default_rng(0).normal(size=(DIMS, DIMS)))[0]
    own = {f'p{i}': unit[i] for i in range(DIMS)}
    gallery.enroll_many(list(own), unit, names=list(own))
    counts = Counter(answers=0, wrong=0, enrolled=0, lost=0)
    end = time.monotonic() + seconds

    def search(_):
        while time.monotonic() < end:
            found = gallery.search(unit, k=1)
            answers = zip(own, found.person[:, 0], found.similarity[:, 0], strict=True)
            wrong = sum(person != name and score > 0.99 for name, person, score in answers)
            yield Counter(answers=DIMS, wrong=wrong)

    def change(number):
        for turn in itertools.count():
            if time.monotonic() > end:
                return
            # Whoever stands before others goes, and comes back behind them.
            name = f'p{number + 4 * (turn % 2)}'
            gallery.remove(name)
            gallery.enroll(name, own[name][None], names=[name])
            gallery.enroll(f'{number}-{turn}', np.ones((1, DIMS)), names=[f'{number}-{turn}'])
            gone = f'{number}-{turn - 5}'
            if turn >= 5:
                gallery.remove(gone)
            lost = {name, f'{number}-{turn}'} - {*gallery.people}
            yield Counter(enrolled=2, lost=len(lost) + (gone in gallery))

    with ThreadPoolExecutor(8) as pool:
        work = [(change, number) for number in range(4)] + [(search, 0)] * 4
        parts = [pool.submit(lambda f, n: sum(f(n), Counter()), *each) for each in work]
        for part in parts:
            counts.update(part.result())
    counts['lost'] += sum(gallery.images(name)[0] != [name] for name in gallery.people)
    counts['lost'] += abs(len(gallery) - DIMS - 4 * 5)
    return counts


@pytest.mark.parametrize('template', ['mean', 'images'])
def test_threads_lose_nobody_and_mix_up_nobody(template):
    counts = run_threads(Gallery(IDENTITY, template), 2.0)
    assert counts['answers'] > 100 and counts['enrolled'] > 100
    assert (counts['wrong'], counts['lost']) == (0, 0), counts


def test_text_of_a_gallery(gallery):
    assert repr(gallery) == "Gallery(10 people, 19 images, template={'type': 'MeanTemplate'})"
    assert NAMES[0] in gallery
    assert ImageTemplates.name == 'images'
    assert RIWeightedTemplate().needs == ('ri',)


def test_digest_follows_people_and_templates():
    identity = dict(embedding=dict(dims=2))

    def made(people, embeddings):
        gallery = Gallery(identity)
        gallery.enroll_many(people, embeddings)
        return gallery.digest

    first = made(['Ann', 'Bob'], [[1.0, 0.0], [0.0, 2.0]])
    # The length of an embedding means nothing.
    assert made(['Ann', 'Bob'], [[3.0, 0.0], [0.0, 1.0]]) == first
    others = (['Bob', 'Ann'], [[1.0, 0.0], [0.0, 1.0]]), (['Ann', 'Bob'], [[1.0, 0.0], [0.6, 0.8]])
    assert first not in [made(*other) for other in others]
