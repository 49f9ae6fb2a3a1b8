"""Face detection and alignment of very-low-resolution images, and work that survives a kill.

:class:`Aligner` turns an image of one face into a face in the ArcFace position: MTCNN (Zhang et
al., *Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks*, 2016)
finds five landmarks, a similarity transform moves them to the template. :func:`align_tree` does so
for a folder, and :func:`alignment_of` tells later how the images of a folder were aligned.

MTCNN comes from facenet-pytorch (``pip install 'mmvlr[align]'``), whose wheel holds the weights.
"""

import csv
import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mmvlr.utils.io import sha256_of, write_atomic, write_csv
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.work import Journal, in_order, progress_bar, stamp_of

from .base import IMAGE_SUFFIXES, require_folder
from .transforms.geometric import resize
from .transforms.loading import ImageError, read_image

#: ArcFace's five points in a face of 112 x 112: the person's right eye (left in the image), the
#: other eye, nose, corners of the mouth; (x, y) in pixels.
TEMPLATE = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)
#: Counted up whenever the same recipe gives other images than before.
VERSION = 1
RECIPE_FILE = 'alignment.json'
TABLE_FILE = 'alignment.csv'
JOURNAL_FILE = '.alignment.jsonl'
COLUMNS = ['file', 'fallback', 'confidence', *(f'{a}{i}' for i in range(1, 6) for a in 'xy')]
COLUMNS += ['sha256']
#: Gray level around the image while faces are sought: MTCNN's input is centered at 127.5.
GRAY = 127


def detector_version() -> str:
    """Return name and version of the installed detector.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return f'facenet-pytorch {importlib.metadata.version("facenet-pytorch")}'
    except importlib.metadata.PackageNotFoundError as error:
        raise _not_installed() from error


def _not_installed() -> ImportError:
    return ImportError("MTCNN needs facenet-pytorch: pip install 'mmvlr[align]'")


@dataclass(frozen=True)
class AlignmentRecipe:
    """All that decides what an aligned face looks like.

    MTCNN finds no face below 12 pixels and few below 20, and its windows must fit into the
    image. So an image is scaled, up or down, into a gray square of ``detection_side`` pixels
    with an edge around it, and faces are sought from ``min_face`` of that square upwards.

    Args:
        size: Side of the aligned face in pixels.
        detection_side: Side of the square in pixels.
        padding: Width of the edge, as a share of the longer side of the image.
        min_face: Smallest face, as a share of the square.
        thresholds: MTCNN's scores that a candidate must reach in its three stages.
        detector: Name and version of the detector; the installed one.
        version: Version of the method.

    Raises:
        ValueError: A number is out of range.
    """

    size: int = 112
    detection_side: int = 160
    padding: float = 0.25
    min_face: float = 0.2
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7)
    detector: str = field(default_factory=detector_version)
    version: int = VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, 'thresholds', tuple(float(t) for t in self.thresholds))
        if self.size < 8:
            raise ValueError(f'size must be at least 8 pixels, not {self.size}')
        _check_detector(self.detection_side, self.padding, self.min_face, self.thresholds)

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe as 64 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """What the preprocessing contract says under ``alignment``."""
        return f'arcface{self.size}-{self.digest[:12]}'


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


def _check_detector(
    side: int, padding: float, min_face: float, thresholds: Sequence[float]
) -> None:
    if side < 12:
        raise ValueError(f'the side for detection must be at least 12 pixels, not {side}')
    if not 0 <= padding <= 4:
        raise ValueError(f'padding must be in [0, 4], not {padding}')
    if not 0 < min_face <= 1 or min_face * side < 12:
        raise ValueError(
            f'min_face must be in (0, 1] and at least 12 pixels of the {side} of the square, '
            f'that is {12 / side:.3f}, not {min_face}: MTCNN sees nothing smaller'
        )
    if len(thresholds) != 3 or not all(0 <= threshold < 1 for threshold in thresholds):
        raise ValueError(f'thresholds must be three numbers in [0, 1), not {thresholds}')


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
        _check_detector(side, padding, min_face, thresholds)
        try:
            from facenet_pytorch import MTCNN
        except ImportError as error:
            raise _not_installed() from error
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
    left, singular, right = np.linalg.svd(aim.T @ centered / len(source))
    # Without this sign a mirrored face would be met by a reflection.
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    matrix = (singular * signs).sum() / spread * (left * signs) @ right
    return np.hstack([matrix, (goal - matrix @ mean)[:, None]])


def align_face(image: np.ndarray, landmarks: np.ndarray, size: int = 112) -> np.ndarray:
    """Move the landmarks of a face to the ArcFace template, bicubically.

    What the image does not show is its mirror image, as in :class:`RotateFace`: very small
    faces are cropped tightly, and black corners would be a cue that no camera gives.

    Args:
        image: (H, W, 3) uint8.
        landmarks: (5, 2) as in :data:`TEMPLATE`, in pixels of the image.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8.

    Raises:
        ValueError: The landmarks coincide.
    """
    target = (TEMPLATE + 0.5) * size / 112 - 0.5
    landmarks = np.asarray(landmarks, float)
    matrix = similarity_transform(landmarks, target)
    shrink = int(1 / np.hypot(*matrix[:, 0]))
    if shrink > 1:
        # A warp reads single pixels; a large image is averaged down first.
        height, width = image.shape[:2]
        new = max(1, height // shrink), max(1, width // shrink)
        image = resize(image, new, 'area')
        scale = np.array([new[1] / width, new[0] / height])
        matrix = similarity_transform((landmarks + 0.5) * scale - 0.5, target)
    return cv2.warpAffine(
        image,
        matrix,
        (size, size),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REFLECT_101,
    )


def fallback_face(image: np.ndarray, size: int = 112) -> np.ndarray:
    """Return the whole image as a face: its shorter side is repeated outwards to a square.

    Args:
        image: (H, W, 3) uint8.
        size: Side of the result in pixels.

    Returns:
        (size, size, 3) uint8, resized bicubically (by averaging where it shrinks).
    """
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
    """

    image: np.ndarray
    detection: Detection | None


class Aligner:
    """Aligns images of one face each.

    Args:
        recipe: The recipe.

    Raises:
        ImportError: facenet-pytorch is not installed.
        ValueError: The recipe asks for another detector or method than the installed one.
    """

    def __init__(self, recipe: AlignmentRecipe | None = None):
        self.recipe = recipe = AlignmentRecipe() if recipe is None else recipe
        if (recipe.detector, recipe.version) != (detector_version(), VERSION):
            raise ValueError(
                f'the recipe is of {recipe.detector}, version {recipe.version}; installed is '
                f'{detector_version()}, version {VERSION}: align the images again with it'
            )
        self.detector = FaceDetector(
            recipe.detection_side, recipe.padding, recipe.min_face, recipe.thresholds
        )

    def __call__(self, image: np.ndarray) -> AlignedFace:
        """Align one image, RGB uint8 (H, W, 3)."""
        found = main_face(self.detector.detect([image])[0], image.shape)
        if found is None:
            return AlignedFace(fallback_face(image, self.recipe.size), None)
        return AlignedFace(align_face(image, found.landmarks, self.recipe.size), found)


# ----------------------------------------------------------------------------------------------
# How a folder was aligned


@dataclass(frozen=True)
class Alignment:
    """How the images of a folder were aligned.

    Attributes:
        root: The folder with ``alignment.json``.
        recipe: The recipe.
        images: Number of aligned images.
        fallbacks: How many of them are :func:`fallback_face`, as no face was found.
    """

    root: Path
    recipe: AlignmentRecipe
    images: int
    fallbacks: int

    @cached_property
    def _fell_back(self) -> dict[str, bool]:
        path = self.root / TABLE_FILE
        try:
            with open(path, encoding='utf-8', newline='') as file:
                return {row['file']: row['fallback'] == '1' for row in csv.DictReader(file)}
        except (OSError, KeyError) as error:
            raise ValueError(
                f'{path} is missing or damaged ({error}); align the images again '
                '(tools/dataset_converters/align.py)'
            ) from error

    def describe(self, paths: Iterable[str | Path] | None = None) -> str:
        """Return one line: the recipe, and of how many faces no landmarks were found.

        Args:
            paths: The images in question; all of the folder by default.

        Raises:
            ValueError: ``alignment.csv`` is missing or damaged.
        """
        images, fallbacks, unknown = self.images, self.fallbacks, 0
        if paths is not None:
            names = [Path(os.path.relpath(Path(p).resolve(), self.root)).as_posix() for p in paths]
            images = len(names)
            fallbacks = sum(self._fell_back.get(name, False) for name in names)
            unknown = sum(name not in self._fell_back for name in names)
        share = fallbacks / max(images, 1)
        text = f'alignment {self.recipe.name} ({self.recipe.detector}): {fallbacks:,} of '
        text += f'{images:,} faces not detected, cropped instead ({share:.1%})'
        return text + (f'; {unknown:,} are not in {TABLE_FILE}' if unknown else '')


def alignment_of(root: str | Path) -> Alignment | None:
    """Return how the images under a folder were aligned, or None if they were not.

    ``alignment.json`` is sought in the folder and above it: a data set may lie in a part of the
    tree that was aligned. Data without a folder, such as synthetic faces, are not aligned.

    Raises:
        ValueError: The file is damaged or was edited.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        return None
    for folder in (root, *root.parents):
        path = folder / RECIPE_FILE
        if not path.is_file():
            continue
        try:
            facts = json.loads(path.read_text(encoding='utf-8'))
            recipe = AlignmentRecipe(**facts['recipe'])
            found = Alignment(folder, recipe, int(facts['images']), int(facts['fallbacks']))
            if recipe.digest != facts['digest']:
                raise ValueError('the digest is that of another recipe')
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{path} is damaged or of another version of mmvlr ({error}); align the images '
                'again (tools/dataset_converters/align.py)'
            ) from error
        return found
    return None


# ----------------------------------------------------------------------------------------------
# Folder trees


@dataclass
class TreeReport:
    """What :func:`align_tree` did.

    Attributes:
        recipe: The recipe.
        rows: One dict an image, as in ``alignment.csv``, in name order.
        copied: Files that are no images, such as .mat files.
        unreadable: What cannot be read, with the reason.
        stale: Files of earlier runs in the output that the source does not hold any more.
        resumed: Number of images taken over from an earlier run.
    """

    recipe: AlignmentRecipe
    rows: list[dict] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    resumed: int = 0

    @property
    def fallbacks(self) -> int:
        """Number of images without a detected face."""
        return sum(row['fallback'] for row in self.rows)


def files_below(root: Path) -> list[str]:
    """Return the files below a folder, relative and in name order; hidden ones are none."""
    found = []
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith('.')]
        found += [
            (Path(folder) / name).relative_to(root).as_posix()
            for name in names
            if not name.startswith('.')
        ]
    return sorted(found)


class _AlignFile:
    """Aligns one file of a tree; lives in the working process."""

    def __init__(self, src: Path, out: Path, recipe: AlignmentRecipe):
        self.src, self.out, self.aligner = src, out, Aligner(recipe)

    def __call__(self, name: str) -> dict:
        stamp = stamp_of(self.src / name)
        try:
            face = self.aligner(read_image(str(self.src / name)))
        except ImageError as error:
            return dict(file=name, error=str(error))
        # Always PNG, whatever the suffix: decoders look at the content, lists of names go by name.
        image = Image.fromarray(face.image)
        target = write_atomic(self.out / name, lambda path: image.save(path, format='PNG'))
        found = face.detection
        return dict(
            file=name,
            stamp=stamp,
            confidence=0.0 if found is None else found.confidence,
            landmarks=None if found is None else found.landmarks.tolist(),
            sha256=sha256_of(target),
        )


def align_tree(
    src: str | Path, out: str | Path, recipe: AlignmentRecipe | None = None, jobs: int = 1
) -> TreeReport:
    """Align every image below a folder into another one, under the same relative names.

    The aligned images are PNG under the names they had, with their old suffix: so the lists of
    names in a data set's .mat files hold, and its loader reads the result as it reads the source.
    Files that are no images are copied. ``alignment.csv`` says for every image whether it is a
    fallback, MTCNN's confidence, the landmarks in pixels of the source and the SHA-256 of the
    aligned file; ``alignment.json`` holds the recipe.

    A killed run goes on where it stopped, with the same result; a later run does only what is new.
    Other files in ``out`` stay; what is noted as written there is in :class:`OutputFolder`'s notes.

    Args:
        src: Folder of the images.
        out: Folder of the result.
        recipe: The recipe.
        jobs: Number of processes.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no image, is aligned already or contains ``out``; or ``out`` holds
            images of another recipe or origin.
        OSError: ``out`` cannot be written, or another run writes to it, or holds a file of another
            origin under a name of the source.
    """
    src, out = Path(src).resolve(), Path(out).resolve()
    require_folder(src, 'alignment', 'a folder of images, or of folders of images')
    if src == out or src in out.parents or out in src.parents:
        raise ValueError(f'{out} lies in {src} or around it; choose a folder of its own')
    if alignment_of(src) is not None:
        raise ValueError(f'{src} is aligned already (it has {RECIPE_FILE}); give the source')
    names = files_below(src)
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise ValueError(f'no image ({", ".join(sorted(IMAGE_SUFFIXES))}) below {src}')
    with OutputFolder(out, 'align', empty=True) as output:
        return _align_tree(src, output, recipe or AlignmentRecipe(), names, images, jobs)


def _align_tree(
    src: Path,
    output: OutputFolder,
    recipe: AlignmentRecipe,
    names: list[str],
    images: list[str],
    jobs: int,
) -> TreeReport:
    report, out = TreeReport(recipe), output.folder
    output.claim([*names, JOURNAL_FILE, RECIPE_FILE, TABLE_FILE])
    journal = Journal(out / JOURNAL_FILE, dict(source=str(src), recipe=asdict(recipe)), 'file')
    # Not even a half-done tree may pass for an aligned one.
    for file in (RECIPE_FILE, TABLE_FILE):
        (out / file).unlink(missing_ok=True)
    for name in names:
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            write_atomic(out / name, partial(shutil.copyfile, src / name))
            report.copied.append(name)
    todo = [
        name
        for name in images
        if journal.found.get(name, {}).get('stamp') != stamp_of(src / name)
        or not (out / name).is_file()
    ]
    report.resumed = len(images) - len(todo)
    try:
        with progress_bar('align', len(todo)) as advance:
            for entry in in_order(partial(_AlignFile, src, out, recipe), todo, jobs):
                if 'error' in entry:
                    report.unreadable.append(entry['error'])
                    journal.found.pop(entry['file'], None)
                else:
                    journal.append(entry)
                advance()
    finally:
        journal.close()
    report.rows = [_row(journal.found[name]) for name in images if name in journal.found]
    known = {row['file'] for row in report.rows} | set(report.copied)
    known |= {JOURNAL_FILE, RECIPE_FILE, TABLE_FILE}
    report.stale = sorted(name for name in output.names - known if (out / name).is_file())
    _write_tables(out, report)
    return report


def _row(entry: dict) -> dict:
    points = entry['landmarks']
    row = dict(
        file=entry['file'],
        fallback=int(points is None),
        confidence=f'{entry["confidence"]:.4f}',
    )
    for index in range(5):
        for axis in (0, 1):
            value = '' if points is None else f'{points[index][axis]:.3f}'
            row[f'{"xy"[axis]}{index + 1}'] = value
    return dict(row, sha256=entry['sha256'])


def _write_tables(out: Path, report: TreeReport) -> None:
    write_csv(out / TABLE_FILE, COLUMNS, report.rows)
    facts = dict(
        recipe=asdict(report.recipe),
        digest=report.recipe.digest,
        name=report.recipe.name,
        images=len(report.rows),
        fallbacks=report.fallbacks,
        unreadable=len(report.unreadable),
    )
    text = json.dumps(facts, indent=2) + '\n'
    write_atomic(out / RECIPE_FILE, lambda path: path.write_text(text, encoding='utf-8'))
