"""How the faces of a video are found, joined, judged and cut out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmvlr.datasets.alignment import MIN_SIZE
from mmvlr.structures.face_table import MEASURES

from .detection import Detection, FaceDetector, build_detector

#: Finds the faces of an RGB image (H, W, 3).
FindFaces = Callable[[np.ndarray], Sequence[Detection]]


@dataclass(frozen=True)
class TrackSettings:
    """How faces are found, joined and cut out.

    Args:
        every: Take every n-th frame.
        min_size: Smallest face in pixels.
        min_confidence: Detector's score from which on a face starts a track; by default the one
            from which on the detector is sure (:attr:`FaceDetector.SURE`), 0.5 for a function.
        gap: Seconds that a face may be hidden in a track.
        margin: Added to the box on every side, as a share of its longer side.
        best: Keep so many faces of a track, those of the highest quality; None keeps all.
        align: Side of aligned faces in pixels; None keeps the native size.

    Raises:
        ValueError: A number is out of range.
    """

    every: int = 1
    min_size: float = MIN_SIZE
    min_confidence: float | None = None
    gap: float = 1.0
    margin: float = 0.1
    best: int | None = None
    align: int | None = None

    def __post_init__(self) -> None:
        for name, low in (('every', 1), ('best', 1), ('align', 8), ('gap', 0), ('margin', 0)):
            value = getattr(self, name)
            if value is not None and not low <= value < math.inf:
                raise ValueError(f'{name} must be at least {low}, not {value}')
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ValueError(f'min_confidence must be in [0, 1], not {self.min_confidence}')


@dataclass(frozen=True)
class Judge:
    """What judges the faces.

    Args:
        name: Name of the quality; a column of the table.
        model: Plain values that change with the model.
        measure: Maps N crops (h, w, 3) to their qualities (N,), NaN where there is none.
    """

    name: str
    model: Any
    measure: Callable[[list[np.ndarray]], np.ndarray]


def make_judge(inferencer: Any) -> Judge:
    """Return the judge by the first quality of a model: RI, if it predicts it.

    Args:
        inferencer: A :class:`mmvlr.apis.FaceInferencer`.
    """
    network = inferencer.network
    there = network(np.full((1, *network.size, 3), 127, np.uint8))
    name = next(name for name in MEASURES if name in there)

    def measure(crops: list[np.ndarray]) -> np.ndarray:
        size = inferencer.batch_size
        parts = (crops[start : start + size] for start in range(0, len(crops), size))
        return np.concatenate([network(np.stack(inferencer.crops(part)))[name] for part in parts])

    return Judge(name, dict(inferencer.fingerprint), measure)


def make_finder(
    detector: Mapping[str, Any] | FindFaces | None, min_size: float = MIN_SIZE
) -> FindFaces:
    """Return the function that finds the faces of a frame, whatever its size.

    Args:
        detector: Config of a registered detector, MTCNN's by default, or such a function.
        min_size: Smallest face in pixels, for the config.
    """
    if callable(detector):
        return detector
    # Videos are frames, also those of few pixels.
    built = build_detector(detector, min_size=min_size, frame_side=1)
    return _Detector(built)


class _Detector:
    def __init__(self, built: FaceDetector):
        self.built, self.version, self.SURE = built, built.version, built.SURE

    def __call__(self, pixels: np.ndarray) -> list[Detection]:
        return self.built.detect([pixels])[0]
