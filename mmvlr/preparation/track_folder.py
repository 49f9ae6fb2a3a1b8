"""Cut the faces of a video out, a folder a track; a killed run goes on where it stopped."""

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

from mmvlr.utils.io import remove_leftovers, write_atomic, write_csv
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.schema import Count, FileFormatError, FileModel
from mmvlr.utils.work import Journal, in_order, progress_bar

from .alignment import align_face, fallback_face
from .detection import Detection
from .frames import Frame, FrameSource
from .track_settings import FindFaces, Judge, TrackSettings, make_finder
from .tracking import FaceTracker
from .ui_filtering import crop_box

JOURNAL_FILE = '.frames.jsonl'
TABLE_FILE = 'tracks.csv'
COLUMNS = ['file', 'track', 'frame', 'seconds', 'x1', 'y1', 'x2', 'y2', 'confidence', 'size']
#: Counted up whenever the same settings give other faces or tracks than before.
VERSION = 1
#: Smallest side of a crop in pixels; of a face at the edge of a frame less may be left.
_MIN_CROP = 4
#: Seconds after the longest gap until a track is over for certain.
_AFTER = 1.0


@dataclass
class TrackReport:
    """What :func:`track_faces` did.

    Attributes:
        frames: Number of frames.
        resumed: How many of them were searched by an earlier run.
        found: Number of faces found.
        tracks: Number of tracks.
        crops: Number of crops written, those of earlier runs included.
        left_out: Reason -> number of faces left out for it.
        sizes: (number of the frame, height, width) where the size of the frames changes.
        problems: What could not be read.
    """

    frames: int = 0
    resumed: int = 0
    found: int = 0
    tracks: int = 0
    crops: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    sizes: list[tuple[int, int, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


_Corners = Annotated[list[float], Field(min_length=4, max_length=4)]
_Point = Annotated[list[float], Field(min_length=2, max_length=2)]


class _FaceEntry(FileModel):
    box: _Corners
    confidence: float
    landmarks: Annotated[list[_Point], Field(min_length=5, max_length=5)] | None
    quality: float | None


class _FrameEntry(FileModel):
    frame: Count
    faces: list[_FaceEntry]


@dataclass(eq=False)
class _Face:
    """A face of a frame on its way into a track."""

    frame: int
    seconds: float
    detection: Detection
    crop: np.ndarray | None
    quality: float | None = None

    def rank(self) -> tuple[float, int]:
        """Return what sorts the best first, of equal ones the first."""
        quality = -math.inf if self.quality is None else self.quality
        return -quality, self.frame


def track_faces(
    source: FrameSource,
    out: str | Path,
    settings: TrackSettings | None = None,
    detector: Mapping[str, Any] | FindFaces | None = None,
    judge: Judge | None = None,
    jobs: int = 1,
) -> TrackReport:
    """Cut the faces of a video out: ``out/track_000001/00000012.png`` and on, ``out/tracks.csv``.

    A track is a folder, as ``tracks='folder'`` of an identifier wants it; a file is named by its
    frame. The table has a row a crop: track, frame, time in seconds, box in pixels of the frame,
    the detector's score, the shorter side of the box and the quality, if there is a judge. The
    rows of a track are in the order of time.

    One frame and the faces of the running tracks are held in memory. What is found stays in
    ``out/.frames.jsonl``: a killed run decodes the video again, which is fast, and seeks faces
    from where it stopped, with the same result as an uninterrupted one. Other files in ``out``
    stay.

    Args:
        source: The frames, of :func:`open_frames`.
        out: Folder of the result.
        settings: How faces are found, joined and cut out.
        detector: Config of a registered detector, MTCNN's by default; or a function from an RGB
            image to :class:`Detection`, which must be picklable for several processes. Its
            attribute ``version``, if there is one, tells functions apart when a run goes on.
        judge: What judges the faces; without it ``best`` goes by the size.
        jobs: Number of processes that seek faces.

    Raises:
        ImportError: The tracker or detector is not installed.
        ValueError: ``out`` holds other files or was started with other settings, or the source
            cannot be read.
        OSError: ``out`` cannot be written, or another run writes to it.

    Example::

        report = track_faces(open_frames('gate.mp4'), 'tracks', TrackSettings(every=5))
    """
    return _Run(source, Path(out).resolve(), settings or TrackSettings(), detector, judge, jobs)()


class _Run:
    """One call of :func:`track_faces`."""

    def __init__(
        self,
        source: FrameSource,
        out: Path,
        settings: TrackSettings,
        detector: Mapping[str, Any] | FindFaces | None,
        judge: Judge | None,
        jobs: int,
    ):
        self.source, self.out, self.settings, self.judge = source, out, settings, judge
        finder, self.jobs = make_finder(detector, settings.min_size), jobs
        self.make = partial(make_finder, detector, settings.min_size)
        if jobs == 1:
            self.make = lambda: finder
        start = settings.min_confidence
        start = getattr(finder, 'SURE', 0.5) if start is None else start
        self.tracker = FaceTracker(source.rate, settings.gap, start)
        self.header = dict(
            **source.identity,
            settings=asdict(settings),
            detector=getattr(finder, 'version', getattr(finder, '__qualname__', 'a function')),
            quality=None if judge is None else dict(name=judge.name, model=judge.model),
            version=VERSION,
        )
        self.report = TrackReport()
        self.claimed: set[str] = set()
        # Tracks that may go on: number -> faces kept so far, time of the last one.
        self.running: dict[int, tuple[list[_Face], float]] = {}

    def __call__(self) -> TrackReport:
        with OutputFolder(self.out, 'track', empty=True) as self.output:
            for name in self.output.names:
                remove_leftovers(self.out / name)
            self.output.claim([JOURNAL_FILE, TABLE_FILE])
            self.journal = Journal(
                self.out / JOURNAL_FILE, self.header, 'frame', _FrameEntry, keep=False
            )
            # A table is there when everything in it is.
            (self.out / TABLE_FILE).unlink(missing_ok=True)
            columns = [*COLUMNS, *([] if self.judge is None else [self.judge.name])]
            try:
                with progress_bar('track', self.source.total) as self.advance:
                    write_csv(self.out / TABLE_FILE, columns, self.rows())
            finally:
                self.journal.close()
        self.report.tracks = self.tracker.count
        self.report.problems += self.source.problems
        return self.report

    def frames(self) -> Iterator[tuple[Frame, list[_Face]]]:
        """Yield frames with their faces, those of earlier runs from the journal."""
        frames = iter(self.source)
        for entry in self.journal.entries():
            frame = next(frames, None)
            if frame is None or frame.number != entry['frame']:
                told = f'frame {entry["frame"]} is not where it was in {self.header["source"]}'
                raise FileFormatError(self.journal.path, told, 'choose another output folder')
            self.report.resumed += 1
            yield frame, [self.read(frame, face) for face in entry['faces']]
        # Several processes work on frames ahead of the one that is yielded.
        ahead: deque[Frame] = deque()

        def draw() -> Iterator[np.ndarray]:
            for frame in frames:
                ahead.append(frame)
                yield frame.pixels

        for found in in_order(self.make, draw(), self.jobs):
            frame = ahead.popleft()
            faces = self.cut(frame, found)
            self.journal.append(
                dict(frame=frame.number, faces=[self.describe(face) for face in faces])
            )
            yield frame, faces

    def cut(self, frame: Frame, found: Sequence[Detection]) -> list[_Face]:
        """Cut the faces of a frame out and judge them."""
        faces = [
            _Face(frame.number, frame.seconds, face, self.crop(frame.pixels, face))
            for face in found
        ]
        good = [face for face in faces if self.reject(face) is None]
        if self.judge is not None and good:
            values = self.judge.measure([face.crop for face in good])
            for face, value in zip(good, values, strict=True):
                face.quality = float(value) if math.isfinite(value) else None
        return faces

    def crop(self, pixels: np.ndarray, face: Detection) -> np.ndarray | None:
        """Return the image of a face, None if it lies outside of the frame."""
        x1, y1, x2, y2 = crop_box(face.box, pixels.shape, self.settings.margin)
        if min(x2 - x1, y2 - y1) < _MIN_CROP:
            return None
        # A copy: the frame must not stay in memory with its faces.
        crop = pixels[y1:y2, x1:x2].copy()
        if self.settings.align is None:
            return crop
        if face.landmarks is None:
            return fallback_face(crop, self.settings.align)
        return align_face(pixels, face.landmarks, self.settings.align)

    def reject(self, face: _Face) -> str | None:
        """Return why a face is left out, or None."""
        if face.detection.size < self.settings.min_size:
            return f'smaller than {self.settings.min_size:g} pixels'
        return 'outside of the frame' if face.crop is None else None

    def describe(self, face: _Face) -> dict:
        """Return the entry of a face in the journal."""
        found = face.detection
        points = None if found.landmarks is None else np.asarray(found.landmarks).tolist()
        return dict(
            box=[float(number) for number in found.box],
            confidence=float(found.confidence),
            landmarks=points,
            quality=face.quality,
        )

    def read(self, frame: Frame, entry: dict) -> _Face:
        """Return the face of an entry of the journal."""
        points = None if entry['landmarks'] is None else np.array(entry['landmarks'])
        found = Detection(tuple(entry['box']), entry['confidence'], points)
        crop = self.crop(frame.pixels, found)
        return _Face(frame.number, frame.seconds, found, crop, entry['quality'])

    def rows(self) -> Iterator[dict]:
        """Yield the rows of the table, each when its crop is written."""
        before: list[_Face] = []
        shape = None
        for frame, faces in self.frames():
            self.report.frames += 1
            self.report.found += len(faces)
            if shape not in (None, frame.pixels.shape):
                self.report.sizes.append((frame.number, *frame.pixels.shape[:2]))
                self.tracker.restart()
            shape = frame.pixels.shape
            kept = []
            for face in faces:
                if reason := self.reject(face):
                    self.report.left_out[reason] += 1
                else:
                    kept.append(face)
            tracks, begun = self.tracker.update([face.detection for face in kept], frame.seconds)
            for track, index in begun.items():
                yield from self.keep(track, before[index])
            self.report.left_out['in no track'] += tracks.count(None) - len(begun)
            for face, track in zip(kept, tracks, strict=True):
                if track is not None:
                    yield from self.keep(track, face)
            yield from self.end(frame.seconds - self.settings.gap - _AFTER)
            before = kept
            self.advance()
        yield from self.end(math.inf)

    def keep(self, track: int, face: _Face) -> Iterator[dict]:
        """Take a face into its track; yield its row, unless it is one of the best to choose."""
        if self.settings.best is None:
            yield self.write(track, face)
            return
        if self.judge is None:
            face.quality = face.detection.size
        faces, _ = self.running.get(track, ([], 0.0))
        faces.append(face)
        if len(faces) > self.settings.best:
            faces.remove(max(faces, key=_Face.rank))
            self.report.left_out['not among the best of their track'] += 1
        self.running[track] = faces, face.seconds

    def end(self, last: float) -> Iterator[dict]:
        """Write the best faces of the tracks that were last seen before a time."""
        over = [track for track, (_, seen) in self.running.items() if seen < last]
        for track in over:
            faces, _ = self.running.pop(track)
            for face in sorted(faces, key=lambda face: face.frame):
                yield self.write(track, face)

    def write(self, track: int, face: _Face) -> dict:
        """Write a crop, if it is not there yet; return its row."""
        folder = f'track_{track + 1:06d}'
        file = f'{folder}/{face.frame:08d}.png'
        if folder not in self.claimed:
            self.output.claim([folder])
            self.claimed.add(folder)
        if not (self.out / file).is_file():
            image = Image.fromarray(face.crop)
            write_atomic(self.out / file, lambda path: image.save(path, format='PNG'))
        self.report.crops += 1
        found = face.detection
        row = dict(
            file=file,
            track=folder,
            frame=face.frame,
            seconds=f'{face.seconds:.3f}',
            confidence=f'{found.confidence:.4f}',
            size=f'{found.size:.1f}',
        )
        row |= {name: f'{v:.1f}' for name, v in zip(COLUMNS[4:8], found.box, strict=True)}
        if self.judge is not None:
            row[self.judge.name] = '' if face.quality is None else f'{face.quality:.4f}'
        return row
