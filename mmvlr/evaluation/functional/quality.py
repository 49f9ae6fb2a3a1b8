"""Evaluate how well a quality measure predicts errors: error over the discarded share.

Comparisons are ordered by quality and the worst are discarded, which should reduce the error of the
remaining ones. Of n comparisons, n - floor(r * n) remain at the share r. If the cut falls among
comparisons of equal quality, the result must not depend on their order: each of them is kept *in
part*, weighted by the share of its group that remains. This is the average of cutting at random.
"""

from collections.abc import Sequence

import numpy as np

from ._blocks import ArrayLike, as_flags, as_scores
from ._curves import check_rates, floor_share, strict_bounds, trapezoid

# By division rather than by a step of 0.05, so that 0.3 equals the literal.
_SHARES = np.arange(20) * 5 / 100
_PARTIAL_LIMIT = 0.3


def error_versus_discard(
    quality1: ArrayLike,
    quality2: ArrayLike,
    similarity: ArrayLike,
    same: ArrayLike,
    fmr: float = 1e-3,
    rethreshold: bool = True,
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

    Returns:
        ``discard``, the shares, and ``fnmr``, both float64 (20,); ``auc``, the area under FNMR over
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

    genuine, impostor = similarity[same], similarity[~same]
    bound = strict_bounds(impostor, [fmr])[0]
    fnmr = np.full(len(_SHARES), np.nan)
    kept = _kept_weights(np.minimum(quality1, quality2), _SHARES)
    for index, weight in enumerate(kept):
        of_genuine, of_impostor = weight[same], weight[~same]
        if not of_genuine.any() or (rethreshold and not of_impostor.any()):
            continue
        if rethreshold:
            # Pairs without weight must not affect the threshold.
            left = of_impostor > 0
            bound = strict_bounds(impostor[left], [fmr], of_impostor[left])[0]
        fnmr[index] = of_genuine[genuine <= bound].sum() / of_genuine.sum()

    trials = np.array([weight[~same].sum() if rethreshold else len(impostor) for weight in kept])
    result: dict[str, np.ndarray | float] = dict(discard=_SHARES.copy(), fnmr=fnmr)
    for name, limit in (('auc', _SHARES[-1]), ('pauc', _PARTIAL_LIMIT)):
        num = np.searchsorted(_SHARES, limit, side='right')
        area = trapezoid(fnmr[:num], _SHARES[:num])
        result[name] = area
        result[f'{name}_trials'] = float(trials[:num].min())
        result[f'{name}_normalized'] = float(area / (limit * fnmr[0])) if fnmr[0] else float('nan')
    return result


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


def _kept_weights(quality: np.ndarray, shares: np.ndarray) -> list[np.ndarray]:
    """Return, for every share, the weight with which each comparison is kept, in [0, 1], (N,)."""
    _, group, size = np.unique(quality, return_inverse=True, return_counts=True)
    in_lower_groups = np.cumsum(size) - size
    kept = []
    for share in shares:
        num_discarded = floor_share(share, len(quality))
        in_group = np.clip(num_discarded - in_lower_groups, 0, size)
        kept.append((1 - in_group / size)[group])
    return kept
