"""Argument and result types of :class:`mmvlr.identification.Identifier`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mmvlr.structures import FaceTable

from .decision import Decision, Verdict
from .gallery_state import Matches
from .gate import Refusal
from .tracks import TrackRule, Tracks


class Embedder(Protocol):
    """Interface of objects that embed faces, such as :class:`mmvlr.apis.FaceInferencer`.

    Attributes:
        fingerprint: Fingerprint of model and preprocessing.
        network: Maps crops (N, H, W, 3) to arrays by name, ``embedding`` (N, D) among them.
    """

    fingerprint: Mapping[str, Any]
    network: Any

    def embed(self, faces: Any, on_error: str = 'collect') -> FaceTable:
        """Return embeddings and qualities of all faces."""

    def stream(self, faces: Any, on_error: str = 'collect') -> Iterator[FaceTable]:
        """Yield the result of :meth:`embed` batch by batch."""

    def crops(self, faces: Any) -> list[np.ndarray]:
        """Return the faces as the input of the network."""


@dataclass(frozen=True, eq=False)
class Enrollment:
    """Result of :meth:`Identifier.enroll`.

    Attributes:
        people: People in the gallery afterwards.
        enrolled: Number of images that were enrolled, by person.
        removed: People who were removed.
        faces: The images, with those that could not be used; None if none were given.
        notes: Notes for the user: people without an image, images that are enrolled already or
            under another name too, names that were normalized.
        shared: (image, person, other image, other person) where two people have the same image.
        refused: Images that did not pass the gate, also those that were enrolled all the same.
    """

    people: int
    enrolled: dict[str, int] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    faces: FaceTable | None = None
    notes: list[str] = field(default_factory=list)
    shared: list[tuple[str, str, str, str]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Identification:
    """Result of :meth:`Identifier.identify` for N faces or tracks.

    Attributes:
        faces: The faces, with those that could not be used; with tracks, the probes made of them.
        matches: The most similar people for each face.
        verdicts: Accept, unknown or abstain for each face; None without a decision.
        note: Warning if the gallery is not the one of the decision, else empty.
        tracks: The tracks and their faces; None for single faces.
        rule: The rule that made the probes of them.
        chances: Probability that the most similar person is the right one, with its 95 % interval,
            (N, 3); None without a decision that was calibrated with mated faces.
    """

    faces: FaceTable
    matches: Matches
    verdicts: list[Verdict] | None
    note: str
    tracks: Tracks | None = None
    rule: TrackRule | None = None
    chances: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Result of :meth:`Identifier.verify` for two faces.

    Attributes:
        similarity: Cosine of the embeddings, in [-1, 1].
        faces: The two faces.
        threshold: Highest threshold of the decision; None without one.
        poor: Faces, 0 or 1, that are below the decision's level of abstention.
    """

    similarity: float
    faces: FaceTable
    threshold: float | None = None
    poor: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Calibration:
    """Result of :meth:`Identifier.calibrate`.

    Attributes:
        decision: The decision.
        faces: The faces it was made from, unmated and mated, with those that could not be used.
        empty: People of the mated faces without an image.
        left: Tracks without a used face, which do not count, with the number of their faces.
    """

    decision: Decision
    faces: list[FaceTable]
    empty: list[str]
    left: dict[str, int] = field(default_factory=dict)
