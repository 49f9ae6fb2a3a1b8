"""The embedded faces as data sets; the images themselves are in test_synthesis.py."""

import numpy as np
import pytest

from mmvlr.datasets import NO_IDENTITY, SyntheticFaces, SyntheticUIFaces
from mmvlr.datasets.synthesis import synthesize_face


def images(dataset, role=None):
    return {
        info['img_path']: info['img'] for info in dataset.infos() if role in (None, info['role'])
    }


def test_train():
    dataset = SyntheticFaces(num_people=3, images_per_person=2, first_person=5)
    found = [(i['identity'], i['gt_label'], i['role']) for i in dataset.infos()]
    assert found == [(5 + n // 2, n // 2, 'train') for n in range(6)]
    assert dataset.num_classes == 3
    assert np.array_equal(dataset[3]['img'], synthesize_face(6, 1).image)


def test_test():
    dataset = SyntheticFaces(
        split='test',
        num_people=2,
        images_per_person=4,
        gallery_per_person=1,
        num_distractors=3,
        num_ui=2,
    )
    roles = [info['role'] for info in dataset.infos()]
    assert roles == (['gallery'] + ['probe'] * 3) * 2 + ['distractor'] * 3 + ['ui'] * 2
    for info in dataset.infos():
        assert (info['identity'] == NO_IDENTITY) == (info['role'] in ('distractor', 'ui'))
        assert 'gt_label' not in info
    assert dataset.test_mode


def test_people_are_disjoint():
    """Training, test, distractors and both UI sets share no person, hence no image."""
    train = SyntheticFaces(num_people=4, images_per_person=2)
    test = SyntheticFaces(
        split='test',
        num_people=4,
        images_per_person=2,
        gallery_per_person=1,
        first_person=4,
        num_distractors=5,
        num_ui=5,
    )
    ui = SyntheticUIFaces(num_images=5)
    people = []
    for dataset, role in (
        (train, None),
        *((test, role) for role in ('gallery', 'distractor', 'ui')),
        (ui, None),
    ):
        people.append({path.split('/')[1] for path in images(dataset, role)})
    assert [len(group) for group in people] == [4, 4, 5, 5, 5]
    assert len(set.union(*people)) == sum(map(len, people))
    probes = {path.split('/')[1] for path in images(test, 'probe')}
    assert probes == people[1]


@pytest.mark.parametrize('population', [0, 3])
def test_same_arguments_same_images(population):
    kwargs = dict(num_people=2, images_per_person=2, population=population)
    one, other = images(SyntheticFaces(**kwargs)), images(SyntheticFaces(**kwargs))
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_larger_set_contains_the_smaller():
    small = images(SyntheticFaces(num_people=2, images_per_person=2))
    large = images(SyntheticFaces(num_people=3, images_per_person=3))
    assert all(np.array_equal(large[name], image) for name, image in small.items())


def test_populations_differ():
    one = images(SyntheticUIFaces(num_images=2, population=0))
    other = images(SyntheticUIFaces(num_images=2, population=1))
    assert one.keys().isdisjoint(other)
    assert not np.array_equal(next(iter(one.values())), next(iter(other.values())))


def test_ui():
    dataset = SyntheticUIFaces(num_images=4)
    assert [(i['role'], i['identity']) for i in dataset.infos()] == [('ui', NO_IDENTITY)] * 4
    assert dataset.test_mode


def test_loading_does_not_touch_the_record():
    dataset = SyntheticFaces(num_people=1, images_per_person=1, pipeline=[dict(type='LoadFace')])
    dataset[0]['img'][:] = 0
    assert np.array_equal(dataset[0]['img'], synthesize_face(0, 0).image)


@pytest.mark.parametrize('gallery', [0, 2, 3])
def test_gallery_and_probe_must_both_exist(gallery):
    with pytest.raises(ValueError, match='must leave'):
        SyntheticFaces(split='test', images_per_person=2, gallery_per_person=gallery)


def test_labeled_synthetic():
    assert 'synthetic' in SyntheticFaces(num_people=1).metainfo['note']
    assert 'synthetic' in SyntheticUIFaces(num_images=1).metainfo['note']
