"""Find out which faces of successive frames belong to one person: tracks by their motion."""

from collections.abc import Sequence

import numpy as np

from .detection import Detection

#: Sides of its own by which a face may move in a second: boxes are widened by what that is from
#: frame to frame when their overlap is measured. A small face moves out of its box otherwise.
SPEED = 4.0


class FaceTracker:
    """Numbers faces frame by frame: those of one number are a track.

    ByteTrack (Zhang et al., *ByteTrack: Multi-Object Tracking by Associating Every Detection
    Box*, ECCV 2022, arXiv 2110.06864) of the package ``trackers``: boxes are joined by their
    predicted motion. Faces of a low score, such as blurred or turned ones, go on with a track and
    start none. A face that is seen in one frame only has no track.

    Args:
        rate: Frames a second.
        gap: Seconds that a face may be hidden.
        start: Score from which on a face starts a track.

    Raises:
        ImportError: The package is not installed.
    """

    def __init__(self, rate: float, gap: float, start: float):
        try:
            from trackers import BIoU, ByteTrackTracker
        except ImportError as error:
            raise ImportError("tracks need trackers: pip install 'mmvlr[video]'") from error
        self._overlap = BIoU(buffer_ratio=SPEED / rate)
        self._make = lambda: ByteTrackTracker(
            lost_track_buffer=round(30 * gap),
            frame_rate=rate,
            track_activation_threshold=start,
            high_conf_det_threshold=start,
            minimum_consecutive_frames=2,
            iou=self._overlap,
        )
        self._start = start
        #: Number of tracks so far.
        self.count = 0
        self.restart()

    def restart(self) -> None:
        """End all tracks, as the frames that follow have nothing to do with those before."""
        self._tracker, self._first = self._make(), self.count
        self._waiting: list[tuple[int, np.ndarray]] = []

    def update(
        self, faces: Sequence[Detection], seconds: float
    ) -> tuple[list[int | None], dict[int, int]]:
        """Number the faces of the next frame.

        Args:
            faces: The faces.
            seconds: Time of the frame; it advances.

        Returns:
            The track of each face, from 0, None if there is none yet; and for each track that
            begins here the index of its face in the frame before.
        """
        import supervision

        boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
        given = supervision.Detections(
            xyxy=boxes,
            confidence=np.array([face.confidence for face in faces], np.float64),
            data=dict(row=np.arange(len(faces))),
        )
        made = self._tracker.update(given, timestamp=seconds)
        tracks: list[int | None] = [None] * len(faces)
        begun = {}
        for row, number in zip(made.data.get('row', ()), made.tracker_id, strict=True):
            if number < 0:
                continue
            tracks[row] = self._first + int(number)
            # Numbers are given one after the other.
            if tracks[row] >= self.count:
                self.count = tracks[row] + 1
                if (index := self._find_begin(boxes[row])) is not None:
                    begun[tracks[row]] = index
        self._waiting = [
            (index, boxes[index])
            for index, (face, track) in enumerate(zip(faces, tracks, strict=True))
            if track is None and face.confidence >= self._start
        ]
        return tracks, begun

    def _find_begin(self, box: np.ndarray) -> int | None:
        """Return the face of the frame before with which the track of a box began.

        The tracker names a track when it sees it for the second time, and not its first face.
        """
        if not self._waiting:
            return None
        overlap = self._overlap.compute(
            np.array([before for _, before in self._waiting]), box[None]
        )[:, 0]
        best = int(np.argmax(overlap))
        return self._waiting.pop(best)[0] if overlap[best] > 0 else None
