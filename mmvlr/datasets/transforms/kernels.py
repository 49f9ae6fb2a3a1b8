"""Kernels of blur and downsampling, functions that apply them, and checks of arguments."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from .geometric import resize

#: Kernels of downsampling. ``area`` averages exactly what a pixel covers; ``nearest`` aliases; the
#: others are Pillow's, stretched over the footprint of a pixel, and do not alias.
KERNELS = {
    'area': None,
    'nearest': None,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}


def check_range(
    name: str, value: Sequence[float], lowest: float = 0.0, highest: float = np.inf
) -> tuple[float, float]:
    """Check a range and return it as (low, high).

    Raises:
        ValueError: It is not two numbers, lowest <= low <= high <= highest.
    """
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not lowest <= low <= high <= highest or not np.isfinite(high):
        raise ValueError(
            f'{name} must be two ascending numbers from {lowest:g} to {highest:g}, not {value!r}'
        )
    # NumPy refuses to draw between 0.0 and -0.0.
    return low + 0.0, high + 0.0


def check_kernels(kernels: Sequence[str]) -> tuple[str, ...]:
    """Check names of kernels and return them as a tuple.

    Raises:
        ValueError: It is empty, or a name is unknown.
    """
    if isinstance(kernels, str) or not kernels or not set(kernels) <= set(KERNELS):
        raise ValueError(f'kernels must be a list of {sorted(KERNELS)}, not {kernels!r}')
    return tuple(kernels)


def disc_kernel(radius: float) -> np.ndarray:
    """Return the (k, k) float32 kernel of a defocused lens, an antialiased disc.

    Args:
        radius: In pixels.
    """
    half = int(np.ceil(radius + 0.5))
    fine = 8
    steps = (np.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(np.float32)
    side = 2 * half + 1
    kernel = inside.reshape(side, fine, side, fine).sum((1, 3))
    if not kernel.any():
        kernel[half, half] = 1
    return kernel / kernel.sum()


def line_kernel(length: float, angle: float) -> np.ndarray:
    """Return the (k, k) float32 kernel of a uniform motion.

    Args:
        length: Length of the path during the exposure, in pixels.
        angle: In radians, counter-clockwise on the screen from the x axis.
    """
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1,) * 2, np.float32)
    count = 8 * half + 1
    along = ((np.arange(count) + 0.5) / count - 0.5) * length
    x, y = half + along * np.cos(angle), half - along * np.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for row, row_share in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, column_share in ((left, 1 - (x - left)), (left + 1, x - left)):
            np.add.at(kernel, (row, column), row_share * column_share)
    return kernel / kernel.sum()


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve (H, W, 3) float32 with a kernel symmetric about its center; mirror the border."""
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)


def downsample(image: np.ndarray, size: Sequence[int], kernel: str) -> np.ndarray:
    """Shrink (H, W, 3) float32 to ``size`` = (height, width) with one of ``KERNELS``."""
    if KERNELS[kernel] is None:
        return resize(image, size, kernel)
    shape = (int(size[1]), int(size[0]))
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(c)).resize(shape, KERNELS[kernel]))
        for c in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, 2)


def crop_to_shape(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Crop (H, W, 3) centrally to the aspect ratio of ``size`` = (height, width)."""
    height, width = image.shape[:2]
    if height * size[1] > width * size[0]:
        kept = max(1, round(width * size[0] / size[1]))
        top = (height - kept) // 2
        return image[top : top + kept]
    kept = max(1, round(height * size[1] / size[0]))
    left = (width - kept) // 2
    return image[:, left : left + kept]
