"""Augmentation is a function of (seed, epoch, index): not of workers, order or what ran before."""

import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.runner import Runner

from mmvlr.datasets import SyntheticFaces, set_epoch

PIPELINE = [
    dict(type='LoadFace'),
    dict(type='ResizeFace', size=(32, 32)),
    dict(type='FlipFace'),
    dict(type='RotateFace'),
    dict(type='RescaleFace', sizes=(12, 20)),
    dict(type='PackFace'),
]


def make(seed=0):
    return SyntheticFaces(num_people=3, images_per_person=4, pipeline=PIPELINE, seed=seed)


def loader(dataset, num_workers, shuffle=False):
    return Runner.build_dataloader(
        dict(
            batch_size=5,
            sampler=dict(type='DefaultSampler', shuffle=shuffle),
            dataset=dataset,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            collate_fn=dict(type='mmvlr.face_collate'),
        ),
        seed=0,
    )


def faces(batches):
    """Image of each index."""
    return {
        sample.sample_idx: face
        for batch in batches
        for face, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
    }


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[index], other[index]) for index in one)


def test_workers_change_nothing():
    single, double = loader(make(), 0), loader(make(), 2)
    epochs = []
    for epoch in (0, 1):
        # Persistent workers live on: they must see the epoch that is set out here.
        for each in (single, double):
            each.dataset.set_epoch(epoch)
        epochs.append(faces(single))
        assert len(epochs[-1]) == 12
        assert same(faces(double), epochs[-1])
    assert not same(*epochs)


def test_order_and_past_change_nothing():
    dataset = make()
    expected = {index: dataset[index]['inputs'] for index in range(12)}
    backwards = {index: dataset[index]['inputs'] for index in reversed(range(12))}
    assert same(backwards, expected)
    torch.manual_seed(123)
    assert same(faces(loader(dataset, 0, shuffle=True)), expected)


def test_epoch_and_seed_change_it():
    batches = loader(make(), 0)
    first = faces(batches)
    batches.dataset.set_epoch(1)
    assert not same(faces(batches), first)
    batches.dataset.set_epoch(0)
    assert same(faces(batches), first)
    assert not same(faces(loader(make(seed=1), 0)), first)


def test_every_image_has_its_own_generator():
    dataset = make()
    draws = {dataset.rng(index).random() for index in range(100)}
    assert len(draws) == 100


@pytest.mark.parametrize(
    'wrap',
    [
        lambda dataset: dataset,
        lambda dataset: RepeatDataset(dataset, 2),
        lambda dataset: ConcatDataset([make(), dataset]),
    ],
    ids=['bare', 'repeat', 'concat'],
)
def test_epoch_reaches_wrapped_data_sets(wrap):
    dataset = make()
    expected = dataset.rng(0).random()
    set_epoch(wrap(dataset), 4)
    assert dataset.rng(0).random() != expected
    dataset.set_epoch(0)
    assert dataset.rng(0).random() == expected


def test_collate():
    batch = next(iter(loader(make(), 0)))
    assert batch['inputs'].dtype is torch.uint8
    assert batch['inputs'].shape == (5, 3, 32, 32)
    assert [sample.gt_label.item() for sample in batch['data_samples']] == [0, 0, 0, 0, 1]
