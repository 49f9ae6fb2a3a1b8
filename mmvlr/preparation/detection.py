"""Detection of faces and their landmarks, in crops and in whole frames.

A crop, such as a face or a person, is scaled as a whole into a gray square: its face fills a good
part of it. A frame, such as a street seen by a camera, is searched at its own scale, in tiles:
the smallest face is a number of pixels there.
"""

import copy
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from mmvlr.datasets.alignment import FRAME_SIDE, MIN_SIZE, check_detector, not_installed
from mmvlr.datasets.alignment import detector_version as mtcnn_version
from mmvlr.datasets.transforms.geometric import resize
from mmvlr.registry import TASK_UTILS
from mmvlr.utils.compat import limit_primitive_cache
from mmvlr.utils.io import sha256_of

#: Gray level around the image while faces are sought: MTCNN's input is centered at 127.5.
GRAY = 127
#: Short names of the detectors, for commands.
DETECTORS = dict(mtcnn='MTCNNDetector', yunet='YuNetDetector')
# Tiles of a frame in pixels, and how far they reach into each other: larger faces are found in
# the next level, which is scaled down by _STEP.
_TILE, _OVERLAP, _STEP = 2048, 384, 4
#: Longer side of a level that needs no smaller one.
_COARSEST = 640
#: Share of the smaller of two boxes from which on they are one face.
_SAME = 0.5


@dataclass(frozen=True)
class Detection:
    """A face that was found.

    Attributes:
        box: (x1, y1, x2, y2) in pixels of the image; may reach over its edge.
        confidence: The detector's score in (0, 1).
        landmarks: (5, 2) as in :data:`TEMPLATE`, in pixels; (0, 0) is the center of the first. None
            for a detector of your own that finds none.
    """

    box: tuple[float, float, float, float]
    confidence: float
    landmarks: np.ndarray | None

    @property
    def size(self) -> float:
        """Shorter side of the box in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class FaceDetector(ABC):
    """Finds faces in images of any size; a subclass finds those of one image at its own scale.

    Args:
        side: A crop is scaled into a square of so many pixels.
        padding: Width of the square's edge, as a share of the longer side of the crop.
        min_face: Smallest face of a crop, as a share of the square.
        thresholds: Scores that a candidate must reach in the three stages of MTCNN; a detector of
            one stage takes the last.
        min_size: Smallest face of a frame, in pixels of the frame.
        frame_side: Images whose longer side has so many pixels are frames.

    Attributes:
        version: Name and version of what finds the faces.

    Raises:
        ValueError: A number is out of range.
    """

    #: Side in pixels from which on the detector finds most faces: frames are enlarged for it.
    RELIABLE: ClassVar[float]
    #: Confidence from which on hardly anything in a frame is a wheel or a bush.
    SURE: ClassVar[float]
    version: str

    def __init__(
        self,
        side: int = 160,
        padding: float = 0.25,
        min_face: float = 0.2,
        thresholds: Sequence[float] = (0.6, 0.7, 0.7),
        min_size: float = MIN_SIZE,
        frame_side: int = FRAME_SIDE,
    ):
        check_detector(side, padding, min_face, thresholds, min_size, frame_side)
        self.side, self.padding, self.min_face = side, padding, min_face
        self.thresholds, self.min_size, self.frame_side = thresholds, min_size, frame_side

    @abstractmethod
    def find(self, image: np.ndarray, smallest: float) -> list[Detection]:
        """Find the faces of one image at its own scale, the largest first.

        Args:
            image: (H, W, 3) uint8 RGB, at least ``smallest`` pixels wide and high.
            smallest: Side of the smallest face in pixels.
        """

    def is_frame(self, shape: Sequence[int]) -> bool:
        """Say whether an image (height, width, ...) is searched as a frame, not as a crop."""
        return max(shape[:2]) >= self.frame_side

    def detect(self, images: Iterable[np.ndarray]) -> list[list[Detection]]:
        """Find the faces of each image, the largest first.

        Args:
            images: RGB uint8 arrays (H, W, 3).
        """
        return [
            self._search_frame(image) if self.is_frame(image.shape) else self._search_crop(image)
            for image in images
        ]

    def _search_crop(self, image: np.ndarray) -> list[Detection]:
        canvas, scale, shift = on_square(image, self.side, self.padding)
        found = self.find(canvas, self.min_face * self.side)
        return [_move(face, scale, shift) for face in found]

    def _search_frame(self, image: np.ndarray) -> list[Detection]:
        factor, found = max(1.0, self.RELIABLE / self.min_size), []
        smallest = self.min_size * factor
        while True:
            for tile, scale, shift, core in _cut(image, factor):
                if min(tile.shape[:2]) > smallest:
                    faces = (_move(face, scale, shift) for face in self.find(tile, smallest))
                    found += [face for face in faces if _has_center(core, face)]
            if max(image.shape[:2]) * factor <= _COARSEST:
                return drop_repeated(found)
            factor /= _STEP
            # What is smaller here was within the overlap of the tiles of the level before.
            smallest = max(smallest, _OVERLAP / _STEP / 1.5)


@TASK_UTILS.register_module()
class MTCNNDetector(FaceDetector):
    """MTCNN; the arguments are those of :class:`FaceDetector`.

    Zhang et al., *Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional
    Networks*, 2016. The network comes from facenet-pytorch (``pip install 'mmvlr[align]'``), whose
    wheel holds the weights.

    Images go through the network one by one: in a batch the numbers of an image would change
    with its neighbors in the sixth digit, and on one processor core a batch is not faster.

    Raises:
        ImportError: facenet-pytorch is not installed.
        ValueError: A number is out of range.
    """

    RELIABLE, SURE = 20.0, 0.95

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise not_installed() from error
        limit_primitive_cache()
        self.version = mtcnn_version()
        self.mtcnn = MTCNN(thresholds=list(self.thresholds), keep_all=True).eval()

    def find(self, image: np.ndarray, smallest: float) -> list[Detection]:
        """Find the faces of one image at its own scale, the largest first."""
        # Shares the weights: other threads may seek faces of another size.
        mtcnn = copy.copy(self.mtcnn)
        mtcnn.min_face_size = smallest
        boxes, scores, points = mtcnn.detect(image[None], landmarks=True)
        if boxes[0] is None:
            return []
        # facenet-pytorch wraps its results into arrays of objects.
        boxes, scores, points = (np.asarray(part[0], float) for part in (boxes, scores, points))
        return [
            Detection(tuple(box.tolist()), float(score), landmarks)
            for box, score, landmarks in zip(boxes, scores, points, strict=True)
        ]


@TASK_UTILS.register_module()
class YuNetDetector(FaceDetector):
    """YuNet of OpenCV's model zoo; the other arguments are those of :class:`FaceDetector`.

    Wu et al., *YuNet: A Tiny Millisecond-level Face Detector*, 2023. OpenCV runs it
    (``cv2.FaceDetectorYN``); mmvlr does not ship its weights.

    Args:
        file: Its weights, such as ``face_detection_yunet_2023mar.onnx``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: OpenCV cannot read it, or a number is out of range.
    """

    RELIABLE, SURE = 12.0, 0.9

    def __init__(self, file: str | Path, **settings: Any):
        super().__init__(**settings)
        if not Path(file).is_file():
            raise FileNotFoundError(f'{file} does not exist; give the ONNX file of YuNet')
        self.version = f'YuNet, sha256 {sha256_of(file)[:16]}, OpenCV {cv2.__version__}'
        self._lock = threading.Lock()
        try:
            self.net = cv2.FaceDetectorYN.create(
                str(file), '', (self.side, self.side), self.thresholds[-1]
            )
        except cv2.error as error:
            told = ' '.join(str(error).split())[:200]
            raise ValueError(
                f'{file} is no model of YuNet that OpenCV reads ({told}); give the ONNX file of '
                "OpenCV's model zoo, face_detection_yunet"
            ) from error

    def find(self, image: np.ndarray, smallest: float) -> list[Detection]:
        """Find the faces of one image at its own scale, the largest first."""
        with self._lock:
            self.net.setInputSize(image.shape[1::-1])
            _, rows = self.net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        found = []
        for x, y, width, height, *points, score in () if rows is None else rows.astype(float):
            box = float(x), float(y), float(x + width), float(y + height)
            found.append(Detection(box, float(score), np.reshape(points, (5, 2))))
        found = [face for face in found if face.size >= smallest]
        return sorted(found, key=lambda face: -face.area)


def configure_detector(name: str = 'mtcnn', file: str | Path | None = None) -> dict[str, Any]:
    """Return the config of a detector for its short name and, where it has one, its file.

    Raises:
        ValueError: YuNet has no file, or MTCNN has one.
    """
    if (name == 'yunet') != (file is not None):
        told = 'needs the ONNX file of its weights' if file is None else 'takes no file'
        raise ValueError(f'the detector {name} {told} (--detector-file)')
    return dict(type=DETECTORS[name]) | ({} if file is None else dict(file=str(file)))


def build_detector(config: Mapping[str, Any] | None = None, **settings: Any) -> FaceDetector:
    """Build a detector from its config, ``dict(type='MTCNNDetector', min_size=12)``.

    Args:
        config: The config; MTCNN's by default.
        settings: Arguments that replace those of the config.
    """
    return TASK_UTILS.build({**(config or configure_detector()), **settings, '_scope_': 'mmvlr'})


def on_square(
    image: np.ndarray, side: int, padding: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale an image into the middle of a gray square, with its aspect ratio.

    Args:
        image: (H, W, 3) uint8.
        side: Side of the square in pixels.
        padding: Width of the edge at the longer side, as a share of it.

    Returns:
        The square, and ``scale`` (2,) and ``shift`` (2,) for :func:`to_image`.
    """
    height, width = image.shape[:2]
    factor = side / (max(height, width) * (1 + 2 * padding))
    new = max(1, round(height * factor)), max(1, round(width * factor))
    inner = resize(image, new, 'bicubic' if factor > 1 else 'area')
    top, left = (side - new[0]) // 2, (side - new[1]) // 2
    square = np.full((side, side, 3), GRAY, np.uint8)
    square[top : top + new[0], left : left + new[1]] = inner
    return square, np.array([new[1] / width, new[0] / height]), np.array([left, top])


def to_image(points: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Map points (..., 2) of a square of :func:`on_square` back to the image."""
    return (points - shift + 0.5) / scale - 0.5


def _move(face: Detection, scale: np.ndarray, shift: np.ndarray) -> Detection:
    box = to_image(np.reshape(face.box, (2, 2)), scale, shift)
    points = to_image(face.landmarks, scale, shift)
    return replace(face, box=tuple(box.ravel().tolist()), landmarks=points)


def split_length(length: int, tile: int, overlap: int) -> list[tuple[int, int, float, float]]:
    """Cut a length into tiles: start, end, and the part whose centers of faces are the tile's.

    Neighbors overlap by ``overlap`` at least; the parts meet in the middle of it, so that every
    face has its center in one of them, and is whole in that tile up to the size of the overlap.

    Example:
        >>> split_length(100, 60, 20)
        [(0, 60, -inf, 50.0), (40, 100, 50.0, inf)]
    """
    count = max(1, math.ceil((length - overlap) / (tile - overlap)))
    starts = [round(index * (length - tile) / max(1, count - 1)) for index in range(count)]
    middles = [(after + start + tile) / 2 for start, after in pairwise(starts)]
    return [
        (start, min(length, start + tile), low, high)
        for start, low, high in zip(
            starts, [-math.inf, *middles], [*middles, math.inf], strict=True
        )
    ]


def _cut(
    image: np.ndarray, factor: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, ...]]]:
    """Yield the tiles of an image scaled by a factor, for :func:`to_image`, and their parts."""
    tile, overlap = round(_TILE / factor), round(_OVERLAP / factor)
    for top, bottom, *rows in split_length(image.shape[0], tile, overlap):
        for left, right, *columns in split_length(image.shape[1], tile, overlap):
            part = np.ascontiguousarray(image[top:bottom, left:right])
            height, width = part.shape[:2]
            new = max(1, round(height * factor)), max(1, round(width * factor))
            scale = np.array([new[1] / width, new[0] / height])
            scaled = resize(part, new, 'bicubic' if factor > 1 else 'area')
            yield scaled, scale, -scale * (left, top), (*columns, *rows)


def _has_center(part: Sequence[float], face: Detection) -> bool:
    left, right, top, bottom = part
    x, y = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    return left <= x < right and top <= y < bottom


def drop_repeated(faces: Sequence[Detection]) -> list[Detection]:
    """Keep of faces that share half of the smaller box the surest; return the largest first."""
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: (-face.confidence, -face.area)):
        if all(_shared_area(face, other) <= _SAME * min(face.area, other.area) for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.area)


def _shared_area(first: Detection, second: Detection) -> float:
    width = min(first.box[2], second.box[2]) - max(first.box[0], second.box[0])
    height = min(first.box[3], second.box[3]) - max(first.box[1], second.box[1])
    return max(width, 0.0) * max(height, 0.0)


def main_face(detections: Sequence[Detection], shape: Sequence[int]) -> Detection | None:
    """Return the face a crop is about, or None without any.

    It is the one with the largest area less twice the squared distance from the middle, as is
    customary since David Sandberg's facenet.

    Args:
        detections: Faces of the image.
        shape: (height, width, ...) of the image in pixels.
    """
    middle = np.array([shape[1], shape[0]]) / 2

    def weight(face: Detection) -> float:
        x1, y1, x2, y2 = face.box
        offset = np.array([x1 + x2, y1 + y2]) / 2 - middle
        return face.area - 2 * float(offset @ offset)

    return max(detections, key=weight, default=None)


def dominant_face(detections: Sequence[Detection]) -> Detection | None:
    """Return the face of a frame that is at least twice as large as every other, or None."""
    first, *others = sorted(detections, key=lambda face: -face.size) or [None]
    return first if not others or first.size >= 2 * others[0].size else None
