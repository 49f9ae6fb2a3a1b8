"""Random loss of quality, as optics, sensors and codecs cause it.

``DegradeFace`` is the short form: blur, shrink, noise. The other transforms are the steps of a
camera one by one, and ``VLRDegradation`` chains them: what a high-resolution face would look like
in a very-low-resolution set. All draw from ``results['rng']``.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image

from mmvlr.registry import TRANSFORMS
from mmvlr.utils.schema import load_json

from .geometric import resize

#: Kernels of downsampling. ``area`` averages exactly what a pixel covers and ``nearest`` aliases;
#: the others are Pillow's, stretched over the footprint of a pixel, hence free of aliasing.
KERNELS = {
    'area': None,
    'nearest': None,
    'bilinear': Image.Resampling.BILINEAR,
    'bicubic': Image.Resampling.BICUBIC,
    'lanczos': Image.Resampling.LANCZOS,
}


@TRANSFORMS.register_module()
class DegradeFace(BaseTransform):
    """Blur ``img``, shrink it and add noise, each by a random amount.

    Comes in front of ``ResizeFace`` and works in native pixels. The copies it makes of a training
    face are what a quality estimate can learn from: the identity is the same, only the quality is
    lower.

    Args:
        blur: Range of the Gaussian blur's sigma in pixels.
        blur_prob: Probability of blurring.
        shrink: Range of the factor on the side's length.
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


def check_range(
    name: str, value: Sequence[float], lowest: float = 0.0, highest: float = np.inf
) -> tuple[float, float]:
    """Return ``value`` as (low, high).

    Raises:
        ValueError: It is not two numbers, lowest <= low <= high <= highest.
    """
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not lowest <= low <= high <= highest or not np.isfinite(high):
        raise ValueError(
            f'{name} must be two rising numbers between {lowest:g} and {highest:g}, not {value!r}'
        )
    return low, high


def check_kernels(kernels: Sequence[str]) -> tuple[str, ...]:
    """Return ``kernels`` as a tuple.

    Raises:
        ValueError: It is empty, or one has no such name.
    """
    if isinstance(kernels, str) or not kernels or not set(kernels) <= set(KERNELS):
        raise ValueError(f'kernels must be a list of {sorted(KERNELS)}, not {kernels!r}')
    return tuple(kernels)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round gray levels to uint8, clipped to 0 to 255."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def disc_kernel(radius: float) -> np.ndarray:
    """Return the (k, k) float32 kernel of a defocused lens: a disc, edge pixels by their share.

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
        length: Of the path during the exposure, in pixels.
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
    """Convolve (H, W, 3) float32 with a kernel symmetric about its center; the border mirrors."""
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


class FaceDegradation(BaseTransform):
    """Base of the steps: ``degrade`` maps float32 RGB (H, W, 3) in gray levels to the same.

    On its own a step rounds to uint8; chained by :class:`VLRDegradation` only the last one does.

    Args:
        prob: Probability of taking the step.
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
            rng: Generator of all that is random.
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
    """Move ``img`` as a face detector's error does: shift, scale and rotation about the center.

    The border is mirrored, as in ``RotateFace``.

    Args:
        shift: Each of the two shifts lies in [-shift, shift], as a share of the side.
        scale: Range of the magnification; above 1 the crop is tighter.
        rotation: The angle lies in [-rotation, rotation] degrees.
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
        self.shift, self.rotation = shift, rotation
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
    """Blur ``img`` as optics do: Gaussian, or the disc of a lens out of focus.

    Args:
        sigma: Range of the blur's standard deviation along an axis, in pixels. A disc of radius r
            has r / 2, so the number means the same blur for both kinds.
        defocus: Probability of the disc instead of the Gaussian.
        prob: Probability of the step.
    """

    def __init__(
        self, sigma: Sequence[float] = (0.3, 1.0), defocus: float = 0.3, prob: float = 1.0
    ):
        super().__init__(prob)
        if not 0 <= defocus <= 1:
            raise ValueError(f'defocus must be between 0 and 1, not {defocus!r}')
        self.sigma, self.defocus = check_range('sigma', sigma), defocus

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
        self.length = check_range('length', length)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`."""
        length = rng.uniform(*self.length) * pixel
        return convolve(image, line_kernel(length, rng.uniform(0, np.pi)))


@TRANSFORMS.register_module()
class ShrinkFace(FaceDegradation):
    """Shrink ``img`` to a native size drawn from a distribution.

    The face is first cropped centrally to the drawn size's aspect ratio: the pixels of a camera
    are square. An image smaller than the drawn size is never enlarged.

    Args:
        sizes: (height, width, weight) in pixels; a size is drawn with probability weight over the
            sum of weights.
        kernels: Names of ``KERNELS``, each as likely.
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
        if (table[:, :2] < 1).any() or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
            raise ValueError(
                'sizes must have sides of at least 1 pixel and weights that sum above 0'
            )
        self.sizes = table[:, :2].astype(int)
        self.shares = np.cumsum(weights / weights.sum())
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
        self.shot, self.read = check_range('shot', shot), check_range('read', read)

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` has no effect."""
        shot, read = rng.uniform(*self.shot), rng.uniform(*self.read)
        read_out = rng.normal(0, 1, image.shape) * read
        # Below this a photon's share of the noise is far under the rounding to whole levels, and
        # Poisson counts leave int64.
        if shot > 1e-6:
            image = shot * rng.poisson(np.clip(image, 0, None) / shot)
        return (image + read_out).astype(np.float32)


@TRANSFORMS.register_module()
class ToneFace(FaceDegradation):
    """Bend the gray levels of ``img``: ``255 * (1/2 + contrast * ((x / 255) ** gamma - 1/2))``.

    Args:
        gamma: Range, drawn evenly on a logarithmic scale; above 1 darkens.
        contrast: Range of the factor about mid-gray.
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
    """Shrink ``img`` and enlarge it back: an image with fewer details than pixels.

    Unlike ``RescaleFace`` the way leads over a share of the image's own size.

    Args:
        factor: Range of the factor on the sides, at most 1.
        kernels: Names of ``KERNELS`` for the way down, each as likely; the way up is bicubic.
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


#: Steps of a preset, in the order in which a camera takes them.
STEPS = dict(
    misalign=MisalignFace,
    blur=BlurFace,
    motion=MotionBlurFace,
    native=ShrinkFace,
    noise=NoiseFace,
    tone=ToneFace,
    down_up=DownUpFace,
    jpeg=JPEGFace,
)


def even_sizes(low: int, high: int, aspect: float = 0.8) -> list[tuple[int, int, float]]:
    """Return ``sizes`` for :class:`ShrinkFace`: heights ``low`` to ``high``, each as likely.

    Args:
        low: Smallest height in pixels.
        high: Largest height in pixels, included.
        aspect: Width over height.
    """
    return [(height, round(height * aspect), 1.0) for height in range(low, high + 1)]


# All numbers are our choice: they span faces of 8 to 40 pixels and are fitted to no data set. None
# of the three sets states blur, noise or compression. To match given images, fit a preset to them
# with tools/analysis/measure_degradation.py. Lengths are in native pixels, noise in gray levels.
_DETECTOR = dict(shift=0.05, scale=(1.0, 1.2), rotation=6.0)
_TONE = dict(gamma=(0.7, 1.4), contrast=(0.7, 1.1))
_KERNELS = ('area', 'bilinear', 'bicubic', 'lanczos', 'nearest')

#: Name -> step -> arguments of its class in ``STEPS``.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Faces of web images: many cameras, scaled by software of all kinds, good light.
    'tinyface': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.2, 0.8), defocus=0.3),
        motion=dict(length=(0.5, 1.5), prob=0.2),
        native=dict(sizes=even_sizes(12, 28), kernels=_KERNELS),
        noise=dict(shot=(0.0, 0.15), read=(0.0, 4.0)),
        tone=_TONE,
        down_up=dict(factor=(0.6, 0.95), prob=0.3),
        jpeg=dict(quality=(50, 95)),
    ),
    # Indoor surveillance, one scene, subjects stand still: the farther, the smaller and noisier.
    'scface_d1': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.4, 1.0), defocus=0.3),
        native=dict(sizes=even_sizes(10, 18), kernels=('area',)),
        noise=dict(shot=(0.05, 0.3), read=(2.0, 6.0)),
        tone=_TONE,
        jpeg=dict(quality=(60, 90)),
    ),
    'scface_d2': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.3, 0.9), defocus=0.3),
        native=dict(sizes=even_sizes(16, 26), kernels=('area',)),
        noise=dict(shot=(0.05, 0.3), read=(2.0, 5.0)),
        tone=_TONE,
        jpeg=dict(quality=(60, 90)),
    ),
    'scface_d3': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.3, 0.8), defocus=0.3),
        native=dict(sizes=even_sizes(26, 40), kernels=('area',)),
        noise=dict(shot=(0.05, 0.3), read=(2.0, 5.0)),
        tone=_TONE,
        jpeg=dict(quality=(60, 90)),
    ),
    # Outdoor surveillance: people walk, compression is strong.
    'survface': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.3, 1.2), defocus=0.4),
        motion=dict(length=(0.5, 3.0), prob=0.4),
        native=dict(sizes=even_sizes(8, 32), kernels=('area', 'bilinear')),
        noise=dict(shot=(0.0, 0.4), read=(1.0, 8.0)),
        tone=dict(gamma=(0.6, 1.6), contrast=(0.6, 1.1)),
        down_up=dict(factor=(0.5, 0.95), prob=0.3),
        jpeg=dict(quality=(30, 85)),
    ),
}


def read_preset(preset: str | Path | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parameters of a preset: step -> arguments.

    Args:
        preset: A name of ``PRESETS``, a JSON file with them under ``parameters`` (as
            ``tools/analysis/measure_degradation.py --fit`` writes it), or the parameters.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No preset has this name, or the file is no preset.
    """
    if isinstance(preset, Mapping):
        return {step: dict(arguments) for step, arguments in preset.items()}
    if str(preset) in PRESETS:
        return read_preset(PRESETS[str(preset)])
    path = Path(preset)
    if path.suffix.lower() != '.json':
        raise ValueError(
            f'no preset {str(preset)!r}: expected one of {sorted(PRESETS)} or a .json file'
        )
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such preset file')
    try:
        parameters = load_json(path.read_bytes())['parameters']
        return {step: dict(arguments) for step, arguments in parameters.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f'{path} is no preset: expected "parameters" with a dict for each step, as '
            f'mmvlr fit-degradation --fit writes it ({error})'
        ) from error


@TRANSFORMS.register_module()
class VLRDegradation(FaceDegradation):
    """Turn a high-resolution face into one of very low resolution, at its native size.

    In the order of a camera: misalignment, crop to the native aspect ratio, optical and motion blur
    (lengths in native pixels, whatever the size of the source), sampling, sensor noise, tone curve,
    rescaling, JPEG. Comes in front of ``ResizeFace``.

    Every step has a generator of its own, drawn from ``results['rng']``: changing one step leaves
    what the others draw as it was.

    Args:
        preset: Name of a preset, JSON file, or the parameters themselves; see :func:`read_preset`.
            A step that is missing is not taken; ``native`` must be there.
        prob: Probability of degrading at all.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The preset is unknown, or a step or argument in it; the message names it.

    Example:
        >>> import numpy as np
        >>> face = np.full((112, 112, 3), 128, np.uint8)
        >>> degrade = VLRDegradation('scface_d1')
        >>> results = degrade(dict(img=face, rng=np.random.default_rng(0)))
        >>> 10 <= results['img'].shape[0] <= 18
        True
    """

    def __init__(self, preset: str | Path | Mapping[str, Any] = 'tinyface', prob: float = 1.0):
        super().__init__(prob)
        self.parameters = read_preset(preset)
        name = 'the preset' if isinstance(preset, Mapping) else str(preset)
        unknown = sorted(set(self.parameters) - set(STEPS))
        if unknown or 'native' not in self.parameters:
            problem = f'unknown steps {unknown}' if unknown else "the step 'native' is missing"
            raise ValueError(f'{name}: {problem}; steps are {list(STEPS)}')
        self.steps: dict[str, FaceDegradation] = {}
        for step, arguments in self.parameters.items():
            try:
                self.steps[step] = STEPS[step](**arguments)
            except (TypeError, ValueError) as error:
                raise ValueError(f'{name}, step {step!r}: {error}') from error

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` follows from the drawn size."""
        seeds = rng.integers(2**63, size=len(STEPS))
        rngs = {step: np.random.default_rng(seed) for step, seed in zip(STEPS, seeds, strict=True)}
        native = self.steps['native']
        size = native.draw_size(rngs['native'])
        if 'misalign' in self.steps:
            image = self.steps['misalign'].apply(image, rngs['misalign'])
        image = crop_to_shape(image, size)
        pixel = max(1.0, (image.shape[0] / size[0] + image.shape[1] / size[1]) / 2)
        for step in ('blur', 'motion'):
            if step in self.steps:
                image = self.steps[step].apply(image, rngs[step], pixel)
        image = native.shrink(image, size, rngs['native'])
        for step in ('noise', 'tone', 'down_up', 'jpeg'):
            if step in self.steps:
                image = self.steps[step].apply(image, rngs[step])
        return image
