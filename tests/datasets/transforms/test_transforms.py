"""Each transform against an independent reference."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmvlr.datasets.transforms import (
    DegradeFace,
    DownsampleFace,
    FlipFace,
    LoadFace,
    PackFace,
    RescaleFace,
    ResizeFace,
    RotateFace,
    read_image,
    resize,
)


def noise(height=20, width=24):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


class Draws:
    """A generator that deals out the given numbers, so that a test says what is drawn."""

    def __init__(self, *, random=(), uniform=(), integers=()):
        self.numbers = dict(random=list(random), uniform=list(uniform), integers=list(integers))

    def random(self):
        return self.numbers['random'].pop(0)

    def uniform(self, low, high):
        share = self.numbers['uniform'].pop(0)
        return low + share * (high - low)

    def integers(self, high):
        value = self.numbers['integers'].pop(0)
        assert 0 <= value < high
        return value


@pytest.mark.parametrize(
    ('name', 'flag'),
    [
        ('bicubic', cv2.INTER_CUBIC),
        ('bilinear', cv2.INTER_LINEAR),
        ('nearest', cv2.INTER_NEAREST),
        ('area', cv2.INTER_AREA),
    ],
)
def test_resize(name, flag):
    image = noise(20, 24)
    found = ResizeFace(size=(32, 40), interpolation=name)(dict(img=image))['img']
    assert found.shape == (32, 40, 3)
    assert np.array_equal(found, cv2.resize(image, (40, 32), interpolation=flag))


def test_resize_to_the_same_size_keeps_the_image():
    image = noise(32, 32)
    assert resize(image, (32, 32)) is image


def test_unknown_interpolation():
    with pytest.raises(ValueError, match='interpolation must be one of'):
        ResizeFace(interpolation='lanczos')


@pytest.mark.parametrize(('draw', 'mirrored'), [(0.0, True), (0.29, True), (0.3, False)])
def test_flip(draw, mirrored):
    image = noise()
    found = FlipFace(prob=0.3)(dict(img=image, rng=Draws(random=[draw])))['img']
    assert np.array_equal(found, np.fliplr(image) if mirrored else image)


def test_flip_for_certain_needs_no_generator():
    image = noise()
    assert np.array_equal(FlipFace(prob=1.0)(dict(img=image))['img'], image[:, ::-1, :])


def test_flip_rate():
    rng = np.random.default_rng(0)
    image = noise(2, 2)
    flip = FlipFace(prob=0.25)
    count = sum(
        not np.array_equal(flip(dict(img=image, rng=rng))['img'], image) for _ in range(2000)
    )
    # Four standard deviations of a binomial count.
    assert abs(count - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5


@pytest.mark.parametrize(('share', 'turns'), [(1.0, 1), (0.0, -1), (0.5, 0)])
def test_rotation_by_a_quarter(share, turns):
    """At 90 degrees every pixel falls on a pixel, so numpy knows the answer; also the sign."""
    image = noise(21, 21)
    found = RotateFace(degrees=90)(dict(img=image, rng=Draws(uniform=[share])))['img']
    assert np.array_equal(found, np.rot90(image, turns))


@pytest.mark.parametrize('size', [(41, 41), (40, 52)])
@pytest.mark.parametrize('share', [0.0, 0.25, 1.0])
def test_rotation_of_a_point(size, share):
    height, width = size
    image = np.zeros((height, width, 3), dtype=np.uint8)
    y, x = height // 2 - 8, width // 2 + 10
    image[y - 1 : y + 2, x - 1 : x + 2] = 200
    found = RotateFace(degrees=10)(dict(img=image, rng=Draws(uniform=[share])))['img']
    angle = np.deg2rad(-10 + share * 20)
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    # Counter-clockwise on the screen, where y points down.
    dx, dy = x - center_x, y - center_y
    expected_x = center_x + np.cos(angle) * dx + np.sin(angle) * dy
    expected_y = center_y - np.sin(angle) * dx + np.cos(angle) * dy
    weight = found[..., 0].astype(float)
    rows, columns = np.mgrid[:height, :width]
    assert (weight * rows).sum() / weight.sum() == pytest.approx(expected_y, abs=0.1)
    assert (weight * columns).sum() / weight.sum() == pytest.approx(expected_x, abs=0.1)


def test_rotation_leaves_no_black_corner():
    image = np.full((30, 30, 3), 180, dtype=np.uint8)
    found = RotateFace(degrees=10)(dict(img=image, rng=np.random.default_rng(0)))['img']
    assert np.array_equal(found, image)


def test_rotation_stays_within_the_degrees():
    class Recorder(Draws):
        def uniform(self, low, high):
            self.range = low, high
            return 0.0

    rng = Recorder()
    RotateFace(degrees=7)(dict(img=noise(), rng=rng))
    assert rng.range == (-7, 7)


@pytest.mark.parametrize('side', [64, 100])
def test_rescale(side):
    image = noise(112, 112)
    rng = Draws(random=[0.0], integers=[[64, 100].index(side)])
    found = RescaleFace()(dict(img=image, rng=rng))['img']
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(found, cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC))


def test_rescale_keeps_the_size_of_an_oblong_image():
    found = RescaleFace(sizes=(8,), prob=1.0)(dict(img=noise(20, 24), rng=Draws()))['img']
    assert found.shape == (20, 24, 3)


def test_rescale_probabilities():
    """With two sides, each and "unchanged" happen a third of the time."""
    image, rng = noise(12, 12), np.random.default_rng(0)
    counts = {}
    rescale = RescaleFace(sizes=(4, 8))
    for _ in range(1500):
        key = rescale(dict(img=image, rng=rng))['img'].tobytes()
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 3
    assert image.tobytes() in counts
    assert all(abs(count - 500) < 4 * (1500 * 2 / 9) ** 0.5 for count in counts.values())
    never = RescaleFace(sizes=(4, 8), prob=0.0)
    assert all(never(dict(img=image, rng=rng))['img'] is image for _ in range(50))


def test_downsample():
    image = noise(32, 32)
    found = DownsampleFace(size=16)(dict(img=image))['img']
    # Area averaging by two: the mean of each 2 x 2 block.
    expected = image.reshape(16, 2, 16, 2, 3).astype(float).mean((1, 3))
    assert found.shape == (16, 16, 3)
    assert np.abs(found - expected).max() <= 0.5


def degrade(image, seed=0, **kwargs):
    arguments = dict(blur_prob=0.0, shrink=(1.0, 1.0), noise=(0.0, 0.0))
    rng = np.random.default_rng(seed)
    return DegradeFace(**{**arguments, **kwargs})(dict(img=image, rng=rng))['img']


def test_degrade_shrinks():
    image = noise(32, 24)
    found = degrade(image, shrink=(0.5, 0.5))
    expected = image.reshape(16, 2, 12, 2, 3).astype(float).mean((1, 3))
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5
    assert degrade(image, shrink=(0.1, 0.1), min_size=6).shape == (6, 6, 3)
    sizes = {degrade(image, seed, shrink=(0.4, 0.8)).shape[0] for seed in range(60)}
    assert min(sizes) >= 0.4 * 32 - 1
    assert max(sizes) <= 0.8 * 32 + 1
    assert len(sizes) > 5


def test_degrade_blurs():
    image = noise(32, 32)
    found = degrade(image, blur_prob=1.0, blur=(1.2, 1.2))
    expected = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.2)
    assert np.abs(found - expected).max() <= 0.5
    blurred = [
        not np.array_equal(degrade(image, seed, blur_prob=0.3), image) for seed in range(500)
    ]
    assert abs(sum(blurred) - 150) < 4 * (500 * 0.3 * 0.7) ** 0.5


def test_degrade_adds_noise():
    image = np.full((64, 64, 3), 128, dtype=np.uint8)
    residual = degrade(image, noise=(5.0, 5.0)).astype(float) - 128
    # Rounding to whole gray levels adds a variance of 1/12.
    assert residual.std() == pytest.approx((25 + 1 / 12) ** 0.5, rel=0.05)
    assert abs(residual.mean()) < 0.3


def test_degrade_clips():
    black, white = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
    assert degrade(black, noise=(10.0, 10.0)).max() < 100
    assert degrade(white, noise=(10.0, 10.0)).min() > 155


def test_degrade_repeats():
    image = noise()
    assert np.array_equal(
        degrade(image, 5, noise=(0, 9), shrink=(0.3, 0.9)),
        degrade(image, 5, noise=(0, 9), shrink=(0.3, 0.9)),
    )


@pytest.mark.parametrize('mode', ['RGB', 'L', 'RGBA', 'P'])
def test_load(tmp_path, mode):
    pixels = noise(9, 7)
    image = Image.fromarray(pixels).convert(mode)
    image.save(tmp_path / 'face.png')
    found = LoadFace()(dict(img_path=str(tmp_path / 'face.png')))
    assert found['ori_shape'] == (9, 7)
    assert found['img'].shape == (9, 7, 3)
    assert found['img'].dtype == np.uint8
    assert np.array_equal(found['img'], np.asarray(image.convert('RGB')))
    if mode == 'RGB':
        # Red first: the order is not OpenCV's.
        assert np.array_equal(found['img'], pixels)


def test_load_keeps_an_array():
    image = noise()
    found = LoadFace()(dict(img=image, img_path='nowhere'))
    assert found['img'] is image
    assert found['ori_shape'] == (20, 24)


def test_read_image_of_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(str(tmp_path / 'nothing.png'))


def test_pack():
    image = noise()
    packed = PackFace()(
        dict(
            img=image,
            sample_idx=3,
            img_path='a.png',
            role='train',
            identity=9,
            gt_label=4,
            ori_shape=(5, 6),
            camera=2,
            secret=1,
        )
    )
    assert packed['inputs'].dtype is torch.uint8
    assert np.array_equal(packed['inputs'].numpy(), np.moveaxis(image, 2, 0))
    sample = packed['data_samples']
    assert sample.gt_label.dtype is torch.int64
    assert sample.gt_label == 4
    assert dict(sample.metainfo_items()) == dict(
        sample_idx=3, img_path='a.png', role='train', identity=9, ori_shape=(5, 6), camera=2
    )


def test_pack_without_label():
    packed = PackFace(meta_keys=('role',))(dict(img=noise(), role='ui', identity=-100))
    assert 'gt_label' not in packed['data_samples']
    assert packed['data_samples'].metainfo_keys() == ['role']


def test_packed_face_does_not_share_memory_with_the_image():
    image = noise()
    packed = PackFace()(dict(img=image))
    packed['inputs'].zero_()
    assert image.any()


def test_mmcv_is_not_needed():
    """All of mmvlr's transforms, and a pipeline of them, where mmcv cannot be imported."""
    program = """
import sys
sys.modules['mmcv'] = None
from mmvlr.datasets import SyntheticFaces
from mmvlr.datasets.transforms import BaseTransform
from mmvlr.registry import TRANSFORMS
TRANSFORMS.import_from_location()
transforms = [kind for kind in TRANSFORMS.module_dict.values() if isinstance(kind, type)]
assert len(transforms) > 12 and all(issubclass(kind, BaseTransform) for kind in transforms)
pipeline = [dict(type=name) for name in ('LoadFace', 'ResizeFace', 'FlipFace', 'PackFace')]
print(tuple(SyntheticFaces(num_people=2, pipeline=pipeline)[0]['inputs'].shape))
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stdout.strip().endswith('(3, 112, 112)'), done.stderr
