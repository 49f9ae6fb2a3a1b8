"""Alignment by landmarks that come with a data set, without a detector.

SCface has such a list for all its images: name, eyes, tip of the nose and center of the mouth.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmvlr.datasets.alignment import AlignmentRecipe
from mmvlr.datasets.transforms import ImageError
from mmvlr.utils.schema import FileFormatError

from .alignment import AlignedFace, Aligner, align_face, fallback_face
from .detection import Detection

_REMEDY = 'give a list of landmarks'


def read_landmarks(path: str | Path) -> dict[str, np.ndarray]:
    """Read a list of landmarks: a name and the coordinates of four or five points in a line.

    The points are both eyes (in any order), the tip of the nose, and the center of the mouth or its
    two corners: ``001_frontal 512 640 730 641 620 770 622 905``, in pixels. Blanks, tabulators,
    commas or semicolons stand between; names are taken without their ending, in any case.

    Returns:
        Name -> (4, 2) or (5, 2): the eye and corner on the left of the image first.

    Raises:
        OSError: The file cannot be read.
        FileFormatError: A line has another form, a name comes twice with other points, or there is
            none.
    """
    path = Path(path)
    found: dict[str, np.ndarray] = {}
    lines = path.read_text(encoding='utf-8-sig', errors='surrogateescape').splitlines()
    for number, line in enumerate(lines, start=1):
        source = f'{path}, line {number}'
        name, *fields = re.split(r'[\s,;]+', line.strip())
        if not name or name.startswith('#'):
            continue
        try:
            points = np.array(fields, float).reshape(-1, 2)
        except ValueError:
            points = np.empty((0, 2))
        if not len(points) and number == 1:
            # Names of columns.
            continue
        place = PurePosixPath(name.replace('\\', '/'))
        if len(points) not in (4, 5) or not np.isfinite(points).all() or not place.name:
            told = (
                'expected a name and the x and y of both eyes, the nose, and the center or both '
                f'corners of the mouth, found {line[:80]!r}'
            )
            raise FileFormatError(source, told, _REMEDY)
        pairs = [points[:2], points[2:3], points[3:]]
        points = np.concatenate([pair[np.argsort(pair[:, 0], kind='stable')] for pair in pairs])
        key = str(place.with_suffix('')).lower()
        if key in found and not np.array_equal(found[key], points):
            raise FileFormatError(source, f'{name} has other points above', _REMEDY)
        found[key] = points
    if not found:
        raise FileFormatError(path, 'names no image', _REMEDY)
    return found


@dataclass(frozen=True)
class LandmarkRecipe(AlignmentRecipe):
    """Aligns by a list of landmarks; see :func:`read_landmarks`. Only ``size`` has a meaning."""

    @classmethod
    def read(cls, path: str | Path, size: int = 112) -> 'LandmarkRecipe':
        """Return the recipe of a list; its name changes with the list's content.

        Raises:
            OSError, ValueError: See :func:`read_landmarks`.
        """
        read_landmarks(path)
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        recipe = cls(size=size, detector=f'landmarks of a list, sha256 {digest[:16]}')
        # No field: where the list lies does not decide what a face looks like.
        object.__setattr__(recipe, 'path', str(Path(path).resolve()))
        return recipe

    def find_unused(self, images: Iterable[str]) -> list[str]:
        """Return the entries of the list that none of the images belongs to.

        Args:
            images: Names below a folder.

        Raises:
            ValueError: The list names none of them.
        """
        aligner = build_aligner(self)
        used = {aligner.find_entry(name) for name in images} - {None}
        if not used:
            raise ValueError(f'{self.path} names none of the images; give the list of these images')
        return [name for name in aligner.landmarks if name not in used]


class LandmarkAligner:
    """Aligns images by their names.

    Args:
        landmarks: What :func:`read_landmarks` returned.
        size: Side of the aligned face in pixels.
    """

    def __init__(self, landmarks: dict[str, np.ndarray], size: int):
        self.landmarks, self.size = landmarks, size

    def find_entry(self, name: str) -> str | None:
        """Return the entry of an image: by its path if the list has paths, else by its name."""
        parts = PurePosixPath(name.lower()).with_suffix('').parts
        ends = ('/'.join(parts[start:]) for start in range(len(parts)))
        return next((end for end in ends if end in self.landmarks), None)

    def __call__(self, image: np.ndarray, name: str) -> AlignedFace:
        """Align one image, RGB uint8 (H, W, 3); one that is not listed is taken as a whole.

        Raises:
            ImageError: The points lie outside of the image: they are those of another version.
        """
        entry = self.find_entry(name)
        if entry is None:
            return AlignedFace(fallback_face(image, self.size), None)
        points = self.landmarks[entry]
        height, width = image.shape[:2]
        if (points < 0).any() or (points > (width - 1, height - 1)).any():
            raise ImageError(
                f'{name}: landmarks lie outside of its {width} x {height} pixels; the list is of '
                'another version of the images'
            )
        box = (*points.min(0).tolist(), *points.max(0).tolist())
        return AlignedFace(align_face(image, points, self.size), Detection(box, 1.0, points), 1)


def build_aligner(
    recipe: AlignmentRecipe, detector: Mapping[str, Any] | None = None
) -> Aligner | LandmarkAligner:
    """Return what aligns images by a recipe; ``detector`` is as of :class:`Aligner`."""
    if isinstance(recipe, LandmarkRecipe):
        return LandmarkAligner(read_landmarks(recipe.path), recipe.size)
    return Aligner(recipe, detector)
