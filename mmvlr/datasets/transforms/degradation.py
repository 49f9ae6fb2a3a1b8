"""Degrade faces at random, as optics, sensors and codecs do.

``DegradeFace`` is the short form: blur, shrink, noise. The other transforms are the steps of a
camera one by one; ``VLRDegradation`` in :mod:`.presets` chains them. All draw from
``results['rng']``.
"""

import io
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from mmvlr.registry import TRANSFORMS

from .base import BaseTransform
from .geometric import resize
from .kernels import (
    check_kernels,
    check_range,
    convolve,
    crop_to_shape,
    disc_kernel,
    downsample,
    line_kernel,
)


@TRANSFORMS.register_module()
class DegradeFace(BaseTransform):
    """Blur ``img``, shrink it and add noise, each by a random amount.

    Place it before ``ResizeFace``: it works in native pixels. A quality estimate can learn from the
    degraded copies of a training face: the identity is the same, only the quality is lower.

    Args:
        blur: Range of the Gaussian blur's sigma in pixels.
        blur_prob: Probability of blurring.
        shrink: Range of the factor of the side lengths.
        min_size: Smallest side in pixels.
        noise: Range of the Gaussian noise's sigma in gray levels.
    """

    def __init__(
        self,
        blur: Sequence[float] = (0.3, 1.5),
        blur_prob: float = 0.6,
        shrink: Sequence[float] = (0.35, 0.95),
        min_size: int = 6,
        noise: Sequence[float] = (0.0, 12.0),
    ):
        self.blur, self.blur_prob = tuple(blur), blur_prob
        self.shrink, self.min_size = tuple(shrink), min_size
        self.noise = tuple(noise)

    def transform(self, results: dict) -> dict:
        """Degrade one face."""
        rng = results['rng']
        image = results['img'].astype(np.float32)
        if rng.random() < self.blur_prob:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*self.blur))
        factor = rng.uniform(*self.shrink)
        size = [max(self.min_size, round(side * factor)) for side in image.shape[:2]]
        image = resize(image, size, 'area')
        image = image + rng.normal(0, rng.uniform(*self.noise), image.shape)
        results['img'] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        return results


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round gray levels to uint8, clipped to 0 to 255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


class FaceDegradation(BaseTransform):
    """Base of the degradation steps; ``degrade`` maps float32 RGB (H, W, 3) in gray levels.

    A step on its own rounds to uint8; chained by :class:`VLRDegradation`, only the last one does.

    Args:
        prob: Probability of applying the step.
    """

    def __init__(self, prob: float = 1.0):
        if not 0 <= prob <= 1:
            raise ValueError(f'prob must be between 0 and 1, not {prob!r}')
        self.prob = prob

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """Return the degraded image.

        Args:
            image: (H, W, 3) float32, RGB in gray levels.
            rng: Random generator.
            pixel: Side of a native pixel in pixels of ``image``: lengths are scaled by it.
        """
        raise NotImplementedError

    def apply(self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0) -> np.ndarray:
        """Return :meth:`degrade` with probability ``prob``, else the image itself."""
        return self.degrade(image, rng, pixel) if rng.random() < self.prob else image

    def transform(self, results: dict) -> dict:
        """Degrade one face, or not."""
        image = self.apply(results['img'].astype(np.float32), results['rng'])
        results['img'] = to_uint8(image)
        return results


@TRANSFORMS.register_module()
class MisalignFace(FaceDegradation):
    """Misalign ``img`` as an inaccurate face detector does: shift, scale, rotate about the center.

    The border is mirrored, as in ``RotateFace``.

    Args:
        shift: Both shifts are drawn from [-shift, shift], as a share of the side.
        scale: Range of the magnification; above 1 the crop is tighter.
        rotation: The angle is drawn from [-rotation, rotation] degrees.
        prob: Probability of the step.
    """

    def __init__(
        self,
        shift: float = 0.05,
        scale: Sequence[float] = (0.95, 1.05),
        rotation: float = 5.0,
        prob: float = 1.0,
    ):
        super().__init__(prob)
        if not 0 <= shift < 1:
            raise ValueError(f'shift must be at least 0 and below 1, not {shift!r}')
        if not 0 <= rotation <= 180:
            raise ValueError(f'rotation must be between 0 and 180 degrees, not {rotation!r}')
        self.shift, self.rotation = abs(shift), abs(rotation)
        self.scale = check_range('scale', scale, 0.1, 10)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`."""
        height, width = image.shape[:2]
        shift = rng.uniform(-self.shift, self.shift, 2)
        scale = rng.uniform(*self.scale)
        angle = rng.uniform(-self.rotation, self.rotation)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale)
        matrix[:, 2] += shift * (width, height)
        return cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_REFLECT_101,
        )


@TRANSFORMS.register_module()
class BlurFace(FaceDegradation):
    """Blur ``img`` as optics do, with a Gaussian or with the disc of a defocused lens.

    Args:
        sigma: Range of the blur's standard deviation along an axis, in pixels. A disc of radius r
            has r / 2, so the number means the same amount of blur for both.
        defocus: Probability of the disc instead of the Gaussian.
        prob: Probability of the step.
    """

    def __init__(
        self, sigma: Sequence[float] = (0.3, 1.0), defocus: float = 0.3, prob: float = 1.0
    ):
        super().__init__(prob)
        if not 0 <= defocus <= 1:
            raise ValueError(f'defocus must be between 0 and 1, not {defocus!r}')
        self.sigma, self.defocus = check_range('sigma', sigma, 0, 100), defocus

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`."""
        sigma = rng.uniform(*self.sigma) * pixel
        disc = rng.random() < self.defocus
        if sigma == 0:
            return image
        if disc:
            return convolve(image, disc_kernel(2 * sigma))
        return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


@TRANSFORMS.register_module()
class MotionBlurFace(FaceDegradation):
    """Blur ``img`` along a straight line in a random direction.

    Args:
        length: Range of the path during the exposure, in pixels.
        prob: Probability of the step.
    """

    def __init__(self, length: Sequence[float] = (0.5, 2.0), prob: float = 0.3):
        super().__init__(prob)
        self.length = check_range('length', length, 0, 100)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`."""
        length = rng.uniform(*self.length) * pixel
        return convolve(image, line_kernel(length, rng.uniform(0, np.pi)))


@TRANSFORMS.register_module()
class ShrinkFace(FaceDegradation):
    """Shrink ``img`` to a native size drawn from a distribution.

    The face is first cropped centrally to the aspect ratio of the drawn size, as the pixels of a
    camera are square. An image smaller than the drawn size is not enlarged.

    Args:
        sizes: (height, width, weight) in pixels; a size is drawn with probability weight over the
            sum of weights.
        kernels: Names of ``KERNELS``, drawn with equal probability.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]] = ((16, 16, 1.0),),
        kernels: Sequence[str] = ('area',),
    ):
        super().__init__()
        table = np.array([list(size) for size in sizes], dtype=float)
        if table.ndim != 2 or table.shape[1] != 3:
            raise ValueError(f'sizes must be a list of (height, width, weight), not {sizes!r}')
        weights = table[:, 2]
        sides, total = table[:, :2], weights.sum()
        if (
            not ((sides >= 1) & (sides < 2**16)).all()
            or (weights < 0).any()
            or not 0 < total < np.inf
        ):
            raise ValueError(
                'sizes must have sides of 1 to 65,535 pixels and weights that sum above 0'
            )
        self.sizes = sides.astype(int)
        self.shares = np.cumsum(weights / total)
        self.kernels = check_kernels(kernels)

    def draw_size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw a native size (height, width)."""
        index = int(np.searchsorted(self.shares, rng.random(), side='right'))
        height, width = self.sizes[min(index, len(self.sizes) - 1)]
        return int(height), int(width)

    def shrink(
        self, image: np.ndarray, size: tuple[int, int], rng: np.random.Generator
    ) -> np.ndarray:
        """Shrink a cropped image to ``size`` with a random kernel."""
        kernel = self.kernels[int(rng.integers(len(self.kernels)))]
        size = (min(size[0], image.shape[0]), min(size[1], image.shape[1]))
        return image if size == image.shape[:2] else downsample(image, size, kernel)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` has no effect."""
        size = self.draw_size(rng)
        return self.shrink(crop_to_shape(image, size), size, rng)


@TRANSFORMS.register_module()
class NoiseFace(FaceDegradation):
    """Add the noise of a sensor: photons (Poisson) and read-out (Gaussian).

    ``y = shot * Poisson(x / shot) + Normal(0, read)`` for a gray level x, of variance
    ``shot * x + read ** 2`` (Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting
    for single-image raw-data", IEEE TIP 2008). Channels are independent.

    Args:
        shot: Range of the gray levels that one photon is worth.
        read: Range of the read-out's standard deviation in gray levels.
        prob: Probability of the step.
    """

    def __init__(
        self,
        shot: Sequence[float] = (0.0, 0.3),
        read: Sequence[float] = (0.0, 4.0),
        prob: float = 1.0,
    ):
        super().__init__(prob)
        self.shot = check_range('shot', shot, 0, 1000)
        self.read = check_range('read', read, 0, 1000)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` has no effect."""
        shot, read = rng.uniform(*self.shot), rng.uniform(*self.read)
        read_out = rng.normal(0, 1, image.shape) * read
        # Below this, shot noise is far smaller than the rounding to whole levels, and Poisson
        # counts overflow int64.
        if shot > 1e-6:
            image = shot * rng.poisson(np.clip(image, 0, None) / shot)
        return (image + read_out).astype(np.float32)


@TRANSFORMS.register_module()
class ToneFace(FaceDegradation):
    """Change the tone of ``img``: ``255 * (1/2 + contrast * ((x / 255) ** gamma - 1/2))``.

    Args:
        gamma: Range, sampled uniformly on a logarithmic scale; above 1 darkens.
        contrast: Range of the contrast factor about mid-gray.
        prob: Probability of the step.
    """

    def __init__(
        self,
        gamma: Sequence[float] = (0.8, 1.25),
        contrast: Sequence[float] = (0.8, 1.1),
        prob: float = 1.0,
    ):
        super().__init__(prob)
        self.gamma = check_range('gamma', gamma, 0.05, 20)
        self.contrast = check_range('contrast', contrast, 0, 20)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` has no effect."""
        gamma = float(np.exp(rng.uniform(*np.log(self.gamma))))
        contrast = rng.uniform(*self.contrast)
        curved = (np.clip(image, 0, 255) / np.float32(255)) ** np.float32(gamma)
        return np.float32(255) * (
            np.float32(0.5) + np.float32(contrast) * (curved - np.float32(0.5))
        )


@TRANSFORMS.register_module()
class DownUpFace(FaceDegradation):
    """Shrink ``img`` and enlarge it back, which leaves fewer details than pixels.

    Unlike ``RescaleFace``, the intermediate size is a share of the image's own size.

    Args:
        factor: Range of the factor of the side lengths, at most 1.
        kernels: Names of ``KERNELS`` for shrinking, drawn with equal probability; enlarging is
            bicubic.
        prob: Probability of the step.
    """

    def __init__(
        self,
        factor: Sequence[float] = (0.6, 0.95),
        kernels: Sequence[str] = ('area', 'bilinear', 'bicubic'),
        prob: float = 0.3,
    ):
        super().__init__(prob)
        self.factor = check_range('factor', factor, 0.01, 1)
        self.kernels = check_kernels(kernels)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` has no effect."""
        factor = rng.uniform(*self.factor)
        kernel = self.kernels[int(rng.integers(len(self.kernels)))]
        size = image.shape[:2]
        small = tuple(max(1, round(side * factor)) for side in size)
        return image if small == size else resize(downsample(image, small, kernel), size, 'bicubic')


@TRANSFORMS.register_module()
class JPEGFace(FaceDegradation):
    """Compress ``img`` as JPEG (4:2:0) and decode it.

    Args:
        quality: Range of libjpeg's quality, whole numbers from 1 to 100, both ends included.
        prob: Probability of the step.
    """

    def __init__(self, quality: Sequence[int] = (50, 95), prob: float = 1.0):
        super().__init__(prob)
        low, high = check_range('quality', quality, 1, 100)
        self.quality = int(low), int(high)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` has no effect."""
        quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
        stream = io.BytesIO()
        Image.fromarray(to_uint8(image)).save(stream, 'JPEG', quality=quality, subsampling='4:2:0')
        return np.asarray(Image.open(stream)).astype(np.float32)
