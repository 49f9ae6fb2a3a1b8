"""Findings of an audit of a gallery: what they are called, and what to do about them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Kind of a finding -> (what was found, what to do about it).
KINDS = {
    'collision': ('may be one person under two names', 'look at both; merge, or remove one'),
    'wrong person': ('resembles another person more', 'move it there, or remove it'),
    'stranger': ('resembles neither its person nor anybody', 'look at it; remove it'),
    'lowers': ('the other images agree better without it', 'remove it'),
    'two names': ('is enrolled as two people', 'remove it from one of them'),
    'duplicate': ('is enrolled twice', 'remove one of the two'),
    'no good image': ('has no image of good quality', 'enroll a better image'),
    'forced': ('was enrolled against the gate', 'replace it by a better image'),
}


@dataclass(frozen=True)
class Finding:
    """Something in a gallery that looks wrong.

    Attributes:
        kind: One of :data:`KINDS`.
        person: The person.
        image: The image, or ''.
        other_person: The other person, or ''.
        other_image: The other image, or ''.
        probability: Estimated probability that it is wrong; None where the finding is certain or
            is a measurement.
        confusion: Of a collision, the estimated probability that a new image of the person is more
            similar to the other one; else None.
        value: What was measured: a similarity, its gain without the image, or a quality.
    """

    kind: str
    person: str
    image: str = ''
    other_person: str = ''
    other_image: str = ''
    probability: float | None = None
    confusion: float | None = None
    value: float | None = None

    @property
    def found(self) -> str:
        """What was found, in words."""
        return KINDS[self.kind][0]

    @property
    def suggestion(self) -> str:
        """What to do about it."""
        return KINDS[self.kind][1]


@dataclass(frozen=True, eq=False)
class Audit:
    """Result of :func:`audit`.

    Attributes:
        findings: By kind, the most probable first.
        people: People in the gallery.
        images: Their images.
        about: What similarities are usual in this gallery.
    """

    findings: list[Finding]
    people: int
    images: int
    about: Mapping[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind."""
        return {kind: sum(one.kind == kind for one in self.findings) for kind in KINDS}

    def rows(self) -> list[dict[str, Any]]:
        """Return the findings as rows of a table."""
        return [
            dict(vars(one), found=one.found, suggestion=one.suggestion) for one in self.findings
        ]
