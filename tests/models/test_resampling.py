"""Batches transformed on the device against OpenCV, one image at a time, and slow formulas."""

import cv2
import numpy as np
import pytest
import torch

from mmvlr.datasets.transforms import PackNativeFace
from mmvlr.datasets.transforms.formatting import native_collate
from mmvlr.models import FaceDataPreprocessor
from mmvlr.models.resampling import (
    STEPS,
    cubic_taps,
    flip,
    rescale,
    resize_matrix,
    resize_native,
    rotate,
)

#: (height, width) from 8 to 160 pixels, oblong both ways, smaller and larger than 112.
SIZES = [(8, 8), (8, 13), (15, 11), (20, 16), (24, 19), (64, 64), (112, 112), (100, 130), (160, 97)]


def noise(sizes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def native(images, size=(112, 112)):
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1) for image in images]))
    sizes = torch.tensor([image.shape[:2] for image in images])
    return resize_native(pixels, sizes, int(sizes[:, 0].sum()), size)


def stills(images):
    return images.permute(0, 2, 3, 1).numpy()


def batch_of(*images):
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def assert_close_levels(found, expected):
    """At least 99.9 % of the pixels within 2 gray levels, and whole levels."""
    assert np.array_equal(found, np.rint(found))
    off = np.abs(found - np.asarray(expected, np.float64))
    assert (off <= 2).mean() >= 0.999, f'{(off > 2).mean():.4%} off, worst {off.max()}'


def keys_kernel(x):
    x = abs(x)
    if x <= 1:
        return 1.25 * x**3 - 2.25 * x**2 + 1
    return -0.75 * x**3 + 3.75 * x**2 - 6 * x + 3 if x < 2 else 0.0


@pytest.mark.parametrize(('source', 'target'), [(3, 7), (9, 4), (5, 5), (1, 3)])
def test_taps_against_the_formula(source, target):
    indices, weights = cubic_taps(torch.tensor([source]), target)
    found = np.zeros((target, source))
    np.add.at(found, (np.arange(target)[:, None], indices[0].numpy()), weights[0].numpy())
    expected = np.zeros((target, source))
    for y in range(target):
        place = (y + 0.5) * source / target - 0.5
        for pixel in range(-4, source + 4):
            expected[y, min(max(pixel, 0), source - 1)] += keys_kernel(place - pixel)
    assert found == pytest.approx(expected, abs=1e-5)
    assert resize_matrix(source, target, torch.device('cpu')).numpy() == pytest.approx(found)


@pytest.mark.parametrize('size', [(112, 112), (48, 40)])
def test_faces_of_all_sizes_in_one_batch(size):
    images = noise(SIZES)
    found = stills(native(images, size))
    for image, face in zip(images, found, strict=True):
        expected = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
        assert_close_levels(face, expected)
        # Ties are rounded one way or the other; a wrong weight would be seen far more often.
        assert (face == expected).mean() > 0.98
        assert np.abs(face - expected).max() <= 1


def test_a_face_does_not_depend_on_its_neighbors():
    images = noise(SIZES)
    together = native(images)
    for index, image in enumerate(images):
        assert torch.equal(native([image])[0], together[index])


def test_flip():
    images = batch_of(*noise([(5, 4)] * 3))
    found = flip(images, torch.tensor([1.0, 0.0, 1.0]))
    for face, image, mirrored in zip(stills(found), stills(images), (1, 0, 1), strict=True):
        assert np.array_equal(face, image[:, ::-1] if mirrored else image)


@pytest.mark.parametrize('size', [(112, 112), (40, 52)])
def test_rotation(size):
    angles = [-10.0, -3.3, 0.0, 1e-3, 7.77, 10.0]
    images = noise([size] * len(angles))
    found = stills(rotate(batch_of(*images), torch.tensor(angles, dtype=torch.float64)))
    for image, angle, face in zip(images, angles, found, strict=True):
        height, width = size
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        expected = cv2.warpAffine(
            image, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
        )
        assert_close_levels(face, expected)
        if angle == 0:
            assert np.array_equal(face, image)


@pytest.mark.parametrize('size', [(112, 112), (96, 80)])
def test_rescale(size):
    sides = [64, 0, 100, 64, 100, 0]
    images = noise([size] * len(sides))
    batch = batch_of(*images)
    found = stills(rescale(batch, torch.tensor(sides, dtype=torch.float64)))
    assert np.array_equal(stills(batch), images), 'changed in place'
    for image, side, face in zip(images, sides, found, strict=True):
        if not side:
            assert np.array_equal(face, image)
            continue
        small = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
        expected = cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)
        assert_close_levels(face, expected)


def test_rescale_of_nobody_copies_nothing():
    images = batch_of(*noise([(8, 8)]))
    assert rescale(images, torch.zeros(1)) is images


def packed(images, transforms=(), seed=0):
    pack = PackNativeFace(transforms)
    return native_collate(
        [
            pack(dict(img=image, gt_label=n, sample_idx=n, rng=np.random.default_rng((seed, n))))
            for n, image in enumerate(images)
        ]
    )


ALL = [dict(type='FlipFace'), dict(type='RotateFace'), dict(type='RescaleFace')]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('inference', [False, True])
def test_autocast_changes_nothing(dtype, inference):
    batch = packed(noise(SIZES), ALL)
    assert {0.0, 64.0, 100.0} == set(batch['inputs']['draws'][:, 2])
    preprocessor = FaceDataPreprocessor()
    expected = preprocessor(batch)['inputs']
    with torch.autocast('cpu', dtype), torch.inference_mode(inference):
        found = preprocessor(batch)['inputs']
    assert found.dtype is torch.float32
    assert torch.equal(found, expected)
    # What inference mode cached must serve training as well.
    assert torch.equal(preprocessor(batch)['inputs'], expected)


def test_records_and_contract_of_a_native_batch():
    images = noise([(20, 16), (112, 112)])
    contract = dict(color_order='BGR', mean=(1, 2, 3), std=(2, 4, 8))
    result = FaceDataPreprocessor(**contract)(packed(images))
    assert [sample.sample_idx for sample in result['data_samples']] == [0, 1]
    assert [sample.gt_label.item() for sample in result['data_samples']] == [0, 1]
    assert result['data_samples'][0].gt_label.dtype is torch.int64
    levels = stills(result['inputs'])[..., ::-1] * (8, 4, 2) + (3, 2, 1)
    assert np.abs(levels[1] - images[1]).max() < 1e-4
    assert_close_levels(
        np.rint(levels[0]), cv2.resize(images[0], (112, 112), interpolation=cv2.INTER_CUBIC)
    )


def test_another_interpolation_of_the_contract_is_an_error():
    with pytest.raises(ValueError, match=r"interpolation is 'area'.*bicubic.*ResizeFace"):
        FaceDataPreprocessor(interpolation='area')(packed(noise([(20, 16)])))


def test_native_faces_that_do_not_say_so_stay_an_error():
    images = [torch.zeros(3, 20, 16, dtype=torch.uint8)]
    with pytest.raises(ValueError, match='ResizeFace'):
        FaceDataPreprocessor()(dict(inputs=images, data_samples=None))


def test_every_packed_step_is_known():
    assert set(PackNativeFace(ALL).steps) == set(STEPS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu_without_waiting():
    batch = packed(noise(SIZES), ALL)
    expected = FaceDataPreprocessor().resampled(batch['inputs'])
    preprocessor = FaceDataPreprocessor().cuda()
    preprocessor(batch)  # Makes and copies the matrices of the rescaling.
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        found = preprocessor.resampled(batch['inputs'])
        records = preprocessor.records(batch['data_samples'])
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert_close_levels(stills(found.cpu()), stills(expected))
    assert records[1].gt_label.device.type == 'cuda'
