"""Build a set of unrecognizable faces (UI) from a person re-identification set.

RI-Face (Chai et al., CVPR 2023, arXiv 2304.10066), appendix A, takes its UI set from images of
whole people: their faces are too small, blurred or turned to be recognized by anybody. What is
done here, in this order:

1. MTCNN seeks faces in the upper part of every person image. This is slow; it runs in several
   processes, and what is found is kept in a journal.
2. Faces outside the limits of size and confidence are dropped.
3. Near duplicates are dropped: within a track, faces whose 16 x 16 gray thumbnails correlate with
   that of an earlier one that is kept (:func:`near_duplicates`).
4. With embeddings, only the largest cluster is kept: unrecognizable faces of all people lie
   together, the recognizable ones of each person apart (Deng et al., *Harnessing Unrecognizable
   Faces for Improving Face Recognition*, arXiv 2106.04112).
5. The crops are written in their native size, without scaling, as PNG.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from PIL import Image
from pydantic import Field

from mmvlr.datasets.alignment import detector_version
from mmvlr.datasets.base import require_folder
from mmvlr.datasets.finding import IMAGE_SUFFIXES, find_images
from mmvlr.datasets.transforms import ImageError, read_image
from mmvlr.utils.io import write_atomic, write_csv
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.schema import FileModel, Text
from mmvlr.utils.vectors import unit_rows
from mmvlr.utils.work import Journal, Stamp, in_order, progress_bar, read_stamp

from .align_tree import files_below
from .detection import FaceDetector

JOURNAL_FILE = '.detections.jsonl'
#: Written by tools/dataset_converters/build_ui_set.py.
SHEET_FILE = 'contact_sheet.png'
FACES_FOLDER = 'faces'
MANIFEST_FILE = 'manifest.csv'
COLUMNS = ['file', 'source', 'x1', 'y1', 'x2', 'y2', 'confidence']
#: Counted up whenever the same settings give other faces than before.
VERSION = 1
THUMBNAIL = 16
#: Agglomerative clustering holds the distances of all pairs: 20,000 faces take 3 GB.
MAX_CLUSTERED = 20_000

#: LPW: scenes, views, people; the crops are called by their frame.
LPW = re.compile(r'(?P<track>scen\d/view\d/[^/]+)/[^/]+')
#: MARS: person (-1 as 00-1), camera, track, frame.
MARS = re.compile(r'bbox_train/[^/]+/(?P<track>[^/]+C\d+T\d+)F\d+\.\w+')
FOLDER = re.compile(r'(?:(?P<track>.+)/)?[^/]+')
LAYOUTS = {
    'lpw': (LPW, 'scen{1,2,3}/view{1..4}/<person>/*.jpg'),
    'mars': (MARS, 'bbox_train/<person>/<person>C<camera>T<track>F<frame>.jpg'),
    'folder': (FOLDER, 'any folders of images; each folder is a track'),
}


@dataclass(frozen=True)
class UISearch:
    """Where and how faces are sought: what the slow part depends on.

    Args:
        layout: ``'lpw'``, ``'mars'`` or ``'folder'``.
        upper: Share of the person's image, from the top, in which faces are sought.
        side: The part is scaled to a square of so many pixels, see :class:`FaceDetector`.
        padding: Width of the square's edge, as a share of the longer side of the part.
        min_face: Smallest face, as a share of the square.

    Raises:
        ValueError: The layout is unknown, or ``upper`` is not in (0, 1].
    """

    layout: str
    upper: float = 0.4
    side: int = 320
    padding: float = 0.1
    min_face: float = 0.05

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
        min_size: Smallest shorter side of the box, in pixels of the person's image.
        max_size: Largest shorter side; larger faces are likely to be recognizable.
        min_confidence: Lowest score of MTCNN.
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
        source: The person's image, relative to the source.
        track: Images of one person by one camera, one after the other.
        box: (x1, y1, x2, y2) of the crop in whole pixels, inside the image.
        confidence: MTCNN's score.
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
        images: Number of person images.
        resumed: How many of them were taken over from an earlier run.
        found: Number of faces MTCNN found.
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


def natural_key(name: str) -> list[tuple[str, int]]:
    """Return a sort key under which ``f9`` stands before ``f10``."""
    return [(text, int(number or 0)) for text, number in re.findall(r'(\D*)(\d*)', name)]


def scan_people(src: Path, layout: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """List the person images of a layout.

    - ``lpw``, Labeled Pedestrian in the Wild (Song et al., AAAI 2018): 2,731 people in 7,694
      sequences, three scenes, the first with three views and the others with four; images are
      scaled to 256 x 128 (folder ``pep_256x128``). A number means the same person in all views of
      a scene. SRC is the folder that holds ``scen1``.
    - ``mars`` (Zheng et al., ECCV 2016): 1,261 people, six cameras, images of 256 x 128. SRC
      holds ``bbox_train``; the test people of ``bbox_test`` are left alone.
    - ``folder``: anything.

    Returns:
        Image -> track, in the order of tracks and frames, and what was left out.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: No image fits the layout.
    """
    pattern, described = LAYOUTS[layout]
    require_folder(src, f'UI set from {layout}', described)
    tracks: dict[str, str] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for name in files_below(src):
        fits = pattern.fullmatch(name)
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            left_out['files that are no images'].append(name)
        elif fits is None:
            left_out[f'images outside the layout {described}'].append(name)
        else:
            tracks[name] = fits['track'] or ''
    if not tracks:
        raise ValueError(f'no image under {src} in the layout {described}')
    order = sorted(tracks, key=lambda name: (natural_key(tracks[name]), natural_key(name)))
    return {name: tracks[name] for name in order}, left_out


def every_nth(tracks: dict[str, str], step: int) -> tuple[dict[str, str], list[str]]:
    """Take every ``step``-th image of each track.

    Returns:
        Image -> track, in the same order, and the other images.
    """
    place: dict[str, int] = defaultdict(int)
    taken, skipped = {}, []
    for name, track in tracks.items():
        if place[track] % step:
            skipped.append(name)
        else:
            taken[name] = track
        place[track] += 1
    return taken, skipped


class _Entry(FileModel):
    source: Text
    stamp: Stamp
    #: Corners and confidence.
    faces: list[Annotated[list[float], Field(min_length=5, max_length=5)]]


class _FindFaces:
    """Finds the faces of one person image; lives in the working process."""

    def __init__(self, src: Path, search: UISearch):
        self.src, self.search = src, search
        self.detector = FaceDetector(search.side, search.padding, search.min_face)

    def __call__(self, name: str) -> dict:
        stamp = read_stamp(self.src / name)
        try:
            image = read_image(str(self.src / name))
        except ImageError as error:
            return dict(source=name, error=str(error))
        upper = image[: max(1, round(len(image) * self.search.upper))]
        faces = [[*face.box, face.confidence] for face in self.detector.detect([upper])[0]]
        return dict(source=name, stamp=stamp, faces=faces)


def crop_box(
    box: Sequence[float], shape: Sequence[int], margin: float
) -> tuple[int, int, int, int]:
    """Return the square around a box with its margin, in whole pixels, cut at the image's edge.

    Args:
        box: (x1, y1, x2, y2) in pixels.
        shape: (height, width, ...) of the image.
        margin: Added on every side, as a share of the longer side of the box.
    """
    x1, y1, x2, y2 = box
    half = max(x2 - x1, y2 - y1) * (0.5 + margin)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return (
        max(0, round(x - half)),
        max(0, round(y - half)),
        min(shape[1], round(x + half)),
        min(shape[0], round(y + half)),
    )


def thumbnail(face: np.ndarray) -> np.ndarray:
    """Return the unit vector (256,) of a face's 16 x 16 gray thumbnail, less its mean.

    The scalar product of two is their normalized correlation, in [-1, 1]. A flat image gives
    zeros: it correlates with nothing.
    """
    gray = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    vector = small.astype(np.float64).ravel()
    vector -= vector.mean()
    return vector / max(np.linalg.norm(vector), 1e-9)


def near_duplicates(thumbnails: Sequence[np.ndarray], limit: float) -> np.ndarray:
    """Mark the faces of one track that an earlier, kept one shows already.

    Args:
        thumbnails: Results of :func:`thumbnail`, in the order of the frames.
        limit: A face is a near duplicate if it correlates more than this with a kept one.

    Returns:
        (N,) bool.
    """
    kept: list[np.ndarray] = []
    marks = np.zeros(len(thumbnails), bool)
    for index, vector in enumerate(thumbnails):
        if kept and max(float(vector @ other) for other in kept) > limit:
            marks[index] = True
        else:
            kept.append(vector)
    return marks


def unrecognizable_cluster(embeddings: np.ndarray, distance: float) -> tuple[np.ndarray, list[int]]:
    """Find the cluster of unrecognizable faces: the largest one.

    Agglomerative clustering by cosine distance with average linkage. It holds where the faces are
    of many people with few images each, as behind a filter of near duplicates.

    Args:
        embeddings: (N, D), normalized here.
        distance: Clusters are merged up to this mean distance, 1 - cosine.

    Returns:
        (N,) bool, True in the largest cluster (of equal ones, that of the first face), and the
        sizes of all clusters, largest first.

    Raises:
        ValueError: There are too many faces for the memory.
    """
    if len(embeddings) > MAX_CLUSTERED:
        raise ValueError(
            f'{len(embeddings):,} faces cannot be clustered (at most {MAX_CLUSTERED:,}); use '
            'tighter limits of size, confidence or correlation'
        )
    if len(embeddings) < 2:
        return np.ones(len(embeddings), bool), [1] * len(embeddings)
    from sklearn.cluster import AgglomerativeClustering

    units = unit_rows(embeddings, 'the embedding of face {}'.format, double=True)
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=distance, metric='cosine', linkage='average'
    )
    labels = clustering.fit_predict(units)
    sizes = np.bincount(labels)
    first = labels[np.argmax(sizes[labels])]
    return labels == first, sorted(sizes.tolist(), reverse=True)


def build_ui_set(
    src: str | Path,
    out: str | Path,
    search: UISearch,
    keep: UIFilter | None = None,
    embed: Callable[[list[np.ndarray]], np.ndarray] | None = None,
    jobs: int = 1,
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
        return _build(src, output, search, keep, embed, jobs, tracks, left_out)


def _build(
    src: Path,
    output: OutputFolder,
    search: UISearch,
    keep: UIFilter,
    embed: Callable[[list[np.ndarray]], np.ndarray] | None,
    jobs: int,
    tracks: dict[str, str],
    left_out: Mapping[str, list[str]],
) -> UISet:
    result = UISet()
    result.left_out.update(left_out)
    result.unreadable += map(str, find_images(src).unread)
    tracks, skipped = every_nth(tracks, keep.every)
    result.left_out['images between those searched in a track'].extend(skipped)
    result.images = len(tracks)
    detections = _detect_all(src, output.folder, list(tracks), search, jobs, result)
    candidates = _candidates(src, tracks, detections, keep, result)
    if embed is not None and candidates:
        inside, result.clusters = unrecognizable_cluster(
            embed([crop for _, crop in candidates]), keep.cluster_distance
        )
        _leave(result, 'faces outside the unrecognizable cluster', candidates, ~inside)
        candidates = [pair for pair, use in zip(candidates, inside, strict=True) if use]
    result.faces = [face for face, _ in candidates]
    _write(output, candidates)
    return result


def _detect_all(
    src: Path, out: Path, names: list[str], search: UISearch, jobs: int, result: UISet
) -> dict[str, dict]:
    header = dict(
        source=str(src), search=asdict(search), detector=detector_version(), version=VERSION
    )
    journal = Journal(out / JOURNAL_FILE, header, 'source', _Entry)
    todo = [
        name for name in names if journal.found.get(name, {}).get('stamp') != read_stamp(src / name)
    ]
    result.resumed = len(names) - len(todo)
    try:
        with progress_bar('find faces', len(todo)) as advance:
            for entry in in_order(partial(_FindFaces, src, search), todo, jobs):
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
        marks = near_duplicates([thumbnail(crop) for _, crop in pairs], keep.max_correlation)
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
