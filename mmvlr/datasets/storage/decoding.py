"""From the bytes of an encoded picture to RGB."""

import cv2
import numpy as np

JPEG_START, JPEG_END = b'\xff\xd8', b'\xff\xd9'


class PictureError(ValueError):
    """A picture cannot be read; the message names the file."""


def decode_picture(content: bytes, name: str) -> np.ndarray:
    """Decode a JPEG, PNG, ... with OpenCV, as insightface does.

    Args:
        content: The encoded picture.
        name: Its name, for the message.

    Returns:
        np.ndarray: RGB uint8 (h, w, 3).

    Raises:
        PictureError: It is truncated or no picture.
    """
    # OpenCV fills the missing part of a JPEG with grey and says nothing. The end marker cannot
    # stand inside compressed data, where every 0xff is followed by a zero.
    if content.startswith(JPEG_START) and JPEG_END not in content:
        raise PictureError(f'{name} cannot be read (truncated JPEG); get the file again')
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    if picture is None:
        raise PictureError(f'{name} cannot be read (no picture); get the file again')
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
