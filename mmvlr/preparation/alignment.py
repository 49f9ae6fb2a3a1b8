"""Alignment of one face: a similarity transform moves its landmarks to the ArcFace position."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from mmvlr.datasets.alignment import FOUR_POINTS, TEMPLATE, VERSION, AlignmentRecipe
from mmvlr.datasets.transforms.geometric import resize

from .detection import Detection, build_detector, dominant_face, main_face

#: Side in pixels from which an image without a found face is shrunk before it is made a square.
_LARGEST_SQUARE = 4096


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the similarity transform that moves points closest to others.

    Minimizes sum ||target - (s R source + t)||^2 over scale s, rotation R without reflection, and
    shift t: Umeyama, *Least-squares estimation of transformation parameters between two point
    patterns*, TPAMI 1991, in the plane.

    Args:
        source: (N, 2).
        target: (N, 2).

    Returns:
        (2, 3): [s R | t].

    Raises:
        ValueError: The source points coincide, or a number is not finite.

    Example:
        >>> import numpy as np
        >>> square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
        >>> similarity_transform(square, 2 * square + 3).round(6) + 0
        array([[2., 0., 3.],
               [0., 2., 3.]])
    """
    source, target = np.asarray(source, float), np.asarray(target, float)
    mean, goal = source.mean(0), target.mean(0)
    centered, aim = source - mean, target - goal
    spread = (centered**2).sum() / len(source)
    if not (np.isfinite(source).all() and np.isfinite(target).all()) or spread < 1e-12:
        raise ValueError(f'no similarity transform from the points {source.tolist()}')
    # Points as complex numbers: multiplying by one rotates and scales, and never mirrors.
    real = (centered * aim).sum()
    imaginary = centered[:, 0] @ aim[:, 1] - centered[:, 1] @ aim[:, 0]
    matrix = np.array([[real, -imaginary], [imaginary, real]]) / (len(source) * spread)
    return np.hstack([matrix, (goal - matrix @ mean)[:, None]])


def align_face(
    image: np.ndarray, landmarks: np.ndarray, size: int = 112, as_in: str | None = None
) -> np.ndarray:
    """Move the landmarks of a face to the ArcFace template, bicubically.

    What the image does not show is its mirror image, as in :class:`RotateFace`: very small
    faces are cropped tightly, and black corners would be a cue that no camera gives.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (5, 2) as in :data:`TEMPLATE`, or (4, 2) as in :data:`FOUR_POINTS`, in pixels
            of the image.
        size: Side of the result in pixels.
        as_in: ``'insightface'``: as its ``norm_crop``, bilinear, without averaging, with black
            corners; ``size`` is a multiple of 112, and there are five landmarks.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ValueError: The landmarks coincide, or ``as_in`` is unknown or cannot have this ``size``.
    """
    landmarks = np.asarray(landmarks, float)
    if as_in is not None:
        if as_in != 'insightface' or size % 112 or len(landmarks) != 5:
            raise ValueError(
                f"as_in must be 'insightface', with five landmarks and a multiple of 112 pixels, "
                f'got {as_in!r}, {len(landmarks)} and {size}'
            )
        matrix = similarity_transform(landmarks, TEMPLATE * size / 112)
        return cv2.warpAffine(image, matrix, (size, size))
    target = ((FOUR_POINTS if len(landmarks) == 4 else TEMPLATE) + 0.5) * size / 112 - 0.5
    matrix = similarity_transform(landmarks, target)
    shrink = int(1 / np.hypot(*matrix[:, 0]))
    if shrink > 1:
        # A warp reads single pixels; a large image is averaged down first.
        height, width = image.shape[:2]
        new = max(1, height // shrink), max(1, width // shrink)
        scale = np.array([new[1] / width, new[0] / height])
        matrix = similarity_transform((landmarks + 0.5) * scale - 0.5, target)
        image = _shrink_where_read(image, new, matrix, size)
    return cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def _shrink_where_read(
    image: np.ndarray, new: tuple[int, int], matrix: np.ndarray, size: int
) -> np.ndarray:
    """Average an image down where a warp reads it; elsewhere the result is black.

    Args:
        image: (H, W, 3).
        new: Height and width of the whole image averaged down.
        matrix: (2, 3), from that to the result of the warp.
        size: Side of the result.

    Returns:
        (new height, new width, 3).
    """
    corners = np.array([(0, 0, size, size), (0, size, 0, size)]) - 0.5
    read = np.linalg.solve(matrix[:, :2], corners - matrix[:, 2:])
    there, here = [], []
    for low, high, side, full in zip(
        np.floor(read.min(1)) - 2,
        np.ceil(read.max(1)) + 3,
        new[::-1],
        image.shape[1::-1],
        strict=True,
    ):
        # Beyond an edge the warp reads the mirror image of what is on this side of it.
        low, high = min(low, 2 * side - 2 - high), max(high, -low + 1)
        # Pixels are averages of the same pixels only where both grids meet.
        step = side // math.gcd(side, full)
        low = int(max(0, low // step * step))
        high = int(min(side, -(-high // step) * step))
        if high <= low:
            low, high = 0, side
        there.append(slice(low * full // side, high * full // side))
        here.append(slice(low, high))
    # The warp computes in float32, so that the part has to stay in its place.
    shrunk = np.zeros((*new, image.shape[2]), image.dtype)
    lengths = [part.stop - part.start for part in here[::-1]]
    shrunk[here[1], here[0]] = resize(image[there[1], there[0]], lengths, 'area')
    return shrunk


def fallback_face(image: np.ndarray, size: int = 112) -> np.ndarray:
    """Return the whole image as a face: its shorter side is repeated outwards to a square.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8, resized bicubically (by averaging where it shrinks).
    """
    longest = max(image.shape[:2])
    if longest > _LARGEST_SQUARE:
        # The square of a strip of 100,000 x 4 pixels would take 30 GB.
        shrunk = [max(1, round(n * _LARGEST_SQUARE / longest)) for n in image.shape[:2]]
        image = resize(image, shrunk, 'area')
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = cv2.copyMakeBorder(
        image, top, side - height - top, left, side - width - left, cv2.BORDER_REPLICATE
    )
    return resize(square, (size, size), 'bicubic' if size > side else 'area')


@dataclass(frozen=True)
class AlignedFace:
    """What :class:`Aligner` returns.

    Attributes:
        image: (size, size, 3) uint8 RGB.
        detection: The face that was found; None if ``image`` is :func:`fallback_face`.
        faces: Number of faces found in the image; of several in a frame none may be meant.
    """

    image: np.ndarray
    detection: Detection | None
    faces: int = 0


def make_recipe(detector: Mapping[str, Any] | None = None, size: int = 112) -> AlignmentRecipe:
    """Return the recipe of a detector.

    Args:
        detector: Its config, such as ``dict(type='MTCNNDetector', min_size=20)``, the default
            being MTCNN.
        size: Side of the aligned face in pixels.

    Raises:
        ImportError, OSError, ValueError: The detector cannot be built.
    """
    built = build_detector(detector)
    return AlignmentRecipe(
        size=size,
        detection_side=built.side,
        padding=built.padding,
        min_face=built.min_face,
        thresholds=built.thresholds,
        detector=built.version,
        min_size=built.min_size,
        frame_side=built.frame_side,
    )


class Aligner:
    """Aligns images of one face each.

    The face of a crop is the :func:`main_face`, that of a frame the :func:`dominant_face` of those
    the detector is sure of.

    Args:
        recipe: The recipe; that of the detector by default.
        detector: Config of the detector, MTCNN by default; its numbers are those of the recipe.

    Raises:
        ImportError: facenet-pytorch is not installed.
        ValueError: The recipe asks for another detector or method than the installed one.
    """

    def __init__(
        self,
        recipe: AlignmentRecipe | None = None,
        detector: Mapping[str, Any] | None = None,
    ):
        self.recipe = recipe = make_recipe(detector) if recipe is None else recipe
        self.detector = build_detector(
            detector,
            side=recipe.detection_side,
            padding=recipe.padding,
            min_face=recipe.min_face,
            thresholds=recipe.thresholds,
            min_size=recipe.min_size,
            frame_side=recipe.frame_side,
        )
        if (recipe.detector, recipe.version) != (self.detector.version, VERSION):
            raise ValueError(
                f'the recipe is of {recipe.detector}, version {recipe.version}; installed is '
                f'{self.detector.version}, version {VERSION}: align the images again with it'
            )

    def __call__(self, image: np.ndarray, name: str = '') -> AlignedFace:
        """Align one image, RGB uint8 (H, W, 3), whatever its name."""
        faces = self.detector.detect([image])[0]
        if self.detector.is_frame(image.shape):
            faces = [face for face in faces if face.confidence >= self.detector.SURE]
            found = dominant_face(faces)
        else:
            found = main_face(faces, image.shape)
        if found is None:
            return AlignedFace(fallback_face(image, self.recipe.size), None, len(faces))
        return AlignedFace(align_face(image, found.landmarks, self.recipe.size), found, len(faces))
