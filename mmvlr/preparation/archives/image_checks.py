"""One image of an archive, decoded fully."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from mmvlr.datasets.transforms import ImageError, read_image

SUFFIXES = dict(
    JPEG=('.jpg', '.jpeg'),
    MPO=('.jpg', '.jpeg'),
    PNG=('.png',),
    BMP=('.bmp',),
    TIFF=('.tif', '.tiff'),
    WEBP=('.webp',),
)
JPEG_END = b'\xff\xd9'
END_MARKERS = dict(JPEG=JPEG_END, MPO=JPEG_END, PNG=b'IEND')


def inspect_image(path: str) -> dict[str, Any]:
    """Decode an image fully.

    Returns:
        dict: ``width``, ``height`` (pixels), ``bytes``, ``sha256`` and ``format`` (Pillow's name);
        or ``problem``, what is wrong with it.
    """
    try:
        content = Path(path).read_bytes()
        if not content:
            return dict(problem='zero bytes')
        height, width = read_image(path).shape[:2]
        with Image.open(io.BytesIO(content)) as image:
            kind = image.format
    except ImageError as error:
        cause = error.__cause__
        unknown = isinstance(cause, UnidentifiedImageError)
        return dict(problem='no image' if unknown else str(cause))
    except Exception as error:  # decoders raise a dozen types for damaged files
        return dict(problem=f'{type(error).__name__}: {error}')
    # Pillow is content without it if all pixels are there; the file is cut short all the same.
    if END_MARKERS.get(kind, b'') not in content:
        return dict(problem='truncated: no end marker')
    digest = hashlib.sha256(content).hexdigest()
    return dict(width=width, height=height, bytes=len(content), sha256=digest, format=kind)


def make_inspector() -> Callable[[str], dict[str, Any]]:
    """Return :func:`inspect_image`, in a working process."""
    return inspect_image
