"""From a file to an RGB array."""

import numpy as np
from mmcv.transforms import BaseTransform
from PIL import ExifTags, Image, UnidentifiedImageError

from mmvlr.registry import TRANSFORMS

from ..storage import PictureError, locate

#: EXIF orientation -> what makes the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_picture(path: str, upright: bool = False) -> np.ndarray:
    """Read a picture as RGB uint8 (H, W, 3), from a file or out of a .pack, .rec or .bin file.

    Pillow rather than OpenCV decodes: OpenCV fills the missing part of a truncated JPEG with grey
    and says nothing. 16-bit grey is scaled to 8 bits, and what is transparent becomes grey.

    Args:
        path: The file, or a name in a pack.
        upright: Turn the picture as its orientation tag says, for pictures right from a camera. The
            tools that made data sets ignore the tag.

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
            return _as_rgb(_upright(picture) if upright else picture)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        kind = 'no picture' if isinstance(error, UnidentifiedImageError) else str(error)
        raise PictureError(
            f'{path} cannot be read ({kind}); replace the file or remove it from the data set'
        ) from error


def _upright(picture: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it copies upright pictures too, 150 MB for 50 megapixels, and
    # fails for whole pictures whose EXIF data are damaged. Loaded first, a TIFF is turned already.
    picture.load()
    try:
        turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow raises half a dozen types for damaged EXIF data
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _as_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode == 'F':
        raise ValueError('its pixels are floating-point numbers; save it with 8 or 16 bits')
    if picture.mode.startswith('I'):
        # Pillow's own conversion cuts off at 255: a 16-bit picture would be all white.
        levels = np.asarray(picture, np.float64)
        if picture.mode.startswith('I;16') or levels.max(initial=0) > 255:
            levels = levels / 257
        grey = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if picture.has_transparency_data:
        # Nobody sees the colours of transparent pixels, so the network should not either.
        grey = Image.new('RGBA', picture.size, (127, 127, 127, 255))
        picture = Image.alpha_composite(grey, picture.convert('RGBA'))
    return np.asarray(picture if picture.mode == 'RGB' else picture.convert('RGB'))


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
