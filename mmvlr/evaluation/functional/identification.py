"""One-to-many search: closed set (rank-k, CMC, mAP) and open set (TPIR at FPIR)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ._blocks import (
    BLOCK_SIZE,
    Array,
    ArrayLike,
    as_embeddings,
    as_ids,
    check_block_size,
    check_same_width,
)
from ._curves import check_rates
from .averaging import PROTOCOLS, TemplateLike, make_templates, scaled_rows
from .rates import ThresholdRule, check_rule, open_set_rates
from .search import MapRule, SearchResult, best_scores, search


def closed_set_ranks(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    probe: ArrayLike,
    probe_ids: ArrayLike,
    *,
    with_map: bool = True,
    map_rule: MapRule = 'trapezoid',
    top_k: int = 1,
    on_missing_mate: Literal['error', 'drop'] = 'error',
    block_size: int = BLOCK_SIZE,
) -> SearchResult:
    """Search every probe in the gallery and return the ranks of its mates.

    The score is the inner product, which for unit vectors gives the order of the Euclidean
    distance. The gallery is per image: a person may have several. Gallery images of identity -100
    are distractors, which have no mates.

    Ties count against the probe. Its rank is one plus the number of impostors that score at or
    above its best mate; in the average precision every impostor that ties with a mate comes before
    it. (The order of mates that tie with *each other* does not matter.)

    The average precision is the trapezoidal one of the TinyFace evaluation, taken from the Oxford
    buildings benchmark (Philbin et al., CVPR 2007): with the k-th of m mates at rank r_k,

        AP = 1/m * sum_k ((k - 1) / (r_k - 1) + k / r_k) / 2,

    where the first fraction, the precision just before the mate, is 1 for r_k = 1.

    Memory is O(block_size^2 + block_size * D) in addition to inputs and results. The result does
    not depend on the block size, as equal embeddings get bitwise equal scores.

    Args:
        gallery: Unit embeddings (G, D), numpy or torch, in any floating-point storage; the
            products are float32.
        gallery_ids: Identities, integers (G,).
        probe: Unit embeddings (P, D).
        probe_ids: Identities, integers (P,).
        with_map: Whether to compute the average precisions.
        map_rule: Average precision of a probe with R mates: ``'trapezoid'``, of the official
            TinyFace evaluation; ``'torchmetrics'``, the mean of the precisions at its mates;
            ``'pml'``, of pytorch-metric-learning: the same, where only mates among the R best
            count (MAP@R).
        top_k: How many of the best gallery images to keep per probe.
        on_missing_mate: Handling of probes that have no mate in the gallery: ``'error'`` refuses
            them, ``'drop'`` leaves them out.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        Arrays with one entry per probe that was searched for.

    Raises:
        ValueError: If an input is malformed, or a probe has no mate.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import closed_set_ranks
        >>> gallery = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
        >>> probe = np.array([[0.0, 1.0], [0.8, 0.6]])
        >>> found = closed_set_ranks(gallery, [7, 8, -100], probe, [7, 8])
        >>> found.rank
        array([3, 3])
        >>> found.top_index
        array([[1], [2]])
        >>> found.average_precision.round(3)
        array([0.167, 0.167])
    """
    check_block_size(block_size)
    gallery, gallery_ids = _checked('gallery', gallery, gallery_ids, block_size)
    probe, probe_ids = _checked('probe', probe, probe_ids, block_size)
    check_same_width(gallery, 'gallery', probe, 'probe')
    if top_k < 0:
        raise ValueError(f'top_k must not be negative, got {top_k}')
    if on_missing_mate not in ('error', 'drop'):
        raise ValueError(f"on_missing_mate must be 'error' or 'drop', got {on_missing_mate!r}")
    return search(
        gallery,
        gallery_ids,
        probe,
        probe_ids,
        with_map=with_map,
        map_rule=map_rule,
        top_k=top_k,
        on_missing_mate=on_missing_mate,
        block_size=block_size,
    )


def closed_set_identification(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    probe: ArrayLike,
    probe_ids: ArrayLike,
    ranks: Sequence[int] = (1, 5, 10, 20),
    *,
    with_map: bool = True,
    map_rule: MapRule = 'trapezoid',
    on_missing_mate: Literal['error', 'drop'] = 'error',
    block_size: int = BLOCK_SIZE,
) -> dict[str, float | int]:
    """Compute rank-k identification rates and mAP of a closed-set search (TinyFace, SCface).

    See :func:`closed_set_ranks` for the rules.

    Args:
        gallery: Unit embeddings (G, D), numpy or torch.
        gallery_ids: Identities, integers (G,); -100 marks distractors.
        probe: Unit embeddings (P, D).
        probe_ids: Identities, integers (P,).
        ranks: The ranks k to report.
        with_map: Whether to report ``mAP``.
        map_rule: See :func:`closed_set_ranks`.
        on_missing_mate: ``'error'`` or ``'drop'`` for probes without mate in the gallery.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        ``rank{k}`` for every k and ``mAP``, in [0, 1]; ``num_probes``, the number of probes they
        are averaged over; with ``on_missing_mate='drop'`` also ``num_dropped``.

    Raises:
        ValueError: If an input is malformed, or a probe has no mate.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import closed_set_identification
        >>> gallery = np.eye(4)
        >>> probe = np.array([[1.0, 0, 0, 0], [0, 0.6, 0.8, 0]])
        >>> closed_set_identification(gallery, [1, 2, 3, -100], probe, [1, 2], ranks=(1, 2))
        {'rank1': 0.5, 'rank2': 1.0, 'mAP': 0.625, 'num_probes': 2}
    """
    for k in ranks:
        if k < 1:
            raise ValueError(f'ranks count from 1, got {k}')
    found = closed_set_ranks(
        gallery,
        gallery_ids,
        probe,
        probe_ids,
        with_map=with_map,
        map_rule=map_rule,
        top_k=0,
        on_missing_mate=on_missing_mate,
        block_size=block_size,
    )
    result: dict[str, float | int] = {f'rank{k}': float((found.rank <= k).mean()) for k in ranks}
    if with_map:
        result['mAP'] = float(found.average_precision.mean())
    result['num_probes'] = len(found.rank)
    if on_missing_mate == 'drop':
        result['num_dropped'] = found.num_dropped
    return result


def open_set_identification(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    mated: ArrayLike,
    mated_ids: ArrayLike,
    unmated: ArrayLike,
    fpirs: Sequence[float] = (0.3, 0.2, 0.1, 0.01),
    rank: int = 20,
    template: TemplateLike = 'mean_unit',
    threshold_rule: ThresholdRule = 'exact',
    *,
    qualities: Mapping[str, ArrayLike] | None = None,
    block_size: int = BLOCK_SIZE,
) -> dict[str, float]:
    """Compute the true positive identification rate at given false positive rates (QMUL-SurvFace).

    Scores are cosines. FPIR(t) is the share of unmated probes whose best score is at or above t;
    TPIR(t) the share of mated probes whose own template is within the first ``rank`` (ties count
    against the probe, as in :func:`closed_set_ranks`) and scores at or above t.

    Threshold rules:

    - ``'exact'``: the lowest threshold whose FPIR does not exceed the target, which is the next
      float64 above the highest unmated best score that must not be accepted. With fewer unmated
      probes than 1 / FPIR, none may be accepted. The area is exact: the probability that an
      accepted mated probe outscores an unmated one, where ties count half.
    - ``'grid'``: the rule of a public port of the official evaluation. 1,000 equal steps from the
      lowest to the highest unmated best score; the step whose FPIR is nearest to the target (of
      two equally near, the one with the lower FPIR, then the lower threshold). FPIR may exceed the
      target. The area is the trapezoidal one over the steps.
    - ``'insightface'``: of U unmated best scores the ceil(U * FPIR)-th highest; only scores above
      it are accepted. The area is that of ``'exact'``.

    Args:
        gallery: Embeddings (G, D), numpy or torch.
        gallery_ids: Identities, integers (G,). Images of identity -100 are distractors: each is a
            separate template that matches no probe.
        mated: Embeddings of probes whose person is in the gallery, (M, D).
        mated_ids: Their identities, integers (M,).
        unmated: Embeddings of probes whose person is not in the gallery, (U, D).
        fpirs: Target false positive identification rates.
        rank: The own template must be among the first ``rank`` templates.
        template: ``'mean_unit'``: one template per person, the mean of its unit embeddings,
            normalized again. ``'mean_raw'``: the mean of the embeddings as they are, normalized;
            embeddings of any length are accepted and the probes are normalized. ``'none'``: every
            image is its own template, ranks count images, and the best own image counts.
            Or a rule of galleries (:class:`mmvlr.evaluation.templates.TemplateRule`): ranks count
            people, of whom the best template counts, as in a search of the gallery.
        threshold_rule: ``'exact'``, ``'grid'`` or ``'insightface'``.
        qualities: Qualities of the gallery's faces by name, (G,) each, for rules that need them.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        ``tpir@fpir{f}`` and ``threshold@fpir{f}`` for every target f, and ``auc``, the area under
        TPIR over FPIR.

    Raises:
        ValueError: If an input is malformed, a mated probe has no mate, or the images of a
            person cancel out, so that its template has no direction.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import open_set_identification
        >>> gallery, mated = np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]])
        >>> unmated = np.array([[0.8, -0.6], [-0.6, -0.8]])
        >>> result = open_set_identification(
        ...     gallery, [1, 2], mated, [1, 1], unmated, fpirs=(0.5,), rank=1)
        >>> {name: round(value, 3) for name, value in result.items()}
        {'tpir@fpir0.5': 0.5, 'threshold@fpir0.5': -0.6, 'auc': 0.5}
    """
    # Cheap checks come before a search that takes minutes.
    check_rates(tuple(fpirs), 'fpirs')
    check_rule(threshold_rule)
    scores = open_set_scores(
        gallery,
        gallery_ids,
        mated,
        mated_ids,
        unmated,
        rank,
        template,
        qualities=qualities,
        block_size=block_size,
    )
    return open_set_rates(scores.mated_score, scores.unmated_score, fpirs, threshold_rule)


@dataclass(frozen=True, eq=False)
class OpenSetScores:
    """Scores and ranks of every probe in an open-set search.

    Attributes:
        mated_score: Score of the probe's own template, ``-inf`` if that is not within the rank:
            such a probe is not found at any threshold. float64 (M,).
        unmated_score: Best score of every unmated probe, float64 (U,).
        rank: Rank of the own template, counted from 1, int64 (M,).
        found: The search of the mated probes; its gallery rows are those of the templates' people:
            the first one of each, or with the template ``'none'`` the row itself.
    """

    mated_score: np.ndarray
    unmated_score: np.ndarray
    rank: np.ndarray
    found: SearchResult | None = None


def open_set_scores(
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    mated: ArrayLike,
    mated_ids: ArrayLike,
    unmated: ArrayLike | None,
    rank: int = 20,
    template: TemplateLike = 'mean_unit',
    *,
    qualities: Mapping[str, ArrayLike] | None = None,
    top_k: int = 0,
    block_size: int = BLOCK_SIZE,
) -> OpenSetScores:
    """Search mated and unmated probes among the templates; see :func:`open_set_identification`.

    Args:
        gallery: Embeddings (G, D), numpy or torch.
        gallery_ids: Identities, integers (G,).
        mated: Embeddings of the mated probes, (M, D).
        mated_ids: Their identities, integers (M,).
        unmated: Embeddings of the unmated probes, (U, D), or None for none.
        rank: The own template must be among the first ``rank`` templates.
        template: Rule that makes templates of the images of a person.
        qualities: Qualities of the gallery's faces by name, (G,) each, for rules that need them.
        top_k: How many of the best templates to keep per mated probe.
        block_size: Rows of gallery and probes that are scored at a time.

    Returns:
        The scores from which the rates at any threshold follow.

    Raises:
        ValueError: If an input is malformed, a mated probe has no mate, or the images of a
            person cancel out.

    Example:
        >>> import numpy as np
        >>> from mmvlr.evaluation.functional import open_set_scores
        >>> found = open_set_scores(np.eye(2), [1, 2], [[0.6, 0.8]], [1], [[0.8, -0.6]], rank=1)
        >>> found.mated_score, found.rank, found.unmated_score.round(3)
        (array([-inf]), array([2]), array([0.8]))
    """
    if isinstance(template, str) and template not in PROTOCOLS:
        raise ValueError(f'template must be a rule or one of {PROTOCOLS}, got {template!r}')
    if rank < 1:
        raise ValueError(f'rank counts from 1, got {rank}')
    check_block_size(block_size)

    unit = template != 'mean_raw'
    gallery, gallery_ids = _checked('gallery', gallery, gallery_ids, block_size, unit)
    mated, mated_ids = _checked('mated', mated, mated_ids, block_size, unit)
    check_same_width(gallery, 'gallery', mated, 'mated')
    if unmated is not None:
        unmated = as_embeddings(unmated, 'unmated', unit=unit, block_size=block_size)
        check_same_width(gallery, 'gallery', unmated, 'unmated')
    templates, rows = make_templates(gallery, gallery_ids, template, qualities, block_size)
    if not unit:
        mated = scaled_rows(mated)
        unmated = None if unmated is None else scaled_rows(unmated)
    found = search(
        templates,
        gallery_ids[rows],
        mated,
        mated_ids,
        with_map=False,
        top_k=top_k,
        on_missing_mate='error',
        block_size=block_size,
        people=None if isinstance(template, str) else rows,
        probe_name='mated',
    )
    found = replace(found, mate_index=rows[found.mate_index], top_index=rows[found.top_index])
    unmated_score = np.empty(0)
    if unmated is not None:
        unmated_score = best_scores(templates, unmated, block_size)
    return OpenSetScores(
        mated_score=np.where(found.rank <= rank, found.mate_score.astype(np.float64), -np.inf),
        unmated_score=unmated_score,
        rank=found.rank,
        found=found,
    )


def _checked(
    name: str, embeddings: ArrayLike, ids: ArrayLike, block_size: int, unit: bool = True
) -> tuple[Array, np.ndarray]:
    matrix = as_embeddings(embeddings, name, unit=unit, block_size=block_size)
    return matrix, as_ids(ids, f'{name}_ids', len(matrix))
