"""Describe how faces are aligned: the recipe, and the record of it beside the images."""

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AliasChoices, Field, ValidationInfo, field_validator

from mmvlr.utils.schema import Count, FileModel, read_csv, read_json

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
#: The same with the center of the mouth instead of its corners.
FOUR_POINTS = np.vstack([TEMPLATE[:3], TEMPLATE[3:].mean(0)])
#: Raised whenever the same recipe produces different images than before.
VERSION = 1
#: Images with so many pixels along the longer side are frames, and the smallest face sought there.
FRAME_SIDE, MIN_SIZE = 640, 12.0
RECIPE_FILE = 'alignment.json'
TABLE_FILE = 'alignment.csv'
_REMEDY = 'align the images again (mmvlr align)'
_Coordinate = float | Literal['']


class AlignedRow(FileModel):
    """A row of ``alignment.csv``: image, whether no face was detected, landmarks in pixels."""

    file: str
    fallback: Literal['0', '1']
    confidence: float
    x1: _Coordinate
    y1: _Coordinate
    x2: _Coordinate
    y2: _Coordinate
    x3: _Coordinate
    y3: _Coordinate
    x4: _Coordinate
    y4: _Coordinate
    x5: _Coordinate
    y5: _Coordinate
    sha256: str


COLUMNS = list(AlignedRow.model_fields)


def not_installed() -> ImportError:
    """Return the error that says how to install MTCNN."""
    return ImportError("MTCNN needs facenet-pytorch: pip install 'mmvlr[align]'")


def check_detector(
    side: int,
    padding: float,
    min_face: float,
    thresholds: Sequence[float],
    min_size: float = MIN_SIZE,
    frame_side: int = FRAME_SIDE,
) -> None:
    """Raise ``ValueError`` unless the settings of a detector make sense."""
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
    if not 6 <= min_size < float('inf'):
        raise ValueError(
            f'min_size must be at least 6 pixels, not {min_size}: nothing is found in fewer'
        )
    if frame_side < 1:
        raise ValueError(f'frame_side must be at least 1 pixel, not {frame_side}')


def describe_crowd(faces: int) -> str:
    """Say why an image with so many faces, or none, has no face that can be aligned."""
    if not faces:
        return 'no face was found in it, so none can be aligned'
    return f'{faces} faces in it, none twice as large as the others: crop the one that is meant'


def detector_version() -> str:
    """Return name and version of the installed detector.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return f'facenet-pytorch {importlib.metadata.version("facenet-pytorch")}'
    except importlib.metadata.PackageNotFoundError as error:
        raise not_installed() from error


@dataclass(frozen=True)
class AlignmentRecipe:
    """All settings that determine an aligned face.

    MTCNN finds no face below 12 pixels and few below 20, and its windows must fit into the
    image. So a crop is scaled, up or down, into a gray square of ``detection_side`` pixels
    with an edge around it, and faces are sought from ``min_face`` of that square upwards. A
    frame, an image of ``frame_side`` pixels or more, is searched at its own scale.

    Args:
        size: Side of the aligned face in pixels.
        detection_side: Side of the square in pixels.
        padding: Width of the border, as a share of the longer side of the image.
        min_face: Smallest face, as a share of the square.
        thresholds: Scores that a candidate must reach in the three stages of MTCNN; a detector of
            one stage takes the last.
        detector: Name and version of the detector; the installed MTCNN.
        version: Version of the method.
        min_size: Smallest face of a frame, in pixels of the frame.
        frame_side: Images whose longer side has so many pixels are frames.

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
    min_size: float = MIN_SIZE
    frame_side: int = FRAME_SIDE

    def __post_init__(self) -> None:
        object.__setattr__(self, 'thresholds', tuple(float(t) for t in self.thresholds))
        if self.size < 8:
            raise ValueError(f'size must be at least 8 pixels, not {self.size}')
        object.__setattr__(self, 'min_size', float(self.min_size))
        check_detector(
            self.detection_side,
            self.padding,
            self.min_face,
            self.thresholds,
            self.min_size,
            self.frame_side,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe as 64 hexadecimal digits."""
        facts = asdict(self)
        # Older recipes do not know frames; their crops are the same, and so is their name.
        for name, default in (('min_size', MIN_SIZE), ('frame_side', FRAME_SIDE)):
            if facts[name] == default:
                del facts[name]
        text = json.dumps(facts, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def name(self) -> str:
        """Value of ``alignment`` in the preprocessing contract."""
        return f'arcface{self.size}-{self.digest[:12]}'


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
        rows = read_csv(self.root / TABLE_FILE, AlignedRow, _REMEDY)
        return {row.file: row.fallback == '1' for row in rows}

    def describe(self, paths: Iterable[str | Path] | None = None) -> str:
        """Return one line: the recipe, and of how many faces no landmarks were found.

        Args:
            paths: The images in question; all of the folder by default.

        Raises:
            FileNotFoundError: ``alignment.csv`` is missing.
            FileFormatError: It is damaged.
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


class _RecipeContent(FileModel):
    size: int
    detection_side: int
    padding: float
    min_face: float
    thresholds: list[float]
    detector: str
    version: int
    min_size: float = MIN_SIZE
    frame_side: int = FRAME_SIDE


class _Content(FileModel):
    recipe: _RecipeContent
    digest: str
    name: str = ''
    # Trees that mmvlr 0.1 aligned call them pictures.
    images: Annotated[Count, Field(validation_alias=AliasChoices('images', 'pictures'))]
    fallbacks: Count
    unreadable: Count = 0

    @field_validator('recipe')
    @classmethod
    def _build(cls, recipe: _RecipeContent) -> AlignmentRecipe:
        return AlignmentRecipe(**recipe.model_dump())

    @field_validator('digest')
    @classmethod
    def _compare(cls, digest: str, info: ValidationInfo) -> str:
        if 'recipe' in info.data and digest != info.data['recipe'].digest:
            raise ValueError('that of another recipe')
        return digest


def find_alignment(root: str | Path) -> Alignment | None:
    """Return the alignment of the images below a folder, or None if they were not aligned.

    ``alignment.json`` is searched for in the folder and its parents: a data set may be a part of
    the tree that was aligned. Data without a folder, such as synthetic faces, are not aligned.

    Raises:
        FileFormatError: The file is damaged or was edited.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        return None
    for folder in (root, *root.parents):
        path = folder / RECIPE_FILE
        if path.is_file():
            found = read_json(path, _Content, _REMEDY)
            return Alignment(folder, found.recipe, found.images, found.fallbacks)
    return None
