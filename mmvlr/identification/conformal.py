"""Choose thresholds that keep a false positive rate, with a finite-sample guarantee.

A face whose person is not enrolled is a false positive when its best similarity lies *strictly
above* the threshold. The threshold is chosen on calibration faces of people who are not enrolled
(split conformal prediction: Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*,
2005; Papadopoulos et al., ECML 2002).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

# 0.9 * 10 must be nine faces, though it may be slightly above in binary.
_SLACK = 1e-9


@dataclass(frozen=True)
class ConformalThreshold:
    """A threshold and the calibration data it was chosen on.

    Attributes:
        threshold: A similarity strictly above it is accepted; ``inf`` (nothing is accepted) if
            there were too few people.
        fpir: Target false positive identification rate.
        num_people: People it was chosen on: each counts once.
        num_faces: Their faces.
    """

    threshold: float
    fpir: float
    num_people: int
    num_faces: int

    @property
    def enough(self) -> bool:
        """Whether there were enough people for the target."""
        return self.num_people >= people_needed(self.fpir)

    @property
    def shortage(self) -> str:
        """Message that states how many people are missing; empty if there are enough."""
        return describe_shortage(self.fpir, self.num_people)

    def realized_fpir(self, probability: float = 0.9) -> float:
        """Return the false positive rate that is not exceeded with a given probability.

        The guarantee is on average over calibration sets. *This* threshold has a fixed rate, which
        is above the target about as often as below it. With n calibration people of one
        face each and continuous scores it follows a Beta(n + 1 - k, k) distribution,
        k = ceil((1 - fpir) (n + 1)) (Vovk, *Conditional validity of inductive conformal
        predictors*, ACML 2012); this is its quantile. Ties lower the rate. With several faces per
        person the same formula with n people is a conservative approximation, as the faces of a
        person carry more information than one face.

        Args:
            probability: Probability over calibration sets, in (0, 1).

        Example:
            >>> round(ConformalThreshold(0.5, 0.1, 99, 99).realized_fpir(0.9), 2)
            0.14
        """
        if not 0 < probability < 1:
            raise ValueError(f'probability must lie in (0, 1), got {probability}')
        if not self.enough:
            return 0.0
        place = math.ceil((1 - self.fpir) * (self.num_people + 1) - _SLACK)
        return float(beta.ppf(probability, self.num_people + 1 - place, place))


def people_needed(fpir: float) -> int:
    """Return the smallest number of calibration people for a finite threshold: 1 / fpir - 1.

    Raises:
        ValueError: The rate does not lie in (0, 1).

    Example:
        >>> people_needed(0.1), people_needed(0.01)
        (9, 99)
    """
    if not 0 < fpir < 1:
        raise ValueError(f'the target FPIR must lie in (0, 1), got {fpir}')
    return math.ceil(1 / fpir - 1 - _SLACK)


def describe_shortage(fpir: float, num_people: int) -> str:
    """Return a message that states how many calibration people are missing; '' if none."""
    needed = people_needed(fpir)
    if num_people >= needed:
        return ''
    return (
        f'a false positive rate of {fpir:g} needs calibration faces of at least {needed} people '
        f'who are not enrolled, there are {num_people}: add people or allow a higher rate'
    )


def conformal_threshold(
    similarity: ArrayLike, fpir: float, people: ArrayLike | None = None
) -> ConformalThreshold:
    """Choose the lowest threshold that keeps a false positive identification rate.

    With n faces of n people the threshold is the ceil((1 - fpir) (n + 1))-th smallest of their
    best similarities: a new face is equally likely to take any place among n + 1 exchangeable
    ones, so it lies above the threshold with probability at most ``fpir``.

    Several faces of one person are not exchangeable with those of others. With ``people``, every
    person has weight one, shared by the person's faces; the threshold is the
    (1 - fpir) (K + 1) / K quantile of the weighted similarities of K people (Lee, Barber and
    Willett, *Distribution-free inference with hierarchical data*, 2023; Dunn, Wasserman and
    Ramdas, *Distribution-free prediction sets for two-layer hierarchical models*, JASA 2022). With
    one face per person this is the rule above.

    What is guaranteed: a random face of a new person, drawn like the calibration people, searched
    in the same gallery with the same model, is accepted with probability at most ``fpir``, on
    average over calibration sets. What is not guaranteed:

    - the rate of this one threshold, see :meth:`ConformalThreshold.realized_fpir`;
    - the rate among faces of one quality or camera, see :func:`binned_thresholds`;
    - the share of all faces of a stream, if people who are seen more often are also accepted more
      often;
    - anything after the gallery has changed: more people in it raise best similarities, so
      calibrate again.

    Args:
        similarity: Best similarity in the gallery of each unmated calibration face, (N,).
        fpir: Target, in (0, 1).
        people: Person of each face, (N,), numbers or text. Default: all are different people.

    Returns:
        The threshold, infinite with fewer than 1 / fpir - 1 people;
        :attr:`ConformalThreshold.shortage` then states how many are needed.

    Raises:
        ValueError: An input is malformed.

    Example:
        >>> found = conformal_threshold([0.1, 0.5, 0.3, 0.2], fpir=0.4)
        >>> found.threshold
        0.3
        >>> conformal_threshold([0.1, 0.5], fpir=0.1).shortage
        'a false positive rate of 0.1 needs ... at least 9 people ... there are 2: ...'
    """
    needed = people_needed(fpir)
    similarity = finite(similarity, 'similarity')
    person, count = _as_people(people, len(similarity))
    if count < needed:
        return ConformalThreshold(math.inf, fpir, count, len(similarity))
    weight = 1 / np.bincount(person)[person]
    order = np.argsort(similarity, kind='stable')
    mass = weight[order].cumsum()
    # The sum of thousands of rounded shares may differ slightly from the number of people.
    mass *= count / mass[-1]
    place = int(np.searchsorted(mass, (1 - fpir) * (count + 1) - _SLACK))
    threshold = float(similarity[order[min(place, len(order) - 1)]])
    return ConformalThreshold(threshold, fpir, count, len(similarity))


def quality_edges(quality: ArrayLike, num_bins: int) -> tuple[float, ...]:
    """Return edges between bins that hold about equal numbers of faces.

    Use qualities of faces other than those whose scores calibrate the thresholds, such as probes of
    enrolled people: bins that depend on the calibration scores would void the guarantee.

    Args:
        quality: (N,) qualities.
        num_bins: Number of bins; qualities with many ties may give fewer.

    Returns:
        At most ``num_bins - 1`` ascending edges; a face on an edge belongs to the bin above.

    Example:
        >>> quality_edges([1, 2, 3, 4, 5, 6, 7, 8], 2)
        (4.5,)
    """
    quality = finite(quality, 'quality')
    if num_bins < 1:
        raise ValueError(f'num_bins must be at least 1, got {num_bins}')
    edges = np.unique(np.quantile(quality, np.arange(1, num_bins) / num_bins))
    # An edge at the lowest quality has nothing below it.
    return tuple(edges[edges > quality.min()].tolist())


def find_bins(quality: ArrayLike, edges: Sequence[float]) -> np.ndarray:
    """Return the bin of each quality, int64 (N,): bin b is edges[b - 1] <= quality < edges[b]."""
    return np.searchsorted(np.asarray(edges, np.float64), np.asarray(quality), side='right')


@dataclass(frozen=True)
class BinnedThresholds:
    """One threshold for each quality bin.

    Attributes:
        edges: Ascending edges between the bins, one fewer than thresholds.
        thresholds: From the lowest quality to the highest.
        num_merged: Bins that were merged with a neighbor, as they had too few people.
    """

    edges: tuple[float, ...]
    thresholds: tuple[ConformalThreshold, ...]
    num_merged: int = 0

    def __call__(self, quality: ArrayLike) -> np.ndarray:
        """Return the threshold for each quality, float64 (N,)."""
        return np.array([t.threshold for t in self.thresholds])[find_bins(quality, self.edges)]


def binned_thresholds(
    similarity: ArrayLike,
    quality: ArrayLike,
    edges: Sequence[float],
    fpir: float,
    people: ArrayLike | None = None,
) -> BinnedThresholds:
    """Choose a threshold in each quality bin, so that the rate holds in each of them.

    Mondrian conformal prediction (Vovk, Gammerman and Shafer, 2005, section 4.5): the calibration
    faces of a bin determine its threshold. The guarantee of :func:`conformal_threshold` holds for a
    random one of the faces that a new person has in the bin. While a bin has fewer people than the
    target needs, the one with fewest is merged with its smaller neighbor; the rate then holds in
    the merged bin. As merging depends on the number of calibration people, the guarantee of a
    merged bin is approximate; bins with enough people are not affected.

    Args:
        similarity: Best similarity of each unmated calibration face, (N,).
        quality: Their qualities, (N,).
        edges: Edges between the bins, see :func:`quality_edges`.
        fpir: Target, in (0, 1).
        people: Person of each face, (N,). Default: all are different people.

    Raises:
        ValueError: An input is malformed.

    Example:
        >>> found = binned_thresholds([0.1, 0.2, 0.6, 0.7], [1, 2, 8, 9], (5,), fpir=0.5)
        >>> found([0, 9])
        array([0.2, 0.7])
    """
    needed = people_needed(fpir)
    similarity = finite(similarity, 'similarity')
    quality = finite(quality, 'quality', len(similarity))
    person, _ = _as_people(people, len(similarity))
    edges = finite(edges, 'edges').tolist() if len(edges) else []
    if (np.diff(edges) <= 0).any():
        raise ValueError(f'edges must rise, got {edges}')
    given = len(edges)
    while edges:
        place = find_bins(quality, edges)
        counts = [len(np.unique(person[place == b])) for b in range(len(edges) + 1)]
        fewest = int(np.argmin(counts))
        if counts[fewest] >= needed:
            break
        neighbors = [b for b in (fewest - 1, fewest + 1) if 0 <= b < len(counts)]
        other = min(neighbors, key=lambda b: counts[b])
        del edges[min(fewest, other)]
    place = find_bins(quality, edges)
    thresholds = [
        conformal_threshold(similarity[place == b], fpir, person[place == b])
        for b in range(len(edges) + 1)
    ]
    return BinnedThresholds(tuple(edges), tuple(thresholds), given - len(edges))


def finite(values: ArrayLike, name: str, length: int | None = None) -> np.ndarray:
    """Return finite numbers as float64 (N,), at least one; ``ValueError`` otherwise."""
    values = np.asarray(values)
    if values.ndim != 1 or not len(values) or values.dtype.kind not in 'fiu':
        raise ValueError(f'{name} must be numbers (N,), got {values.dtype} {values.shape}')
    if length is not None and len(values) != length:
        raise ValueError(f'{name} must have {length} entries, one a face, got {len(values)}')
    if not np.isfinite(values).all():
        raise ValueError(f'{name}: face {int(np.argmin(np.isfinite(values)))} is NaN or infinite')
    return values.astype(np.float64)


def _as_people(people: ArrayLike | None, length: int) -> tuple[np.ndarray, int]:
    """Return the people as numbers from 0, (N,), and their count."""
    if people is None:
        return np.arange(length), length
    people = np.asarray(people)
    if people.shape != (length,) or people.dtype.kind not in 'iuU':
        raise ValueError(
            f'people must be {length} integers or texts, one a face, got {people.dtype} '
            f'{people.shape}'
        )
    names, number = np.unique(people, return_inverse=True)
    return number, len(names)
