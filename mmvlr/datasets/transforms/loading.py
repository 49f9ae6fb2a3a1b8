"""Load an image as an RGB array."""

import numpy as np

from mmvlr.registry import TRANSFORMS

from ..storage import locate
from ..storage.decoding import decode_image
from .base import BaseTransform

__all__ = ['LoadFace', 'read_image']


def read_image(path: str, upright: bool = False) -> np.ndarray:
    """Read an image as RGB uint8 (H, W, 3), from an image file or a .pack, .rec or .bin file.

    Args:
        path: Path of the image file, or of the image inside another file.
        upright: See :func:`mmvlr.datasets.storage.decoding.decode_image`.

    Raises:
        FileNotFoundError: There is no such file.
        ImageError: It is damaged, truncated, no image, or too large.
    """
    stored = locate(path)
    if stored is None:
        return decode_image(path, path, upright)
    reader, name = stored
    try:
        return reader.image(name)
    except KeyError as error:
        raise FileNotFoundError(error.args[0]) from None


@TRANSFORMS.register_module()
class LoadFace(BaseTransform):
    """Read ``img_path`` into ``img`` (RGB uint8) and note the native size.

    Records that already hold an ``img`` array, such as synthetic faces, keep it.

    Required keys: ``img_path`` or ``img``. Added keys: ``img``, ``ori_shape``.
    """

    def transform(self, results: dict) -> dict:
        """Load one face."""
        if 'img' not in results:
            results['img'] = read_image(results['img_path'])
        results['ori_shape'] = tuple(results['img'].shape[:2])
        return results
