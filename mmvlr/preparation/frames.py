"""Read the frames of a video, or of a folder of images, one by one."""

import contextlib
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.datasets.finding import IMAGE_SUFFIXES, list_folder
from mmvlr.datasets.storage.decoding import MAX_PIXELS
from mmvlr.datasets.transforms import ImageError, read_image
from mmvlr.utils.filetype import describe_content
from mmvlr.utils.work import read_stamp

from .people_layouts import natural_key

#: Frames a second of a folder of images, and of a video that does not state it.
RATE = 25.0
# Containers and bare streams of video; not playlists, which lead to other files and addresses, nor
# images, nor texts, which FFmpeg takes for ANSI art.
_FORMATS = (
    'mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,'
    'flv,live_flv,asf,ogg,mxf,dv,nut,gif,mjpeg'
)
# Seconds that may be missing at the end: containers round their duration.
_MISSING = 0.5


class UnreadableVideoError(ValueError):
    """A file that cannot be read as a video; the message names it."""


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        number: Its place in the video or folder, from 0, counting all frames.
        seconds: Its time since the first frame.
        pixels: (H, W, 3) uint8 RGB.
    """

    number: int
    seconds: float
    pixels: np.ndarray


class FrameSource(ABC):
    """Frames in the order of their time; only one is held in memory.

    Attributes:
        rate: Frames a second that are read.
        total: Number of frames that are read, as far as it is known before.
        identity: Plain values that change with the content.
        problems: What could not be read in the last iteration.
    """

    rate: float
    total: int | None
    identity: dict[str, Any]
    problems: list[str]

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Read the frames."""


class FrameFolder(FrameSource):
    """The images of a folder as frames, in the order of their names: 9.jpg is before 10.jpg.

    Args:
        path: The folder; the folders in it are left alone.
        every: Read every n-th image.
        rate: Images a second.

    Raises:
        ValueError: There is no image in it.
    """

    def __init__(self, path: str | Path, every: int = 1, rate: float = RATE):
        self.path, self.every, self.rate = Path(path), every, rate / every
        found = list_folder(self.path)
        self.paths = sorted(found.images, key=lambda path: natural_key(path.name))
        if not self.paths:
            inside = f', but {len(found.folders)} folders: name one of them'
            raise ValueError(
                f'folder {path} holds no image ({", ".join(sorted(IMAGE_SUFFIXES))})'
                + (inside if found.folders else '')
            )
        self._unread = [str(entry) for entry in found.unread]
        self.total = -(-len(self.paths) // every)
        facts = [rate, *([path.name, read_stamp(path)] for path in self.paths)]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        self.identity = dict(source=str(self.path.resolve()), images=digest)
        self.problems = []

    def __iter__(self) -> Iterator[Frame]:
        """Read the images; those that cannot be read are problems."""
        self.problems = list(self._unread)
        for index, path in enumerate(self.paths[:: self.every]):
            try:
                pixels = read_image(str(path))
            except (ImageError, OSError) as error:
                self.problems.append(str(error))
            else:
                yield Frame(index * self.every, index / self.rate, pixels)


class VideoFile(FrameSource):
    """The frames of a video file, upright; PyAV decodes it.

    PyAV says what is damaged, when each frame was taken and how the camera was turned, none of
    which OpenCV tells. Damaged frames are left out and counted among the problems.

    Args:
        path: The file.
        every: Read every n-th frame.

    Raises:
        ImportError: PyAV is not installed.
        FileNotFoundError: There is no such file.
        UnreadableVideoError: It is no video, is too large, or its beginning is damaged.
    """

    def __init__(self, path: str | Path, every: int = 1):
        self.path, self.every = Path(path), every
        self.identity = dict(source=str(self.path.resolve()), stamp=read_stamp(self.path))
        with self._open() as (container, stream):
            self._rate = float(stream.average_rate or stream.guessed_rate or RATE)
            self._start = stream.start_time or 0
            seconds = None
            if stream.duration is not None:
                seconds = float(stream.duration * stream.time_base)
            elif container.duration is not None:
                seconds = container.duration / 1e6
            frames = stream.frames or round((seconds or 0) * self._rate)
        self.duration = seconds
        self.rate, self.total = self._rate / every, -(-frames // every) or None
        self.problems = []

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        av = _import_av()
        options = dict(format_whitelist=_FORMATS, protocol_whitelist='file')
        try:
            container = av.open(str(self.path), options=options)
        except av.error.FFmpegError as error:
            with open(self.path, 'rb') as file:
                kind = describe_content(file.read(512))
            told = f'it is {kind}' if kind else f'{error.strerror}: no video, or cut off'
            raise UnreadableVideoError(f'{self.path} cannot be read as a video ({told})') from error
        with container:
            streams = container.streams.video
            if not streams:
                raise UnreadableVideoError(
                    f'{self.path} is no video, but {container.format.long_name} sound'
                )
            stream = streams[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise UnreadableVideoError(
                    f'{self.path} has frames of {stream.width:,} x {stream.height:,} pixels; up to '
                    f'{MAX_PIXELS / 1e6:.0f} megapixels are read: reduce it first'
                )
            yield container, stream

    def __iter__(self) -> Iterator[Frame]:
        """Decode the video from its start."""
        av = _import_av()
        self.problems = []
        damaged, number, last = 0, 0, -math.inf
        with self._open() as (container, stream):
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.error.FFmpegError as error:
                    self.problems.append(f'{self.path}: reading ended early ({error.strerror})')
                    packet = None
                if packet is None:
                    break
                try:
                    decoded = packet.decode()
                except av.error.FFmpegError:
                    damaged += 1
                    continue
                for frame in decoded:
                    step = 1 / self._rate
                    seconds = number * step
                    if frame.pts is not None:
                        seconds = float((frame.pts - self._start) * stream.time_base)
                    # Trackers need time that advances, which damaged files do not have.
                    last = seconds if seconds > last else last + step
                    if frame.is_corrupt:
                        damaged += 1
                    elif number % self.every == 0:
                        yield Frame(number, last, _upright(frame))
                    number += 1
        if damaged:
            self.problems.append(f'{self.path}: {damaged:,} damaged frames')
        if not number:
            raise UnreadableVideoError(
                f'{self.path} has no frame that can be read; it is damaged or cut off'
            )
        end = last + 1 / self._rate
        if self.duration is not None and self.duration - end > _MISSING:
            self.problems.append(
                f'{self.path} is cut off: it ends after {end:.1f} of {self.duration:.1f} seconds'
            )


def _upright(frame: Any) -> np.ndarray:
    pixels = frame.to_ndarray(format='rgb24')
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("videos need PyAV and trackers: pip install 'mmvlr[video]'") from error
    return av


def open_frames(path: str | Path, every: int = 1, rate: float | None = None) -> FrameSource:
    """Open a video or a folder of images.

    Args:
        path: The video file or folder.
        every: Read every n-th frame.
        rate: Images a second of a folder, :data:`RATE` by default; a video states its own.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is neither video nor folder of images, or a number is out of range.
    """
    path = Path(path)
    if every < 1:
        raise ValueError(f'every must be at least 1, not {every}')
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f'the frames a second must be above 0, not {rate}')
    if path.is_dir():
        return FrameFolder(path, every, RATE if rate is None else rate)
    if rate is not None:
        raise ValueError(f'{path} is a video and states its frames a second itself')
    return VideoFile(path, every)
