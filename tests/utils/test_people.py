"""The people that a checkpoint carries."""

import random

import pytest
import torch

from mmvlr.utils.people import MAX_NAMES, People

NAMES = ['1', '2', '10', 'a\nb', 'Ren\u00e9', '\udcff']


def carried(facts, tmp_path):
    """What a checkpoint holds after it was saved and loaded safely."""
    torch.save(dict(meta=dict(people=facts)), tmp_path / 'a.pth')
    return torch.load(tmp_path / 'a.pth', weights_only=True)


def test_round_trip(tmp_path):
    people = People.from_names(NAMES)
    assert People.read(carried(people.facts(), tmp_path), 'a.pth') == people
    assert people.names == tuple(NAMES)
    assert not people.is_same(People.from_names(NAMES[::-1]))
    # A decomposed accent, as some file systems write it, is the same name.
    assert people.is_same(People.from_names([*NAMES[:4], 'Rene\u0301', NAMES[5]]))
    # Names that run together are others.
    assert not People.from_names(['ab', 'c']).is_same(People.from_names(['a', 'bc']))


@pytest.mark.parametrize('checkpoint', [{}, dict(meta={}), dict(meta=None), dict(w=torch.ones(1))])
def test_without_people(checkpoint):
    assert People.read(checkpoint, 'a.pth') is None


def test_names_of_very_many_people_are_left_out(tmp_path, monkeypatch):
    draw = random.Random(0)
    many = People.from_names([f'm.0{draw.randrange(36**5):x}' for _ in range(85_000)])
    size = len(many.facts()['names'])
    assert size < MAX_NAMES
    monkeypatch.setattr('mmvlr.utils.people.MAX_NAMES', size - 1)
    found = People.read(carried(many.facts(), tmp_path), 'a.pth')
    assert found.names is None
    assert found.is_same(many)
    assert found.tell_difference(People.from_names(NAMES)) == '85,000 people there, 6 here'


@pytest.mark.parametrize(
    'change',
    [
        dict(digest='0' * 64),
        dict(count=7),
        dict(names='!'),
        dict(names='AAAA'),
        dict(names=3),
        None,
    ],
)
def test_damaged(change):
    facts = People.from_names(NAMES).facts()
    facts = [1] if change is None else {**facts, **change}
    with pytest.raises(ValueError, match=r'a\.pth: meta\.people'):
        People.read(dict(meta=dict(people=facts)), 'a.pth')
