"""Refuse images at enrollment that would harm a gallery.

A smear resembles every other smear: enrolled as a person, it attracts the blurred faces of
strangers and is taken for them. Three things tell such an image before it is enrolled: its quality
is below that of ordinary faces, it lies near the unrecognizable faces (a low ERS), and strangers
match it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from mmvlr.structures import FaceTable
from mmvlr.structures.face_table import MEASURES
from mmvlr.utils.vectors import unit_rows

from .decision import Decision

#: Qualities of an image in a gallery that the gate records: the upper bound of the share of
#: strangers that it attracts, and 1 where it was enrolled against the gate.
ATTRACTS, FORCED = 'attracts', 'forced'


@dataclass(frozen=True)
class Refusal:
    """An image that does not pass the gate.

    Attributes:
        image: Name of the image.
        person: The person it was given for.
        reasons: One sentence each.
        matched: Strangers who match it.
        bound: Upper bound of the share of strangers that it attracts.
        forced: Whether it was enrolled all the same.
    """

    image: str
    person: str
    reasons: tuple[str, ...]
    matched: int
    bound: float
    forced: bool


@dataclass(frozen=True, eq=False)
class Judgment:
    """What the gate says of N images.

    Attributes:
        reasons: Why each image is refused; empty if it passes.
        matched: Strangers of whom a face matches the image, int64 (N,).
        bound: Upper confidence bound of the share of new strangers whom the image attracts, (N,):
            what it adds to the false accepts at most, while it is a template of its own.
    """

    reasons: list[tuple[str, ...]]
    matched: np.ndarray
    bound: np.ndarray

    @property
    def passed(self) -> np.ndarray:
        """Whether each image passes, bool (N,)."""
        return np.array([not reasons for reasons in self.reasons], bool)


class Gate:
    """Judge images before they are enrolled, by faces of people who are not.

    Args:
        decision: Its thresholds say what matches.
        strangers: Faces of people who are not enrolled, taken like the faces in use, of the
            same model.
        people: Person of each of them (default: all are different people).
        percentile: Images are refused whose quality is below that of this percentage of the
            strangers' faces. 0 refuses none.
        qualities: Names of the qualities that are compared; those that the faces lack are not.
        most: Share of the strangers whom an image may attract (default: the target rate of the
            decision, which one image alone would use up).
        confidence: Confidence of the bound.

    Raises:
        ValueError: There are no strangers, their qualities are not finite, or a number is out of
            its range.

    Example:
        Refuse what attracts strangers, before it is enrolled::

            strangers = inferencer.embed('strangers/')
            gate = Gate(Decision.load('decision.json'), strangers)
            print(identifier.enroll('people/', gate=gate).refused)
    """

    def __init__(
        self,
        decision: Decision,
        strangers: FaceTable,
        people: Sequence[str] | None = None,
        percentile: float = 5.0,
        qualities: Sequence[str] = ('ri', 'ers'),
        most: float | None = None,
        confidence: float = 0.95,
    ):
        if not len(strangers):
            raise ValueError('the gate needs faces of strangers, and there are none')
        if not 0 <= percentile < 100:
            raise ValueError(f'percentile must lie in [0, 100), got {percentile}')
        self.most = decision.target_fpir if most is None else most
        if not 0 <= self.most <= 1:
            raise ValueError(f'most must lie in [0, 1], got {self.most}')
        if not 0 < confidence < 1:
            raise ValueError(f'confidence must lie in (0, 1), got {confidence}')
        self.confidence, self.percentile = confidence, percentile
        names = [str(row) for row in range(len(strangers))] if people is None else list(people)
        if len(names) != len(strangers):
            raise ValueError(f'{len(names)} people of {len(strangers)} faces of strangers')
        self.people, self._person = np.unique(names, return_inverse=True)
        self._unit = unit_rows(strangers.embedding)
        name = decision.bin_quality
        if name is not None and name not in strangers.qualities:
            raise ValueError(f'the decision needs the quality {name!r} of the strangers')
        quality = np.zeros(len(strangers)) if name is None else strangers.qualities[name]
        self._threshold = decision.thresholds(quality)
        self.levels = {
            name: float(np.percentile(strangers.qualities[name], percentile))
            for name in qualities
            if percentile and name in strangers.qualities
        }

    def __call__(self, faces: FaceTable) -> Judgment:
        """Judge images.

        Raises:
            ValueError: They lack a quality that the strangers have.
        """
        total = len(self.people)
        matched = np.zeros(len(faces), np.int64)
        above = unit_rows(faces.embedding) @ self._unit.T > self._threshold
        for row, hits in enumerate(above):
            matched[row] = len(np.unique(self._person[hits]))
        bound = np.ones(len(faces))
        some = matched < total
        bound[some] = beta.ppf(self.confidence, matched[some] + 1, total - matched[some])
        reasons: list[list[str]] = [[] for _ in range(len(faces))]
        for name, level in self.levels.items():
            if name not in faces.qualities:
                raise ValueError(f'the images have no quality {name!r}, which the strangers have')
            values = faces.qualities[name]
            for row in np.flatnonzero(values < level):
                reasons[row].append(
                    f'{MEASURES.get(name, name)} {values[row]:.3f} is below {level:.3f}, that of '
                    f'{self.percentile:g} % of the strangers.'
                )
        for row in np.flatnonzero(matched > self.most * total):
            reasons[row].append(
                f'{matched[row]} of {total} strangers match it (at most {bound[row]:.1%} of new '
                f'ones with confidence); {self.most:.1%} are allowed.'
            )
        return Judgment([tuple(told) for told in reasons], matched, bound)

    def admit(
        self, faces: FaceTable, owners: Sequence[str], force: bool = False
    ) -> tuple[FaceTable, list[str], dict[str, np.ndarray], list[Refusal]]:
        """Return the images to enroll, their people, their qualities, and the refused images.

        Args:
            faces: The images.
            owners: Person in each of them.
            force: Admit refused images too. ``forced`` is 1 in their qualities.

        Raises:
            ValueError: See :meth:`__call__`, or somebody is among the strangers too.
        """
        both = sorted({*owners} & {*self.people.tolist()})
        if both:
            raise ValueError(
                f'{len(both)} people to enroll are among the strangers, such as {both[0]}: their '
                'own faces would count as false matches. Take them out of one of the two'
            )
        judged, names = self(faces), faces.names
        refused = [
            Refusal(
                names[row],
                owners[row],
                judged.reasons[row],
                int(judged.matched[row]),
                float(judged.bound[row]),
                force,
            )
            for row in np.flatnonzero(~judged.passed)
        ]
        rows = np.flatnonzero(judged.passed | force)
        kept = faces.take(rows)
        found = {ATTRACTS: judged.bound[rows], FORCED: 1.0 - judged.passed[rows]}
        return kept, [owners[row] for row in rows], kept.qualities | found, refused
