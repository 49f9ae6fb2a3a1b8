"""Selective classification: error of the answered faces over their share."""

import numpy as np

from ._blocks import ArrayLike, as_flags, as_scores


def risk_coverage(errors: ArrayLike, confidence: ArrayLike) -> dict[str, np.ndarray | float]:
    """Compute the error of the answered faces over the answered share, and the area under it.

    With k of N faces answered, those of highest confidence, coverage is k / N and the (selective)
    risk is the share of errors among the k. Geifman and El-Yaniv, *Selective classification for
    deep neural networks*, NeurIPS 2017. The areas are those of Geifman, Uziel and El-Yaniv,
    *Bias-reduced uncertainty estimation for deep neural classifiers*, ICLR 2019:

        AURC = 1 / N * sum_k risk(k),    E-AURC = AURC - AURC of a confidence that errs last.

    Ties: where k falls among faces of equal confidence, the risk is the expected one if they are
    answered in random order, and so are the areas.

    Args:
        errors: Whether the answer to each face is wrong, (N,), bool or 0 and 1.
        confidence: Confidence in each answer, higher is more, (N,).

    Returns:
        ``coverage`` and ``risk``, float64 (N,), for k = 1, ..., N; ``aurc``, lower is better;
        ``excess_aurc``, which is 0 if no correct answer has less confidence than a wrong one.

    Raises:
        ValueError: If an input is malformed.

    Example:
        >>> from mmvlr.evaluation.functional import risk_coverage
        >>> curve = risk_coverage([False, False, True, True], [0.9, 0.5, 0.5, 0.1])
        >>> curve['risk'].round(3)
        array([0.   , 0.25 , 0.333, 0.5  ])
        >>> round(curve['aurc'], 3), round(curve['excess_aurc'], 3)
        (0.271, 0.062)
    """
    confidence = as_scores(confidence, 'confidence')
    wrong = as_flags(errors, 'errors', len(confidence)).astype(np.float64)
    # Ranks of the tie groups, the most confident first.
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    # Each face of a tie group takes each place of the group equally often.
    expected = np.repeat(np.bincount(group, wrong) / size, size)
    answered = np.arange(1, len(wrong) + 1)
    risk = expected.cumsum() / answered
    best = np.sort(wrong).cumsum() / answered
    aurc = float(risk.mean())
    return dict(
        coverage=answered / len(wrong),
        risk=risk,
        aurc=aurc,
        excess_aurc=aurc - float(best.mean()),
    )
