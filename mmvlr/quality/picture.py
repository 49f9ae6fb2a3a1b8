"""Qualities of the picture itself, without a model: the baselines that a model must beat."""

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
        >>> faces = FaceBatch(pictures=[np.zeros((16, 25, 3), np.uint8)])
        >>> SizeQuality()(faces).item(), SizeQuality('geometric_mean')(faces).item()
        (16.0, 20.0)
    """

    name = 'size'
    needs_model = False
    needs_pictures = True

    def __init__(self, side: str = 'min', name: str | None = None):
        super().__init__(name)
        if side not in ('min', 'geometric_mean'):
            raise ValueError(f"side must be 'min' or 'geometric_mean', not {side!r}")
        self.side = side

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the sizes (B,) in pixels."""
        sizes = torch.tensor([picture.shape[:2] for picture in faces.pictures]).double()
        return sizes.amin(1) if self.side == 'min' else sizes.prod(1).sqrt()


@QUALITIES.register_module()
class SharpnessQuality(QualityMeasure):
    """Variance of the Laplacian of the grey picture, on a common size.

    Grey is 0.299 R + 0.587 G + 0.114 B, in [0, 255] and not rounded. It is brought to ``size``, by
    area averaging where neither side has to grow, else bicubically: a picture of 8 pixels does not
    become sharp by being small. The Laplacian has the kernel 0 1 0, 1 -4 1, 0 1 0; pixels at
    the border, which have no neighbour on one side, are left out. Pech-Pacheco et al., *Diatom
    autofocusing in brightfield microscopy: a comparative study*, ICPR 2000.

    Noise and the blocks of JPEG compression count as sharp.

    Args:
        size: (height, width) of the common size. 32 is the upper end of what counts as very low
            resolution, so that nothing of such a face is averaged away.
        name: See :class:`QualityMeasure`.
    """

    name = 'sharpness'
    needs_model = False
    needs_pictures = True

    def __init__(self, size: Sequence[int] = (32, 32), name: str | None = None):
        super().__init__(name)
        if len(size) != 2 or min(size) < 3:
            raise ValueError(f'size must be (height, width) of at least 3 pixels, not {size}')
        self.size = tuple(size)

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the variances (B,) in squared grey levels."""
        return torch.tensor([self.of_picture(picture) for picture in faces.pictures])

    def of_picture(self, picture: np.ndarray) -> float:
        """Return the variance of one RGB picture (h, w, 3)."""
        grey = picture.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
        height, width = self.size
        if grey.shape != self.size:
            shrinks = grey.shape[0] >= height and grey.shape[1] >= width
            how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            grey = cv2.resize(grey, (width, height), interpolation=how)
        grey = grey.astype(np.float64)
        sides = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
        return float((sides - 4 * grey[1:-1, 1:-1]).var())
