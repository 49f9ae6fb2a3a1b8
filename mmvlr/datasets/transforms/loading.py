"""From a file to an RGB array."""

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import ExifTags, Image, UnidentifiedImageError

from mmvlr.registry import TRANSFORMS

from ..storage import ImageError, locate

#: EXIF orientation -> what makes the image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str, upright: bool = False) -> np.ndarray:
    """Read an image as RGB uint8 (H, W, 3), from a file or out of a .pack, .rec or .bin file.

    Pillow rather than OpenCV decodes: OpenCV fills the missing part of a truncated JPEG with gray
    and says nothing. 16-bit gray is scaled to 8 bits, and what is transparent becomes gray.

    Args:
        path: The file, or a name in a pack.
        upright: Turn the image as its orientation tag says, for images right from a camera. The
            tools that made data sets ignore the tag.

    Raises:
        FileNotFoundError: There is no such file.
        ImageError: It is damaged, truncated or no image.
    """
    stored = locate(path)
    if stored is not None:
        reader, name = stored
        try:
            return reader.image(name)
        except KeyError as error:
            raise FileNotFoundError(error.args[0]) from None
    try:
        with Image.open(path) as image:
            return _as_rgb(_upright(image) if upright else image)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        kind = 'no image' if isinstance(error, UnidentifiedImageError) else str(error)
        raise ImageError(
            f'{path} cannot be read ({kind}); replace the file or remove it from the data set'
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it copies upright images too, 150 MB for 50 megapixels, and
    # fails for whole images whose EXIF data are damaged. Loaded first, a TIFF is turned already.
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow raises half a dozen types for damaged EXIF data
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers; save it with 8 or 16 bits')
    if image.mode.startswith('I'):
        # Pillow's own conversion cuts off at 255: a 16-bit image would be all white.
        levels = np.asarray(image, np.float64)
        if image.mode.startswith('I;16') or levels.max(initial=0) > 255:
            levels = levels / 257
        gray = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        # Nobody sees the colors of transparent pixels, so the network should not either.
        gray = Image.new('RGBA', image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(gray, image.convert('RGBA'))
    return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))


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
