"""Decide accept, unknown or abstain for a face that was searched in a gallery."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.contract import check_fingerprint

from .abstention import AbstentionLevel
from .conformal import BinnedThresholds, ConformalThreshold, find_bins, finite
from .decision_file import read_decision, write_decision
from .gallery import Gallery

#: Name under which a face's distance to its threshold may decide on abstention.
DISTANCE = 'distance'


@dataclass(frozen=True)
class Change:
    """Value with which a face that was not answered would have been, all else being equal.

    Attributes:
        measure: ``'similarity'``, or the name of a quality.
        value: What it is.
        bound: What it would have to be: at least this if ``value`` is lower, else at most.
        outcome: The answer then, ``'accept'`` or ``'unknown'``; None if it is not to be known.
    """

    measure: str
    value: float
    bound: float
    outcome: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return plain values: the bound as ``at_least`` or ``at_most``, and ``by`` how much."""
        side = 'at_least' if self.bound > self.value else 'at_most'
        content = {'measure': self.measure, 'value': self.value, side: self.bound}
        return content | dict(by=abs(self.bound - self.value), outcome=self.outcome)


@dataclass(frozen=True)
class Verdict:
    """Decision on one face.

    Attributes:
        outcome: ``'accept'``, ``'unknown'`` (probably not enrolled) or ``'abstain'`` (no answer).
        person: The person, with ``'accept'``; else None.
        similarity: Its best similarity in the gallery.
        threshold: Threshold that the similarity must exceed.
        quality: The quality that decided on abstention, or on the bin; None if neither did.
        reason: Explanation in one sentence.
        changes: With ``'abstain'``, what would each have given an answer.
    """

    outcome: Literal['accept', 'unknown', 'abstain']
    person: str | None
    similarity: float
    threshold: float
    quality: float | None
    reason: str
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class Decision:
    """Rule that decides accept, unknown or abstain; made by :func:`calibrate`.

    Attributes:
        fingerprint: Fingerprint of the model that the rule applies to.
        target_fpir: False positive identification rate of its thresholds.
        bin_quality: Quality that selects the threshold, or None for a single threshold.
        thresholds: The thresholds by bin.
        abstain_by: Quality that decides on abstention (``'distance'``: how far the similarity is
            from its threshold), or None: every face is answered.
        level: The level below which no answer is given, or None.
        quantiles: 101 percentiles of each quality among the calibration faces, by name.
        calibrated_on: Description of the calibration data, plain values.
    """

    fingerprint: Mapping[str, Any]
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
        """Return a warning if a gallery is not the one of the calibration, else ''."""
        known = self.calibrated_on['gallery']
        if known.get('digest') in (None, gallery.digest):
            return ''
        return (
            f'the decision was calibrated on another gallery ({known.get("people")} people then, '
            f'{len(gallery)} now): its false positive rate is not kept; calibrate again'
        )

    def percentile(self, name: str, quality: ArrayLike) -> np.ndarray:
        """Return percentiles of qualities among the calibration faces, float64 (N,), 0 to 100.

        Raises:
            ValueError: The calibration faces had no such quality.
        """
        if name not in self.quantiles:
            raise ValueError(f'the decision was calibrated without {name!r}')
        known = np.asarray(self.quantiles[name])
        below = np.searchsorted(known, quality, side='left')
        not_above = np.searchsorted(known, quality, side='right')
        between = np.interp(quality, known, np.arange(len(known)))
        # Of several equal percentiles, take the middle one.
        return np.where(not_above > below, (below + not_above - 1) / 2, between)

    def decide(
        self,
        similarity: ArrayLike,
        person: Sequence[str],
        qualities: Mapping[str, ArrayLike] | None = None,
    ) -> list[Verdict]:
        """Decide accept, unknown or abstain for each face.

        Args:
            similarity: Best similarity of each face in the gallery, (N,).
            person: Name of the most similar person, N texts.
            qualities: Qualities by name, (N,) each; those of :attr:`needs` are required.

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
            bins = find_bins(used[self.bin_quality], self.thresholds.edges)
        threshold = np.array([t.threshold for t in self.thresholds.thresholds])[bins]
        used[DISTANCE] = np.abs(similarity - threshold)
        told = self.abstain_by or self.bin_quality
        verdicts = []
        for row, score in enumerate(similarity.tolist()):
            bound = float(threshold[row])
            quality = None if told is None else float(used[told][row])
            changes: tuple[Change, ...] = ()
            if self.level is not None and used[self.abstain_by][row] < self.level.level:
                changes = self._find_changes(score, bound, quality)
                outcome, reason = 'abstain', self._abstains(quality, changes)
            else:
                outcome = 'accept' if score > bound else 'unknown'
                reason = (
                    f'The similarity {score:.3f} is {"" if score > bound else "not "}above '
                    f'{bound:.3f}, the threshold{self._of_bin(int(bins[row]))} for a false '
                    f'positive rate of {self.target_fpir:g}.'
                )
            who = str(person[row]) if outcome == 'accept' else None
            verdicts.append(Verdict(outcome, who, score, bound, quality, reason, changes))
        return verdicts

    def _find_changes(self, score: float, bound: float, quality: float) -> tuple[Change, ...]:
        """Return what would have given an answer to a face of this similarity and quality."""
        level = self.level.level
        if self.abstain_by == DISTANCE:
            sides = (('accept', bound + level), ('unknown', bound - level))
            # Beyond 1 there is no similarity.
            return tuple(Change('similarity', score, x, o) for o, x in sides if abs(x) <= 1)
        if self.bin_quality == self.abstain_by:
            (number,) = find_bins(np.array([level]), self.thresholds.edges)
            bound = self.thresholds.thresholds[number].threshold
        return (Change(self.abstain_by, quality, level, 'accept' if score > bound else 'unknown'),)

    def _abstains(self, quality: float, changes: Sequence[Change]) -> str:
        level = self.level.level
        if self.abstain_by == DISTANCE:
            answers = [
                f'{c.outcome} with {abs(c.bound - c.value):.3f} '
                f'{"more" if c.bound > c.value else "less"}'
                for c in changes
            ]
            told = f'; the answer would be {", ".join(answers)}' if answers else ''
            return (
                f'The similarity is only {quality:.3f} from the threshold, and {level:.3f} is '
                f'asked for{told}.'
            )
        name = MEASURES.get(self.abstain_by, self.abstain_by)
        place = float(self.percentile(self.abstain_by, quality))
        return (
            f'{name} {quality:.3f} is below {level:.3f}, the lowest that is answered; it is at '
            f'percentile {place:.0f} of the calibration faces. The answer would be '
            f'{changes[0].outcome} with {level - quality:.3f} more.'
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

    def save(self, path: str | Path, keep_mode: bool = False) -> Path:
        """Write a JSON file, atomically; read it with :meth:`load`.

        Args:
            path: The file; only its owner can read it.
            keep_mode: Keep the permissions of an existing file.
        """
        level = None
        if self.level is not None:
            level = dict(vars(self.level))
            # JSON has no infinity.
            level['level'] = None if level['level'] == -math.inf else level['level']
        content = dict(
            identity=dict(self.fingerprint),
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
        return write_decision(path, content, keep_mode)

    @classmethod
    def load(cls, path: str | Path, fingerprint: Mapping[str, Any] | None = None) -> 'Decision':
        """Read a JSON file.

        Args:
            path: The file.
            fingerprint: Fingerprint of the model in use; a decision of another one is refused.

        Raises:
            FileNotFoundError: There is no such file.
            FileFormatError: It is no decision, of another version, or damaged.
            ModelMismatchError: It was calibrated with another model.
        """
        content = read_decision(path)
        if fingerprint is not None:
            check_fingerprint(fingerprint, content.identity, str(path))
        level = None
        if content.level is not None:
            level = AbstentionLevel(**dict(content.level))
            level = replace(level, level=-math.inf if level.level is None else level.level)
        thresholds = tuple(ConformalThreshold(**dict(found)) for found in content.thresholds)
        return cls(
            fingerprint=content.identity,
            target_fpir=content.target_fpir,
            bin_quality=content.bin_quality,
            thresholds=BinnedThresholds(tuple(content.edges), thresholds, content.num_merged),
            abstain_by=content.abstain_by,
            level=level,
            quantiles={name: tuple(values) for name, values in content.quantiles.items()},
            calibrated_on=content.calibrated_on.model_dump(),
        )
