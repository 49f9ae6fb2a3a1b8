"""Accept, unknown or abstain: what is said of a face that was searched in a gallery."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from mmvlr.evaluation.table import MEASURES
from mmvlr.utils.contract import check_identity
from mmvlr.utils.io import write_atomic
from mmvlr.version import __version__

from .conformal import (
    BinnedThresholds,
    ConformalThreshold,
    bin_of,
    binned_thresholds,
    finite,
    quality_edges,
)
from .gallery import Gallery

_FORMAT, _VERSION = 'mmvlr decision', 1
_NUM_LEVELS = 20

#: Name under which a face's distance to its threshold may decide on abstention.
DISTANCE = 'distance'


class DecisionFileError(ValueError):
    """A decision file is damaged, of another format or of a later version."""


class TargetNotReachedError(ValueError):
    """No level of the quality brings the error down to the target."""


@dataclass(frozen=True)
class Verdict:
    """What is said of one face.

    Attributes:
        outcome: ``'accept'``, ``'unknown'`` (not enrolled, as far as can be told) or
            ``'abstain'`` (no answer).
        person: Who it is, with ``'accept'``; else None.
        similarity: Its best similarity in the gallery.
        threshold: What the similarity has to exceed.
        quality: The quality that decided on abstention, or on the bin; None if neither did.
        reason: One sentence for a reader.
    """

    outcome: Literal['accept', 'unknown', 'abstain']
    person: str | None
    similarity: float
    threshold: float
    quality: float | None
    reason: str


@dataclass(frozen=True, eq=False)
class SearchedFaces:
    """Faces with known answers that were searched in a gallery: what a decision is made from.

    Attributes:
        similarity: Best similarity of each face in the gallery, (N,).
        mated: Whether its person is enrolled, bool (N,).
        correct: Whether the best person is the right one, bool (N,); False where not mated.
        people: Whose face each is, (N,), integers or text; a face of nobody known needs a name of
            its own.
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
        """Whether the answer to each face is wrong, bool (N,).

        Wrong is to accept as another person, to accept who is not enrolled, and to call unknown
        who is.
        """
        accepted = self.similarity > threshold
        return np.where(self.mated, ~(accepted & self.correct), accepted)

    def quality(self, name: str) -> np.ndarray:
        """Return a quality; ``ValueError`` names what is there if it is missing."""
        if name not in self.qualities:
            raise ValueError(
                f'there is no quality {name!r} for the faces, only '
                f'{", ".join(self.qualities) or "none at all"}'
            )
        return self.qualities[name]


@dataclass(frozen=True)
class AbstentionLevel:
    """Quality below which no answer is given.

    Attributes:
        level: Faces below it are not answered; ``-inf`` answers all of them. Where the target is
            not reached, the level of lowest error (bound).
        reached: Whether the target is reached.
        target: Target error of an answered face.
        error: Error of the answered calibration faces.
        coverage: Share of the calibration faces that are answered.
        bound: Upper confidence bound of the error; None if none was asked for.
        num_faces: Calibration faces that were looked at.
    """

    level: float
    reached: bool
    target: float
    error: float
    coverage: float
    bound: float | None
    num_faces: int

    @property
    def summary(self) -> str:
        """What was found, for a reader."""
        bound = '' if self.bound is None else f' (at most {self.bound:.1%} with confidence)'
        found = (
            f'an error of {self.error:.1%}{bound} of the answered faces with {self.coverage:.0%} '
            'answered'
        )
        if self.reached:
            return found
        return f'no level reaches an error of {self.target:.1%}; the best is {found}'


def abstention_level(
    quality: ArrayLike,
    errors: ArrayLike,
    target: float,
    confidence: float | None = None,
    people: ArrayLike | None = None,
    seed: int = 0,
) -> AbstentionLevel:
    """Choose the level that answers most faces while the answered ones err little enough.

    Without ``confidence`` the error of the answered calibration faces is compared with the target
    at every distinct quality; that is a choice among many, so a new set errs somewhat more.

    With it, the error of an answered face of a new person, drawn like those of the calibration,
    does not exceed the target with that probability over calibration sets (selection with
    guaranteed risk: Geifman and El-Yaniv, *Selective classification for deep neural networks*,
    NeurIPS 2017; in general, learn then test: Angelopoulos et al., 2021). 20 coverages, 5 % to
    100 %, are tested by the exact binomial bound of Clopper and Pearson (1934), each at
    1 - (1 - confidence) / 20 (Bonferroni). Faces must be independent, so one face of each person
    is drawn. The errors must not depend on these faces in any other way: the thresholds behind
    them come from other people.

    Args:
        quality: Quality of each calibration face, (N,).
        errors: Whether its answer is wrong, (N,).
        target: Error that an answered face should not exceed, in (0, 1).
        confidence: In (0, 1), or None.
        people: Whose face each is, (N,); needed with ``confidence`` only. Default: all are of
            different people.
        seed: Seed of the draw of one face a person.

    Raises:
        ValueError: An input is malformed.

    Example:
        >>> found = abstention_level([1, 2, 3, 4], [True, True, False, False], target=0.4)
        >>> found.level, round(found.error, 2), found.coverage
        (2.0, 0.33, 0.75)
        >>> abstention_level([1, 2], [True, True], target=0.1).summary
        'no level reaches an error of 10.0%; the best is an error of 100.0% ... 100% answered'
    """
    quality, wrong = finite(quality, 'quality'), np.asarray(errors)
    if wrong.shape != quality.shape or not np.isin(wrong, (0, 1)).all():
        raise ValueError(f'errors must be true or false, one a face, got shape {wrong.shape}')
    if not 0 < target < 1:
        raise ValueError(f'the target error must lie in (0, 1), got {target}')
    if confidence is not None:
        if not 0 < confidence < 1:
            raise ValueError(f'confidence must lie in (0, 1), got {confidence}')
        if people is not None:
            order = np.random.default_rng(seed).permutation(len(quality))
            _, first = np.unique(np.asarray(people)[order], return_index=True)
            quality, wrong = quality[order[first]], wrong[order[first]]
    falling = np.argsort(-quality, kind='stable')
    ordered, num_wrong = quality[falling], wrong[falling].astype(np.int64).cumsum()
    # Faces of equal quality are answered together: only the last of them ends a level.
    ends = np.flatnonzero(np.r_[np.diff(ordered) < 0, True]) + 1
    if confidence is not None:
        wanted = np.ceil(np.arange(1, _NUM_LEVELS + 1) / _NUM_LEVELS * len(quality) - 1e-9)
        ends = np.unique(ends[np.searchsorted(ends, wanted)])
    error = num_wrong[ends - 1] / ends
    bound = error
    if confidence is not None:
        spent = (1 - confidence) / _NUM_LEVELS
        correct = ends - num_wrong[ends - 1]
        # No correct answer bounds nothing; beta is not defined there.
        limit = beta.ppf(1 - spent, num_wrong[ends - 1] + 1, np.maximum(correct, 1))
        bound = np.where(correct == 0, 1.0, limit)
    reaching = np.flatnonzero(bound <= target)
    # Among equally good levels the one that answers most.
    chosen = reaching[-1] if len(reaching) else len(bound) - 1 - int(bound[::-1].argmin())
    end = int(ends[chosen])
    return AbstentionLevel(
        level=-math.inf if end == len(quality) else float(ordered[end - 1]),
        reached=bool(len(reaching)),
        target=target,
        error=float(error[chosen]),
        coverage=end / len(quality),
        bound=None if confidence is None else float(bound[chosen]),
        num_faces=len(quality),
    )


@dataclass(frozen=True)
class Decision:
    """Rule that says accept, unknown or abstain; made by :func:`calibrate`.

    Attributes:
        identity: Identity of the model whose similarities it is for.
        target_fpir: False positive identification rate of its thresholds.
        bin_quality: Quality that chooses the threshold, or None: there is one threshold.
        thresholds: The thresholds by bin.
        abstain_by: Quality that decides on abstention (``'distance'``: how far the similarity is
            from its threshold), or None: every face is answered.
        level: The level below which no answer is given, or None.
        quantiles: 101 percentiles of each quality among the calibration faces, by name.
        calibrated_on: What it was calibrated on, plain values.
    """

    identity: Mapping[str, Any]
    target_fpir: float
    bin_quality: str | None
    thresholds: BinnedThresholds
    abstain_by: str | None
    level: AbstentionLevel | None
    quantiles: Mapping[str, Sequence[float]]
    calibrated_on: Mapping[str, Any]

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the qualities that a face must have."""
        names = {self.bin_quality, self.abstain_by} - {None, DISTANCE}
        return tuple(sorted(names))

    def gallery_note(self, gallery: Gallery) -> str:
        """Return what is to be said if a gallery is not the one of the calibration, else ''."""
        known = self.calibrated_on['gallery']
        if known.get('digest') in (None, gallery.digest):
            return ''
        return (
            f'the decision was calibrated on another gallery ({known.get("people")} people then, '
            f'{len(gallery)} now): its false positive rate is not kept; calibrate again'
        )

    def percentile(self, name: str, quality: ArrayLike) -> np.ndarray:
        """Percentiles of qualities among the calibration faces, float64 (N,), 0 to 100.

        Raises:
            ValueError: The calibration faces had no such quality.
        """
        if name not in self.quantiles:
            raise ValueError(f'the decision was calibrated without {name!r}')
        known = np.asarray(self.quantiles[name])
        below = np.searchsorted(known, quality, side='left')
        not_above = np.searchsorted(known, quality, side='right')
        between = np.interp(quality, known, np.arange(len(known)))
        # Where several percentiles are equal, the one in their middle.
        return np.where(not_above > below, (below + not_above - 1) / 2, between)

    def decide(
        self,
        similarity: ArrayLike,
        person: Sequence[str],
        qualities: Mapping[str, ArrayLike] | None = None,
    ) -> list[Verdict]:
        """Say accept, unknown or abstain of each face.

        Args:
            similarity: Best similarity of each face in the gallery, (N,).
            person: The person it belongs to, N texts.
            qualities: Qualities by name, (N,) each; those of :attr:`needs` must be there.

        Raises:
            ValueError: An array is malformed or a quality is missing.
        """
        if not len(similarity):
            return []
        similarity = finite(similarity, 'similarity')
        if len(person) != len(similarity):
            raise ValueError(f'{len(similarity)} similarities and {len(person)} people')
        given = dict(qualities or {})
        missing = [name for name in self.needs if name not in given]
        if missing:
            raise ValueError(
                f'the decision needs {", ".join(missing)} of each face, got '
                f'{", ".join(given) or "no qualities"}: use the model and qualities it was '
                'calibrated with'
            )
        used = {name: finite(given[name], name, len(similarity)) for name in self.needs}
        bins = np.zeros(len(similarity), np.int64)
        if self.bin_quality is not None:
            bins = bin_of(used[self.bin_quality], self.thresholds.edges)
        threshold = np.array([t.threshold for t in self.thresholds.thresholds])[bins]
        used[DISTANCE] = np.abs(similarity - threshold)
        told = self.abstain_by or self.bin_quality
        verdicts = []
        for row, score in enumerate(similarity.tolist()):
            bound = float(threshold[row])
            quality = None if told is None else float(used[told][row])
            if self.level is not None and used[self.abstain_by][row] < self.level.level:
                outcome, reason = 'abstain', self._abstains(quality)
            else:
                outcome = 'accept' if score > bound else 'unknown'
                reason = (
                    f'The similarity {score:.3f} is {"" if score > bound else "not "}above '
                    f'{bound:.3f}, the threshold{self._of_bin(int(bins[row]))} for a false '
                    f'positive rate of {self.target_fpir:g}.'
                )
            who = str(person[row]) if outcome == 'accept' else None
            verdicts.append(Verdict(outcome, who, score, bound, quality, reason))
        return verdicts

    def _abstains(self, quality: float) -> str:
        level = self.level.level
        if self.abstain_by == DISTANCE:
            return (
                f'The similarity is only {quality:.3f} from the threshold, and {level:.3f} is '
                'asked for.'
            )
        name = MEASURES.get(self.abstain_by, self.abstain_by)
        place = float(self.percentile(self.abstain_by, quality))
        return (
            f'{name} {quality:.3f} is below {level:.3f}, the lowest that is answered; it is at '
            f'percentile {place:.0f} of the calibration faces.'
        )

    def _of_bin(self, number: int) -> str:
        edges = self.thresholds.edges
        if not edges:
            return ''
        name = MEASURES.get(self.bin_quality, self.bin_quality)
        if number == 0:
            return f' of faces with {name} below {edges[0]:.3f}'
        if number == len(edges):
            return f' of faces with {name} from {edges[-1]:.3f}'
        return f' of faces with {name} from {edges[number - 1]:.3f} to {edges[number]:.3f}'

    def save(self, path: str | Path) -> Path:
        """Write a JSON file, atomically; read it with :meth:`load`."""
        level = None
        if self.level is not None:
            level = dict(vars(self.level))
            # JSON has no infinity.
            level['level'] = None if level['level'] == -math.inf else level['level']
        content = dict(
            identity=dict(self.identity),
            target_fpir=self.target_fpir,
            bin_quality=self.bin_quality,
            edges=list(self.thresholds.edges),
            thresholds=[dict(vars(threshold)) for threshold in self.thresholds.thresholds],
            num_merged=self.thresholds.num_merged,
            abstain_by=self.abstain_by,
            level=level,
            quantiles={name: list(values) for name, values in self.quantiles.items()},
            calibrated_on=dict(self.calibrated_on),
        )
        whole = dict(format=_FORMAT, version=_VERSION, sha256=_digest(content), content=content)
        text = json.dumps(whole, allow_nan=False, indent=1, ensure_ascii=False)
        return write_atomic(
            path, lambda file: file.write_text(text + '\n', encoding='utf-8'), private=True
        )

    @classmethod
    def load(cls, path: str | Path, identity: Mapping[str, Any] | None = None) -> 'Decision':
        """Read a JSON file.

        Args:
            path: The file.
            identity: Identity of the model in use; a decision of another one is refused.

        Raises:
            FileNotFoundError: There is no such file.
            DecisionFileError: It is none of these files, of another version, or damaged.
            ModelMismatchError: It was calibrated with another model.
        """
        try:
            whole = json.loads(Path(path).read_text(encoding='utf-8'))
        except ValueError as error:
            raise DecisionFileError(
                f'{path} is not a readable JSON file ({error}): calibrate again'
            ) from error
        if not isinstance(whole, dict) or whole.get('format') != _FORMAT:
            raise DecisionFileError(f'{path} holds no decision of mmvlr')
        if whole.get('version') != _VERSION:
            raise DecisionFileError(
                f'{path} has version {whole.get("version")}, this mmvlr reads {_VERSION}: use a '
                'newer mmvlr or calibrate again'
            )
        content = whole.get('content')
        if not isinstance(content, dict) or whole.get('sha256') != _digest(content):
            raise DecisionFileError(f'{path} is damaged or was edited: calibrate again')
        if identity is not None:
            check_identity(identity, content['identity'], str(path))
        level = content['level']
        if level is not None:
            level = dict(level, level=-math.inf if level['level'] is None else level['level'])
            level = AbstentionLevel(**level)
        return cls(
            identity=content['identity'],
            target_fpir=content['target_fpir'],
            bin_quality=content['bin_quality'],
            thresholds=BinnedThresholds(
                tuple(content['edges']),
                tuple(ConformalThreshold(**threshold) for threshold in content['thresholds']),
                content['num_merged'],
            ),
            abstain_by=content['abstain_by'],
            level=level,
            quantiles={name: tuple(values) for name, values in content['quantiles'].items()},
            calibrated_on=content['calibrated_on'],
        )


def calibrate(
    faces: SearchedFaces,
    identity: Mapping[str, Any],
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
    """Make a decision from faces whose answers are known.

    1. With ``bin_quality``, bins hold equally many of the mated faces by that quality.
    2. Thresholds keep ``target_fpir`` on the unmated faces, in every bin, each person counting
       once; see :func:`mmvlr.identification.conformal.binned_thresholds`. Bins with too few
       people are merged.
    3. With ``abstain_by``, the level below which no answer is given is chosen on mated and
       unmated faces together; see :func:`abstention_level`. The error depends on how many of
       the faces are mated: the calibration faces should be mixed like those to come. With
       ``confidence`` a random half of the people makes bins and thresholds and the other half
       the level, so that the bound holds, and what counts is the mix of people, not of faces;
       without it all do both, and the error of the answered calibration faces flatters a little.

    Abstention takes nothing from the guarantee of the thresholds: who gets no answer is not
    accepted. Among the *answered* faces alone the rate is kept as far as they fill whole bins.

    Args:
        faces: Calibration faces, none of which may be enrolled themselves.
        identity: Identity of the model, see :func:`mmvlr.apis.network.identity_of`.
        target_fpir: Share of new faces of people not enrolled that may be accepted.
        bin_quality: Quality along which bins are cut, such as ``'ri'``; None: one threshold.
        num_bins: Number of bins at first.
        abstain_by: Quality that decides on abstention, such as ``'ri'``, or ``'distance'``, of
            the similarity to its threshold; None: every face is answered.
        target_error: Error of an answered face that abstention should bring about; goes with
            ``abstain_by``.
        confidence: Probability with which the target error is to be kept, or None: the error of
            the calibration faces is to be.
        name: Name of the calibration set, for the file.
        gallery: What is to be said of the gallery, plain values, for the file. With its ``digest``
            and ``people``, :meth:`Decision.gallery_note` notices a change.
        seed: Seed of the halves and of the face drawn from each person.

    Raises:
        ValueError: An input is malformed, or there are too few people for ``target_fpir``.
        TargetNotReachedError: No level reaches ``target_error``; the message says what can be had.
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
        identity=dict(identity),
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


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
