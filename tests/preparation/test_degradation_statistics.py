"""Statistics of degraded faces on images whose answer is known, and the fit on a known preset."""

import json

import cv2
import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from mmvlr.datasets.synthesis import synthesize_face
from mmvlr.datasets.transforms import JPEGFace, NoiseFace
from mmvlr.datasets.transforms.presets import PRESETS
from mmvlr.preparation.degradation_fitting import degrade_faces, fit_preset
from mmvlr.preparation.degradation_statistics import (
    DegradationStatistics,
    blockiness,
    distance,
    luminance,
    measure_faces,
    noise_level,
    radial_power_spectrum,
    require_images,
)


def smooth_faces(count, height=20, width=16, sigma=2.0, seed=0):
    rng = np.random.default_rng(seed)
    faces = []
    for _ in range(count):
        values = scipy.ndimage.gaussian_filter(rng.normal(size=(height, width)), sigma)
        values = 128 + 40 * values / values.std()
        faces.append(np.repeat(np.clip(values, 0, 255).astype(np.uint8)[..., None], 3, 2))
    return faces


def test_luminance():
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    found = luminance(image)
    assert found.dtype == np.float64
    red, green, blue = (float(value) for value in image[3, 2])
    assert found[3, 2] == pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue)


def slow_spectrum(image):
    """The definition with a discrete Fourier transform written out as a sum."""
    side = len(image)
    # scipy's periodic-free Hann window without its zero ends.
    window = scipy.signal.get_window('hann', side + 1, fftbins=True)[1:]
    window = np.outer(window, window)
    windowed = (image - np.average(image, weights=window)) * window
    rings = {}
    for u in range(-side // 2, side // 2):
        for v in range(-side // 2, side // 2):
            wave = np.exp(
                -2j * np.pi * (u * np.arange(side)[:, None] + v * np.arange(side)[None, :]) / side
            )
            ring = round(float(np.hypot(u, v)))
            rings.setdefault(ring, []).append(abs((windowed * wave).sum()) ** 2)
    means = np.array([np.mean(rings[ring]) for ring in range(1, side // 2 + 1)])
    return means / means.sum()


def test_spectrum_by_definition():
    image = np.random.default_rng(0).uniform(0, 255, (16, 16))
    assert radial_power_spectrum(image) == pytest.approx(slow_spectrum(image), rel=1e-6)


@pytest.mark.parametrize(('cycles', 'axis'), [(5, 0), (20, 1), (50, 0)])
def test_spectrum_of_a_wave(cycles, axis):
    wave = 100 + 50 * np.sin(2 * np.pi * cycles * np.arange(112) / 112)
    image = np.repeat(wave[:, None], 112, 1)
    found = radial_power_spectrum(image if axis == 0 else image.T)
    assert found.shape == (56,)
    assert found.argmax() == cycles - 1
    assert found[cycles - 3 : cycles + 2].sum() > 0.99
    # The window: brightness and a border that does not continue are no power.
    assert found == pytest.approx(radial_power_spectrum(image + 90 if axis == 0 else image.T + 90))


def test_spectrum_of_white_noise_is_flat():
    rng = np.random.default_rng(0)
    found = np.mean([radial_power_spectrum(rng.normal(size=(112, 112))) for _ in range(20)], axis=0)
    assert found[5:] == pytest.approx(1 / 56, rel=0.15)


def test_spectrum_of_one_gray_level():
    found = radial_power_spectrum(np.full((112, 112), 77.0))
    assert found == pytest.approx(1 / 56, rel=0.01)
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize('sigma', [2.0, 8.0])
def test_noise_level(sigma):
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(200) * 0.4, np.arange(200) * 0.3)
    noisy = ramp + rng.normal(0, sigma, (200, 200))
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.04)
    assert noise_level(ramp) == pytest.approx(0, abs=1e-9)
    # A straight edge along an axis is not noise.
    noisy[:, 100:] += 100
    assert noise_level(noisy) == pytest.approx(sigma, rel=0.04)


def test_noise_level_by_convolution():
    image = np.random.default_rng(1).uniform(0, 255, (20, 17))
    mask = [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]
    answers = scipy.signal.convolve2d(image, mask, mode='valid')
    expected = np.median(np.abs(answers)) / 0.67449 / 6
    assert noise_level(image) == pytest.approx(expected, rel=1e-4)
    assert np.isnan(noise_level(image[:2]))


def test_blockiness_by_loops():
    image = np.random.default_rng(0).uniform(0, 255, (21, 17))
    border, other = [], []
    for y in range(21):
        for x in range(17):
            if x > 0:
                (border if x % 8 == 0 else other).append(abs(image[y, x] - image[y, x - 1]))
            if y > 0:
                (border if y % 8 == 0 else other).append(abs(image[y, x] - image[y - 1, x]))
    expected = (np.mean(border) + 0.5) / (np.mean(other) + 0.5)
    assert blockiness(image) == pytest.approx(expected)


def test_blockiness_rises_with_compression():
    image = smooth_faces(1, 96, 96, sigma=5)[0]
    found = [
        blockiness(luminance(JPEGFace((q, q)).degrade(image, np.random.default_rng(0))))
        for q in (95, 40, 5)
    ]
    assert blockiness(luminance(image)) == pytest.approx(1, abs=0.1)
    assert found == sorted(found)
    assert found[2] > 2
    assert np.isnan(blockiness(np.zeros((8, 8))))


def test_measured_faces():
    faces = smooth_faces(3, 20, 16) + smooth_faces(1, 24, 18)
    found = measure_faces(iter(faces))
    assert len(found) == 4
    assert found.size_histogram() == [(20, 16, 3), (24, 18, 1)]
    assert found.spectra.shape == (4, 56)
    assert found.brightness == pytest.approx([face.mean() for face in faces])
    assert found.contrast == pytest.approx([face[..., 0].std() for face in faces])
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary['images'] == 4
    assert summary['height'] == [20, 20, pytest.approx(22.8)]
    assert summary['noise'] == pytest.approx(np.quantile(found.noise, (0.1, 0.5, 0.9)), abs=1e-4)
    assert np.shape(summary['spectrum_db']) == (3, 56)


def test_faces_too_small_for_a_statistic():
    found = measure_faces([np.full((2, 7, 3), 90, np.uint8)])
    summary = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert summary['noise'] == summary['blockiness'] == [None] * 3
    assert distance(found, measure_faces(smooth_faces(3)))['noise'] == 0


def test_no_face():
    with pytest.raises(ValueError, match='no face'):
        measure_faces([])


def test_distance_by_hand():
    def statistics(spectrum, noise):
        ones = np.ones(4)
        spectra = np.tile(np.asarray(spectrum, float), (4, 1))
        return DegradationStatistics(
            np.ones((4, 2)), spectra, np.array(noise, float), ones, 99 * ones, 49 * ones
        )

    first = statistics([-1, -2, -30], [1.5, 1.5, 1.5, np.nan])
    second = statistics([-1, -6, -30], [3.5] * 4)
    found = distance(first, second)
    # 4 dB at the second of three frequencies, whose weight is 1/2 of 1 + 1/2 + 1/3.
    assert found['spectrum'] == pytest.approx((16 * 0.5 / (1 + 1 / 2 + 1 / 3)) ** 0.5)
    # (1.5 + 0.5) against (3.5 + 0.5): half the amplitude.
    assert found['noise'] == pytest.approx(20 * np.log10(2))
    assert found['blockiness'] == found['brightness'] == found['contrast'] == 0
    assert found['total'] == pytest.approx(np.hypot(found['spectrum'], found['noise']))
    assert distance(second, first) == pytest.approx(found)
    assert distance(first, first)['total'] == 0


def test_distance_tells_each_loss():
    faces = smooth_faces(12, 32, 24)
    base = measure_faces(faces)

    def after(change):
        changed = measure_faces(
            [np.clip(change(f.astype(float)), 0, 255).astype('u1') for f in faces]
        )
        return distance(changed, base)

    rng = np.random.default_rng(0)
    noisy = after(lambda face: NoiseFace((0, 0), (9, 9)).degrade(face, rng))
    assert noisy['noise'] > 6
    blurred = after(lambda face: scipy.ndimage.gaussian_filter(face, (2, 2, 0)))
    assert blurred['spectrum'] > 1.5
    darker = after(lambda face: face - 20)
    assert darker['brightness'] == pytest.approx(20 * np.log10(129 / 109), abs=0.2)
    assert darker['spectrum'] < 0.5
    flatter = after(lambda face: 128 + 0.5 * (face - 128))
    assert 5 < flatter['contrast'] < 6.1


def test_sets_of_the_same_mean_and_another_spread_differ():
    even, odd = smooth_faces(10), smooth_faces(10)
    odd = [
        np.clip(f.astype(int) + (-40, 40)[i % 2], 0, 255).astype('u1') for i, f in enumerate(odd)
    ]
    assert distance(measure_faces(even), measure_faces(odd))['brightness'] > 1.5


def test_degraded_faces_have_a_seed_each():
    sources = smooth_faces(2, 112, 112, sigma=6)
    preset = PRESETS['scface_d1']
    first = degrade_faces(sources, preset, 5, seed=3)
    longer = degrade_faces(sources, preset, 7, seed=3)
    other = degrade_faces(sources, preset, 5, seed=4)
    assert len(longer) == 7
    assert all(np.array_equal(a, b) for a, b in zip(first, longer[:5], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert not np.array_equal(first[0], first[2])


@pytest.fixture(scope='module')
def sources():
    faces = [synthesize_face(person, 0).image for person in range(6)]
    return [cv2.resize(face, (112, 112), interpolation=cv2.INTER_CUBIC) for face in faces]


def test_fit_finds_a_known_degradation(sources):
    """Target and search draw the same numbers: at the truth the distance is nought."""
    start = dict(
        blur=dict(sigma=(0.1, 0.3), defocus=0.0),
        native=dict(sizes=[(30, 30, 1)], kernels=('area',)),
        noise=dict(shot=(0.0, 0.0), read=(0.0, 0.0)),
    )
    truth = dict(
        blur=dict(sigma=(0.7, 0.9), defocus=0.0),
        native=dict(sizes=[(20, 16, 1)], kernels=('area',)),
        noise=dict(shot=(0.1412, 0.1412), read=(4.2426, 4.2426)),
    )
    target = measure_faces(degrade_faces(sources, truth, 12, seed=0))
    calls = []
    found = fit_preset(
        sources, target, start, samples=12, halvings=0, report=lambda *call: calls.append(call)
    )
    assert found['native'] == dict(sizes=[(20, 16, 12)], kernels=('area',))
    best = [lowest for _, lowest in calls]
    assert best == sorted(best, reverse=True)
    assert best[-1] < 0.3 * best[0]
    assert [count for count, _ in calls] == list(range(1, len(calls) + 1))
    # Half and half of the variance at mid-gray, 36, that noise of deviation 6 has.
    assert np.mean(found['noise']['read']) == pytest.approx(18**0.5, abs=1)
    assert np.mean(found['noise']['shot']) == pytest.approx(18 / 127.5, abs=0.06)
    assert np.mean(found['blur']['sigma']) == pytest.approx(0.8, abs=0.25)
    assert distance(measure_faces(degrade_faces(sources, found, 12, 0)), target)[
        'total'
    ] == pytest.approx(best[-1])
    # The start is left as it was.
    assert start['noise'] == dict(shot=(0.0, 0.0), read=(0.0, 0.0))


def test_fit_repeats(sources):
    target = measure_faces(smooth_faces(4) + smooth_faces(2, 24, 18))
    fits = [
        fit_preset(sources, target, PRESETS['scface_d1'], samples=2, halvings=0) for _ in range(2)
    ]
    assert fits[0] == fits[1]
    assert fits[0]['native'] == dict(sizes=[(20, 16, 4), (24, 18, 2)], kernels=('area',))
    assert fits[0]['misalign'] == PRESETS['scface_d1']['misalign']
    assert fits[0].keys() == PRESETS['scface_d1'].keys()


def test_fit_leaves_out_steps_that_the_start_lacks(sources):
    start = dict(native=dict(kernels=('area',)), blur=dict(sigma=(0.2, 0.4)))
    target = measure_faces(smooth_faces(4, sigma=3.0))
    found = fit_preset(sources, target, start, samples=4, halvings=0)
    assert found.keys() == start.keys()
    assert found['blur']['sigma'] != (0.2, 0.4)


def test_fit_needs_a_source_and_the_arguments(sources):
    target = measure_faces(smooth_faces(3))
    with pytest.raises(ValueError, match='no source'):
        fit_preset([], target, PRESETS['tinyface'])
    with pytest.raises(ValueError, match="must give the argument 'contrast'"):
        fit_preset(sources, target, dict(native=dict(), tone=dict(gamma=(1, 1))))


def test_images_of_a_tree(tmp_path):
    for name in ('b.png', 'a/2.JPG', 'a/1.jpg', 'a/notes.txt', '.hidden/3.png', 'a/._1.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    tree = require_images(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in tree.images]
    assert names == ['b.png', 'a/1.jpg', 'a/2.JPG']
    assert [path.name for path in tree.others] == ['notes.txt']
    with pytest.raises(FileNotFoundError, match='absent: no such folder'):
        require_images(tmp_path / 'absent')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty: no image'):
        require_images(tmp_path / 'empty')
