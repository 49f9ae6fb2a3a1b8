"""Calibrate a decision on faces whose correct answers are known."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmvlr.version import __version__

from .abstention import abstention_level
from .conformal import binned_thresholds, finite, quality_edges
from .decision import DISTANCE, Decision


class TargetNotReachedError(ValueError):
    """No level of the quality reduces the error to the target."""


@dataclass(frozen=True, eq=False)
class SearchedFaces:
    """Faces with known answers that were searched in a gallery, from which a decision is made.

    Attributes:
        similarity: Best similarity of each face in the gallery, (N,).
        mated: Whether its person is enrolled, bool (N,).
        correct: Whether the best person is the right one, bool (N,); False where not mated.
        people: Person of each face, (N,), integers or text; a face of an unknown person needs a
            unique name.
        qualities: Qualities by name, (N,) each, higher is better.

    Raises:
        ValueError: An array is malformed, a face that is not mated is called correct, or a person
            is both enrolled and not.
    """

    similarity: np.ndarray
    mated: np.ndarray
    correct: np.ndarray
    people: np.ndarray
    qualities: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        similarity = finite(self.similarity, 'similarity')
        count = len(similarity)
        values = dict(similarity=similarity, people=np.asarray(self.people))
        for name in ('mated', 'correct'):
            flags = np.asarray(getattr(self, name))
            if flags.shape != (count,) or flags.dtype != bool:
                raise ValueError(f'{name} must be bool ({count},), got {flags.dtype} {flags.shape}')
            values[name] = flags
        if values['people'].shape != (count,) or values['people'].dtype.kind not in 'iuU':
            raise ValueError(f'people must be {count} integers or texts, one a face')
        if (values['correct'] & ~values['mated']).any():
            raise ValueError('correct: a face whose person is not enrolled cannot be found')
        both = np.intersect1d(values['people'][values['mated']], values['people'][~values['mated']])
        if len(both):
            raise ValueError(f'people: {len(both)} are enrolled and not, such as {both[0]}')
        values['qualities'] = {
            name: finite(quality, name, count) for name, quality in self.qualities.items()
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.similarity)

    def take(self, rows: np.ndarray) -> 'SearchedFaces':
        """Return some faces, by number or by mask."""
        qualities = {name: quality[rows] for name, quality in self.qualities.items()}
        return SearchedFaces(
            self.similarity[rows],
            self.mated[rows],
            self.correct[rows],
            self.people[rows],
            qualities,
        )

    def errors(self, threshold: ArrayLike) -> np.ndarray:
        """Return whether the answer to each face is wrong, bool (N,).

        An answer is wrong if it accepts the face as another person, accepts a person who is not
        enrolled, or calls an enrolled person unknown.
        """
        accepted = self.similarity > threshold
        return np.where(self.mated, ~(accepted & self.correct), accepted)

    def quality(self, name: str) -> np.ndarray:
        """Return a quality; if it is missing, ``ValueError`` names the available ones."""
        if name not in self.qualities:
            raise ValueError(
                f'there is no quality {name!r} for the faces, only '
                f'{", ".join(self.qualities) or "none at all"}'
            )
        return self.qualities[name]


def calibrate(
    faces: SearchedFaces,
    fingerprint: Mapping[str, Any],
    target_fpir: float = 0.01,
    *,
    bin_quality: str | None = None,
    num_bins: int = 4,
    abstain_by: str | None = None,
    target_error: float | None = None,
    confidence: float | None = None,
    name: str = '',
    gallery: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Decision:
    """Make a decision from faces whose correct answers are known.

    1. With ``bin_quality``, bins hold equal numbers of the mated faces by that quality.
    2. Thresholds keep ``target_fpir`` on the unmated faces, in every bin, each person counting
       once; see :func:`mmvlr.identification.conformal.binned_thresholds`. Bins with too few
       people are merged.
    3. With ``abstain_by``, the level below which no answer is given is chosen on mated and
       unmated faces together; see :func:`abstention_level`. The error depends on the share of mated
       faces, which should be that of the faces in use. With ``confidence`` a random half of the
       people determines bins and thresholds and the other half the level, so that the bound holds,
       and the share of mated people matters, not of faces; without it, all people are used for
       both, and the error of the answered calibration faces is slightly optimistic.

    Abstention keeps the guarantee of the thresholds: a face without an answer is not accepted.
    Among the *answered* faces alone, the rate holds as far as they fill whole bins.

    Args:
        faces: Calibration faces, none of which may be enrolled themselves.
        fingerprint: Fingerprint of the model, see :func:`mmvlr.apis.network.fingerprint_model`.
        target_fpir: Share of new faces of people not enrolled that may be accepted.
        bin_quality: Quality by which bins are formed, such as ``'ri'``; None: one threshold.
        num_bins: Number of bins before merging.
        abstain_by: Quality that decides on abstention, such as ``'ri'``, or ``'distance'``, that
            of the similarity to its threshold; None: every face is answered.
        target_error: Error of answered faces to reach by abstention; requires ``abstain_by``.
        confidence: Probability with which the target error holds for new people, or None: it holds
            for the calibration faces.
        name: Name of the calibration set, for the file.
        gallery: Description of the gallery, plain values, for the file. With its ``digest`` and
            ``people``, :meth:`Decision.gallery_note` detects a change.
        seed: Seed of the halves and of the face drawn from each person.

    Raises:
        ValueError: An input is malformed, or there are too few people for ``target_fpir``.
        TargetNotReachedError: No level reaches ``target_error``; the message gives the best one.
    """
    if (abstain_by is None) != (target_error is None):
        raise ValueError('abstain_by and target_error go together: one of them is missing')
    if confidence is not None and abstain_by is None:
        raise ValueError('confidence goes with abstain_by and target_error')
    if faces.mated.all():
        raise ValueError('thresholds are chosen on faces of people who are not enrolled: add some')
    if not faces.mated.any() and (bin_quality or abstain_by):
        raise ValueError('bins and abstention need faces of people who are enrolled: add some')
    first = second = faces
    if confidence is not None:
        first, second = _halves(faces, seed)
    unmated = first.take(~first.mated)
    edges: tuple[float, ...] = ()
    quality = np.zeros(len(unmated))
    if bin_quality is not None:
        edges = quality_edges(first.quality(bin_quality)[first.mated], num_bins)
        quality = unmated.quality(bin_quality)
    thresholds = binned_thresholds(unmated.similarity, quality, edges, target_fpir, unmated.people)
    if thresholds.thresholds[0].shortage:
        halved = ' (half of the people choose thresholds)' if confidence is not None else ''
        raise ValueError(thresholds.thresholds[0].shortage + halved)

    level = None
    if abstain_by is not None:
        threshold = thresholds(
            np.zeros(len(second)) if bin_quality is None else second.quality(bin_quality)
        )
        by_distance = abstain_by == DISTANCE
        level = abstention_level(
            np.abs(second.similarity - threshold) if by_distance else second.quality(abstain_by),
            second.errors(threshold),
            target_error,
            confidence,
            second.people,
            seed,
        )
        if not level.reached:
            raise TargetNotReachedError(
                f'{level.summary}: allow a higher target_error, abstain by another quality, or '
                'calibrate with more people'
            )
    return Decision(
        fingerprint=dict(fingerprint),
        target_fpir=target_fpir,
        bin_quality=bin_quality,
        thresholds=thresholds,
        abstain_by=abstain_by,
        level=level,
        quantiles={
            name: tuple(np.percentile(values, np.arange(101)).tolist())
            for name, values in faces.qualities.items()
        },
        calibrated_on=dict(
            name=name,
            date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
            mated_faces=int(faces.mated.sum()),
            mated_people=len(np.unique(faces.people[faces.mated])),
            unmated_faces=int((~faces.mated).sum()),
            unmated_people=len(np.unique(faces.people[~faces.mated])),
            scores_sha256=_scores_digest(faces),
            gallery=dict(gallery or {}),
            confidence=confidence,
            seed=seed,
            mmvlr=__version__,
        ),
    )


def _halves(faces: SearchedFaces, seed: int) -> tuple[SearchedFaces, SearchedFaces]:
    """Split the people in two halves at random, enrolled ones and others each."""
    rng = np.random.default_rng(seed)
    first = np.zeros(len(faces), bool)
    for kind in (faces.mated, ~faces.mated):
        people = rng.permutation(np.unique(faces.people[kind]))
        if len(people) < 2:
            raise ValueError('confidence needs at least two people of each kind')
        first |= kind & np.isin(faces.people, people[: (len(people) + 1) // 2])
    return faces.take(first), faces.take(~first)


def _scores_digest(faces: SearchedFaces) -> str:
    digest = hashlib.sha256()
    arrays = [faces.similarity, faces.mated, faces.correct]
    for values in [*arrays, *(faces.qualities[name] for name in sorted(faces.qualities))]:
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
