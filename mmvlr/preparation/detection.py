"""Detection of faces and their landmarks by MTCNN.

Zhang et al., *Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks*,
2016. The network comes from facenet-pytorch (``pip install 'mmvlr[align]'``), whose wheel holds the
weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mmvlr.datasets.alignment import check_detector, not_installed
from mmvlr.datasets.transforms.geometric import resize

#: Gray level around the image while faces are sought: MTCNN's input is centered at 127.5.
GRAY = 127


@dataclass(frozen=True)
class Detection:
    """A face that was found.

    Attributes:
        box: (x1, y1, x2, y2) in pixels of the image; may reach over its edge.
        confidence: MTCNN's score in (0, 1).
        landmarks: (5, 2) as in :data:`TEMPLATE`, in pixels; (0, 0) is the center of the first.
    """

    box: tuple[float, float, float, float]
    confidence: float
    landmarks: np.ndarray

    @property
    def size(self) -> float:
        """Shorter side of the box in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])


class FaceDetector:
    """MTCNN for images of any size; the arguments are those of :class:`AlignmentRecipe`.

    Images go through the network one by one: in a batch the numbers of an image would change
    with its neighbors in the sixth digit, and on one processor core a batch is not faster.

    Raises:
        ImportError: facenet-pytorch is not installed.
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        side: int = 160,
        padding: float = 0.25,
        min_face: float = 0.2,
        thresholds: Sequence[float] = (0.6, 0.7, 0.7),
    ):
        check_detector(side, padding, min_face, thresholds)
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise not_installed() from error
        self.side, self.padding = side, padding
        self.mtcnn = MTCNN(
            min_face_size=min_face * side, thresholds=list(thresholds), keep_all=True
        ).eval()

    def detect(self, images: Iterable[np.ndarray]) -> list[list[Detection]]:
        """Find the faces of each image, the largest first.

        Args:
            images: RGB uint8 arrays (H, W, 3).
        """
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> list[Detection]:
        canvas, scale, shift = on_square(image, self.side, self.padding)
        boxes, scores, points = self.mtcnn.detect(canvas[None], landmarks=True)
        if boxes[0] is None:
            return []
        # facenet-pytorch wraps its results into arrays of objects.
        boxes, scores = np.asarray(boxes[0], float), np.asarray(scores[0], float)
        points = np.asarray(points[0], float)
        boxes = to_image(boxes.reshape(-1, 2, 2), scale, shift).reshape(-1, 4)
        points = to_image(points, scale, shift)
        return [
            Detection(tuple(box.tolist()), float(score), landmarks)
            for box, score, landmarks in zip(boxes, scores, points, strict=True)
        ]


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


def main_face(detections: Sequence[Detection], shape: Sequence[int]) -> Detection | None:
    """Return the face an image is about, or None without any.

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
        return (x2 - x1) * (y2 - y1) - 2 * float(offset @ offset)

    return max(detections, key=weight, default=None)
