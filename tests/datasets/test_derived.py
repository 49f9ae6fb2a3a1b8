"""Data sets made of another one's records: splits by identity, and the validation set."""

import cv2
import numpy as np
import pytest

from mmvlr.datasets import PeopleSubset, SyntheticFaces, ValidationSubset

LOAD = [dict(type='LoadFace')]


@pytest.fixture(scope='module')
def source():
    return SyntheticFaces(num_people=7, images_per_person=3)


def identities(dataset):
    return {info['identity'] for info in dataset.infos()}


@pytest.mark.parametrize('num_folds', [2, 3])
def test_folds_are_disjoint_and_cover(source, num_folds):
    seen = []
    for fold in range(num_folds):
        kwargs = dict(dataset=source, fold=fold, num_folds=num_folds)
        held_out = identities(PeopleSubset(held_out=True, **kwargs))
        others = identities(PeopleSubset(held_out=False, **kwargs))
        assert held_out
        assert held_out.isdisjoint(others)
        assert held_out | others == identities(source)
        seen.append(held_out)
    assert sum(map(len, seen)) == 7
    assert max(map(len, seen)) - min(map(len, seen)) <= 1


def test_people_keep_all_their_images_and_get_labels_from_zero(source):
    dataset = PeopleSubset(dataset=source, fold=1, num_folds=3)
    infos = list(dataset.infos())
    assert sorted({info['gt_label'] for info in infos}) == list(range(dataset.num_classes))
    assert len(infos) == 3 * dataset.num_classes
    assert [info['sample_idx'] for info in infos] == list(range(len(infos)))
    # A label is a person and a person a label.
    assert len({(info['gt_label'], info['identity']) for info in infos}) == dataset.num_classes


def test_split_seed(source):
    def people(seed):
        return identities(PeopleSubset(dataset=source, held_out=True, split_seed=seed))

    assert people(0) == people(0)
    assert any(people(0) != people(seed) for seed in range(1, 5))


def test_config_or_object(source):
    config = dict(type='SyntheticFaces', num_people=7, images_per_person=3)
    one = PeopleSubset(dataset=config)
    assert identities(one) == identities(PeopleSubset(dataset=source))


@pytest.mark.parametrize('fold', [-1, 3])
def test_unknown_fold(source, fold):
    with pytest.raises(ValueError, match='fold must lie in'):
        PeopleSubset(dataset=source, fold=fold, num_folds=3)


def test_validation_pairs(source):
    dataset = ValidationSubset(dataset=source, fraction=0.5, size=16, pipeline=LOAD)
    assert len(dataset) == 2 * round(0.5 * 21)
    originals = {info['img_path']: info['img'] for info in source.infos()}
    for gallery, probe in zip(range(0, len(dataset), 2), range(1, len(dataset), 2), strict=True):
        one, other = dataset[gallery], dataset[probe]
        assert (one['role'], other['role']) == ('gallery', 'probe')
        assert one['img_path'] == other['img_path']
        assert one['identity'] == other['identity']
        assert 'gt_label' not in one
        flipped = originals[one['img_path']][:, ::-1]
        assert np.array_equal(one['img'], flipped)
        expected = cv2.resize(np.ascontiguousarray(flipped), (16, 16), interpolation=cv2.INTER_AREA)
        assert other['img'].shape == (16, 16, 3)
        assert np.array_equal(other['img'], expected)


def test_validation_runs_the_rest_of_the_pipeline(source):
    pipeline = [*LOAD, dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]
    dataset = ValidationSubset(dataset=source, pipeline=pipeline, size=8)
    face = dataset[1]
    assert face['inputs'].shape == (3, 32, 32)
    assert face['data_samples'].role == 'probe'
    assert face['data_samples'].sample_idx == 1
    assert dataset.test_mode


def test_validation_draws_once_and_without_repetition(source):
    def drawn(seed):
        dataset = ValidationSubset(dataset=source, fraction=0.5, subset_seed=seed, pipeline=LOAD)
        return [info['img_path'] for info in dataset.infos() if info['role'] == 'probe']

    assert drawn(0) == drawn(0)
    assert len(set(drawn(0))) == len(drawn(0))
    assert any(drawn(0) != drawn(seed) for seed in range(1, 4))


def test_validation_on_people_who_are_not_trained_on(source):
    split = dict(dataset=source, fold=0, num_folds=3)
    validation = ValidationSubset(
        dataset=dict(type='PeopleSubset', held_out=True, **split), fraction=1.0, pipeline=LOAD
    )
    assert identities(validation)
    assert identities(validation).isdisjoint(identities(PeopleSubset(held_out=False, **split)))


@pytest.mark.parametrize('fraction', [0, -0.1, 1.1])
def test_fraction(source, fraction):
    with pytest.raises(ValueError, match='fraction must lie in'):
        ValidationSubset(dataset=source, fraction=fraction, pipeline=LOAD)


def test_validation_needs_a_pipeline(source):
    with pytest.raises(ValueError, match='begins with LoadFace'):
        ValidationSubset(dataset=source)
