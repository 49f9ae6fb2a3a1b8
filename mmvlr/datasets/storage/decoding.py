"""From the bytes of an encoded image to RGB."""

import cv2
import numpy as np

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'


class ImageError(ValueError):
    """An image cannot be read; the message names the file."""


def decode_image(content: bytes, name: str) -> np.ndarray:
    """Decode a JPEG, PNG, ... with OpenCV, as insightface does.

    Args:
        content: The encoded image.
        name: Its name, for the message.

    Returns:
        np.ndarray: RGB uint8 (h, w, 3).

    Raises:
        ImageError: It is truncated or no image.
    """
    # OpenCV fills the missing part of a JPEG with gray and says nothing. The end marker cannot
    # stand inside compressed data, where every 0xff is followed by a zero.
    if content.startswith(JPEG_START) and JPEG_END not in content:
        raise ImageError(f'{name} cannot be read (truncated JPEG); get the file again')
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if image is None:
        raise ImageError(f'{name} cannot be read (no image); get the file again')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
