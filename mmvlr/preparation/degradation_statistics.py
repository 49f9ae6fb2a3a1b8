"""What a set of faces has lost, in numbers, and a degradation fitted to them.

Luminance is ITU-R BT.601 in gray levels, from 0 to 255. Every statistic is taken of one image;
a set is described by the three quantiles ``QUANTILES`` over its images, so that two sets with
the same mean but another spread differ.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.datasets.finding import Tree, find_images
from mmvlr.datasets.transforms.degradation import to_uint8
from mmvlr.datasets.transforms.geometric import resize
from mmvlr.datasets.transforms.presets import VLRDegradation

#: Side in pixels at which the spectrum is taken.
SPECTRUM_SIDE = 112

QUANTILES = (0.1, 0.5, 0.9)


def require_images(root: Path) -> Tree:
    """Find the images below a folder, see :func:`find_images`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image.
    """
    if not root.is_dir():
        raise FileNotFoundError(f'{root}: no such folder; expected a folder of images')
    found = find_images(root)
    if not found.images:
        raise ValueError(f'{root}: no image in this folder or the folders in it')
    return found


def luminance(image: np.ndarray) -> np.ndarray:
    """Return the luminance of an RGB image (H, W, 3) as float64 (H, W)."""
    return image.astype(np.float64) @ (0.299, 0.587, 0.114)


@cache
def window_and_rings(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the (side, side) Hann window and the rounded radius of each frequency, flat."""
    window = np.hanning(side + 2)[1:-1]
    frequency = np.fft.fftfreq(side, 1 / side)
    radius = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    return window[:, None] * window, radius.ravel()


def radial_power_spectrum(image: np.ndarray) -> np.ndarray:
    """Return how an image's power is shared among spatial frequencies.

    The mean is removed and a Hann window laid over the image, since a border that does not
    continue on the other side would look like power at all frequencies. Entry r - 1 is the mean
    power of the ring that rounds to radius r; the entries sum to 1. An image of one gray level
    has equal entries.

    Args:
        image: (N, N) luminance, N even.

    Returns:
        (N / 2,) float64, for 1 to N / 2 cycles an image.
    """
    window, radius = window_and_rings(image.shape[0])
    centered = image - (image * window).sum() / window.sum()
    power = np.abs(np.fft.fft2(centered * window)).ravel() ** 2
    rings = np.bincount(radius, power) / np.bincount(radius)
    spectrum = rings[1 : image.shape[0] // 2 + 1]
    # Rounding errors of a constant image would otherwise be normalized into a spectrum.
    spectrum = spectrum + 1e-9 * window.sum()
    return spectrum / spectrum.sum()


def noise_level(image: np.ndarray) -> float:
    """Estimate the standard deviation of white noise in gray levels.

    Immerkaer's mask ("Fast noise variance estimation", CVIU 1996) takes away planes and edges along
    an axis; white noise of deviation s leaves it with deviation 6 s. The median of the absolute
    answers replaces his mean: it heeds fewer of the answers to edges. In a very small face they
    still raise it, so it compares sets of like size rather than measures a sensor.

    Args:
        image: (H, W) luminance.

    Returns:
        The estimate; NaN where a side is below 3 pixels.
    """
    if min(image.shape) < 3:
        return float('nan')
    rows = image[:-2] - 2 * image[1:-1] + image[2:]
    answer = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    # 0.6745 is the median of the absolute value of a standard normal variable.
    return float(np.median(np.abs(answer)) / (6 * 0.674489750196))


def blockiness(image: np.ndarray) -> float:
    """Return the mean gradient across the borders of 8 x 8 blocks over that at all other places.

    About 1 without compression, more with the blocks of JPEG. Only at native size: resizing moves
    the blocks.

    Args:
        image: (H, W) luminance.

    Returns:
        The ratio, half a gray level added to both; NaN where there is no border.
    """
    borders, others = [], []
    for plane in (image, image.T):
        steps = np.abs(np.diff(plane, axis=1))
        at_border = np.arange(1, plane.shape[1]) % 8 == 0
        borders.append(steps[:, at_border].ravel())
        others.append(steps[:, ~at_border].ravel())
    border, other = np.concatenate(borders), np.concatenate(others)
    if not border.size or not other.size:
        return float('nan')
    return float((border.mean() + 0.5) / (other.mean() + 0.5))


@dataclass(frozen=True)
class DegradationStatistics:
    """Statistics of N faces.

    Attributes:
        sizes: (N, 2) native height and width in pixels.
        spectra: (N, 56) radial power spectra of the faces at 112 x 112, in dB.
        noise: (N,) :func:`noise_level` at native size.
        blockiness: (N,) :func:`blockiness` at native size.
        brightness: (N,) mean luminance.
        contrast: (N,) standard deviation of the luminance.
    """

    sizes: np.ndarray
    spectra: np.ndarray
    noise: np.ndarray
    blockiness: np.ndarray
    brightness: np.ndarray
    contrast: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def size_histogram(self) -> list[tuple[int, int, int]]:
        """Return (height, width, number of faces), sorted: ``sizes`` of ``ShrinkFace``."""
        counts = Counter((int(height), int(width)) for height, width in self.sizes)
        return [(*size, counts[size]) for size in sorted(counts)]

    def summary(self) -> dict[str, Any]:
        """Return quantiles and histogram as plain values; None for what no face can give."""

        def plain(values: np.ndarray) -> list:
            return [None if np.isnan(value) else round(float(value), 4) for value in values]

        sides = {'height': self.sizes[:, 0], 'width': self.sizes[:, 1]}
        return {
            'images': len(self),
            'quantiles': list(QUANTILES),
            **{name: plain(np.quantile(values, QUANTILES)) for name, values in sides.items()},
            'sizes': [list(entry) for entry in self.size_histogram()],
            'spectrum_db': [plain(row) for row in np.quantile(self.spectra, QUANTILES, axis=0)],
            **{
                name: plain(quantiles(getattr(self, name)))
                for name in ('noise', 'blockiness', 'brightness', 'contrast')
            },
        }


def quantiles(values: np.ndarray) -> np.ndarray:
    """Return ``QUANTILES`` of the values that are not NaN; NaN if none is left."""
    values = values[~np.isnan(values)]
    return np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)


def measure_faces(images: Iterable[np.ndarray]) -> DegradationStatistics:
    """Measure faces.

    Args:
        images: (H, W, 3) uint8 RGB, at their native sizes.

    Raises:
        ValueError: There is no face.
    """
    rows: list[tuple] = []
    for image in images:
        native = luminance(image)
        resized = luminance(resize(image, (SPECTRUM_SIDE, SPECTRUM_SIDE)))
        rows.append(
            (
                image.shape[:2],
                10 * np.log10(radial_power_spectrum(resized)),
                noise_level(native),
                blockiness(native),
                native.mean(),
                native.std(),
            )
        )
    if not rows:
        raise ValueError('there is no face to measure')
    return DegradationStatistics(*(np.array(column) for column in zip(*rows, strict=True)))


def decibels(first: np.ndarray, second: np.ndarray, floor: float) -> float:
    """Return the root mean square distance of the quantiles of two sets of amplitudes in dB.

    Args:
        first: (N,) amplitudes; NaN are left out.
        second: (M,) amplitudes.
        floor: Added to both: differences far below it do not count.

    Returns:
        The distance; 0 where one of the sets has no value, which says nothing about the other.
    """
    ratio = (quantiles(first) + floor) / (quantiles(second) + floor)
    return float(np.nan_to_num(np.sqrt(np.mean((20 * np.log10(ratio)) ** 2))))


def distance(first: DegradationStatistics, second: DegradationStatistics) -> dict[str, float]:
    """Return how far two sets of faces are apart, in dB.

    ``spectrum`` is the root mean square difference of the quantiles of the log spectra, each
    octave of frequencies with the same weight: above the native resolution there are most
    frequencies and hardly any image. ``noise``, ``blockiness``, ``brightness`` and ``contrast``
    are root mean square differences of the quantiles; the spectrum, being normalized, sees neither
    of the last two. ``total`` is the root of the sum of the five squares.
    """
    gap = np.quantile(first.spectra, QUANTILES, axis=0)
    gap = gap - np.quantile(second.spectra, QUANTILES, axis=0)
    weights = 1 / np.arange(1, gap.shape[1] + 1)
    terms = {
        'spectrum': float(np.sqrt((gap**2).mean(0) @ weights / weights.sum())),
        'noise': decibels(first.noise, second.noise, 0.5),
        'blockiness': decibels(first.blockiness, second.blockiness, 0.0),
        'brightness': decibels(first.brightness, second.brightness, 1.0),
        'contrast': decibels(first.contrast, second.contrast, 1.0),
    }
    return {**terms, 'total': float(np.sqrt(sum(term**2 for term in terms.values())))}


def degrade_faces(
    sources: Sequence[np.ndarray], parameters: dict[str, dict], samples: int, seed: int
) -> list[np.ndarray]:
    """Return ``samples`` degraded copies of the sources in turn, each with a seed of its own."""
    degrade = VLRDegradation(parameters)
    return [
        to_uint8(
            degrade.apply(
                sources[index % len(sources)].astype(np.float32),
                np.random.default_rng((seed, index)),
            )
        )
        for index in range(samples)
    ]


@dataclass(frozen=True)
class Searched:
    """An argument that the fit searches: the ends of a range, or a probability.

    Attributes:
        step: Name of the step in a preset.
        lowest: Smallest value.
        highest: Largest value.
        change: First change of a value.
        get: Reads the values from the step's arguments.
        put: Returns the arguments that express the values.
    """

    step: str
    lowest: float
    highest: float
    change: float
    get: Callable[[dict], Sequence[float]]
    put: Callable[[tuple[float, ...]], dict]


def searched_range(
    step: str, argument: str, lowest: float, highest: float, change: float
) -> Searched:
    """Return the search of a range that stands in the arguments as it is."""
    return Searched(
        step, lowest, highest, change, lambda found: found[argument], lambda ends: {argument: ends}
    )


def searched_probability(step: str) -> Searched:
    """Return the search of a step's probability."""
    return Searched(
        step, 0.0, 1.0, 0.2, lambda found: (found['prob'],), lambda ends: {'prob': ends[0]}
    )


def compute_noise(arguments: dict) -> list[float]:
    """Return the deviation of the noise at mid-gray for the low and high ends of its ranges."""
    ends = zip(arguments['shot'], arguments['read'], strict=True)
    return [float(np.sqrt(shot * 127.5 + read**2)) for shot, read in ends]


def noise_arguments(ends: tuple[float, ...]) -> dict:
    """Return the ranges for a deviation at mid-gray, half the variance by photons."""
    return dict(
        shot=tuple(round(end**2 / 2 / 127.5, 5) for end in ends),
        read=tuple(round(end / float(np.sqrt(2)), 4) for end in ends),
    )


#: What :func:`fit_preset` searches, in this order. Noise is one range, its deviation at mid-gray:
#: the statistics cannot tell photons from read-out.
SEARCHED = (
    searched_range('blur', 'sigma', 0.0, 3.0, 0.3),
    searched_probability('motion'),
    searched_probability('down_up'),
    Searched('noise', 0.0, 30.0, 2.0, compute_noise, noise_arguments),
    searched_range('tone', 'gamma', 0.2, 5.0, 0.2),
    searched_range('tone', 'contrast', 0.1, 3.0, 0.2),
    Searched(
        'jpeg',
        5,
        100,
        12,
        lambda found: found['quality'],
        lambda ends: {'quality': tuple(round(end) for end in ends)},
    ),
)


def fit_preset(
    sources: Sequence[np.ndarray],
    target: DegradationStatistics,
    start: dict[str, dict],
    samples: int = 120,
    halvings: int = 2,
    seed: int = 0,
    report: Callable[[int, float], None] = lambda evaluations, lowest: None,
) -> dict[str, dict]:
    """Fit the parameters of ``VLRDegradation`` to measured faces.

    The native sizes become those of the target, each as often. What ``SEARCHED`` lists is found by
    pattern search (Hooke and Jeeves, "Direct search solution of numerical and statistical
    problems", JACM 1961) on ``distance(...)['total']``: a range is moved as a whole, then each end,
    up or down by its change, and stays where the distance falls; after a round that helped, its
    sum of moves is tried once more; after one that did not, all changes are halved. Every
    evaluation draws the same random numbers, so the search is deterministic. All else stays as in
    ``start``; a step that is missing there is not searched.

    Args:
        sources: High-resolution faces, (H, W, 3) uint8 RGB.
        target: Statistics of the faces to resemble.
        start: Parameters to start from, with all searched arguments of the steps they have.
        samples: Degraded faces an evaluation.
        halvings: How often the changes are halved.
        seed: Seed of the degradation.
        report: Called with the number of evaluations and the smallest distance so far.

    Returns:
        The parameters.

    Raises:
        ValueError: There is no source, or ``start`` lacks an argument.
    """
    if not sources:
        raise ValueError('there is no source')
    start = {**start, 'native': {**start['native'], 'sizes': target.size_histogram()}}
    searches = [searched for searched in SEARCHED if searched.step in start]
    try:
        values = [end for s in searches for end in s.get(start[s.step])]
    except KeyError as error:
        raise ValueError(f'the start preset must give the argument {error}') from error
    counts = [len(searched.get(start[searched.step])) for searched in searches]
    places = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    lowest, highest, change = (
        np.repeat([getattr(s, name) for s in searches], counts)
        for name in ('lowest', 'highest', 'change')
    )
    # A range as a whole first: an end alone changes the spread too, which may hide what it gains.
    units = np.eye(sum(counts))
    moves = [
        move
        for place in places
        for move in ([units[place].sum(0)] if len(place) > 1 else []) + list(units[place])
    ]
    evaluations = 0

    def build_parameters(values: np.ndarray) -> dict[str, dict]:
        parameters = {step: dict(arguments) for step, arguments in start.items()}
        for searched, place in zip(searches, places, strict=True):
            ends = tuple(round(float(end), 4) for end in np.sort(values[place]))
            parameters[searched.step].update(searched.put(ends))
        return parameters

    def better(values: np.ndarray) -> bool:
        nonlocal best, least, evaluations
        values = np.clip(values, lowest, highest)
        if np.array_equal(values, best):
            return False
        evaluations += 1
        faces = degrade_faces(sources, build_parameters(values), samples, seed)
        found = distance(measure_faces(faces), target)['total']
        smaller = found < least
        if smaller:
            best, least = values, found
        report(evaluations, least)
        return smaller

    best, least = np.full(sum(counts), np.nan), np.inf
    better(np.array(values, dtype=float))
    for _ in range(halvings + 1):
        improved = True
        while improved:
            before = best
            for move in moves:
                if not better(best + move * change):
                    better(best - move * change)
            improved = not np.array_equal(before, best)
            if improved:
                better(best + (best - before))
        change = change / 2
    return build_parameters(best)
