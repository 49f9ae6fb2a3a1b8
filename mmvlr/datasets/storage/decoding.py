"""From an encoded image to RGB: one decoder for folders, packs, records and what a user gives.

An image can claim far more pixels than its bytes seem to hold: 21 KB of PNG are 180 million. What
decoding would cost is told from the header, and checked before anything is decoded.
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

#: Most pixels of an image; a camera's JPEG beyond it is decoded at 1/2, 1/4 or 1/8 of its sides.
MAX_PIXELS = 2**26
#: Most memory in bytes that decoding may take, whatever the format.
MAX_MEMORY = 2**30

# Measured: bytes a pixel at the decoder's peak; elsewhere it is Pillow's own image, 4 at most.
_COSTS = dict(WEBP=16, AVIF=16, JPEG2000=26)
_PILLOW, _RESULT, _COEFFICIENTS = 4, 3, 6
#: Pixels that are converted to RGB at once.
_STRIP = 2**20
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


@cache
def _formats() -> list[str]:
    # EPS would start another program, and what Pillow decodes in Python, as DDS, takes minutes.
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

    Pillow rather than OpenCV decodes: OpenCV fills the missing part of a truncated JPEG with gray
    and says nothing. 16-bit gray is scaled to 8 bits, and what is transparent becomes gray.

    Args:
        content: The encoded image, the path of its file, or an image of Pillow's.
        name: Its name, for the message.
        upright: It comes right from a camera: turn it as its orientation tag says (the tools that
            made data sets ignore the tag), and decode a JPEG of more than ``MAX_PIXELS`` at a
            reduced size.

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
    # Pillow and its plug-ins raise whatever they like: IndexError, RuntimeError, MemoryError, ...
    except Exception as error:
        reason = ' '.join(str(error).split())[:300] or type(error).__name__
        raise ImageError(
            f'{name} cannot be read ({reason}); get it again, or leave it out'
        ) from error


def _decode(image: Image.Image, file: BinaryIO | None, upright: bool) -> np.ndarray:
    _check_cost(image, upright and file is not None)
    if _is_raw_ycbcr(image) and file is not None:
        # Pillow takes such a TIFF for one of four bytes a pixel, and so for a truncated one.
        file.seek(0)
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), flags)
        if pixels is None:
            raise ValueError('damaged or truncated TIFF')
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    # Loaded first, a TIFF is turned already.
    image.load()
    return _as_rgb(_upright(image) if upright else image)


def _check_cost(image: Image.Image, reducible: bool) -> None:
    width, height = image.size
    kept = 0
    if image.format in ('JPEG', 'MPO'):
        # The coefficients of a progressive JPEG are kept for all of it, whatever size it gets.
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

    The directory may say something else of their sizes than they do.
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
    # In strips: what a conversion takes, up to 16 bytes a pixel, is taken for a few rows only.
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = _strip_as_rgb(image.crop((0, top, width, bottom)), wide)
    return pixels


def _strip_as_rgb(image: Image.Image, wide: bool) -> np.ndarray:
    if image.mode.startswith('I'):
        # Pillow's own conversion cuts off at 255: a 16-bit image would be all white.
        levels = np.asarray(image, np.float64)
        gray = np.clip(np.rint(levels / 257 if wide else levels), 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.has_transparency_data:
        # Nobody sees the colors of transparent pixels, so the network should not either.
        gray = Image.new('RGBA', image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(gray, image.convert('RGBA'))
    return np.asarray(image if image.mode == 'RGB' else image.convert('RGB'))
