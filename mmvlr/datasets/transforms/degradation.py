"""Random loss of quality, as cameras cause it."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from mmvlr.registry import TRANSFORMS

from .geometric import resize


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
        noise: Range of the Gaussian noise's sigma in grey levels.
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
