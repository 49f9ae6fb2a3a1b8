"""Choose the quality below which answers are too often wrong and none is given."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from .conformal import finite

_NUM_LEVELS = 20


@dataclass(frozen=True)
class AbstentionLevel:
    """Quality below which no answer is given.

    Attributes:
        level: Faces below it are not answered; ``-inf`` answers all of them. If the target is not
            reached, the level of the lowest error (bound).
        reached: Whether the target is reached.
        target: Target error of an answered face.
        error: Error of the answered calibration faces.
        coverage: Share of the calibration faces that are answered.
        bound: Upper confidence bound of the error; None if none was requested.
        num_faces: Number of calibration faces.
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
        """Summary of the result as text."""
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
    """Choose the level that answers most faces while their error stays within the target.

    Without ``confidence`` the error of the answered calibration faces is compared with the target
    at every distinct quality. As this selects among many levels, the error on new faces is
    somewhat higher.

    With it, the error of an answered face of a new person, drawn like those of the calibration,
    does not exceed the target with that probability over calibration sets (selection with
    guaranteed risk: Geifman and El-Yaniv, *Selective classification for deep neural networks*,
    NeurIPS 2017; in general, learn then test: Angelopoulos et al., 2021). 20 coverages, 5 % to
    100 %, are tested by the exact binomial bound of Clopper and Pearson (1934), each at
    1 - (1 - confidence) / 20 (Bonferroni). Faces must be independent, so one face of each person
    is drawn. The errors must not depend on these faces otherwise: the thresholds that determine
    them must come from other people.

    Args:
        quality: Quality of each calibration face, (N,).
        errors: Whether its answer is wrong, (N,).
        target: Error that an answered face should not exceed, in (0, 1).
        confidence: In (0, 1), or None.
        people: Person of each face, (N,); needed with ``confidence`` only. Default: all are
            different people.
        seed: Seed of the draw of one face per person.

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
        # Without a correct answer there is no bound, and beta is undefined.
        limit = beta.ppf(1 - spent, num_wrong[ends - 1] + 1, np.maximum(correct, 1))
        bound = np.where(correct == 0, 1.0, limit)
    reaching = np.flatnonzero(bound <= target)
    # Of equally good levels, take the one that answers most faces.
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
