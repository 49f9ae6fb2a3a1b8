"""Whatever a user calls faces, as a stream of named images."""

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.datasets.base import IMAGE_SUFFIXES
from mmvlr.datasets.transforms import ImageError, read_image

#: No face has been recognized in fewer pixels, and no quality measure knows such images.
MIN_SIDE = 4
_VIDEO_SUFFIXES = frozenset(
    {'.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv', '.ts'}
)


class VideoError(ImageError):
    """A video was given where images are expected."""


class NoFaceError(ImageError):
    """No face was found in an image whose face is to be aligned."""


@dataclass(frozen=True)
class Image:
    """One image, or what is wrong with it.

    Attributes:
        name: Path, or ``array 3`` for images without one.
        pixels: (H, W, 3) uint8 RGB; None if there is an ``error``.
        error: Why there are no pixels.
    """

    name: str
    pixels: np.ndarray | None = None
    error: Exception | None = None


def count_images(faces: Any) -> int | None:
    """Return how many images there are, or None where only the end will tell.

    A path that names nothing counts as an image that cannot be used.
    """
    if isinstance(faces, (str, Path)):
        try:
            return len(find_images(faces))
        except (FileNotFoundError, ValueError):
            return 1
    if _is_array(faces):
        return len(faces) if faces.ndim == 4 else 1
    if isinstance(faces, (list, tuple)):
        counts = [count_images(face) for face in faces]
        return None if None in counts else sum(counts)
    return None


def find_images(path: str | Path) -> list[Path]:
    """Return the images that a path names: a file, all below a folder, or those of a glob.

    Raises:
        FileNotFoundError: Nothing has that name.
        ValueError: There is no image among it.
    """
    # Unlike Path.expanduser, this one leaves a file named ~old.jpg alone.
    path = Path(os.path.expanduser(path))
    if path.is_file():
        return [path]
    if path.is_dir():
        shown = [
            entry
            for entry in path.rglob('*')
            if not any(part.startswith('.') for part in entry.relative_to(path).parts)
        ]
        found = [e for e in shown if e.suffix.lower() in IMAGE_SUFFIXES and e.is_file()]
        if not found:
            raise ValueError(f'folder {path} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))})')
        return sorted(found)
    if glob.has_magic(str(path)):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
        found = [entry for entry in found if entry.is_file()]
        if not found:
            raise FileNotFoundError(f'no file matches {path}')
        return found
    raise FileNotFoundError(f'{path} does not exist')


def images_of(faces: Any) -> Iterator[Image]:
    """Read images one by one, in order; what cannot be read comes as an error, not raised.

    Args:
        faces: A path (file, folder, glob), an array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) or a
            batch (N, H, W, C), uint8 RGB; or any iterable of these, generators too.

    Raises:
        FileNotFoundError, ValueError: The path names nothing, or a folder without images. (One
            of many paths comes as an error among the images.)
        TypeError: It is nothing of this kind.
    """
    yield from _images_of(faces, iter(range(2**62)))


def _images_of(faces: Any, numbers: Iterator[int]) -> Iterator[Image]:
    if isinstance(faces, (str, Path)):
        for path in find_images(faces):
            yield _read(path)
    elif _is_array(faces):
        array = np.asarray(faces)
        for single in array if array.ndim == 4 else [array]:
            name = f'array {next(numbers)}'
            try:
                yield Image(name, _checked(as_rgb(single), name))
            except ImageError as error:
                yield Image(name, error=error)
    elif isinstance(faces, Iterable):
        for face in faces:
            if not isinstance(face, (str, Path)):
                yield from _images_of(face, numbers)
                continue
            try:
                found = find_images(face)
            except (FileNotFoundError, ValueError) as error:
                # One name of many: the others are still wanted.
                yield Image(str(face), error=error)
                continue
            yield from map(_read, found)
    else:
        raise TypeError(
            f'faces must be a path, an array, or an iterable of these, not {type(faces).__name__}'
        )


def _is_array(faces: Any) -> bool:
    return isinstance(faces, np.ndarray) or hasattr(faces, '__array__')


def _read(path: Path) -> Image:
    try:
        if _is_video(path):
            raise VideoError(
                f'{path} is a video; take its frames out first '
                f'(ffmpeg -i {path.name} frames/%06d.png), or give frames as a generator of arrays'
            )
        return Image(str(path), _checked(read_image(str(path), upright=True), str(path)))
    except (OSError, ImageError) as error:
        return Image(str(path), error=error)


def _is_video(path: Path) -> bool:
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        return True
    with open(path, 'rb') as file:
        head = file.read(12)
    # Matroska, RIFF/AVI and MP4; the latter's brands of still images (avif, heic) are none.
    mp4 = head[4:8] == b'ftyp' and head[8:12] not in (b'avif', b'heic', b'heix', b'mif1')
    return head[:4] == b'\x1a\x45\xdf\xa3' or (head[:4], head[8:]) == (b'RIFF', b'AVI ') or mp4


def as_rgb(array: np.ndarray) -> np.ndarray:
    """Return an array as RGB uint8 (H, W, 3): gray is repeated, alpha blended onto gray.

    Raises:
        ImageError: Shape or type are not those of an image.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ImageError(
            f'an array of shape {array.shape} is no image: expected (H, W), (H, W, 3) or '
            '(H, W, 4), channels last, RGB'
        )
    if array.dtype == np.uint16:
        array = np.rint(array / 257).astype(np.uint8)
    if array.dtype != np.uint8:
        raise ImageError(
            f'an array of {array.dtype} is no image: expected uint8, 0 to 255 '
            '(for values in [0, 1]: (255 * array).round().astype(numpy.uint8))'
        )
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.float32) / 255
        blended = alpha * array[..., :3] + (1 - alpha) * 127
        return np.rint(blended).astype(np.uint8)
    return array


def _checked(pixels: np.ndarray, name: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f'{name} has {height} x {width} pixels: no face; {MIN_SIDE} are needed at least'
        )
    return pixels
