"""Decode images to RGB: one decoder for folders, packs, records and a user's images.

A small file can hold a huge image: 21 KB of PNG can encode 180 million pixels. The memory that
decoding needs is computed from the header and checked before anything is decoded.
"""

import io
import struct
from functools import cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from mmvlr.utils.filetype import describe_content

#: Largest number of pixels; a larger JPEG of a camera is decoded at 1/2, 1/4 or 1/8 of its sides.
MAX_PIXELS = 2**26
#: Limit of the memory, in bytes, that decoding may take in any format.
MAX_MEMORY = 2**30

# Measured peak of the decoder in bytes per pixel; other formats need 4 at most (Pillow's image).
_COSTS = dict(WEBP=16, AVIF=16, JPEG2000=26)
_PILLOW, _RESULT, _COEFFICIENTS = 4, 3, 6
#: Pixels that are converted to RGB at once.
_STRIP = 2**20
#: EXIF orientation -> operation that makes the image upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def _formats() -> list[str]:
    # EPS would start another program; formats that Pillow decodes in Python (DDS) take minutes.
    wanted = ['JPEG', 'PNG', 'BMP', 'DIB', 'GIF', 'TIFF', 'WEBP', 'AVIF', 'JPEG2000', 'PPM']
    wanted += ['ICO', 'TGA', 'PCX', 'SGI', 'SUN', 'MPO']
    Image.init()
    return [name for name in wanted if name in Image.OPEN]


class ImageError(ValueError):
    """An image cannot be read; the message names the file."""


def decode_image(
    content: bytes | str | Path | Image.Image, name: str, upright: bool = False
) -> np.ndarray:
    """Decode an image.

    Pillow decodes rather than OpenCV, which fills the missing part of a truncated JPEG with gray
    without a warning. 16-bit gray is scaled to 8 bits, and transparent pixels become gray.

    Args:
        content: The encoded image, the path of its file, or a Pillow image.
        name: Its name, for the message.
        upright: Treat it as an image straight from a camera: rotate it by its orientation tag
            (which the tools that made data sets ignore), and decode a JPEG of more than
            ``MAX_PIXELS`` at a reduced size.

    Returns:
        np.ndarray: RGB uint8 (h, w, 3).

    Raises:
        FileNotFoundError: There is no such file.
        ImageError: It is damaged, truncated, no image, or too large.
    """
    try:
        if isinstance(content, Image.Image):
            return _decode(content, None, upright)
        with io.BytesIO(content) if isinstance(content, bytes) else open(content, 'rb') as file:
            if file.read(4) == b'\0\0\1\0':
                _check_icon(file)
            file.seek(0)
            try:
                image = Image.open(file, formats=_formats())
            except UnidentifiedImageError:
                file.seek(0)
                kind = describe_content(file.read(512))
                raise ValueError(f'no image, but {kind}' if kind else 'no image') from None
            with image:
                return _decode(image, file, upright)
    except FileNotFoundError:
        raise
    # Pillow and its plug-ins raise many types: IndexError, RuntimeError, MemoryError, ...
    except Exception as error:
        reason = ' '.join(str(error).split())[:300] or type(error).__name__
        raise ImageError(
            f'{name} cannot be read ({reason}); get it again, or leave it out'
        ) from error


def _decode(image: Image.Image, file: BinaryIO | None, upright: bool) -> np.ndarray:
    _check_cost(image, upright and file is not None)
    if _is_raw_ycbcr(image) and file is not None:
        # Pillow expects four bytes a pixel of such a TIFF, and so takes it for truncated.
        file.seek(0)
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), flags)
        if pixels is None:
            raise ValueError('damaged or truncated TIFF')
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    # Loading a TIFF already applies its orientation.
    image.load()
    return _as_rgb(_upright(image) if upright else image)


def _check_cost(image: Image.Image, reducible: bool) -> None:
    width, height = image.size
    kept = 0
    if image.format in ('JPEG', 'MPO'):
        # The decoder keeps all coefficients of a progressive JPEG, also at a reduced size.
        kept = width * height * _COEFFICIENTS * ('progressive' in image.info)
        if reducible and width * height > MAX_PIXELS:
            scales = [s for s in (2, 4, 8) if -(-width // s) * -(-height // s) <= MAX_PIXELS]
            scale = min(scales, default=8)
            image.draft(None, (width // scale, height // scale))
            width, height = image.size
    _check_size(width, height, _COSTS.get(image.format, _PILLOW), kept)


def _check_size(width: int, height: int, cost: int = _PILLOW, kept: int = 0) -> None:
    memory = width * height * (cost + _RESULT) + kept
    if width * height > MAX_PIXELS or memory > MAX_MEMORY:
        raise ValueError(
            f'decoding its {width:,} x {height:,} pixels would take {memory / 2**20:,.0f} MB; up '
            f'to {MAX_PIXELS / 1e6:.0f} megapixels and {MAX_MEMORY / 2**20:,.0f} MB are read: crop '
            'or reduce it first'
        )


def _check_icon(file: BinaryIO) -> None:
    """Check the images in an icon, which Pillow decodes when it opens the file.

    The sizes in the icon's directory may differ from those of the images.
    """
    file.seek(0)
    content = file.read(2**24)
    for entry in range(6, 6 + 16 * int.from_bytes(content[4:6], 'little'), 16):
        inside = content[int.from_bytes(content[entry + 12 : entry + 16], 'little') :][:24]
        if inside.startswith(b'\x89PNG'):
            _check_size(*struct.unpack('>II', inside[16:24]))
        else:
            _check_size(*map(abs, struct.unpack('<ii', inside[4:12])))


def _is_raw_ycbcr(image: Image.Image) -> bool:
    return (
        image.format == 'TIFF'
        and image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 6
        and image.tag_v2.get(TiffImagePlugin.COMPRESSION, 1) == 1
    )


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it copies upright images too, 150 MB for 50 megapixels, and
    # fails for whole images whose EXIF data are damaged.
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow raises half a dozen types for damaged EXIF data
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode == 'F':
        raise ValueError('its pixels are floating-point numbers; save it with 8 or 16 bits')
    wide = image.mode.startswith('I;16') or (image.mode == 'I' and max(image.getextrema()) > 255)
    width, height = image.size
    rows = max(1, _STRIP // max(width, 1))
    if rows >= height:
        return _strip_as_rgb(image, wide)
    # Converting in strips limits the extra memory, up to 16 bytes a pixel, to a few rows.
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _strip_as_rgb(image.crop((0, top, width, bottom)), wide)
    return pixels


def _strip_as_rgb(image: Image.Image, wide: bool) -> np.ndarray:
    if image.mode.startswith('I'):
        # Pillow's own conversion clips at 255: a 16-bit image would become white.
        levels = np.asarray(image, np.float64)
        gray = np.clip(np.rint(levels / 257 if wide else levels), 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        # Transparent pixels have arbitrary colors, which must not reach the network.
        gray = Image.new('RGBA', image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(gray, image.convert('RGBA'))
    return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))
