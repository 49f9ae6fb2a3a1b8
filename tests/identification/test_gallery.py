"""The gallery: enrollment, search, and what is refused on the way to disk and back."""

import json
import os
import shutil

import numpy as np
import pytest

from mmvlr.identification import (
    Gallery,
    GalleryFileError,
    ImageTemplates,
    MeanTemplate,
    RIWeightedTemplate,
)
from mmvlr.identification import gallery as module
from mmvlr.registry import TEMPLATES
from mmvlr.utils.contract import ModelMismatchError

from .test_search import slow_search

DIMS = 8
IDENTITY = dict(
    weights='0123abcd' * 8,
    preprocessing=dict(size=[112, 112], mean=127.5, std=128.0, color_order='RGB'),
    embedding=dict(dims=DIMS, flip_fusion='none', inference_embedding='backbone'),
)
# Right to left, composed and decomposed, an emoji, line ends, half a surrogate pair, a NUL.
NAMES = ['Zoë', 'Zoe\u0308', 'אבג', '王', '🙂', 'a\nb', 'q"\\', '\ud83d', 'x\0', ' ']


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def faces(rng, n):
    embeddings = (rng.standard_normal((n, DIMS)) * 30).astype(np.float32)
    return embeddings, dict(ri=rng.normal(0, 0.5, n), norm=rng.uniform(20, 80, n))


@pytest.fixture
def gallery(rng):
    made = Gallery(IDENTITY)
    for index, name in enumerate(NAMES):
        n = 1 + index % 3
        made.enroll(name, *faces(rng, n), names=[f'{name}_{i}.png' for i in range(n)])
    return made


def same(one, other, rng):
    """Whether two galleries hold the same images and answer the same."""
    assert one.people == other.people
    assert one.template == other.template
    for person in one.people:
        first, second = one.images(person), other.images(person)
        assert first[0] == second[0]
        np.testing.assert_array_equal(first[1], second[1])
        assert first[2].keys() == second[2].keys()
        for name in first[2]:
            np.testing.assert_array_equal(first[2][name], second[2][name])
    probes = rng.standard_normal((5, DIMS))
    for name in ('person', 'similarity'):
        first, second = (getattr(g.search(probes, k=4), name) for g in (one, other))
        np.testing.assert_array_equal(first, second)


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
    assert isinstance(gallery._rule, type(TEMPLATES.build(gallery.template)))


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
        (dict(person=''), 'image 1 is of a person without name'),
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
    with pytest.raises(ValueError, match=r'identity lacks embedding.dims'):
        Gallery(dict(weights='00'))


def test_images_that_cancel_out_name_their_person():
    gallery = Gallery(IDENTITY)
    gallery.enroll('Ann', np.eye(DIMS)[:2])
    gallery.enroll('Bob', [[1.0] * DIMS, [-1.0] * DIMS])
    with pytest.raises(ValueError, match="person 'Bob' cancel out"):
        gallery.search(np.ones((1, DIMS)))


def test_saved_and_loaded(gallery, rng, tmp_path):
    gallery.template = dict(type='RIWeightedTemplate', temperature=0.5)
    gallery.enroll('no quality but RI', rng.standard_normal((1, DIMS)), dict(ri=[0.3]))
    gallery.enroll(NAMES[0], *faces(rng, 2))
    folder = gallery.save(tmp_path / 'new' / 'folder')
    loaded = Gallery.load(folder, IDENTITY)
    same(gallery, loaded, rng)
    assert loaded.identity == IDENTITY
    assert np.isnan(loaded.images('no quality but RI')[2]['norm']).all()
    # What was loaded can be extended and saved again, over the old one.
    loaded.enroll('late', *faces(rng, 1))
    loaded.remove(NAMES[4])
    loaded.save(folder)
    same(loaded, Gallery.load(folder), rng)
    assert len(list(folder.iterdir())) == 2
    stored = json.loads((folder / 'gallery.json').read_text())
    assert (stored['format'], stored['version']) == ('mmvlr gallery', 1)


def test_an_empty_gallery_is_a_gallery(tmp_path):
    loaded = Gallery.load(Gallery(IDENTITY, 'best').save(tmp_path))
    assert len(loaded) == 0
    loaded.enroll('Ann', np.ones((1, DIMS)), dict(ri=[0.1]))
    assert loaded.search(np.ones((1, DIMS))).person.tolist() == [['Ann']]


def test_interrupted_at_any_rename_the_folder_holds_old_or_new(gallery, rng, tmp_path, monkeypatch):
    gallery.save(tmp_path)
    changed = Gallery.load(tmp_path)
    changed.enroll('late', *faces(rng, 1))
    replace = os.replace
    outcomes = []
    for fatal in range(3):
        calls = iter(range(10))

        def stop(source, target, calls=calls, fatal=fatal):
            if next(calls) == fatal:
                raise OSError('no space left')
            replace(source, target)

        monkeypatch.setattr(os, 'replace', stop)
        monkeypatch.setattr(module.Path, 'rename', lambda self, to: (stop(self, to), to)[1])
        with pytest.raises(OSError, match='no space'):
            changed.save(tmp_path)
        monkeypatch.undo()
        outcomes.append(Gallery.load(tmp_path).people == gallery.people)
    assert outcomes == [True, True, True]
    changed.save(tmp_path)
    same(changed, Gallery.load(tmp_path), rng)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('damage', ['json', 'json end', 'name', 'tensors', 'tensors end'])
def test_damaged_files_are_refused_by_name(gallery, tmp_path, damage):
    gallery.save(tmp_path)
    (tensors,) = tmp_path.glob('*.safetensors')
    file = tensors if damage.startswith('tensors') else tmp_path / 'gallery.json'
    data = file.read_bytes()
    if damage == 'name':
        assert b'a\\nb_1.png' in data or b'q' in data
        data = data.replace(b'"q', b'"p', 1)
    elif damage.endswith('end'):
        data = data[:-40]
    else:
        data = data[:100] + bytes([data[100] ^ 1]) + data[101:]
    file.write_bytes(data)
    with pytest.raises(GalleryFileError, match=file.name):
        Gallery.load(tmp_path)


def test_every_flipped_bit_is_noticed(gallery, tmp_path):
    gallery.save(tmp_path)
    (tensors,) = tmp_path.glob('*.safetensors')
    rng = np.random.default_rng(7)
    for file in (tensors, tmp_path / 'gallery.json'):
        data = file.read_bytes()
        for place in rng.integers(0, len(data) - 1, 60).tolist():
            file.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
            with pytest.raises(GalleryFileError):
                Gallery.load(tmp_path)
        file.write_bytes(data)
    Gallery.load(tmp_path)


def test_files_of_two_galleries_are_not_mixed(gallery, rng, tmp_path):
    gallery.save(tmp_path / 'one')
    other = Gallery.load(tmp_path / 'one')
    other.enroll('late', *faces(rng, 1))
    other.save(tmp_path / 'two')
    (one,), (two,) = ((tmp_path / name).glob('*.safetensors') for name in ('one', 'two'))
    shutil.copy(two, one)
    with pytest.raises(GalleryFileError, match=f'{one.name} is damaged, cut short or of another'):
        Gallery.load(tmp_path / 'one')
    one.unlink()
    with pytest.raises(GalleryFileError, match=f'{one.name}, which is not beside it'):
        Gallery.load(tmp_path / 'one')
    with pytest.raises(FileNotFoundError, match=r'there is no gallery in'):
        Gallery.load(tmp_path / 'three')


def test_other_formats_are_refused(gallery, tmp_path):
    gallery.save(tmp_path)
    file = tmp_path / 'gallery.json'
    stored = json.loads(file.read_text())
    for change, message in (
        (dict(version=2), 'has format version 2, and this mmvlr .* reads version 1: update mmvlr'),
        (dict(format='mmvlr decision'), "is no gallery: its format is 'mmvlr decision'"),
    ):
        file.write_text(json.dumps(stored | change))
        with pytest.raises(GalleryFileError, match=message):
            Gallery.load(tmp_path)
    file.write_text('[]')
    with pytest.raises(GalleryFileError, match='is no gallery or is damaged'):
        Gallery.load(tmp_path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(weights='f' * 64), 'weights'),
        (dict(preprocessing=IDENTITY['preprocessing'] | dict(color_order='BGR')), 'color_order'),
        (dict(embedding=IDENTITY['embedding'] | dict(flip_fusion='sum')), 'flip_fusion'),
    ],
)
def test_a_gallery_of_another_network_is_refused(gallery, tmp_path, change, message):
    gallery.save(tmp_path)
    with pytest.raises(ModelMismatchError, match=f'gallery.json .*{message}'):
        Gallery.load(tmp_path, IDENTITY | change)


def test_a_rule_that_nobody_registered(gallery, tmp_path):
    @TEMPLATES.register_module()
    class FirstTemplate(MeanTemplate):
        name = 'first'

        def weights(self, qualities, starts):
            kept = np.zeros(starts[-1])
            kept[starts[:-1]] = 1
            return kept

    gallery.template = 'first'
    gallery.save(tmp_path)
    np.testing.assert_array_equal(
        Gallery.load(tmp_path).templates()[0][2], gallery.images(NAMES[2])[1][0]
    )
    del TEMPLATES._module_dict['FirstTemplate']
    with pytest.raises(ValueError, match=r"gallery.json: 'FirstTemplate' is not registered"):
        Gallery.load(tmp_path)


def test_a_file_can_name_no_other_code(gallery, tmp_path):
    for template, message in (
        (dict(type='collections.Counter'), r"gallery.json: 'collections.Counter' is not regist"),
        (
            dict(type='BestTemplate', n=3),
            r'gallery.json needs the template rule .* cannot be built',
        ),
    ):
        gallery._template = template
        gallery.save(tmp_path)
        with pytest.raises(ValueError, match=message):
            Gallery.load(tmp_path)


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
