"""Say what a decision is worth: the probability of a match, and rates by size and quality.

Both are made from the faces of a calibration and kept in the file of the decision.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from scipy.stats import beta

from mmvlr.utils.schema import FileModel, validate

from .calibrating import SearchedFaces
from .conformal import find_bins, finite, quality_edges
from .decision import Decision

#: Keys of a decision's ``calibrated_on``.
PROBABILITY_KEY, OPERATING_KEY = 'probability', 'operating'
#: Edges between the native sizes of faces in the operating table, in pixels.
SIZES = (8.0, 12.0, 16.0, 24.0, 32.0)
_RESAMPLES, _FOLDS, _QUARTERS = 100, 5, 4


class _Content(FileModel):
    """A :class:`MatchProbability` in a file."""

    quality: str | None
    coefficients: Annotated[
        list[Annotated[list[float], Field(min_length=4, max_length=4)]], Field(min_length=2)
    ]


@dataclass(frozen=True)
class MatchProbability:
    """Probability that the most similar person is the right one, by similarity and quality.

    It is a logistic regression on the similarity, the percentile of the quality among the
    calibration faces, and their product: of a poor face the same similarity says less. The
    probability holds for the mix of enrolled and other people of the calibration.

    Attributes:
        quality: Name of the quality; None: the similarity alone counts.
        coefficients: Of similarity, percentile (0 to 1), their product, and the intercept, (1 + B,
            4): the fit, and fits to B resamples of the people.
    """

    quality: str | None
    coefficients: np.ndarray

    def __call__(
        self, decision: Decision, similarity: ArrayLike, qualities: Mapping[str, ArrayLike]
    ) -> np.ndarray:
        """Return probability, and lower and upper end of its 95 % interval, float64 (N, 3).

        Args:
            decision: The decision, which knows the percentiles of the quality.
            similarity: Best similarity of each face, (N,).
            qualities: Qualities by name, (N,) each.

        Raises:
            ValueError: The quality is missing.
        """
        place = np.zeros(len(similarity))
        if self.quality is not None:
            if self.quality not in qualities:
                raise ValueError(f'the probability of a match needs the quality {self.quality!r}')
            place = decision.percentile(self.quality, qualities[self.quality]) / 100
        logits = _inputs(np.asarray(similarity, np.float64), place) @ self.coefficients.T
        shares = 1 / (1 + np.exp(-logits))
        low, high = np.percentile(shares[:, 1:], [2.5, 97.5], axis=1)
        return np.stack([shares[:, 0], low, high], axis=1)

    def store(self) -> dict[str, Any]:
        """Return plain values, for the file of the decision."""
        return dict(quality=self.quality, coefficients=self.coefficients.tolist())


def find_probability(decision: Decision | None) -> MatchProbability | None:
    """Return the probability that a decision holds; None if it was calibrated without mated faces.

    Raises:
        FileFormatError: It is damaged.
    """
    stored = None if decision is None else decision.calibrated_on.get(PROBABILITY_KEY)
    if stored is None:
        return None
    content = validate(stored, _Content, f'the decision: {PROBABILITY_KEY}', 'calibrate again')
    return MatchProbability(content.quality, np.array(content.coefficients))


def fit_probability(
    faces: SearchedFaces, decision: Decision, quality: str | None = None, seed: int = 0
) -> MatchProbability:
    """Fit the probability of a match to faces whose answers are known.

    Args:
        faces: The faces.
        decision: Their decision.
        quality: Name of the quality; None: the similarity alone counts.
        seed: Seed of the resampling of people.

    Raises:
        ValueError: All answers are right, or all are wrong.
    """
    if faces.correct.all() or not faces.correct.any():
        raise ValueError('the probability of a match needs faces with right and wrong answers')
    place = np.zeros(len(faces))
    if quality is not None:
        place = decision.percentile(quality, faces.quality(quality)) / 100
    inputs = _inputs(faces.similarity, place)
    _, person = np.unique(faces.people, return_inverse=True)
    rng, rows = np.random.default_rng(seed), [_fit(inputs, faces.correct)]
    while len(rows) <= _RESAMPLES:
        # Drawing people with replacement weights each face by how often its person is drawn.
        drawn = rng.multinomial(person.max() + 1, np.full(person.max() + 1, 1 / (person.max() + 1)))
        weight = drawn[person].astype(float)
        if 0 < faces.correct @ weight < weight.sum():
            rows.append(_fit(inputs, faces.correct, weight))
    return MatchProbability(quality, np.stack(rows))


def describe_operation(
    faces: SearchedFaces,
    decision: Decision,
    fit: Callable[[SearchedFaces], Decision],
    quality: str | None = None,
) -> dict[str, Any]:
    """Return what a decision says of its own worth, as plain values for ``calibrated_on``.

    Args:
        faces: The calibration faces.
        decision: Their decision.
        fit: Makes a decision of other faces in the same way.
        quality: See :func:`fit_probability` and :func:`tabulate_operation`.
    """
    if not faces.mated.any():
        return {}
    described = {OPERATING_KEY: tabulate_operation(faces, fit, quality)}
    if faces.correct.any() and not faces.correct.all():
        described[PROBABILITY_KEY] = fit_probability(faces, decision, quality).store()
    return described


def _inputs(similarity: np.ndarray, place: np.ndarray) -> np.ndarray:
    return np.stack([similarity, place, similarity * place, np.ones(len(place))], axis=1)


def _fit(inputs: np.ndarray, right: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    # Similarities differ little, so the usual penalty would flatten the curve.
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=1000)
    return model.fit(inputs, right, weight).coef_[0]


def tabulate_operation(
    faces: SearchedFaces,
    fit: Callable[[SearchedFaces], Decision],
    quality: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return rates by native size and by quality, on people who did not choose the thresholds.

    A fifth of the people at a time is judged by a decision of the others. If these are too few for
    one, the faces are judged by the decision of all, which is optimistic: ``held_out`` is False.

    Args:
        faces: The faces, with the quality ``size`` for the rates by size.
        fit: Makes a decision of faces.
        quality: Name of the quality whose quarters among the mated faces are the other rows.
        seed: Seed of the split of the people.

    Returns:
        ``held_out``, and ``rows``: ``by`` (``'all'``, ``'size'`` or the quality), ``low`` and
        ``high`` (None: no limit), numbers of mated and unmated ``faces`` and ``people``, and
        ``tpir`` (accepted as who they are), ``fpir`` and ``answered``, each with a 95 % interval
        (Clopper and Pearson, a person counting once) as ``_low`` and ``_high``; None without faces.
    """
    held_out, accepted, answered = True, np.zeros(len(faces), bool), np.zeros(len(faces), bool)
    _, person = np.unique(faces.people, return_inverse=True)
    fold = np.random.default_rng(seed).permutation(person.max() + 1)[person] % _FOLDS
    try:
        parts = [(fold == k, fit(faces.take(fold != k))) for k in range(_FOLDS)]
    except ValueError:
        held_out, parts = False, [(np.ones(len(faces), bool), fit(faces))]
    for inside, decision in parts:
        some = faces.take(inside)
        verdicts = decision.decide(some.similarity, [''] * len(some), some.qualities)
        accepted[inside] = [verdict.outcome == 'accept' for verdict in verdicts]
        answered[inside] = [verdict.outcome != 'abstain' for verdict in verdicts]
    groups: list[tuple[str, tuple[float, ...], np.ndarray]] = [('all', (), np.zeros(len(faces)))]
    if 'size' in faces.qualities:
        groups.append(('size', SIZES, faces.quality('size')))
    if quality is not None and faces.mated.any():
        values = faces.quality(quality)
        groups.append((quality, quality_edges(values[faces.mated], _QUARTERS), values))
    rows = []
    for name, edges, values in groups:
        place = find_bins(finite(values, name), edges)
        limits = [None, *edges, None]
        for number in range(len(edges) + 1):
            inside = place == number
            if not inside.any():
                continue
            mated, others = inside & faces.mated, inside & ~faces.mated
            row = dict(by=name, low=limits[number], high=limits[number + 1])
            row |= dict(mated_faces=int(mated.sum()), unmated_faces=int(others.sum()))
            row |= _rate('tpir', accepted & faces.correct, mated, person)
            row |= _rate('fpir', accepted, others, person)
            rows.append(row | _rate('answered', answered, inside, person))
    return dict(held_out=held_out, rows=rows)


def _rate(name: str, hits: np.ndarray, among: np.ndarray, person: np.ndarray) -> dict[str, Any]:
    """Return a rate over faces, and its interval for as many trials as there are people."""
    if not among.any():
        return {name: None, f'{name}_low': None, f'{name}_high': None}
    rate, trials = float(hits[among].mean()), len(np.unique(person[among]))
    right = rate * trials
    low = 0.0 if right <= 0 else float(beta.ppf(0.025, right, trials - right + 1))
    high = 1.0 if right >= trials else float(beta.ppf(0.975, right + 1, trials - right))
    return {name: rate, f'{name}_low': low, f'{name}_high': high}
