"""The batched path gives the images of the per-image path, from the data set to the network."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmvlr.datasets import TinyFace
from mmvlr.datasets.storage import write_pack
from mmvlr.datasets.synthesis import synthesize_face
from mmvlr.datasets.transforms import (
    FlipFace,
    PackNativeFace,
    RescaleFace,
    ResizeFace,
    RotateFace,
    native_collate,
    read_image,
)
from mmvlr.models import FaceDataPreprocessor

AUGMENTATION = [
    dict(type='FlipFace', prob=0.5),
    dict(type='RotateFace', degrees=10),
    dict(type='RescaleFace', sizes=(64, 100)),
]
ONE_BY_ONE = [
    dict(type='LoadFace'),
    dict(type='ResizeFace'),
    *AUGMENTATION,
    dict(type='PackFace'),
]
BATCHED = [dict(type='LoadFace'), dict(type='PackNativeFace', transforms=AUGMENTATION)]


class Fixed:
    """A generator that deals out given numbers, the same for both paths."""

    def __init__(self, mirrored, share, side):
        self.share = share
        self.dealt = [0.0 if mirrored else 0.9, 0.9 if side is None else 0.0]
        self.side = side

    def random(self):
        return self.dealt.pop(0)

    def uniform(self, low, high):
        return low + self.share * (high - low)

    def integers(self, high):
        return (64, 100).index(self.side)


def far_off(found, expected):
    """Share of the pixels that differ by more than 2 gray levels."""
    return (np.abs(found.astype(np.float64) - expected) > 2).mean()


def face_of(size, person):
    image = synthesize_face(person, 0).image
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize('size', [(8, 8), (20, 16), (24, 33), (112, 112), (160, 120)])
def test_all_draws(size):
    """2 flips x 25 angles x 3 scales, on faces and on noise of a native size."""
    combinations = [
        (mirrored, share, side)
        for mirrored in (False, True)
        for share in np.linspace(0, 1, 25)
        for side in (None, 64, 100)
    ]
    assert len(combinations) == 150
    rng = np.random.default_rng(0)
    images = [face_of(size, 1), rng.integers(0, 256, (*size, 3), dtype=np.uint8)]
    steps = [ResizeFace(), FlipFace(), RotateFace(), RescaleFace()]
    pack = PackNativeFace(steps[1:])
    expected, batch = [], []
    for number, draws in enumerate(combinations):
        image = images[number % 2]
        results = dict(img=image, rng=Fixed(*draws), gt_label=0)
        batch.append(pack(dict(results, rng=Fixed(*draws))))
        for step in steps:
            results = step(results)
        expected.append(results['img'])
    found = FaceDataPreprocessor().resampled(native_collate(batch)['inputs'])
    found = found.permute(0, 2, 3, 1).numpy()
    worst = max(far_off(a, b) for a, b in zip(found, expected, strict=True))
    assert worst <= 0.001


def loaded(root, pipeline, collate, workers, epoch, seed=5):
    dataset = dict(type='TinyFace', data_root=str(root), pipeline=pipeline, seed=seed)
    loader = Runner.build_dataloader(
        dict(
            batch_size=4,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type=collate),
            dataset=dataset,
        ),
        seed=3,
    )
    loader.dataset.set_epoch(epoch)
    preprocessor = FaceDataPreprocessor(mean=0, std=1)
    batches = [preprocessor(batch, True) for batch in loader]
    labels = [s.gt_label.item() for batch in batches for s in batch['data_samples']]
    indices = [s.sample_idx for batch in batches for s in batch['data_samples']]
    return torch.cat([batch['inputs'] for batch in batches]).numpy(), labels, indices


def packed_root(folder, pack):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*.jpg'))
    write_pack(pack, ((name, read_image(str(folder / name))) for name in names))
    return pack


def test_the_same_epoch(tinyface_root, tmp_path):
    pack = packed_root(tinyface_root, tmp_path / 'faces.pack')
    for epoch, workers in ((0, 0), (3, 2)):
        one, labels, indices = loaded(tinyface_root, ONE_BY_ONE, 'mmvlr.face_collate', 0, epoch)
        found, *others = loaded(pack, BATCHED, 'mmvlr.native_collate', workers, epoch)
        assert others == [labels, indices]
        assert far_off(found, one) <= 0.001
    another, *_ = loaded(pack, BATCHED, 'mmvlr.native_collate', 0, 4)
    assert far_off(another, found) > 0.1


def test_real_faces(shared):
    datasets = [
        TinyFace(str(shared / 'data' / 'tinyface'), pipeline=pipeline, seed=1)
        for pipeline in (ONE_BY_ONE, BATCHED)
    ]
    chosen = range(0, len(datasets[0]), 9)
    expected = np.stack([datasets[0][index]['inputs'].numpy() for index in chosen])
    batch = native_collate([datasets[1][index] for index in chosen])
    found = FaceDataPreprocessor().resampled(batch['inputs']).numpy()
    off = np.abs(found - expected.astype(np.float64))
    assert (off <= 2).mean() >= 0.999
    # Far more exact than asked: two roundings of the same number differ by one at most.
    assert off.max() <= 2


def test_draws_of_certain_transforms_need_no_generator():
    pack = PackNativeFace([FlipFace(prob=1.0), RescaleFace(sizes=(64,), prob=1.0)])
    packed = pack(dict(img=np.zeros((3, 4, 3), np.uint8), gt_label=7, sample_idx=2))
    assert packed['draws'] == [1.0, 64.0]
    assert (packed['gt_label'], packed['sample_idx']) == (7, 2)


def test_collate():
    images = [np.full((2, 3, 3), 1, np.uint8), np.full((4, 1, 3), 2, np.uint8)]
    pack = PackNativeFace([FlipFace(prob=1.0)])
    batch = native_collate(
        [pack(dict(img=img, gt_label=n + 5, sample_idx=n)) for n, img in enumerate(images)]
    )
    assert batch['inputs']['pixels'].tolist() == [1] * 18 + [2] * 12
    assert batch['inputs']['sizes'].tolist() == [[2, 3], [4, 1]]
    assert batch['inputs']['draws'].tolist() == [[1.0], [1.0]]
    assert batch['inputs']['steps'] == ('FlipFace',)
    assert batch['data_samples']['gt_label'].tolist() == [5, 6]
    assert batch['data_samples']['sample_idx'].tolist() == [0, 1]


def test_collate_of_other_faces_is_an_error():
    with pytest.raises(ValueError, match='face_collate'):
        native_collate([dict(inputs=torch.zeros(3, 2, 2), data_samples=None)])


@pytest.mark.parametrize(
    ('transform', 'message'),
    [
        (dict(type='DegradeFace'), r'not DegradeFace.*one by one'),
        (dict(type='ResizeFace'), 'not ResizeFace'),
        (dict(type='RotateFace', interpolation='bilinear'), r"RotateFace has.*'bilinear'"),
        (dict(type='RescaleFace', interpolation='area'), r"RescaleFace has.*'area'"),
    ],
)
def test_unknown_transforms(transform, message):
    with pytest.raises(ValueError, match=message):
        PackNativeFace([dict(type='FlipFace'), transform])


def test_a_face_without_label_is_an_error():
    with pytest.raises(ValueError, match=r'a\.png has no gt_label.*PackFace'):
        PackNativeFace()(dict(img=np.zeros((2, 2, 3), np.uint8), img_path='a.png'))
