"""One-to-one comparison: TAR at FAR, area under the ROC curve, accuracy over folds."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from ._blocks import (
    ArrayLike,
    as_embeddings,
    as_flags,
    as_scores,
    check_same_width,
    pair_scores,
)
from ._curves import check_rates, ordered_area, ordered_bounds, share_at_or_above, trapezoid


def verification(
    emb1: ArrayLike,
    emb2: ArrayLike,
    same: ArrayLike,
    fars: Sequence[float] = (0.3, 0.1, 0.01, 0.001),
    method: Literal['exact', 'grid'] = 'exact',
    folds: int = 10,
) -> dict[str, float]:
    """Compute TAR at given FAR, AUC and accuracy of pairs (QMUL-SurvFace, LFW).

    The score of a pair is the cosine; a pair is accepted when it scores at or above a threshold.
    TAR is the share of genuine pairs (one person) that are accepted, FAR that of impostor pairs.

    The methods:

    - ``'exact'``: every score is a threshold. TAR is the largest one whose FAR does not exceed the
      target; with fewer impostor pairs than 1 / FAR, none of them may be accepted. The reported
      threshold is the lowest accepted score, or the next float64 above the highest score if none is
      accepted. The area is exact, and ties count half. For the accuracy, thresholds are midway
      between neighboring scores.
    - ``'grid'``: the rule of a public port of the official evaluation. Thresholds on the Euclidean
      distance, 0.2, 0.201, ..., 2.0; TAR and threshold are interpolated linearly over FAR, the
      area is the trapezoidal one over the grid, and the accuracy uses the same thresholds.

    Accuracy: the mean over ``folds`` folds of the share of correct decisions, with the threshold
    that is best on the other folds (of equally good ones, the strictest). Folds are contiguous, and
    cut separately from genuine and impostor pairs, in the given order. For lists that alternate
    block by block, such as LFW's, this equals cutting the whole list; for lists with all genuine
    pairs first, such as QMUL-SurvFace's, cutting the whole list would give folds of a single kind.

    Args:
        emb1: Unit embeddings of the first of each pair, (N, D), numpy or torch.
        emb2: Unit embeddings of the second, (N, D).
        same: Whether the pair shows one person, (N,), bool or 0 and 1.
        fars: Target false acceptance rates.
        method: ``'exact'`` or ``'grid'``.
        folds: Number of folds of the accuracy.

    Returns:
        ``tar@far{f}`` and ``threshold@far{f}`` (a cosine) for every target f; ``auc``;
        ``accuracy``.

    Raises:
        ValueError: If an input is malformed, all pairs are of one kind, or there are fewer than
            three pairs.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import verification
        >>> cosine = np.array([0.8, 0.96, 0.28, 0.0, 0.6, -0.6])
        >>> first = np.tile([1.0, 0.0], (6, 1))
        >>> second = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)
        >>> result = verification(first, second, [1, 1, 1, 0, 0, 0], fars=(0.4, 0.01), folds=3)
        >>> {name: round(value, 3) for name, value in result.items()}
        {'tar@far0.4': 1.0, 'threshold@far0.4': 0.28, 'tar@far0.01': 0.667,
         'threshold@far0.01': 0.8, 'auc': 0.889, 'accuracy': 0.667}
    """
    emb1 = as_embeddings(emb1, 'emb1')
    emb2 = as_embeddings(emb2, 'emb2')
    check_same_width(emb1, 'emb1', emb2, 'emb2')
    if len(emb1) != len(emb2):
        raise ValueError(f'emb1 and emb2 must have as many rows, got {len(emb1)} and {len(emb2)}')
    same = as_flags(same, 'same', len(emb1))
    return verification_rates(pair_scores(emb1, emb2), same, fars, method, folds)


def verification_rates(
    score: ArrayLike,
    same: ArrayLike,
    fars: Sequence[float] = (0.3, 0.1, 0.01, 0.001),
    method: Literal['exact', 'grid'] = 'exact',
    folds: int = 10,
    insightface: bool = False,
) -> dict[str, float]:
    """Compute TAR at FAR, AUC and accuracy from the scores of pairs; see :func:`verification`.

    Args:
        score: Cosine of each pair, (N,).
        same: Whether the pair shows one person, (N,), bool or 0 and 1.
        fars: Target false acceptance rates.
        method: ``'exact'`` or ``'grid'``.
        folds: Number of folds of the accuracy.
        insightface: Whether to add ``accuracy_insightface``, by the rule of insightface's code:
            folds cut from the whole list; the threshold is a squared distance of a grid 0, 0.01,
            ..., 3.99, of equally good ones the smallest; only smaller distances are accepted.

    Returns:
        See :func:`verification`.

    Raises:
        ValueError: If an input is malformed, all pairs are of one kind, or there are fewer than
            three pairs.

    Example:
        >>> from mmvlr.evaluation.functional import verification_rates
        >>> rates = verification_rates([0.9, 0.3, 0.4, 0.1], [1, 1, 0, 0], fars=(0.5,), folds=2)
        >>> rates['tar@far0.5'], rates['auc']
        (1.0, 0.75)
    """
    score = as_scores(score, 'score')
    same = as_flags(same, 'same', len(score))
    if same.all() or not same.any():
        raise ValueError('same: needs pairs of one person and pairs of two')
    if len(same) < 3:
        raise ValueError('same: needs at least three pairs')
    if method not in ('exact', 'grid'):
        raise ValueError(f"method must be 'exact' or 'grid', got {method!r}")
    if folds < 2:
        raise ValueError(f'folds must be at least 2, got {folds}')
    check_rates(tuple(fars), 'fars')

    result: dict[str, float] = {}
    if method == 'exact':
        # Sorted once; everything else reads the sorted scores.
        order = np.argsort(score)
        ordered, kind = score[order], same[order]
        genuine, impostor = ordered[kind], ordered[~kind]
        for far, bound in zip(fars, ordered_bounds(impostor, fars), strict=True):
            place = np.searchsorted(ordered, bound, side='right')
            accepted = len(genuine) - np.searchsorted(genuine, bound, side='right')
            result[f'tar@far{far:g}'] = float(accepted / len(genuine))
            result[f'threshold@far{far:g}'] = float(
                ordered[place] if place < len(ordered) else np.nextafter(ordered[-1], np.inf)
            )
        result['auc'] = ordered_area(genuine, impostor)
        result['accuracy'] = _best_accuracy(ordered[::-1], kind[::-1], order[::-1], same, folds)
    else:
        result |= _grid_rates(score, same, fars, folds)
    if insightface:
        result['accuracy_insightface'] = _grid_accuracy(2 - 2 * score, same, folds)
    return result


def _grid_rates(
    score: np.ndarray, same: np.ndarray, fars: Sequence[float], folds: int
) -> dict[str, float]:
    """Return the numbers of :func:`verification` on a grid of distances."""
    result: dict[str, float] = {}
    genuine, impostor = score[same], score[~same]
    # A similarity that grows as the distance decreases; for unit vectors d^2 = 2 - 2 cos.
    genuine, impostor, closeness = (
        -np.sqrt(np.maximum(2 - 2 * cosine, 0)) for cosine in (genuine, impostor, score)
    )
    grid = -np.linspace(0.2, 2.0, 1801)
    tar, far_of_step = share_at_or_above(genuine, grid), share_at_or_above(impostor, grid)
    # Interpolation needs each FAR once: the last of equal ones has the largest TAR.
    last = np.append(np.diff(far_of_step) > 0, True)
    for far in fars:
        result[f'tar@far{far:g}'] = float(np.interp(far, far_of_step[last], tar[last]))
        distance = -np.interp(far, far_of_step[last], grid[last])
        result[f'threshold@far{far:g}'] = float(1 - distance**2 / 2)
    result['auc'] = trapezoid(tar, far_of_step)
    result['accuracy'] = _accuracy(closeness, same, folds, grid)
    return result


def _best_accuracy(
    score: np.ndarray, same: np.ndarray, order: np.ndarray, given: np.ndarray, folds: int
) -> float:
    """Return the mean accuracy over folds with a threshold between any two scores.

    The result is that of :func:`_accuracy`. The right decisions on the other folds are those on all
    pairs minus those on the fold, which only change at its own scores: between these, the best
    threshold of all pairs is the best one.

    Args:
        score: Scores from high to low, (N,).
        same: Whether each shows one person, (N,).
        order: Place of each among the given pairs, (N,).
        given: Whether each of the given pairs shows one person, (N,).
        folds: Number of folds.
    """
    last = np.append(score[1:] != score[:-1], True)
    values = score[last]
    if not ((values[:-1] + values[1:]) / 2 > values[1:]).all():
        # Neighboring float64 have no number between them.
        return _accuracy(score[np.argsort(order)], given, folds)
    fold = np.empty(len(score), np.int32)
    num_folds = 0
    for num_folds, rows in enumerate(_folds(given, folds), start=1):
        fold[rows] = num_folds
    # Small whole numbers are sorted in linear time.
    fold = fold[order].astype(np.int16 if num_folds < 2**15 else np.int32)
    places = np.split(np.argsort(fold, kind='stable'), np.bincount(fold)[1:-1].cumsum())
    step = np.where(same, 1, -1).astype(np.int64 if len(score) >= 2**31 else np.int32)
    # Right decisions beyond those that accept nothing; a threshold cannot part equal scores.
    right = np.append(step[:1] * 0, np.where(last, step.cumsum(dtype=step.dtype), -len(score) - 1))
    accuracies = []
    for number, place in enumerate(places, start=1):
        own = np.append(0, step[place].cumsum())
        starts = np.append(0, place + 1)
        segment = (np.maximum.reduceat(right, starts) - own).argmax()
        stop = starts[segment + 1] if segment + 1 < len(starts) else len(right)
        best = starts[segment] + right[starts[segment] : stop].argmax()
        bound = np.inf
        if best:
            lower = np.flatnonzero(fold[best:] != number)[:1]
            bound = (score[best - 1] + score[best + lower[0]]) / 2 if len(lower) else -np.inf
        accepted = np.searchsorted(-score[place], -bound, side='right')
        num_genuine = np.count_nonzero(same[place[:accepted]])
        refused = np.count_nonzero(~same[place[accepted:]])
        accuracies.append((num_genuine + refused) / len(place))
    return float(np.mean(accuracies))


def _accuracy(
    score: np.ndarray, same: np.ndarray, folds: int, thresholds: np.ndarray | None = None
) -> float:
    """Return the mean accuracy over folds; ``thresholds`` from strict to lenient."""
    accuracies = []
    for test in _folds(same, folds):
        train_score, train_same = np.delete(score, test), np.delete(same, test)
        candidates = _midpoints(train_score) if thresholds is None else thresholds
        best = candidates[_num_right(train_score, train_same, candidates).argmax()]
        accuracies.append(_num_right(score[test], same[test], np.array([best]))[0] / len(test))
    return float(np.mean(accuracies))


def _grid_accuracy(distance: np.ndarray, same: np.ndarray, folds: int) -> float:
    """Return the accuracy by insightface's rule; see :func:`verification_rates`."""
    grid = np.arange(0, 4, 0.01)
    # Place of the smallest threshold that accepts each pair.
    place = np.searchsorted(grid, np.maximum(distance, 0), side='right')
    parts = [part for part in np.array_split(np.arange(len(same)), folds) if len(part)]
    right = np.empty((len(parts), len(grid)), np.int64)
    for fold, part in enumerate(parts):
        genuine, impostor = (
            np.bincount(place[part[same[part] == kind]], minlength=len(grid) + 1).cumsum()
            for kind in (True, False)
        )
        right[fold] = (genuine - impostor + impostor[-1])[:-1]
    best = (right.sum(axis=0) - right).argmax(axis=1)
    sizes = [len(part) for part in parts]
    return float(np.mean(right[np.arange(len(parts)), best] / sizes))


def _folds(same: np.ndarray, folds: int) -> Iterator[np.ndarray]:
    """Yield the rows of every fold that is not empty."""
    parts = [np.array_split(np.flatnonzero(kind), folds) for kind in (same, ~same)]
    for genuine, impostor in zip(*parts, strict=True):
        fold = np.concatenate([genuine, impostor])
        if len(fold):
            yield fold


def _midpoints(score: np.ndarray) -> np.ndarray:
    """Return thresholds that separate the scores in every possible way, from strict to lenient."""
    values = np.unique(score)[::-1]
    return np.concatenate([[np.inf], (values[:-1] + values[1:]) / 2, [-np.inf]])


def _num_right(score: np.ndarray, same: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the number of correct decisions at every threshold."""
    genuine, impostor = np.sort(score[same]), np.sort(score[~same])
    accepted = len(genuine) - np.searchsorted(genuine, thresholds, side='left')
    return accepted + np.searchsorted(impostor, thresholds, side='left')
