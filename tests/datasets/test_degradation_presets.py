"""Each step of a degradation against an independent reference, and the presets made of them."""

import io
import json
import math

import cv2
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from PIL import Image

from mmvlr.datasets import FaceFolder
from mmvlr.datasets.transforms import (
    BlurFace,
    DownUpFace,
    JPEGFace,
    MisalignFace,
    MotionBlurFace,
    NoiseFace,
    ShrinkFace,
    ToneFace,
    VLRDegradation,
)
from mmvlr.datasets.transforms.kernels import (
    crop_to_shape,
    disc_kernel,
    downsample,
    line_kernel,
)
from mmvlr.datasets.transforms.presets import PRESETS, STEPS, even_sizes, read_preset
from mmvlr.registry import TRANSFORMS
from mmvlr.utils.schema import FileFormatError


def face(height=60, width=48, seed=1):
    """A smooth image in the middle of the range: nothing clips."""
    rng = np.random.default_rng(seed)
    values = scipy.ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (2, 2, 0))
    return np.clip(128 + 300 * values, 10, 245).astype(np.float32)


def rng_of(seed=0):
    return np.random.default_rng(seed)


def test_gaussian_blur():
    image = face()
    found = BlurFace(sigma=(1.7, 1.7), defocus=0.0).degrade(image, rng_of())
    expected = scipy.ndimage.gaussian_filter(
        image.astype(float), (1.7, 1.7, 0), mode='mirror', truncate=4
    )
    assert np.abs(found - expected).max() < 0.05
    assert np.abs(found - image).max() > 5


def test_blur_is_in_native_pixels():
    image = face()
    found = BlurFace(sigma=(0.5, 0.5), defocus=0.0).degrade(image, rng_of(), pixel=4.0)
    expected = scipy.ndimage.gaussian_filter(image.astype(float), (2, 2, 0), mode='mirror')
    assert np.abs(found - expected).max() < 0.05


def test_defocus_blur():
    """A disc of radius 2 sigma, by its definition: the share of each pixel's area inside it."""
    image, radius = face(), 3.4
    points = (np.arange(100) + 0.5) / 100 - 0.5
    kernel = np.zeros((9, 9))
    for row in range(9):
        for column in range(9):
            y, x = row - 4 + points[:, None], column - 4 + points
            kernel[row, column] = (x**2 + y**2 <= radius**2).mean()
    kernel /= kernel.sum()
    found = BlurFace(sigma=(1.7, 1.7), defocus=1.0).degrade(image, rng_of())
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode='reflect')
    for channel in range(3):
        expected = scipy.signal.convolve2d(padded[..., channel], kernel, mode='valid')
        assert np.abs(found[..., channel] - expected).max() < 0.3


@pytest.mark.parametrize('radius', [0.2, 1.0, 2.6, 6.0])
def test_columns_of_the_disc(radius):
    """The area of a disc between two vertical lines has a closed form."""
    kernel = disc_kernel(radius).astype(float)
    half = len(kernel) // 2
    edges = np.clip(np.arange(-half, half + 2) - 0.5, -radius, radius)
    area = edges * np.sqrt(radius**2 - edges**2) + radius**2 * np.arcsin(edges / radius)
    expected = np.diff(area) / (np.pi * radius**2)
    assert kernel.sum(0) == pytest.approx(expected, abs=0.015)
    assert kernel.sum(1) == pytest.approx(expected, abs=0.015)


def test_no_blur_and_range_of_the_blur():
    image = face()
    assert BlurFace(sigma=(0.0, 0.0)).degrade(image, rng_of()) is image
    rough = [
        np.abs(np.diff(BlurFace(sigma=(0.5, 3)).degrade(image, rng_of(seed)), axis=0)).mean()
        for seed in range(60)
    ]
    ends = [
        np.abs(np.diff(scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0)), axis=0)).mean()
        for sigma in (0.5, 3)
    ]
    assert ends[1] * 0.9 < min(rough) < ends[1] * 1.4
    assert ends[0] * 0.7 < max(rough) < ends[0] * 1.1


def test_horizontal_motion_is_a_mean_over_the_path():
    kernel = line_kernel(5.0, 0.0)
    middle = len(kernel) // 2
    assert np.delete(kernel, middle, axis=0).max() < 1e-6
    along = kernel[middle].astype(float)
    offsets = np.arange(len(along)) - middle
    assert along.sum() == pytest.approx(1, abs=1e-6)
    # Uniform over 5 pixels (25 / 12), smeared by the linear interpolation (at most 1 / 4).
    assert 25 / 12 - 0.05 <= (along * offsets**2).sum() <= 25 / 12 + 0.25
    assert along[np.abs(offsets) <= 1] == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize('degrees', [0, 30, 90, 137])
def test_direction_of_the_motion(degrees):
    """The main axis of the kernel's second moments; y points down."""
    kernel = line_kernel(9.0, np.deg2rad(degrees)).astype(float)
    rows, columns = np.mgrid[: len(kernel), : len(kernel)] - len(kernel) // 2
    xx, yy, xy = ((kernel * m).sum() for m in (columns**2, rows**2, -rows * columns))
    found = np.rad2deg(np.arctan2(2 * xy, xx - yy) / 2) % 180
    assert abs((found - degrees + 90) % 180 - 90) < 1.5
    assert (kernel * rows).sum() == pytest.approx(0, abs=1e-6)
    assert (kernel * columns).sum() == pytest.approx(0, abs=1e-6)


def test_motion_blur():
    image = face()
    found = MotionBlurFace(length=(1.5, 1.5), prob=1.0).degrade(image, rng_of(3), pixel=4.0)
    angle = np.random.default_rng(3).uniform(size=2)[1] * math.pi
    kernel = line_kernel(6.0, angle).astype(float)
    pad = len(kernel) // 2
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode='reflect')
    expected = scipy.signal.convolve2d(padded[..., 1], kernel, mode='valid')
    assert np.abs(found[..., 1] - expected).max() < 0.05


def weights_of(kernel, distance):
    distance = abs(distance)
    if kernel == 'bilinear':
        return max(0, 1 - distance)
    if kernel == 'lanczos':
        return float(np.sinc(distance) * np.sinc(distance / 3)) if distance < 3 else 0.0
    if distance < 1:  # Keys' cubic with a = -1/2
        return 1.5 * distance**3 - 2.5 * distance**2 + 1
    return -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2 if distance < 2 else 0.0


def shrink_line(line, count, kernel):
    """Shrink a row of numbers: the formula of each kernel in plain loops."""
    scale = len(line) / count
    result = []
    for target in range(count):
        if kernel == 'nearest':
            result.append(line[int(target * scale)])
            continue
        total = value = 0.0
        for source, gray in enumerate(line):
            if kernel == 'area':
                weight = max(0, min(source + 1, (target + 1) * scale) - max(source, target * scale))
            else:
                weight = weights_of(kernel, (source + 0.5 - (target + 0.5) * scale) / scale)
            total, value = total + weight, value + weight * gray
        result.append(value / total)
    return np.array(result)


@pytest.mark.parametrize('kernel', ['area', 'nearest', 'bilinear', 'bicubic', 'lanczos'])
def test_downsampling(kernel):
    image = face(23, 31)
    found = downsample(image, (8, 12), kernel)
    assert found.shape == (8, 12, 3)
    for channel in range(3):
        rows = np.apply_along_axis(shrink_line, 1, image[..., channel].astype(float), 12, kernel)
        expected = np.apply_along_axis(shrink_line, 0, rows, 8, kernel)
        assert np.abs(found[..., channel] - expected).max() < 0.05


def test_kernels_are_drawn_evenly():
    image = face(24, 24)
    shrink = ShrinkFace(sizes=[(8, 8, 1)], kernels=('area', 'nearest', 'lanczos'))
    found = [shrink.degrade(image, rng_of(seed)).tobytes() for seed in range(600)]
    for kernel in ('area', 'nearest', 'lanczos'):
        count = found.count(downsample(image, (8, 8), kernel).tobytes())
        assert abs(count - 200) < 4 * (600 * 2 / 9) ** 0.5


def test_distribution_of_native_sizes():
    sizes = [(12, 10, 1), (16, 13, 5), (30, 30, 0), (24, 20, 2)]
    shrink, rng = ShrinkFace(sizes=sizes), rng_of()
    drawn = [shrink.draw_size(rng) for _ in range(4000)]
    for height, width, weight in sizes:
        share = weight / 8
        deviation = (4000 * share * (1 - share)) ** 0.5
        assert abs(drawn.count((height, width)) - 4000 * share) <= 4 * deviation
    image = face(120, 120)
    assert {shrink.degrade(image, rng).shape[:2] for _ in range(60)} == {
        (12, 10),
        (16, 13),
        (24, 20),
    }


def test_pixels_stay_square():
    """A circle stays a circle whatever the native size: the face is cropped, not squeezed."""
    rows, columns = np.mgrid[:120, :120] - 59.5
    circle = np.repeat(np.where(rows**2 + columns**2 < 900, 200, 20)[..., None], 3, 2)
    found = ShrinkFace(sizes=[(30, 20, 1)]).degrade(circle.astype(np.float32), rng_of())
    inside = found[..., 0] > 110
    assert found.shape[:2] == (30, 20)
    assert abs(int(inside.any(0).sum()) - int(inside.any(1).sum())) <= 1


def test_crop_is_central():
    image = np.arange(10 * 12 * 3, dtype=np.float32).reshape(10, 12, 3)
    assert np.array_equal(crop_to_shape(image, (5, 4)), image[:, 2:10])
    assert np.array_equal(crop_to_shape(image, (4, 8)), image[2:8])
    assert np.array_equal(crop_to_shape(image, (5, 6)), image)


def test_small_images_are_not_enlarged():
    image = face(10, 8)
    assert np.array_equal(ShrinkFace(sizes=[(20, 16, 1)]).degrade(image, rng_of()), image)


@pytest.mark.parametrize('level', [20.0, 128.0, 220.0])
def test_variance_of_the_noise(level):
    image = np.full((200, 200, 3), level, np.float32)
    found = NoiseFace(shot=(0.4, 0.4), read=(3.0, 3.0)).degrade(image, rng_of()).astype(float)
    expected = 0.4 * level + 9
    # Four standard deviations of a sample variance of 120,000 values.
    assert found.var() == pytest.approx(expected, rel=4 * (2 / 120_000) ** 0.5)
    assert found.mean() == pytest.approx(level, abs=4 * (expected / 120_000) ** 0.5)
    channels = found.reshape(-1, 3)
    assert abs(np.corrcoef(channels[:, 0], channels[:, 1])[0, 1]) < 0.02


def test_photons_come_in_whole_numbers():
    found = NoiseFace(shot=(5.0, 5.0), read=(0.0, 0.0)).degrade(face(), rng_of()) / 5
    assert np.abs(found - np.rint(found)).max() < 1e-4
    image = face()
    assert np.array_equal(NoiseFace((0, 0), (0, 0)).degrade(image, rng_of()), image)


def test_tone():
    image = face()
    found = ToneFace(gamma=(1.6, 1.6), contrast=(0.7, 0.7)).degrade(image, rng_of())
    expected = 255 * (0.5 + 0.7 * (np.power(image.astype(float) / 255, 1.6) - 0.5))
    assert np.abs(found - expected).max() < 0.01
    gray = np.full((2, 2, 3), 128, np.float32)
    gammas = [
        math.log(float(ToneFace((0.5, 2), (1, 1)).degrade(gray, rng_of(seed))[0, 0, 0]) / 255)
        / math.log(128 / 255)
        for seed in range(400)
    ]
    assert 0.5 <= min(gammas) < 0.55
    assert 1.9 < max(gammas) <= 2.0001
    # Evenly on a logarithmic scale: half of them darken.
    assert abs(sum(gamma > 1 for gamma in gammas) - 200) < 4 * 10


def test_jpeg():
    image = face(37, 29)
    found = JPEGFace(quality=(40, 40)).degrade(image, rng_of())
    pixels = np.rint(image).astype(np.uint8)
    stream = io.BytesIO()
    # 4:2:0 is Pillow's default.
    Image.fromarray(pixels).save(stream, 'JPEG', quality=40)
    assert np.array_equal(found, np.asarray(Image.open(stream)))
    _, code = cv2.imencode('.jpg', pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])
    by_opencv = cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1].astype(float)
    assert np.abs(found - by_opencv).mean() < 1.0
    assert np.abs(found - pixels).mean() > 1.0


def test_both_ends_of_the_quality_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        Image.Image,
        'save',
        lambda self, stream, form, quality, subsampling, save=Image.Image.save: (
            drawn.append(quality),
            save(self, stream, form, quality=quality, subsampling=subsampling),
        ),
    )
    jpeg = JPEGFace(quality=(30, 33))
    for seed in range(80):
        jpeg.degrade(face(8, 8), rng_of(seed))
    assert set(drawn) == {30, 31, 32, 33}


def test_misalignment_moves_points():
    image = np.zeros((61, 61, 3), np.float32)
    image[19:22, 39:42] = 200
    # The draws: two shifts, the scale, the angle.
    seed = 4
    shares = np.random.default_rng(seed).uniform(size=4)
    shift_x, shift_y = (-0.1 + 0.2 * shares[:2]) * 61
    scale, angle = 0.9 + 0.4 * shares[2], np.deg2rad(-10 + 20 * shares[3])
    found = MisalignFace(0.1, (0.9, 1.3), 10).degrade(image, rng_of(seed))[..., 0].astype(float)
    dx, dy = 40 - 30, 20 - 30
    expected_x = 30 + scale * (math.cos(angle) * dx + math.sin(angle) * dy) + shift_x
    expected_y = 30 + scale * (-math.sin(angle) * dx + math.cos(angle) * dy) + shift_y
    rows, columns = np.mgrid[:61, :61]
    assert (found * columns).sum() / found.sum() == pytest.approx(expected_x, abs=0.1)
    assert (found * rows).sum() / found.sum() == pytest.approx(expected_y, abs=0.1)
    assert found.sum() == pytest.approx(9 * 200 * scale**2, rel=0.1)


def test_misalignment_mirrors_the_border():
    image = np.full((30, 30, 3), 180, np.float32)
    found = MisalignFace(0.2, (0.7, 1.0), 20).degrade(image, rng_of())
    assert np.abs(found - 180).max() < 0.01


def test_down_up():
    image = face(40, 32)
    found = DownUpFace(factor=(0.5, 0.5), kernels=('area',), prob=1.0).degrade(image, rng_of())
    small = image.reshape(20, 2, 16, 2, 3).mean((1, 3))
    expected = cv2.resize(small, (32, 40), interpolation=cv2.INTER_CUBIC)
    assert np.abs(found - expected).max() < 0.01
    assert DownUpFace(factor=(1, 1), prob=1.0).degrade(image, rng_of()) is image


STRONG = {
    BlurFace: dict(sigma=(2, 2)),
    MotionBlurFace: dict(length=(6, 6)),
    NoiseFace: dict(read=(9, 9)),
    ToneFace: dict(gamma=(2, 2)),
    MisalignFace: dict(scale=(1.5, 1.5)),
    DownUpFace: dict(factor=(0.3, 0.3)),
    JPEGFace: dict(quality=(5, 5)),
    VLRDegradation: dict(),
}


@pytest.mark.parametrize('step', STRONG, ids=lambda step: step.__name__)
def test_probability_of_a_step(step):
    image = face(24, 24).astype(np.uint8)
    taken = step(**STRONG[step], prob=0.3)
    changed = 0
    for seed in range(300):
        found = taken(dict(img=image, rng=rng_of(seed)))['img']
        assert found.dtype == np.uint8
        changed += not np.array_equal(found, image)
    assert abs(changed - 90) < 4 * (300 * 0.21) ** 0.5


def test_a_step_alone_clips_and_rounds():
    white = np.full((40, 40, 3), 255, np.uint8)
    found = NoiseFace((0, 0), (10, 10))(dict(img=white, rng=rng_of()))['img']
    assert found.dtype == np.uint8
    assert found.min() > 150
    gray = np.full((40, 40, 3), 100, np.uint8)
    toned = ToneFace((1, 1), (0.99, 0.99))(dict(img=gray, rng=rng_of()))['img']
    assert (toned == round(127.5 - 0.99 * 27.5)).all()


@pytest.mark.parametrize('name', PRESETS)
def test_same_seed_same_image(name):
    image = face(112, 112).astype(np.uint8)
    before = image.copy()
    degrade = VLRDegradation(name)
    first, again, other = (degrade(dict(img=image, rng=rng_of(seed)))['img'] for seed in (5, 5, 6))
    assert first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    assert np.array_equal(image, before)
    heights = {height for height, _, _ in PRESETS[name]['native']['sizes']}
    assert {first.shape[0], other.shape[0]} <= heights


def test_presets_are_plain_values_and_built_by_name():
    assert set(PRESETS) == {'tinyface', 'scface_d1', 'scface_d2', 'scface_d3', 'survface'}
    for name, preset in PRESETS.items():
        assert read_preset(json.loads(json.dumps(preset))).keys() == preset.keys()
        assert TRANSFORMS.build(dict(type='VLRDegradation', preset=name)).parameters == preset
    areas = [
        np.mean([h * w for h, w, _ in PRESETS[f'scface_d{d}']['native']['sizes']])
        for d in (1, 2, 3)
    ]
    assert areas == sorted(areas)


def test_even_sizes():
    assert even_sizes(10, 12, 0.8) == [(10, 8, 1.0), (11, 9, 1.0), (12, 10, 1.0)]


def test_the_chain_is_the_steps_in_order():
    """Without randomness: the same by hand, at the source's resolution and then at the native."""
    image = face(80, 100)
    parameters = dict(
        jpeg=dict(quality=(60, 60)),
        down_up=dict(factor=(0.8, 0.8), kernels=('area',), prob=1.0),
        tone=dict(gamma=(1.3, 1.3), contrast=(0.9, 0.9)),
        native=dict(sizes=[(20, 16, 1)], kernels=('bicubic',)),
        blur=dict(sigma=(0.5, 0.5), defocus=0.0),
        misalign=dict(shift=0.0, scale=(1.25, 1.25), rotation=0.0),
    )
    found = VLRDegradation(parameters).degrade(image, rng_of())
    # Magnified by 1.25, cropped to the shape of 20 x 16, where a native pixel is 4 pixels wide.
    expected = MisalignFace(0.0, (1.25, 1.25), 0.0).degrade(image, rng_of())
    expected = scipy.ndimage.gaussian_filter(expected[:, 18:82], (2, 2, 0), mode='mirror')
    expected = downsample(expected, (20, 16), 'bicubic')
    expected = 255 * (0.5 + 0.9 * ((expected / 255) ** 1.3 - 0.5))
    expected = cv2.resize(
        cv2.resize(expected, (13, 16), interpolation=cv2.INTER_AREA),
        (16, 20),
        interpolation=cv2.INTER_CUBIC,
    )
    stream = io.BytesIO()
    Image.fromarray(np.rint(expected).astype(np.uint8)).save(stream, 'JPEG', quality=60)
    # Rounding in front of JPEG may fall to the other side here and there.
    difference = np.abs(found - np.asarray(Image.open(stream)).astype(float))
    assert difference.mean() < 0.5


def test_noise_comes_after_sampling():
    """In front of it, averaging would take the noise away."""
    image = np.full((112, 112, 3), 128, np.float32)
    parameters = dict(
        native=dict(sizes=[(28, 28, 1)]), noise=dict(shot=(0.0, 0.0), read=(6.0, 6.0))
    )
    found = VLRDegradation(parameters).degrade(image, rng_of())
    assert found.std() == pytest.approx(6, rel=0.1)


def test_a_step_leaves_the_draws_of_the_others_alone():
    image = face(112, 112)
    plain = dict(native=dict(sizes=even_sizes(10, 30)))
    with_noise = {**plain, 'noise': dict(shot=(0.1, 0.1)), 'motion': dict(prob=0.5)}
    sizes = [
        [VLRDegradation(p).degrade(image, rng_of(seed)).shape for seed in range(20)]
        for p in (plain, with_noise)
    ]
    assert sizes[0] == sizes[1]
    assert len(set(sizes[0])) > 5


def test_preset_of_a_file(tmp_path):
    path = tmp_path / 'mine.json'
    path.write_text(json.dumps(dict(parameters=PRESETS['survface'], fit=dict(seed=0))))
    image = face(112, 112).astype(np.uint8)
    found, expected = (
        VLRDegradation(preset)(dict(img=image, rng=rng_of()))['img']
        for preset in (str(path), 'survface')
    )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        (dict(native=dict(), sharpen=dict()), r"unknown steps \['sharpen'\]"),
        (dict(blur=dict()), "the step 'native' is missing"),
        (dict(native=dict(), blur=dict(sigma=(2, 1))), "step 'blur': sigma must be two ascending"),
        (dict(native=dict(), blur=dict(sigma=1.0)), "step 'blur': sigma must be two ascending"),
        (dict(native=dict(), blur=dict(radius=1.0)), "step 'blur': .*radius"),
        (dict(native=dict(), blur=dict(defocus=2)), "step 'blur': defocus must be"),
        (dict(native=dict(), motion=dict(length=(-1, 1))), "step 'motion': length must be"),
        (dict(native=dict(), jpeg=dict(quality=(0, 90))), "step 'jpeg': quality must be"),
        (dict(native=dict(), tone=dict(gamma=(0, 1))), "step 'tone': gamma must be"),
        (dict(native=dict(), noise=dict(read=(0, math.inf))), "step 'noise': read must be"),
        (dict(native=dict(), down_up=dict(factor=(0.5, 1.5))), "step 'down_up': factor must be"),
        (dict(native=dict(), misalign=dict(shift=1.0)), "step 'misalign': shift must be"),
        (dict(native=dict(), misalign=dict(rotation=-1)), "step 'misalign': rotation must be"),
        (dict(native=dict(sizes=[(8, 8)])), "step 'native': sizes must be a list"),
        (dict(native=dict(sizes=[])), "step 'native': sizes must be a list"),
        (dict(native=dict(sizes=[(0, 8, 1)])), "step 'native': sizes must have"),
        (dict(native=dict(sizes=[(8, 8, 0)])), "step 'native': sizes must have"),
        (dict(native=dict(kernels=('cubic',))), "step 'native': kernels must be"),
        (dict(native=dict(kernels='area')), "step 'native': kernels must be"),
        (dict(native=dict(), tone=dict(prob=1.5)), "step 'tone': prob must be"),
        # What would take gigabytes, or is beyond float64.
        (dict(native=dict(), blur=dict(sigma=(0, 1e6))), "step 'blur': sigma must be"),
        (dict(native=dict(), motion=dict(length=(0, 1e6))), "step 'motion': length must be"),
        (dict(native=dict(sizes=[(1e300, 8, 1)])), "step 'native': sizes must have"),
        (dict(native=dict(), jpeg=dict(quality=(1, 10**400))), "step 'jpeg': "),
    ],
)
def test_errors_name_step_and_argument(parameters, message):
    with pytest.raises(ValueError, match=message):
        VLRDegradation(parameters)


@pytest.mark.parametrize(
    'step',
    [
        MisalignFace(shift=-0.0, rotation=-0.0),
        BlurFace((0.0, -0.0)),
        NoiseFace((-0.0, 0), (0, -0.0)),
    ],
)
def test_a_negative_zero_is_zero(step):
    step.apply(face(), rng_of())


def test_errors_name_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"no preset 'tinyfaces'.*scface_d1"):
        VLRDegradation('tinyfaces')
    with pytest.raises(FileNotFoundError, match=r'absent\.json'):
        VLRDegradation(str(tmp_path / 'absent.json'))
    path = tmp_path / 'preset.json'
    for text, field in (
        ('{', ''),
        ('[' * 9999, ''),
        ('[]', 'content: '),
        ('{}', 'parameters: '),
        ('{"parameters": 3}', 'parameters: '),
        ('{"parameters": {"blur": 3}}', 'parameters.blur: '),
        ('{"parameters": {"native": {"sizes": [[8, 8]]}}}', "step 'native': sizes"),
        ('{"parameters": {"native": {"sizes": [[NaN, 8, 1]]}}}', ''),
    ):
        path.write_text(text)
        with pytest.raises(FileFormatError) as raised:
            VLRDegradation(str(path))
        assert str(raised.value).startswith(f'{path}: {field}')


def test_in_a_data_set(tmp_path):
    """From a pipeline: repeats within an epoch, changes with epoch and image."""
    for name in ('a', 'b'):
        (tmp_path / 'p').mkdir(exist_ok=True)
        Image.fromarray(face(112, 112).astype(np.uint8)).save(tmp_path / 'p' / f'{name}.png')
    pipeline = [dict(type='LoadFace'), dict(type='VLRDegradation'), dict(type='ResizeFace')]
    dataset = FaceFolder(str(tmp_path), pipeline=pipeline)
    first, again, other = (dataset[index]['img'] for index in (0, 0, 1))
    assert first.shape == (112, 112, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    dataset.set_epoch(1)
    assert not np.array_equal(first, dataset[0]['img'])


def test_steps_are_registered():
    for step in STEPS.values():
        assert TRANSFORMS.get(step.__name__) is step
