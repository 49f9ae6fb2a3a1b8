"""Templates of images and frames against a brute force, and lists in IJB's form."""

import numpy as np
import pytest

from mmvlr.evaluation.functional import verification_rates
from mmvlr.evaluation.template_protocols import (
    identify_templates,
    make_media_templates,
    read_media,
    read_template_pairs,
    read_template_people,
    verify_templates,
)
from mmvlr.utils.schema import FileFormatError


@pytest.fixture
def protocol():
    """40 people with three templates each, of one to four media of one to five images."""
    rng = np.random.default_rng(0)
    rows = []
    for template in rng.permutation(120):
        for medium in range(rng.integers(1, 5)):
            rows += [(int(template), medium)] * int(rng.integers(1, 6))
    rows = np.array(rows)[rng.permutation(len(rows))]
    centers = rng.standard_normal((40, 8))
    embedding = centers[rows[:, 0] % 40] + 1.5 * rng.standard_normal((len(rows), 8))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    return embedding.astype(np.float32), rows[:, 0] + 1000, rows[:, 1]


def slow_templates(embedding, template, medium):
    found = {}
    for number in np.unique(template):
        own = template == number
        means = [embedding[own & (medium == m)].mean(axis=0) for m in np.unique(medium[own])]
        mean = np.mean(means, axis=0, dtype=np.float64)
        found[int(number)] = mean / np.linalg.norm(mean)
    return found


def test_media_are_averaged_first(protocol, monkeypatch):
    monkeypatch.setattr('mmvlr.evaluation.template_protocols._IMAGES', 16)
    numbers, templates = make_media_templates(*protocol)
    expected = slow_templates(*protocol)
    assert numbers.tolist() == list(expected)
    np.testing.assert_allclose(templates, list(expected.values()), atol=1e-6)
    # A plain mean of the images is another template.
    plain = make_media_templates(protocol[0], protocol[1], np.arange(len(protocol[0])))[1]
    assert np.abs(plain - templates).max() > 0.05


def test_one_to_one_by_brute_force(protocol, monkeypatch):
    monkeypatch.setattr('mmvlr.evaluation.template_protocols._PAIRS', 7)
    numbers, templates = make_media_templates(*protocol)
    slow = slow_templates(*protocol)
    pairs = np.random.default_rng(1).choice(numbers, (500, 2))
    pairs[::3, 1] = (pairs[::3, 0] - 1000 + 40) % 120 + 1000
    same = (pairs[:, 0] - pairs[:, 1]) % 40 == 0
    score = np.array([slow[a] @ slow[b] for a, b in pairs.tolist()])
    found = verify_templates(numbers, templates, pairs, same, fars=(0.1, 0.01))
    expected = verification_rates(score, same, (0.1, 0.01))
    assert found == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match='number 7'):
        verify_templates(numbers, templates, np.array([[7, 1000]]), same)


def test_one_to_many_by_brute_force(protocol):
    numbers, templates = make_media_templates(*protocol)
    slow = slow_templates(*protocol)
    people = (numbers - 1000) % 40
    in_gallery = (numbers < 1040) & (people < 25)
    gallery, probe = ((numbers[k], people[k]) for k in (in_gallery, numbers >= 1040))
    found = identify_templates(numbers, templates, gallery, probe, fpirs=(0.1,), rank=1)
    score = np.array([[slow[p] @ slow[g] for g in gallery[0].tolist()] for p in probe[0].tolist()])
    mated = probe[1] < 25
    best, right = score.max(axis=1), gallery[1][score.argmax(axis=1)] == probe[1]
    bound = np.sort(best[~mated])[::-1][int(0.1 * (~mated).sum())]
    assert found['tpir@fpir0.1'] == pytest.approx((right & (best > bound))[mated].mean())
    with pytest.raises(ValueError, match='probe'):
        identify_templates(numbers, templates, gallery, gallery)


def test_lists_of_ijbs_form(tmp_path):
    (tmp_path / 'media.txt').write_text('1.jpg 5 70\n2.jpg 5 71\n\n3.jpg 6 72\n')
    media = read_media(tmp_path / 'media.txt')
    assert media.names.tolist() == ['1.jpg', '2.jpg', '3.jpg']
    assert (media.template.tolist(), media.medium.tolist()) == ([5, 5, 6], [70, 71, 72])
    (tmp_path / 'pairs.txt').write_text('5 6 0\n5 5 1\n')
    pairs, same = read_template_pairs(tmp_path / 'pairs.txt')
    assert (pairs.tolist(), same.tolist()) == ([[5, 6], [5, 5]], [False, True])
    rows = 'TEMPLATE_ID,SUBJECT_ID,FILENAME\n6,2,a.jpg\n5,1,b.jpg\n5,1,c.jpg\n'
    (tmp_path / 'gallery.csv').write_text(rows)
    assert [x.tolist() for x in read_template_people(tmp_path / 'gallery.csv')] == [[5, 6], [1, 2]]


@pytest.mark.parametrize(
    'read, text, field',
    [
        (read_media, '1.jpg 5\n', 'line 1'),
        (read_media, '1.jpg 5 70\n2.jpg x 1\n', 'line 2'),
        (read_media, '', 'empty'),
        (read_template_pairs, '5 6 2\n', 'label'),
        (read_template_pairs, '5 a 1\n', 'LABEL'),
        (read_template_people, 'TEMPLATE_ID,SUBJECT_ID\n5,1\n5,2\n', 'SUBJECT_ID'),
        (read_template_people, 'TEMPLATE_ID,SIGHTING\n5,1\n', 'SUBJECT_ID'),
        (read_template_people, 'TEMPLATE_ID,SUBJECT_ID\n5,1\nx,2\n', 'line 3'),
    ],
)
def test_damaged_lists_are_named(tmp_path, read, text, field):
    (tmp_path / 'list.csv').write_text(text)
    with pytest.raises(FileFormatError, match=field) as caught:
        read(tmp_path / 'list.csv')
    assert 'list.csv' in str(caught.value)
