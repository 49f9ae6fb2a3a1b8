"""Detect readable images that do not suit the network or occur twice.

:func:`inspect_images` compares a sample with the network's input: shape, size, color.
:func:`find_copies` finds images that are byte for byte the same.
"""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.logging import print_log
from PIL import Image

from .storage import locate
from .transforms.loading import read_image

#: Number of images that are inspected per role, evenly spread.
SAMPLE = 64
#: Limit of decoded pixels per sample: a few large images are enough to judge the colors.
DECODED_PIXELS = 1 << 24
#: Smallest number of images from which the colors of a set are judged.
FEWEST = 8
#: Limit of the change of aspect ratio. Crops of detectors are up to 4 : 5, portraits 3 : 4. A crop
#: of few pixels may fall in between by rounding, so half a pixel is tolerated on each side.
MAX_SQUEEZE = 1.26
#: Shorter side in pixels from which an image is a frame or a portrait rather than a face crop.
FRAME_SIDE = 480
#: Largest difference between channels of a gray image, caused by compression.
GRAY_SPREAD = 2
#: Red less blue below which the channels are probably swapped. Skin is redder than blue in all
#: measured sets, by 25 gray levels in the median of the worst.
SWAPPED = -10
REMEDY = 'align them (mmvlr align)'


def spread(count: int, limit: int = SAMPLE) -> list[int]:
    """Return at most ``limit`` indices below ``count``, evenly spread."""
    return np.linspace(0, count - 1, min(count, limit)).round().astype(int).tolist()


class Look(NamedTuple):
    """Properties of an image.

    Attributes:
        name: Its name.
        shape: (height, width) in pixels.
        gray: Whether it has no color; None where it was not decoded.
        redness: Mean of red minus blue in the center, in gray levels; None as above.
    """

    name: str
    shape: tuple[int, int]
    gray: bool | None = None
    redness: float | None = None


def look_at(name: str, image: np.ndarray) -> Look:
    """Measure the properties of an image, RGB uint8 (H, W, 3)."""
    height, width = image.shape[:2]
    step = max(1, min(height, width) // 128)
    pixels = image[::step, ::step].astype(np.int16)
    rows, columns = len(pixels) // 4, pixels.shape[1] // 4
    middle = pixels[rows : len(pixels) - rows, columns : pixels.shape[1] - columns]
    red, _, blue = middle.reshape(-1, 3).mean(0)
    gray = int(np.ptp(pixels, axis=2).max()) <= GRAY_SPREAD
    return Look(name, (height, width), gray, float(red - blue))


def judge(looks: Sequence[Look], size: Sequence[int], role: str = 'given') -> dict[str, list[str]]:
    """Return what is suspicious about a sample of images.

    Args:
        looks: Properties of the images.
        size: (height, width) that images are resized to.
        role: Role of the images, for the message.

    Returns:
        Finding -> names of the images.
    """
    if not looks:
        return {}
    found: dict[str, list[str]] = {}
    of = f'sampled {role} images (of {len(looks)})'
    height, width = np.median([look.shape for look in looks], axis=0).astype(int)
    target = f'{size[0]} x {size[1]} (height x width)'
    large = [look.name for look in looks if min(look.shape) >= FRAME_SIDE]
    squeezed = [look.name for look in looks if squeeze(look.shape, size) > MAX_SQUEEZE]
    if len(large) > len(looks) / 2:
        found[
            f'{of} are frames or portraits, {height} x {width} in the median, where face crops are '
            f'expected; resized to {target} they are recognized badly: {REMEDY}'
        ] = large
    elif len(squeezed) > len(looks) / 2:
        found[
            f'{of} have another shape, {height} x {width} in the median, and are squeezed to '
            f'{target}, which is recognized badly: {REMEDY}'
        ] = squeezed
    seen = [look for look in looks if look.gray is not None]
    bluer = [look.name for look in seen if look.redness < 0]
    if len(seen) < FEWEST:
        return found
    if all(look.gray for look in seen):
        found[f'{of} are gray, where color is expected: figures are not those of color images'] = [
            look.name for look in seen
        ]
    elif np.median([look.redness for look in seen]) < SWAPPED and len(bluer) > 0.8 * len(seen):
        found[
            f'{of} show faces that are bluer than red: red and blue are probably swapped; write '
            'the images as RGB'
        ] = bluer
    return found


def inspect_images(
    records: Sequence[Mapping[str, Any]], size: Sequence[int] = (112, 112), root: str = ''
) -> dict[str, list[str]]:
    """Compare a sample of each role with the network's input.

    Args:
        records: Records of a data set.
        size: (height, width) that images are resized to.
        root: Folder that names are relative to.

    Returns:
        Finding -> names of the images.
    """
    by_role: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        by_role[record['role']].append(record)
    found: dict[str, list[str]] = {}
    for role, members in by_role.items():
        sample = [members[index] for index in spread(len(members))]
        found |= judge(list(_looks(sample, root)), size, role)
    return found


def _looks(sample: Sequence[Mapping[str, Any]], root: str) -> Iterator[Look]:
    left = DECODED_PIXELS
    for record in sample:
        name = _name(record.get('img_path', ''), root)
        try:
            shape = read_shape(record)
            left -= shape[0] * shape[1]
            yield look_at(name, _read(record)) if left >= 0 else Look(name, shape)
        except Exception:  # reported when the image is loaded
            continue


def watch_images(images: Iterable[Any], size: Sequence[int]) -> Iterator[Any]:
    """Pass images on, and warn once if the first ones do not suit the network.

    Args:
        images: Objects with ``name`` and ``pixels`` (RGB, or None).
        size: (height, width) that they are resized to.
    """
    looks: list[Look] = []
    told = False
    for image in images:
        if image.pixels is not None and len(looks) < SAMPLE:
            looks.append(look_at(image.name, image.pixels))
            if len(looks) == SAMPLE:
                told = True
                _warn(judge(looks, size))
        yield image
    if not told:
        _warn(judge(looks, size))


def _warn(findings: Mapping[str, Sequence[str]]) -> None:
    for reason, names in findings.items():
        shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
        print_log(f'{len(names)} {reason} ({shown})', logger='current', level=logging.WARNING)


def _name(path: str, root: str) -> str:
    return os.path.relpath(path, root) if path and root else str(path)


def squeeze(shape: Sequence[int], size: Sequence[int]) -> float:
    """Return the factor by which resizing changes the aspect ratio, less half a pixel of rounding.

    Args:
        shape: (height, width) of an image.
        size: (height, width) that it is resized to.

    Returns:
        1 for an image with the aspect ratio of ``size``, otherwise more.
    """
    height, width = shape
    target = size[1] / size[0]
    low, high = (width - 0.5) / (height + 0.5) / target, (width + 0.5) / (height - 0.5) / target
    return max(low, 1 / high, 1.0)


def read_shape(record: Mapping[str, Any]) -> tuple[int, int]:
    """Return (height, width) of an image; of a file, only the header is read."""
    if 'img' in record or locate(record['img_path']) is not None:
        return _read(record).shape[:2]
    with Image.open(record['img_path']) as image:
        return image.height, image.width


def _read(record: Mapping[str, Any]) -> np.ndarray:
    return record['img'] if 'img' in record else read_image(record['img_path'])


# ----------------------------------------------------------------------------------------------
# Copies


class Entry(NamedTuple):
    """An image to be compared with others for equal content.

    Attributes:
        content: Equal for images that are byte for byte the same.
        part: Its role, or the part of the archive.
        person: Person in the image; None where unknown.
        name: Its name, for the message.
    """

    content: Hashable
    part: str
    person: Hashable | None
    name: str


#: Verification sets reuse images of the identification test on purpose: these are no copies.
_APART = ('pair', 'verification')


def name_copies(entries: Iterable[Entry]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Find images that are byte for byte the same.

    Args:
        entries: The images; those of the parts that others are compared with come first.

    Returns:
        Harmful findings -> names, and harmless ones (twice in one part, of one person) -> names.
    """
    groups: dict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.content].append(entry)
    harm: dict[str, list[str]] = defaultdict(list)
    harmless: dict[str, list[str]] = defaultdict(list)
    for group in groups.values():
        seen: dict[str, Entry] = {}
        for entry in group:
            for part, other in seen.items():
                told = f'{entry.name} = {other.name}'
                if part != entry.part:
                    apart = {part, entry.part} & {*_APART} and 'train' not in (part, entry.part)
                    if not apart:
                        reason = f'{entry.part} images that are byte for byte in {part} too'
                        harm[reason].append(told)
                elif entry.person != other.person:
                    harm[f'{part} images that are there under two people'].append(told)
                else:
                    harmless[f'{part} images that are there twice'].append(told)
            seen.setdefault(entry.part, entry)
    return dict(harm), dict(harmless)


def find_copies(
    records: Sequence[Mapping[str, Any]], training: Iterable[str] = (), root: str = ''
) -> dict[str, list[str]]:
    """Find images of a test set that are byte for byte the same, also in its training set.

    Only files of equal size are read.

    Args:
        records: Records of the test set.
        training: Images of the training set.
        root: Folder that names are relative to.

    Returns:
        Finding -> names of the images.
    """
    # Where prototypes are loaded, the test set is the training set itself.
    own = {str(record.get('img_path')) for record in records}
    images = [(path, 'train', None) for path in training if str(path) not in own]
    images += [
        (record['img_path'], record['role'], record['identity'])
        for record in records
        if 'img_path' in record
    ]
    alike: dict[Hashable, list[int]] = defaultdict(list)
    for index, (path, _, _) in enumerate(images):
        alike[_cheap_key(path)].append(index)
    chosen = sorted(index for group in alike.values() if len(group) > 1 for index in group)
    paths = [images[index][0] for index in chosen]
    entries = (
        Entry(content, *images[index][1:], _name(images[index][0], root))
        for index, content in zip(chosen, _digests(paths), strict=True)
        if content is not None
    )
    harm, harmless = name_copies(entries)
    return harm | harmless


def _cheap_key(path: str) -> Hashable:
    """Return a cheap key that is equal for equal images."""
    stored = locate(path)
    if stored is not None:
        reader, name = stored
        return reader.size_key(name)
    try:
        # Empty files are no copies of each other.
        return os.stat(path).st_size or path
    except OSError:
        # Not read here; loading it raises the error.
        return path


def _digests(paths: Sequence[str], chunk: int = 500) -> Iterator[bytes | None]:
    """Yield digests of contents; threads overlap the waits for a slow disk."""
    parts = [paths[start : start + chunk] for start in range(0, len(paths), chunk)]
    with ThreadPoolExecutor(8) as pool:
        for part in pool.map(lambda part: [_digest(path) for path in part], parts):
            yield from part


def _digest(path: str) -> bytes | None:
    try:
        stored = locate(path)
        content = Path(path).read_bytes() if stored is None else stored[0].content(stored[1])
    except (OSError, ValueError):
        return None
    return hashlib.blake2b(content, digest_size=16).digest()
