"""Measure quality by the conventions of published work, each under a name.

Two groups' areas under error over discard differ by more than their methods do, because they choose
thresholds, cut ties and scale areas in other ways. :data:`CONVENTIONS` lists these ways.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from ._blocks import ArrayLike, as_flags, as_scores, as_vector
from ._curves import check_rates
from .quality import PARTIAL_LIMIT, ThresholdChooser, discard_area, error_versus_discard

_FRAUNHOFER = MappingProxyType(dict(threshold='nearest', ties='order'))
_DASEC = MappingProxyType(dict(threshold='quantile', steps='values', rethreshold=False))


@dataclass(frozen=True)
class DiscardConvention:
    """A way to reduce FNMR over discard to one number, lower is better.

    Attributes:
        title: Name for readers.
        options: Options of :func:`error_versus_discard`.
        limit: Share to which the area reaches.
        scale: ``'none'``; ``'start'``: divided by FNMR at share 0; ``'thousand'``: times 1000;
            ``'best'``: minus the area under max(0, FNMR at share 0 - share).
        rate: The rate of the threshold; None for that of the caller.
    """

    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: float = 0.95
    scale: Literal['none', 'start', 'thousand', 'best'] = 'none'
    rate: float | None = None

    def reduce(self, curve: Mapping[str, Any]) -> float:
        """Return the number of a curve that was computed with :attr:`options`."""
        area, start = discard_area(curve, self.limit), float(curve['fnmr'][0])
        if self.scale == 'start':
            return area / start if start else float('nan')
        if self.scale == 'thousand':
            return 1000 * area
        if self.scale == 'best':
            return area - (start**2 - max(0.0, start - self.limit) ** 2) / 2
        return area


@dataclass(frozen=True)
class RankConvention:
    """A way to correlate the ranks of quality and of harm, higher is better.

    Attributes:
        title: Name for readers.
        alpha: See :func:`rank_consistency`.
        by_margin: Whether images of equal harm are ranked by their margin.
    """

    title: str
    alpha: float = 0.0
    by_margin: bool = True


#: Conventions of published work: name -> rule.
CONVENTIONS: dict[str, DiscardConvention | RankConvention] = dict(
    cr_fiqa=DiscardConvention('area as CR-FIQA', _FRAUNHOFER),
    fraunhofer=DiscardConvention(
        'area to 0.3 as Fraunhofer', _FRAUNHOFER, PARTIAL_LIMIT, 'thousand'
    ),
    froq=DiscardConvention('area to 0.3 as FROQ', limit=PARTIAL_LIMIT, scale='start'),
    clib_fiqa=DiscardConvention('area to 0.3 as CLIB-FIQA', limit=PARTIAL_LIMIT, scale='start'),
    dasec=DiscardConvention('area to 0.2 as dasec', _DASEC, 0.2, rate=0.05),
    dasec_best=DiscardConvention('area to 0.2 above the best, as dasec', _DASEC, 0.2, 'best', 0.05),
    rce0=RankConvention('RCE'),
    rce3=RankConvention('RCE, alpha 3', 3.0),
    rce_code0=RankConvention('RCE of the published code', by_margin=False),
    rce_code3=RankConvention('RCE of the published code, alpha 3', 3.0, by_margin=False),
)


def find_conventions(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return names of :data:`CONVENTIONS`, or all of them for ``'all'``.

    Raises:
        ValueError: There is no convention of a name.
    """
    if names == 'all':
        return tuple(CONVENTIONS)
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in CONVENTIONS:
            known = ', '.join(CONVENTIONS)
            raise ValueError(f'conventions: there is no {name!r}; there are {known}, or all')
    return names


def discard_areas(
    quality1: ArrayLike,
    quality2: ArrayLike,
    similarity: ArrayLike,
    same: ArrayLike,
    conventions: str | Sequence[str] = 'all',
    fmr: float = 1e-3,
    default_curve: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Reduce FNMR over discard to one number for each of several conventions, lower is better.

    Args:
        quality1: See :func:`error_versus_discard`, (N,).
        quality2: See there, (N,).
        similarity: See there, (N,).
        same: See there, (N,).
        conventions: Names of :data:`CONVENTIONS`, or ``'all'``; those that are no areas are left
            out, see :func:`rank_consistency`.
        fmr: False match rate, for conventions that name no rate of their own.
        default_curve: Result of :func:`error_versus_discard` for these pairs and ``fmr`` with its
            other options as they are, where it is known already.

    Returns:
        The numbers by name; NaN where the curve is undefined.

    Raises:
        ValueError: An input is malformed, or there is no such convention.

    Example:
        >>> from mmvlr.evaluation.functional import discard_areas
        >>> similarity = [0.9, 0.8, 0.3, 0.2, 0.5, 0.4, 0.1, 0.0]
        >>> same = [1, 1, 1, 1, 0, 0, 0, 0]
        >>> quality = [8, 7, 2, 1, 6, 5, 4, 3]
        >>> found = discard_areas(quality, quality, similarity, same, ('froq', 'dasec'))
        >>> {name: round(area, 4) for name, area in found.items()}
        {'froq': 0.1917, 'dasec': 0.05}
    """
    curves: dict[tuple, Mapping[str, Any]] = {}
    if default_curve is not None:
        curves[fmr,] = default_curve
    found = {}
    for name in find_conventions(conventions):
        rule = CONVENTIONS[name]
        if isinstance(rule, DiscardConvention):
            rate = fmr if rule.rate is None else rule.rate
            key = (rate, *sorted(rule.options.items()))
            if key not in curves:
                curves[key] = error_versus_discard(
                    quality1, quality2, similarity, same, rate, **rule.options
                )
            found[name] = rule.reduce(curves[key])
    return found


def measure_harm(
    pairs: ArrayLike, similarity: ArrayLike, same: ArrayLike, fmr: float = 1e-3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute how many errors each image takes part in, and how near it comes to more.

    The reference of RCE (Wani, Babnik, Struc and Terhoerst, *Beyond error-vs-discard
    characteristic*, IJCB 2026). The threshold is the score of an impostor pair whose FMR is nearest
    to ``fmr``, the lower of two; scores at or above it match.

    Args:
        pairs: The two images of each pair, whole numbers (P, 2).
        similarity: Score of each pair, (P,).
        same: Whether the pair shows one person, (P,).
        fmr: False match rate of the threshold.

    Returns:
        The images that are in a pair, increasing, (N,); the number of false non-matches and false
        matches of each, float64 (N,); its margin, the lowest genuine minus the highest impostor
        score, float64 (N,), ``-inf`` where it has no pair of one of the kinds.

    Raises:
        ValueError: An input is malformed or all pairs are of one kind.

    Example:
        >>> from mmvlr.evaluation.functional import measure_harm
        >>> pairs = [(0, 1), (2, 3), (0, 2), (1, 3)]
        >>> images, harm, margin = measure_harm(pairs, [0.9, 0.4, 0.5, 0.1], [1, 1, 0, 0])
        >>> harm, margin.round(1)
        (array([1., 0., 2., 1.]), array([ 0.4,  0.8, -0.1,  0.3]))
    """
    similarity = as_scores(similarity, 'similarity')
    same = as_flags(same, 'same', len(similarity))
    if same.all() or not same.any():
        raise ValueError('same: needs pairs of one person and pairs of two')
    check_rates((fmr,), 'fmr')
    pairs = np.asarray(pairs)
    if pairs.shape != (len(similarity), 2) or pairs.dtype.kind not in 'iu':
        raise ValueError(f'pairs must be whole numbers ({len(similarity)}, 2), got {pairs.shape}')
    images, image = np.unique(pairs, return_inverse=True)
    image = image.reshape(-1)
    both, kind = np.repeat(similarity, 2), np.repeat(same, 2)
    bound = ThresholdChooser(similarity, same, fmr, 'nearest_impostor').choose(np.ones(len(same)))
    harm = np.bincount(image, (both > bound) != kind, len(images))
    lowest, highest = np.full(len(images), np.inf), np.full(len(images), -np.inf)
    np.minimum.at(lowest, image[kind], both[kind])
    np.maximum.at(highest, image[~kind], both[~kind])
    known = np.isfinite(lowest) & np.isfinite(highest)
    margin = np.where(known, np.where(known, lowest, 0) - np.where(known, highest, 0), -np.inf)
    return images, harm, margin


def rank_consistency(
    quality: ArrayLike,
    harm: ArrayLike,
    margin: ArrayLike | None = None,
    alpha: float = 0.0,
) -> float:
    """Compute RCE: the weighted rank correlation of quality and (lack of) harm, at most 1.

        rho_w = 1 - 6 * sum w (r_h - r_q)^2 / ((n^2 - 1) * sum w),    w = (r_h / n)^alpha

    r_h is the rank of an image by rising harm, r_q by falling quality, so that with ``alpha`` above
    0 harmful images count more. Images that are equal in rank share the mean of their places.

    Args:
        quality: Quality of each image, higher is better, (N,).
        harm: See :func:`measure_harm`, (N,).
        margin: See there, (N,): of equally harmful images that of the lower margin ranks as more
            harmful, as in the publication. None: they share a rank, as in its code.
        alpha: Exponent of the weight; 0 and 3 are published.

    Returns:
        The correlation; NaN for fewer than two images.

    Raises:
        ValueError: An input is malformed.

    Example:
        >>> from mmvlr.evaluation.functional import rank_consistency
        >>> rank_consistency([4, 3, 2, 1], [0, 0, 1, 2], [0.5, 0.2, 0.1, 0.1])
        1.0
        >>> rank_consistency([4, 3, 2, 1], [0, 0, 1, 2])
        0.95
    """
    quality = as_scores(quality, 'quality')
    harm = as_scores(harm, 'harm', len(quality))
    margin = np.zeros(len(harm)) if margin is None else as_vector(margin, 'margin', len(harm))
    num = len(quality)
    if num < 2:
        return float('nan')
    by_harm, by_quality = _mean_ranks(-margin, harm), _mean_ranks(-quality)
    weight = (by_harm / num) ** alpha
    error = (weight * (by_harm - by_quality) ** 2).sum()
    return float(1 - 6 * error / ((num * num - 1) * weight.sum()))


def _mean_ranks(*keys: np.ndarray) -> np.ndarray:
    """Return ranks from 1 by several keys, the last one first; equal entries share their mean."""
    order = np.lexsort(keys)
    ordered = [key[order] for key in keys]
    differs = np.any([key[1:] != key[:-1] for key in ordered], axis=0)
    group = np.append(0, differs.cumsum())
    last = np.bincount(group).cumsum()
    first = np.append(0, last[:-1]) + 1
    ranks = np.empty(len(order))
    ranks[order] = ((first + last) / 2)[group]
    return ranks
