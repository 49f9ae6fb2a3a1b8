"""Evaluate how well a quality measure predicts errors: error over the discarded share.

Comparisons are ordered by quality and the worst are discarded, which should reduce the error of the
remaining ones. Of n comparisons, n - floor(r * n) remain at the share r. If the cut falls among
comparisons of equal quality, the result must not depend on their order: each of them is kept *in
part*, weighted by the share of its group that remains. This is the average of cutting at random.
Published code has other conventions, which are options here and have names in :mod:`.conventions`.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from ._blocks import ArrayLike, as_flags, as_scores
from ._curves import check_rates, floor_share, step_area, trapezoid, weighted_bounds

# By division rather than by a step of 0.05, so that 0.3 equals the literal.
_SHARES = np.arange(20) * 5 / 100
#: Share to which the partial area reaches.
PARTIAL_LIMIT = 0.3


def error_versus_discard(
    quality1: ArrayLike,
    quality2: ArrayLike,
    similarity: ArrayLike,
    same: ArrayLike,
    fmr: float = 1e-3,
    rethreshold: bool = True,
    *,
    threshold: Literal['exact', 'nearest', 'quantile'] = 'exact',
    ties: Literal['part', 'order'] = 'part',
    steps: Literal['shares', 'values'] = 'shares',
) -> dict[str, np.ndarray | float]:
    """Compute the false non-match rate over the share of discarded pairs, for verification.

    This is the error-versus-discard characteristic (Grother and Tabassi, TPAMI 2007; ISO/IEC
    29794-1). The quality of a pair is the lower one of its two images. At the shares r = 0, 0.05,
    ..., 0.95 the pairs of lowest quality, genuine and impostor, are discarded. FNMR is the share
    of the remaining genuine pairs that are not accepted, at the lowest threshold at which the share
    of accepted impostor pairs, FMR, does not exceed ``fmr``.

    Ties: see the notes of the module; pairs of equal quality at the cut count in part, in the
    threshold as well as in the rate.

    Args:
        quality1: Quality of the first image of each pair, higher is better, (N,).
        quality2: Quality of the second, (N,).
        similarity: Score of each pair, (N,).
        same: Whether the pair shows one person, (N,), bool or 0 and 1.
        fmr: False match rate that must not be exceeded.
        rethreshold: Whether the threshold is chosen again from the remaining pairs at each share
            (as in the code of MagFace and CR-FIQA), or once from all pairs (as in ISO/IEC 29794-1).
        threshold: ``'exact'`` as above. ``'nearest'``: the lowest score, of either kind, whose FMR
            is nearest to ``fmr``, above or below it; only scores above it match. ``'quantile'``:
            the quantile ``fmr`` of the scores of genuine pairs, so that FNMR starts there.
        ties: Which of pairs of equal quality are discarded: ``'part'``, each in part;
            ``'order'``, those that NumPy's default sort puts first.
        steps: ``'shares'`` as above. ``'values'``: only genuine pairs are discarded, and every
            distinct quality is a step; FNMR is constant between steps, and 0 at share 1. Needs
            ``rethreshold=False``.

    Returns:
        ``discard``, the shares, and ``fnmr``, both float64 (20,) or one per step; ``auc``, the area
        under FNMR over
        [0, 0.95], and ``pauc``, over [0, 0.3]; ``auc_normalized`` and ``pauc_normalized``, the
        areas divided by their width and by the FNMR at share 0, so that discarding at random
        gives about 1 (NaN where that FNMR is 0). FNMR is NaN where no pair of one person is left,
        and, with ``rethreshold``, no pair of two; the areas then are NaN as well. ``auc_trials``
        and ``pauc_trials``: the fewest pairs of two people that a threshold of the area was chosen
        from; below 1 / ``fmr`` they cannot show that rate.

    Raises:
        ValueError: If an input is malformed or all pairs are of one kind.

    Example:
        >>> from mmvlr.evaluation.functional import error_versus_discard
        >>> similarity = [0.9, 0.8, 0.3, 0.2, 0.5, 0.4, 0.1, 0.0]
        >>> same = [1, 1, 1, 1, 0, 0, 0, 0]
        >>> quality = [8, 7, 2, 1, 6, 5, 4, 3]
        >>> curve = error_versus_discard(quality, quality, similarity, same)
        >>> curve['fnmr'][[0, 3, 5]].round(3)
        array([0.5  , 0.333, 0.   ])
        >>> round(curve['pauc'], 4)
        0.0958
    """
    quality1 = as_scores(quality1, 'quality1')
    quality2 = as_scores(quality2, 'quality2', len(quality1))
    similarity = as_scores(similarity, 'similarity', len(quality1))
    same = as_flags(same, 'same', len(quality1))
    if same.all() or not same.any():
        raise ValueError('same: needs pairs of one person and pairs of two')
    check_rates((fmr,), 'fmr')
    for name, given, known in (
        ('threshold', threshold, ('exact', 'nearest', 'quantile')),
        ('ties', ties, ('part', 'order')),
        ('steps', steps, ('shares', 'values')),
    ):
        if given not in known:
            raise ValueError(f'{name} must be one of {", ".join(known)}, got {given!r}')
    if steps == 'values' and rethreshold:
        raise ValueError("steps='values' needs rethreshold=False: the threshold is chosen once")

    quality, genuine = np.minimum(quality1, quality2), similarity[same]
    chooser = ThresholdChooser(similarity, same, fmr, threshold)
    everything = np.ones(len(same))
    bound = chooser.choose(everything)
    num_trials = chooser.count(everything)
    if steps == 'values':
        discard, fnmr = _every_step(quality[same], genuine <= bound)
        trials = np.full(len(discard), num_trials)
    else:
        discard, fnmr = _SHARES.copy(), np.full(len(_SHARES), np.nan)
        trials = np.full(len(_SHARES), num_trials)
        for index, weight in enumerate(_kept_weights(quality, _SHARES, ties)):
            if rethreshold:
                trials[index] = chooser.count(weight)
            of_genuine = weight[same]
            if not of_genuine.any() or not trials[index]:
                continue
            if rethreshold:
                bound = chooser.choose(weight)
            fnmr[index] = of_genuine[genuine <= bound].sum() / of_genuine.sum()

    result: dict[str, np.ndarray | float] = dict(discard=discard, fnmr=fnmr)
    for name, limit in (('auc', _SHARES[-1]), ('pauc', PARTIAL_LIMIT)):
        area = discard_area(result, limit)
        num = np.searchsorted(discard, limit, side='right')
        result[name] = area
        result[f'{name}_trials'] = float(trials[:num].min())
        result[f'{name}_normalized'] = float(area / (limit * fnmr[0])) if fnmr[0] else float('nan')
    return result


def discard_area(curve: dict[str, np.ndarray | float], limit: float) -> float:
    """Return the area under FNMR to a share, by trapezoids or, at every quality, by steps.

    Args:
        curve: Result of :func:`error_versus_discard`.
        limit: The share; one of the shares of the curve where these are 0, 0.05, ..., 0.95.
    """
    discard, fnmr = curve['discard'], curve['fnmr']
    if discard[-1] == 1:
        return step_area(fnmr, discard, limit)
    num = np.searchsorted(discard, limit, side='right')
    return trapezoid(fnmr[:num], discard[:num])


class ThresholdChooser:
    """Chooses the threshold of a false match rate from weighted pairs, by one of several rules.

    Args:
        similarity: Score of each pair, float64 (N,).
        same: Whether the pair shows one person, bool (N,).
        rate: The rate.
        rule: See :func:`error_versus_discard`; also ``'nearest_impostor'``, where only scores of
            impostor pairs are thresholds, and match.
    """

    def __init__(self, similarity: np.ndarray, same: np.ndarray, rate: float, rule: str):
        self._rate, self._rule = rate, rule
        self._counted = same if rule == 'quantile' else ~same
        # The scores are sorted once, whatever the number of choices.
        self._scores = similarity if rule == 'nearest' else similarity[self._counted]
        self._values, self._group = np.unique(self._scores, return_inverse=True)

    def count(self, weight: np.ndarray) -> float:
        """Return the number of pairs of which the rate is a share."""
        return float(weight[self._counted].sum())

    def choose(self, weight: np.ndarray) -> float:
        """Return the highest score that is not accepted.

        Args:
            weight: Weight of each pair, (N,); those of weight 0 have no effect.
        """
        counted = weight[self._counted]
        if self._rule == 'exact':
            return float(weighted_bounds(self._values, self._group, counted, [self._rate])[0])
        if self._rule == 'quantile':
            return float(np.nextafter(np.quantile(self._scores[counted > 0], self._rate), -np.inf))
        own = weight * self._counted if self._rule == 'nearest' else counted
        there = np.bincount(self._group, weight if self._rule == 'nearest' else counted) > 0
        rate = np.bincount(self._group, own)[::-1].cumsum()[::-1][there] / counted.sum()
        found = self._values[there][np.abs(rate - self._rate).argmin()]
        return float(found if self._rule == 'nearest' else np.nextafter(found, -np.inf))


def rank1_error_versus_discard(
    quality: ArrayLike, correct: ArrayLike, shares: Sequence[float] | np.ndarray | None = None
) -> dict[str, np.ndarray | float]:
    """Compute the rank-1 error over the share of discarded probes, for identification.

    Of n probes the floor(r * n) of lowest quality are discarded at the share r; the error is the
    share of wrong ones among the rest. Ties: see the notes of the module; the error is exactly
    the expected one if probes of equal quality are discarded in random order.

    Args:
        quality: Quality of each probe, higher is better, (N,).
        correct: Whether the first image found is right, (N,), bool or 0 and 1.
        shares: Shares to discard, increasing, each in [0, 1). Default: 0, 0.05, ..., 0.95.

    Returns:
        ``discard``, the shares, and ``error``, both float64 (S,); ``auc``, the area under the error
        over the shares by the trapezoidal rule, *not* divided by their width: lower is better.
        :func:`discard_auc_bounds` gives its range.

    Raises:
        ValueError: If an input is malformed.

    Example:
        >>> from mmvlr.evaluation.functional import rank1_error_versus_discard
        >>> curve = rank1_error_versus_discard(
        ...     [0.1, 0.2, 0.3, 0.4], [False, False, True, True], shares=[0, 0.25, 0.5])
        >>> curve['error'].round(3)
        array([0.5  , 0.333, 0.   ])
        >>> round(curve['auc'], 4)
        0.1458
    """
    quality = as_scores(quality, 'quality')
    wrong = ~as_flags(correct, 'correct', len(quality))
    shares = _SHARES.copy() if shares is None else as_scores(shares, 'shares')
    if (shares < 0).any() or (shares >= 1).any() or (np.diff(shares) <= 0).any():
        raise ValueError('shares must increase and lie in [0, 1)')
    error = np.array(
        [weight[wrong].sum() / weight.sum() for weight in _kept_weights(quality, shares)]
    )
    return dict(discard=shares, error=error, auc=trapezoid(error, shares))


def discard_auc_bounds(
    correct: ArrayLike, shares: Sequence[float] | np.ndarray | None = None
) -> dict[str, float]:
    """Compute the range of the area of :func:`rank1_error_versus_discard` for a useful measure.

    Args:
        correct: Whether the first image found is right, (N,), bool or 0 and 1.
        shares: Shares to discard. Default: 0, 0.05, ..., 0.95.

    Returns:
        ``random``, the area if probes are discarded at random: the error times the width of the
        shares; ``perfect``, the area if all wrong probes are discarded first.

    Raises:
        ValueError: If an input is malformed.

    Example:
        >>> from mmvlr.evaluation.functional import discard_auc_bounds
        >>> bounds = discard_auc_bounds([False, True] * 50)
        >>> {name: round(area, 3) for name, area in bounds.items()}
        {'random': 0.475, 'perfect': 0.153}
    """
    correct = as_flags(correct, 'correct')
    knowing_nothing, knowing_all = np.zeros(len(correct)), correct.astype(float)
    return dict(
        random=rank1_error_versus_discard(knowing_nothing, correct, shares)['auc'],
        perfect=rank1_error_versus_discard(knowing_all, correct, shares)['auc'],
    )


def _every_step(quality: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the discarded share before each distinct quality, and the error of the rest."""
    _, group, size = np.unique(quality, return_inverse=True, return_counts=True)
    discarded = np.append(0, size.cumsum())
    errors = np.bincount(group, wrong)[::-1].cumsum()[::-1]
    fnmr = np.append(errors / (len(quality) - discarded[:-1]), 0.0)
    return discarded / len(quality), fnmr


def _kept_weights(
    quality: np.ndarray, shares: np.ndarray, ties: str = 'part'
) -> Iterator[np.ndarray]:
    """Yield, for every share, the weight with which each comparison is kept, in [0, 1], (N,)."""
    if ties == 'order':
        group, size = np.empty(len(quality), np.int64), np.ones(len(quality), np.int64)
        group[np.argsort(quality)] = np.arange(len(quality))
    else:
        _, group, size = np.unique(quality, return_inverse=True, return_counts=True)
    in_lower_groups = np.cumsum(size) - size
    for share in shares:
        num_discarded = floor_share(share, len(quality))
        in_group = np.clip(num_discarded - in_lower_groups, 0, size)
        yield (1 - in_group / size)[group]
