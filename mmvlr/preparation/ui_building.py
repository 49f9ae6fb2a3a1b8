"""Build a set of unrecognizable faces (UI) from a person re-identification set.

RI-Face (Chai et al., CVPR 2023, arXiv 2304.10066), appendix A, takes its UI set from images of
whole people: their faces are too small, blurred or turned to be recognized by anybody. What is
done here, in this order:

1. A detector seeks faces in the upper part of every person image, or in the whole of a frame, at
   its own scale. This is slow; it runs in several processes, and what is found is kept in a
   journal.
2. Faces outside the limits of size and confidence are dropped.
3. Near duplicates are dropped: within a track, faces whose 16 x 16 gray thumbnails correlate with
   that of an earlier one that is kept (:func:`find_near_duplicates`).
4. With embeddings, only the largest cluster is kept: unrecognizable faces of all people lie
   together, the recognizable ones of each person apart (Deng et al., *Harnessing Unrecognizable
   Faces for Improving Face Recognition*, arXiv 2106.04112).
5. The crops are written in their native size, without scaling, as PNG.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from PIL import Image
from pydantic import Field

from mmvlr.datasets.alignment import FRAME_SIDE, MIN_SIZE
from mmvlr.datasets.finding import find_images
from mmvlr.datasets.transforms import ImageError, read_image
from mmvlr.utils.io import write_atomic, write_csv
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.schema import FileModel, Text
from mmvlr.utils.work import Journal, Stamp, in_order, progress_bar, read_stamp

from .detection import FaceDetector, build_detector
from .people_layouts import LAYOUTS, scan_people, take_every_nth
from .ui_filtering import crop_box, find_near_duplicates, find_unrecognizable, make_thumbnail

JOURNAL_FILE = '.detections.jsonl'
#: Written by tools/dataset_converters/build_ui_set.py.
SHEET_FILE = 'contact_sheet.png'
FACES_FOLDER = 'faces'
MANIFEST_FILE = 'manifest.csv'
COLUMNS = ['file', 'source', 'x1', 'y1', 'x2', 'y2', 'confidence']
#: Counted up whenever the same settings give other faces than before.
VERSION = 2


@dataclass(frozen=True)
class UISearch:
    """Where and how faces are sought: what the slow part depends on.

    Args:
        layout: ``'lpw'``, ``'mars'`` or ``'folder'``.
        upper: Share of the person's image, from the top, in which faces are sought.
        side: The part is scaled to a square of so many pixels, see :class:`FaceDetector`.
        padding: Width of the square's edge, as a share of the longer side of the part.
        min_face: Smallest face, as a share of the square.
        search_size: Smallest face of a frame, in pixels of it.
        frame_side: Images whose longer side has so many pixels are frames, not people.

    Raises:
        ValueError: The layout is unknown, or ``upper`` is not in (0, 1].
    """

    layout: str
    upper: float = 0.4
    side: int = 320
    padding: float = 0.1
    min_face: float = 0.05
    search_size: float = MIN_SIZE
    frame_side: int = FRAME_SIDE

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f'layout must be one of {", ".join(LAYOUTS)}, not {self.layout!r}')
        if not 0 < self.upper <= 1:
            raise ValueError(f'upper must be in (0, 1], not {self.upper}')


@dataclass(frozen=True)
class UIFilter:
    """Which of the faces found become part of the set: what can be changed at no cost.

    Args:
        every: Search only every n-th image of a track: neighbors look alike.
        min_size: Smallest shorter side of the box, in pixels of the image.
        max_size: Largest shorter side; larger faces are likely to be recognizable.
        min_confidence: Lowest score of the detector.
        margin: Added to the box on every side, as a share of its longer side.
        max_correlation: Faces of a track that correlate more are near duplicates.
        cluster_distance: Mean cosine distance up to which clusters of embeddings are merged.

    Raises:
        ValueError: ``every`` is below 1, or the sizes are no range.
    """

    every: int = 1
    min_size: float = 6.0
    max_size: float = 32.0
    min_confidence: float = 0.9
    margin: float = 0.1
    max_correlation: float = 0.9
    cluster_distance: float = 0.5

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f'every must be at least 1, not {self.every}')
        if not 0 <= self.min_size <= self.max_size:
            raise ValueError(
                f'min_size {self.min_size:g} and max_size {self.max_size:g} are no range of pixels'
            )


@dataclass(frozen=True)
class UIFace:
    """A face of the set.

    Attributes:
        source: The image, relative to the source.
        track: Images of one person by one camera, one after the other.
        box: (x1, y1, x2, y2) of the crop in whole pixels, inside the image.
        confidence: The detector's score.
    """

    source: str
    track: str
    box: tuple[int, int, int, int]
    confidence: float


@dataclass
class UISet:
    """What :func:`build_ui_set` did.

    Attributes:
        faces: The set; face i is ``faces/ui_<i + 1>.png``.
        images: Number of images.
        resumed: How many of them were taken over from an earlier run.
        found: Number of faces found.
        left_out: Reason -> what was left out for it, sources or files.
        unreadable: Images that cannot be read, with the reason.
        clusters: Sizes of the clusters of embeddings, largest first; empty without embeddings.
    """

    faces: list[UIFace] = field(default_factory=list)
    images: int = 0
    resumed: int = 0
    found: int = 0
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    unreadable: list[str] = field(default_factory=list)
    clusters: list[int] = field(default_factory=list)


class _Entry(FileModel):
    source: Text
    stamp: Stamp
    #: Corners and confidence.
    faces: list[Annotated[list[float], Field(min_length=5, max_length=5)]]


def _build_detector(search: UISearch, detector: Mapping[str, Any] | None) -> FaceDetector:
    return build_detector(
        detector,
        side=search.side,
        padding=search.padding,
        min_face=search.min_face,
        min_size=search.search_size,
        frame_side=search.frame_side,
    )


class _FindFaces:
    """Finds the faces of one image; lives in the working process."""

    def __init__(self, src: Path, search: UISearch, detector: Mapping[str, Any] | None):
        self.src, self.search = src, search
        self.detector = _build_detector(search, detector)

    def __call__(self, name: str) -> dict:
        stamp = read_stamp(self.src / name)
        try:
            image = read_image(str(self.src / name))
        except ImageError as error:
            return dict(source=name, error=str(error))
        if not self.detector.is_frame(image.shape):
            image = image[: max(1, round(len(image) * self.search.upper))]
        faces = [[*face.box, face.confidence] for face in self.detector.detect([image])[0]]
        return dict(source=name, stamp=stamp, faces=faces)


def build_ui_set(
    src: str | Path,
    out: str | Path,
    search: UISearch,
    keep: UIFilter | None = None,
    embed: Callable[[list[np.ndarray]], np.ndarray] | None = None,
    jobs: int = 1,
    detector: Mapping[str, Any] | None = None,
) -> UISet:
    """Build a UI set: ``out/faces/ui_000001.png`` and on, and ``out/manifest.csv``.

    The crops have a folder of their own, so that ``UIFaces`` on ``out/faces`` reads them and
    nothing else. The result depends on the images and settings alone, not on the number of
    processes nor on a kill in between. With other filters it is built anew in seconds: the faces
    found stay in ``out/.detections.jsonl``.

    Args:
        src: Folder of the re-identification set.
        out: Folder of the result.
        search: Where and how faces are sought.
        keep: Which of them are kept.
        embed: Maps N crops (h, w, 3) to embeddings (N, D); None leaves the clusters out.
        jobs: Number of processes.
        detector: Config of the detector, MTCNN by default; its numbers are those of the search.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No image fits the layout, ``out`` lies in ``src``, holds other files, or was
            started with another search.
        OSError: ``out`` cannot be written, or another run writes to it.
    """
    src, out = Path(src).resolve(), Path(out).resolve()
    keep = UIFilter() if keep is None else keep
    if src == out or src in out.parents:
        raise ValueError(f'{out} lies in {src}; choose a folder of its own')
    tracks, left_out = scan_people(src, search.layout)
    with OutputFolder(out, 'build_ui_set', empty=True) as output:
        output.claim([JOURNAL_FILE, MANIFEST_FILE, SHEET_FILE])
        return _build(src, output, search, keep, embed, jobs, tracks, left_out, detector)


def _build(
    src: Path,
    output: OutputFolder,
    search: UISearch,
    keep: UIFilter,
    embed: Callable[[list[np.ndarray]], np.ndarray] | None,
    jobs: int,
    tracks: dict[str, str],
    left_out: Mapping[str, list[str]],
    detector: Mapping[str, Any] | None,
) -> UISet:
    result = UISet()
    result.left_out.update(left_out)
    result.unreadable += map(str, find_images(src).unread)
    tracks, skipped = take_every_nth(tracks, keep.every)
    result.left_out['images between those searched in a track'].extend(skipped)
    result.images = len(tracks)
    detections = _detect_all(src, output.folder, list(tracks), search, jobs, result, detector)
    candidates = _candidates(src, tracks, detections, keep, result)
    if embed is not None and candidates:
        inside, result.clusters = find_unrecognizable(
            embed([crop for _, crop in candidates]), keep.cluster_distance
        )
        _leave(result, 'faces outside the unrecognizable cluster', candidates, ~inside)
        candidates = [pair for pair, use in zip(candidates, inside, strict=True) if use]
    result.faces = [face for face, _ in candidates]
    _write(output, candidates)
    return result


def _detect_all(
    src: Path,
    out: Path,
    names: list[str],
    search: UISearch,
    jobs: int,
    result: UISet,
    detector: Mapping[str, Any] | None,
) -> dict[str, dict]:
    used = _build_detector(search, detector).version
    header = dict(source=str(src), search=asdict(search), detector=used, version=VERSION)
    journal = Journal(out / JOURNAL_FILE, header, 'source', _Entry)
    todo = [
        name for name in names if journal.found.get(name, {}).get('stamp') != read_stamp(src / name)
    ]
    result.resumed = len(names) - len(todo)
    try:
        with progress_bar('find faces', len(todo)) as advance:
            for entry in in_order(partial(_FindFaces, src, search, detector), todo, jobs):
                if 'error' in entry:
                    result.unreadable.append(entry['error'])
                    journal.found.pop(entry['source'], None)
                else:
                    journal.append(entry)
                advance()
    finally:
        journal.close()
    return journal.found


def _candidates(
    src: Path,
    tracks: dict[str, str],
    detections: dict[str, dict],
    keep: UIFilter,
    result: UISet,
) -> list[tuple[UIFace, np.ndarray]]:
    """Return faces and their crops within the limits, without near duplicates."""
    by_track: dict[str, list[tuple[UIFace, np.ndarray]]] = defaultdict(list)
    with progress_bar('crop', len(tracks)) as advance:
        for name, track in tracks.items():
            advance()
            if name not in detections:
                continue
            boxes = detections[name]['faces']
            result.found += len(boxes)
            if not boxes:
                result.left_out['images without a face'].append(name)
            image = None
            for *box, confidence in boxes:
                side = min(box[2] - box[0], box[3] - box[1])
                if side < keep.min_size:
                    result.left_out[f'faces below {keep.min_size:g} pixels'].append(name)
                elif side > keep.max_size:
                    result.left_out[f'faces above {keep.max_size:g} pixels'].append(name)
                elif confidence < keep.min_confidence:
                    reason = f'faces of a confidence below {keep.min_confidence:g}'
                    result.left_out[reason].append(name)
                else:
                    image = read_image(str(src / name)) if image is None else image
                    x1, y1, x2, y2 = crop_box(box, image.shape, keep.margin)
                    face = UIFace(name, track, (x1, y1, x2, y2), confidence)
                    by_track[track].append((face, image[y1:y2, x1:x2].copy()))
    candidates = []
    for pairs in by_track.values():
        marks = find_near_duplicates(
            [make_thumbnail(crop) for _, crop in pairs], keep.max_correlation
        )
        _leave(result, 'near duplicates within their track', pairs, marks)
        candidates += [pair for pair, mark in zip(pairs, marks, strict=True) if not mark]
    return candidates


def _leave(
    result: UISet, reason: str, pairs: Sequence[tuple[UIFace, np.ndarray]], marks: np.ndarray
) -> None:
    for (face, _), mark in zip(pairs, marks, strict=True):
        if mark:
            result.left_out[reason].append(face.source)


def _write(output: OutputFolder, candidates: Sequence[tuple[UIFace, np.ndarray]]) -> None:
    files = [f'{FACES_FOLDER}/ui_{number + 1:06d}.png' for number in range(len(candidates))]
    (output.folder / FACES_FOLDER).mkdir(exist_ok=True)
    output.claim(files)
    rows = []
    for file, (face, crop) in zip(files, candidates, strict=True):
        write_atomic(output.folder / file, Image.fromarray(crop).save)
        confidence = f'{face.confidence:.4f}'
        rows.append(dict(zip(COLUMNS, [file, face.source, *face.box, confidence], strict=True)))
    # Those of an earlier run with wider limits.
    faces = {name for name in output.names if name.startswith(f'{FACES_FOLDER}/')}
    output.remove(faces - {*files})
    write_csv(output.folder / MANIFEST_FILE, COLUMNS, rows)
