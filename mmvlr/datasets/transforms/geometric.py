"""Resize and augment one face.

Every random transform draws from ``results['rng']``, the generator that the data set derives from
(seed, epoch, index), so that augmentation is reproducible with any number of workers and ranks.
``draw`` returns the random parameter alone; ``PackNativeFace`` calls it where images are augmented
on the device.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from mmvlr.registry import TRANSFORMS

from .base import BaseTransform

INTERPOLATIONS = dict(
    nearest=cv2.INTER_NEAREST,
    bilinear=cv2.INTER_LINEAR,
    bicubic=cv2.INTER_CUBIC,
    area=cv2.INTER_AREA,
)


def resize(image: np.ndarray, size: Sequence[int], interpolation: str = 'bicubic') -> np.ndarray:
    """Resize (H, W, 3) to ``size`` = (height, width); copied only if the size changes."""
    if tuple(image.shape[:2]) == tuple(size):
        return image
    return cv2.resize(image, (size[1], size[0]), interpolation=INTERPOLATIONS[interpolation])


@TRANSFORMS.register_module()
class ResizeFace(BaseTransform):
    """Resize ``img`` to a fixed size; the aspect ratio is not kept.

    Args:
        size: (height, width) in pixels.
        interpolation: ``'nearest'``, ``'bilinear'``, ``'bicubic'`` or ``'area'``.
    """

    def __init__(self, size: Sequence[int] = (112, 112), interpolation: str = 'bicubic'):
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f'interpolation must be one of {sorted(INTERPOLATIONS)}, not {interpolation!r}'
            )
        self.size = tuple(size)
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Resize one face."""
        results['img'] = resize(results['img'], self.size, self.interpolation)
        return results


@TRANSFORMS.register_module()
class FlipFace(BaseTransform):
    """Mirror ``img`` horizontally.

    Args:
        prob: Probability; 1 always mirrors and needs no generator.
    """

    def __init__(self, prob: float = 0.5):
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Mirror one face, or not."""
        if self.draw(results.get('rng')):
            results['img'] = np.ascontiguousarray(results['img'][:, ::-1])
        return results

    def draw(self, rng: np.random.Generator | None) -> bool:
        """Return whether to mirror."""
        return self.prob >= 1 or rng.random() < self.prob


@TRANSFORMS.register_module()
class RotateFace(BaseTransform):
    """Rotate ``img`` about its center by a uniformly random angle.

    The border is mirrored: black corners would be a cue that real images lack.

    Args:
        degrees: The angle is drawn from [-degrees, degrees].
        interpolation: See :class:`ResizeFace`.
    """

    def __init__(self, degrees: float = 10.0, interpolation: str = 'bicubic'):
        self.degrees = degrees
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Rotate one face."""
        image = results['img']
        height, width = image.shape[:2]
        angle = self.draw(results['rng'])
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
        results['img'] = cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=INTERPOLATIONS[self.interpolation],
            borderMode=cv2.BORDER_REFLECT_101,
        )
        return results

    def draw(self, rng: np.random.Generator) -> float:
        """Return the angle in degrees, counter-clockwise."""
        return rng.uniform(-self.degrees, self.degrees)


@TRANSFORMS.register_module()
class RescaleFace(BaseTransform):
    """Resize ``img`` to a smaller side and back: the paper's rescaling through 64 or 100 pixels.

    Args:
        sizes: Sides to choose from, with equal probability.
        prob: Probability of rescaling; None for ``len(sizes) / (len(sizes) + 1)``, which makes
            "unchanged" as likely as each side.
        interpolation: Used for shrinking and enlarging.
    """

    def __init__(
        self,
        sizes: Sequence[int] = (64, 100),
        prob: float | None = None,
        interpolation: str = 'bicubic',
    ):
        self.sizes = tuple(sizes)
        self.prob = len(self.sizes) / (len(self.sizes) + 1) if prob is None else prob
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Rescale one face, or not."""
        side = self.draw(results['rng'])
        if side:
            size = results['img'].shape[:2]
            small = resize(results['img'], (side, side), self.interpolation)
            results['img'] = resize(small, size, self.interpolation)
        return results

    def draw(self, rng: np.random.Generator) -> int:
        """Return the side in pixels, 0 for leaving the face as it is."""
        if self.prob < 1 and rng.random() >= self.prob:
            return 0
        return self.sizes[int(rng.integers(len(self.sizes))) if len(self.sizes) > 1 else 0]


@TRANSFORMS.register_module()
class DownsampleFace(BaseTransform):
    """Shrink ``img`` to a side of ``size`` pixels: the low-resolution counterpart of a face.

    Args:
        size: Side in pixels.
        interpolation: Area averaging by default, as a sensor does.
        enlarge: Whether sides that are shorter are enlarged.
    """

    def __init__(self, size: int = 16, interpolation: str = 'area', enlarge: bool = True):
        self.size = size
        self.interpolation = interpolation
        self.enlarge = enlarge

    def transform(self, results: dict) -> dict:
        """Shrink one face."""
        size = [self.size if self.enlarge else min(self.size, n) for n in results['img'].shape[:2]]
        results['img'] = resize(results['img'], size, self.interpolation)
        return results
