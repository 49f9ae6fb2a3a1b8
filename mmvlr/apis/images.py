"""Read images from paths, arrays, Pillow images and iterables, as a stream of named images."""

import glob
import itertools
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from mmvlr.datasets.finding import ABOVE, IMAGE_SUFFIXES, find_images, require_readable, walk
from mmvlr.datasets.storage.decoding import decode_image
from mmvlr.datasets.transforms import ImageError, read_image

#: Smallest side: smaller faces cannot be recognized, and no quality measure handles them.
MIN_SIDE = 4
_VIDEO_SUFFIXES = frozenset(
    {'.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv', '.flv', '.ts'}
)


# A single letter would be a drive. pathlib reduces two slashes to one.
_ADDRESS = re.compile(r'([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])', re.IGNORECASE)


class VideoError(ImageError):
    """A video was given where images are expected."""


class NoFaceError(ImageError):
    """An image whose face is to be aligned shows none, or several of which none is meant."""


@dataclass(frozen=True)
class NamedImage:
    """One image, or the reason why it cannot be used.

    Attributes:
        name: Path, or ``array 3`` for images without one.
        pixels: (H, W, 3) uint8 RGB; None if there is an ``error``.
        error: Reason why there are no pixels.
    """

    name: str
    pixels: np.ndarray | None = None
    error: Exception | None = None


def count_images(faces: Any) -> int | None:
    """Return the number of images, or None if it is unknown before all are read.

    Entries that cannot be used count as images: a path that does not exist, a frame that is None.
    """
    if isinstance(faces, (str, Path)):
        try:
            return len(find_paths(faces))
        except (FileNotFoundError, ValueError):
            return 1
    if _is_array(faces):
        return len(faces) if getattr(faces, 'ndim', 0) == 4 else 1
    if isinstance(faces, (list, tuple)):
        counts = [count_images(face) for face in faces]
        return None if None in counts else sum(counts)
    return None if _is_iterable(faces) else 1


def find_paths(path: str | Path) -> list[Path]:
    """Return the images that a path names: a file, all below a folder, or those of a glob.

    Links are followed. Broken links and unreadable folders are part of the result: reading them
    raises an error that gives the reason.

    Raises:
        FileNotFoundError: The path does not exist.
        VideoError: It is the address of a stream or a page.
        ValueError: It contains no image.
    """
    address = _ADDRESS.match(str(path))
    if address and not os.path.exists(path):
        whole = f'{address[1]}://{str(path)[address.end() :]}'
        raise VideoError(
            f'{whole} is an address, no file: download images; of a video stream give the frames, '
            'RGB arrays, to FaceInferencer.stream (OpenCV: cv2.VideoCapture(ADDRESS) reads them, '
            'cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))'
        )
    # Unlike Path.expanduser, this one leaves a file named ~old.jpg alone.
    path = Path(os.path.expanduser(path))
    if path.is_file():
        return [path]
    if path.is_dir():
        found = _below(path)
        if not found:
            raise ValueError(f'folder {path} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))})')
        return found
    if glob.has_magic(str(path)):
        found = sorted(set(_match(path)))
        if not found:
            raise FileNotFoundError(f'no file matches {path}')
        return found
    if path.exists() or path.is_symlink():
        # Reading it raises the error with the reason.
        return [path]
    raise FileNotFoundError(f'{path} does not exist')


def _below(folder: Path) -> list[Path]:
    """Return the images below a folder, and unreadable entries, which fail when they are read."""
    try:
        tree = find_images(folder)
    except OSError:
        return [folder]
    unread = [entry for entry in tree.unread if entry.reason != ABOVE]
    for entry in tree.unread:
        if entry not in unread:
            print_log(f'{entry}', logger='current', level=logging.WARNING)
    return sorted([*tree.images, *(entry.path for entry in unread)])


def _match(pattern: Path) -> list[Path]:
    """Return the files that match a pattern, and those below folders that match."""
    parts = pattern.parts
    if '**' in parts:
        # glob's own ``**`` would follow loops of links, and skip folders that it cannot read.
        place = parts.index('**')
        tops = [top for top in _glob(Path(*parts[:place])) if top.is_dir()]
        if place + 1 == len(parts):
            return [path for top in tops for path in _below(top)]
        found = []
        for folder in (folder for top in tops for folder in walk(top)):
            found += [entry.path for entry in folder.unread if entry.reason != ABOVE]
            found += _match(Path(glob.escape(str(folder.path)), *parts[place + 1 :]))
        return found
    entries = _glob(pattern)
    return [path for e in entries for path in ((_below(e) or [e]) if e.is_dir() else [e])]


def _glob(pattern: Path) -> list[Path]:
    return [Path(name) for name in glob.glob(str(pattern))]


def read_images(faces: Any) -> Iterator[NamedImage]:
    """Read images one by one, in order; errors of single images are returned, not raised.

    Args:
        faces: A path (file, folder, glob), an array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) or a
            batch (N, H, W, C), uint8 RGB; a Pillow image; or any iterable of these, generators
            too. Anything else in an iterable, such as None for a dropped frame of a camera, counts
            as an image that cannot be used.

    Raises:
        FileNotFoundError, ValueError: The path does not exist, or is a folder without images. (One
            of many paths is returned as an error among the images.)
        TypeError: It is none of these kinds.
    """
    single = isinstance(faces, (str, Path))
    if not single and not _is_array(faces) and not _is_iterable(faces):
        raise TypeError(_wanted(faces))
    # A single bad path fails the call; one of many only fails that image.
    yield from map(_read, find_paths(faces)) if single else _each(faces, itertools.count())


def _wanted(faces: Any) -> str:
    kinds = 'a path, an array, a PIL image, or an iterable of these'
    return f'faces must be {kinds}, not {type(faces).__name__}'


def _each(faces: Any, numbers: Iterator[int]) -> Iterator[NamedImage]:
    if isinstance(faces, (str, Path)):
        try:
            found = find_paths(faces)
        except (FileNotFoundError, ValueError) as error:
            # One of many names: continue with the others.
            yield NamedImage(str(faces), error=error)
            return
        yield from map(_read, found)
    elif _is_array(faces) or not _is_iterable(faces):
        batch = getattr(faces, 'ndim', 0) == 4
        for single in faces if batch else [faces]:
            name = f'array {next(numbers)}'
            try:
                yield NamedImage(name, _checked(_pixels(single, name), name))
            except ImageError as error:
                yield NamedImage(name, error=error)
    else:
        for face in faces:
            yield from _each(face, numbers)


def _is_array(faces: Any) -> bool:
    return isinstance(faces, (np.ndarray, Image.Image)) or hasattr(faces, '__array__')


def _is_iterable(faces: Any) -> bool:
    return isinstance(faces, Iterable) and not isinstance(faces, (bytes, bytearray, Mapping))


def _pixels(face: Any, name: str) -> np.ndarray:
    if isinstance(face, Image.Image):
        return decode_image(face, name, upright=True)
    if not _is_array(face):
        raise ImageError(f'{name}: {_wanted(face)}')
    try:
        array = np.asarray(face)
    except Exception as error:  # tensors of a GPU, arrays of other libraries
        raise ImageError(f'{name} is no array of NumPy ({error})') from error
    return as_rgb(array)


def _read(path: Path) -> NamedImage:
    try:
        require_readable(path)
        if _is_video(path):
            raise VideoError(
                f'{path} is a video; mmvlr track cuts the faces out, '
                f'ffmpeg -i {path.name} frames/%06d.png takes out whole frames'
            )
        return NamedImage(str(path), _checked(read_image(str(path), upright=True), str(path)))
    except Exception as error:  # whatever it is, the others are still wanted
        return NamedImage(str(path), error=error)


def _is_video(path: Path) -> bool:
    if path.suffix.lower() in _VIDEO_SUFFIXES:
        return True
    with open(path, 'rb') as file:
        head = file.read(12)
    # Matroska, RIFF/AVI and MP4, without MP4's brands of still images (avif, heic).
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
