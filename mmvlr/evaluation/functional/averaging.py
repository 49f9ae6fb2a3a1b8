"""Average the embeddings of a person into the templates that represent the person in a search."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from mmvlr.utils.vectors import unit_rows

from ._blocks import Array, ArrayLike, as_scores, float32_rows, number_people
from .search import group_rows

#: Templates of the published protocols; all others are rules.
PROTOCOLS = ('mean_unit', 'mean_raw', 'none')
#: Smallest length of a mean, relative to its summands: below it, the embeddings cancel out.
MIN_LENGTH = 1e-6


class Rule(Protocol):
    """Interface of template rules, such as :class:`mmvlr.evaluation.templates.TemplateRule`.

    Attributes:
        needs: Names of the qualities that it uses.
    """

    needs: tuple[str, ...]

    def many(
        self,
        unit: np.ndarray,
        starts: np.ndarray,
        qualities: Mapping[str, np.ndarray],
        people: Sequence[str] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the templates of many people and the person of each."""


TemplateLike: TypeAlias = str | Rule


def make_templates(
    gallery: Array,
    gallery_ids: np.ndarray,
    template: TemplateLike,
    qualities: Mapping[str, ArrayLike] | None,
    block_size: int,
) -> tuple[Array, np.ndarray]:
    """Make the templates of a gallery.

    Args:
        gallery: Embeddings (G, D), of length one but for ``'mean_raw'``.
        gallery_ids: Identities, int64 (G,); each face of identity -100 is its own person.
        template: A rule, or one of :data:`PROTOCOLS`.
        qualities: Qualities by name, (G,) each, for rules that need them.
        block_size: Rows that are averaged at a time.

    Returns:
        Unit templates, (T, D), and the first gallery row of the person of each, int64 (T,).

    Raises:
        ValueError: A quality is missing, or the embeddings of a person cancel out.
    """
    if template == 'none':
        return gallery, np.arange(len(gallery))
    order, starts = group_rows(number_people(gallery_ids))
    first = order[starts[:-1]]

    def label(person: int) -> str:
        return f'gallery: the embeddings of identity {gallery_ids[first[person]]}'

    if isinstance(template, str):
        means = weighted_means(
            gallery,
            np.ones(len(order)),
            starts,
            label,
            order=order,
            unit=template == 'mean_unit',
            block_size=block_size,
        )
        return (means if template == 'mean_unit' else scaled_rows(means)), first
    given = {
        name: as_scores(values, f'qualities[{name!r}]', len(order))[order]
        for name, values in (qualities or {}).items()
        if name in template.needs
    }
    people = [f'identity {gallery_ids[row]}' for row in first]
    rows = float32_rows(gallery, order).cpu().numpy()
    templates, owner = template.many(rows, starts, given, people)
    return templates, first[owner]


def weighted_means(
    rows: Array,
    weights: np.ndarray,
    starts: np.ndarray,
    label: Callable[[int], str],
    *,
    order: np.ndarray | None = None,
    unit: bool = True,
    block_size: int,
) -> np.ndarray:
    """Return the weighted mean of each group of rows, scaled to length one.

    Args:
        rows: (N, D).
        weights: float64 (N,), along ``order``.
        starts: Start of each group along ``order``, and the end of the last, int64 (K + 1,).
        label: Function that maps the number of a group to its name in messages.
        order: Rows ordered by group. Default: the given order.
        unit: Whether the rows have length one.
        block_size: Rows that are averaged at a time, which limits the memory for float64; the rows
            of one group stay together.

    Returns:
        float32 (K, D).

    Raises:
        ValueError: The rows of a group cancel out.
    """
    means = np.empty((len(starts) - 1, rows.shape[1]), np.float32)
    first = 0
    while first < len(means):
        last = int(np.searchsorted(starts, starts[first] + block_size, side='right')) - 1
        last = max(last, first + 1)
        here = slice(starts[first], starts[last])
        own = rows[here if order is None else order[here]]
        own = own.float().cpu().numpy() if isinstance(own, torch.Tensor) else own
        parts = np.asarray(own, np.float32) * weights[here, None]
        begins = starts[first:last] - starts[first]
        sums = np.add.reduceat(parts, begins, axis=0)
        sizes = weights[here] if unit else np.linalg.norm(parts, axis=1)
        length = np.linalg.norm(sums, axis=1)
        bad = np.flatnonzero(~(length >= MIN_LENGTH * np.add.reduceat(sizes, begins)))
        if len(bad):
            raise ValueError(
                f'{label(first + int(bad[0]))} cancel out: their mean has no direction; '
                'are they of one person?'
            )
        # A sum and a mean have the same direction, so the count is not needed.
        means[first:last] = sums / length[:, None]
        first = last
    return means


def scaled_rows(matrix: Any) -> torch.Tensor:
    """Return the rows of a checked matrix, all at once, as unit vectors."""
    if not isinstance(matrix, torch.Tensor):
        matrix = torch.from_numpy(np.array(matrix[:]))
    return unit_rows(matrix)
