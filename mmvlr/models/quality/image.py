"""Quality measures of the image itself, without a model: baselines for the others."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch

from mmvlr.registry import QUALITIES

from .base import FaceBatch, QualityMeasure


@QUALITIES.register_module()
class SizeQuality(QualityMeasure):
    """Native size of the face crop in pixels.

    Args:
        side: ``'min'`` for min(height, width), ``'geometric_mean'`` for sqrt(height * width), the
            side of the square of the same area.
        name: See :class:`QualityMeasure`.

    Example:
        >>> faces = FaceBatch(images=[np.zeros((16, 25, 3), np.uint8)])
        >>> SizeQuality()(faces).item(), SizeQuality('geometric_mean')(faces).item()
        (16.0, 20.0)
    """

    name = 'size'
    needs_model = False
    needs_images = True

    def __init__(self, side: str = 'min', name: str | None = None):
        super().__init__(name)
        if side not in ('min', 'geometric_mean'):
            raise ValueError(f"side must be 'min' or 'geometric_mean', not {side!r}")
        self.side = side

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the sizes (B,) in pixels."""
        sizes = torch.tensor([image.shape[:2] for image in faces.images]).double()
        return sizes.amin(1) if self.side == 'min' else sizes.prod(1).sqrt()


@QUALITIES.register_module()
class SharpnessQuality(QualityMeasure):
    """Variance of the Laplacian of the gray image, on a common size.

    Gray is 0.299 R + 0.587 G + 0.114 B, in [0, 255] and not rounded. It is resized to ``size``, by
    area averaging if neither side has to grow, else bicubically, so that a small image does not
    count as sharp because of its size. The Laplacian has the kernel 0 1 0, 1 -4 1, 0 1 0; pixels at
    the border, which have no neighbor on one side, are left out. Pech-Pacheco et al., *Diatom
    autofocusing in brightfield microscopy: a comparative study*, ICPR 2000.

    Noise and the blocks of JPEG compression count as sharp.

    Args:
        size: (height, width) of the common size. 32 is the upper limit of very low resolution, so
            no detail of such a face is averaged away.
        name: See :class:`QualityMeasure`.
    """

    name = 'sharpness'
    needs_model = False
    needs_images = True

    def __init__(self, size: Sequence[int] = (32, 32), name: str | None = None):
        super().__init__(name)
        if len(size) != 2 or min(size) < 3:
            raise ValueError(f'size must be (height, width) of at least 3 pixels, not {size}')
        self.size = tuple(size)

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the variances (B,) in squared gray levels."""
        return torch.tensor([self.of_image(image) for image in faces.images])

    def of_image(self, image: np.ndarray) -> float:
        """Return the variance of one RGB image (h, w, 3)."""
        gray = image.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
        height, width = self.size
        if gray.shape != self.size:
            shrinks = gray.shape[0] >= height and gray.shape[1] >= width
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            gray = cv2.resize(gray, (width, height), interpolation=how)
        gray = gray.astype(np.float64)
        sides = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
        return float((sides - 4 * gray[1:-1, 1:-1]).var())
