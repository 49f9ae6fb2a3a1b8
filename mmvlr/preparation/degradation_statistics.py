"""What a set of faces has lost, in numbers.

Luminance is ITU-R BT.601 in gray levels, from 0 to 255. Every statistic is taken of one image;
a set is described by the three quantiles ``QUANTILES`` over its images, so that two sets with
the same mean but another spread differ.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.datasets.finding import Tree, find_images
from mmvlr.datasets.transforms.geometric import resize

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
