"""From a file to an RGB array."""

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import Image, UnidentifiedImageError

from mmvlr.registry import TRANSFORMS

from ..storage import PictureError, locate


def read_picture(path: str) -> np.ndarray:
    """Read a picture as RGB uint8 (H, W, 3), from a file or out of a .pack, .rec or .bin file.

    Pillow rather than OpenCV decodes: OpenCV fills the missing part of a truncated JPEG with grey
    and says nothing.

    Raises:
        FileNotFoundError: There is no such file.
        PictureError: It is damaged, truncated or no picture.
    """
    stored = locate(path)
    if stored is not None:
        reader, name = stored
        try:
            return reader.picture(name)
        except KeyError as error:
            raise FileNotFoundError(error.args[0]) from None
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert('RGB'))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        kind = 'no picture' if isinstance(error, UnidentifiedImageError) else str(error)
        raise PictureError(
            f'{path} cannot be read ({kind}); replace the file or remove it from the data set'
        ) from error


@TRANSFORMS.register_module()
class LoadFace(BaseTransform):
    """Read ``img_path`` into ``img`` (RGB uint8) and note the native size.

    Records that already hold an ``img`` array, such as synthetic faces, keep it.

    Required keys: ``img_path`` or ``img``. Added keys: ``img``, ``ori_shape``.
    """

    def transform(self, results: dict) -> dict:
        """Load one face."""
        if 'img' not in results:
            results['img'] = read_picture(results['img_path'])
        results['ori_shape'] = tuple(results['img'].shape[:2])
        return results
