"""Search templates for the most similar people of each probe.

A search is built from the templates once and used many times. Both kinds find candidates by fast
float32 products and compute their similarities again in float64, which are then rounded. Thus equal
templates get equal similarities, and a probe gets the same ones alone or in a batch, by exact
search or by faiss. Equally similar people are in the order of their enrollment.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mmvlr.evaluation.functional._blocks import product_blocks

#: Templates that are scored at a time.
TEMPLATE_BLOCK = 8192
#: Probes that are scored at a time: 8 MB of scores in one block.
PROBE_BLOCK = 256
#: Scores of a block of few probes, which has more templates: 512 kB.
FEW_SCORES = 2**17
#: Scores of a probe that are compared again without narrowing them further.
_FEW = 64
#: From this similarity on, two embeddings are considered to be of the same image.
SAME = 1 - 1e-6


class ExactSearch:
    """Compare every probe with every template.

    The candidates of a block of templates are those whose float32 product comes within twice its
    error bound, D u (u = 2^-24, of unit vectors; Higham, "Accuracy and Stability of Numerical
    Algorithms", section 3.1), of the k-th best person so far. None of the k best can be missed.

    The memory in addition to the templates is one block of scores.

    Args:
        templates: Unit templates, float32 (T, D).
        owner: Person of each template, int64 (T,), not falling.

    Example:
        >>> search = ExactSearch(np.eye(3, dtype=np.float32), np.array([0, 0, 1]))
        >>> search(np.array([[0.6, 0.8, 0.0]], np.float32), k=2)
        (array([[0, 1]]), array([[0.8, 0. ]], dtype=float32))
    """

    def __init__(self, templates: np.ndarray, owner: np.ndarray):
        self.templates, self.owner = templates, owner
        self.num_people = len(np.unique(owner))
        # One more for the rounding of the similarities themselves.
        self._tolerance = np.float32(2 * (templates.shape[1] + 1) * 2.0**-24)

    def __call__(self, probes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the best people of each probe, best first.

        Args:
            probes: Unit embeddings, float32 (P, D).
            k: People per probe; all if there are fewer.

        Returns:
            Numbers of the people, int64 (P, min(k, people)), and the similarity of the best
            template of each, float32.
        """
        k = min(k, self.num_people)
        best = _Best(len(probes), k)
        template_block = max(TEMPLATE_BLOCK, FEW_SCORES // max(len(probes), 1))
        for rows, columns, scores in product_blocks(
            probes, self.templates, PROBE_BLOCK, template_block
        ):
            floor = best.similarity[rows, -1]
            # Late blocks rarely improve the result of a probe; such rows are skipped.
            near = np.flatnonzero(scores.max(axis=1) >= floor - self._tolerance)
            if not len(near):
                continue
            if len(near) < len(scores):
                scores, floor = scores[near], floor[near]
            close = scores >= floor[:, None] - self._tolerance
            if np.count_nonzero(close) > _FEW * len(near):
                floor = np.maximum(floor, self._kth_person(scores, columns, k))
                close = scores >= floor[:, None] - self._tolerance
            row, column = np.divmod(np.flatnonzero(close), close.shape[1])
            row, column = rows.start + near[row], columns.start + column
            best.add(probes, self.templates, self.owner, row, column)
        return best.person, best.similarity

    def _kth_person(self, scores: np.ndarray, columns: slice, k: int) -> np.ndarray:
        """Return the k-th best person's score in a block, (P,); -inf if it has fewer people."""
        if self.num_people < len(self.owner):
            first = np.flatnonzero(np.diff(self.owner[columns], prepend=-1))
            if len(first) < scores.shape[1]:
                scores = np.maximum.reduceat(scores, first, axis=1)
        if scores.shape[1] < k:
            return np.full(len(scores), -np.inf, np.float32)
        return torch.from_numpy(scores).topk(k, dim=1).values[:, -1].numpy()


class FaissSearch:
    """Search with faiss: ``pip install 'mmvlr[gallery]'``.

    Kinds of index:

    - ``'flat'``: compares with every template as :class:`ExactSearch`. If many people are equally
      similar at the last place, it is not defined which of them is found.
    - ``'ivf'``: templates are sorted into cells around ``num_cells`` centers, and a probe is
      compared with those of the nearest cells only: faster, but the best is missed sometimes. How
      often depends on the embeddings; measure it on yours.

    Args:
        templates: Unit templates, float32 (T, D).
        owner: Person of each template, int64 (T,), not falling.
        kind: ``'flat'`` or ``'ivf'``.
        num_cells: Cells of ``'ivf'``; about the square root of T if not given.
        probed: Share of the cells that are searched, above 0 and at most 1.

    Raises:
        ImportError: faiss is not installed.
        ValueError: ``kind`` or ``probed`` is none of these.
    """

    def __init__(
        self,
        templates: np.ndarray,
        owner: np.ndarray,
        kind: str = 'flat',
        num_cells: int | None = None,
        probed: float = 1 / 16,
    ):
        faiss = _faiss()
        if not 0 < probed <= 1:
            raise ValueError(f'probed must be above 0 and at most 1, got {probed}')
        self.templates, self.owner = templates, owner
        self.num_people = len(np.unique(owner))
        dims = templates.shape[1]
        if kind == 'flat':
            self.index = faiss.IndexFlatIP(dims)
        elif kind == 'ivf':
            num_cells = num_cells or max(1, round(len(templates) ** 0.5))
            # The coarse index holds the centers and must exist as long as the index.
            self._centers = faiss.IndexFlatIP(dims)
            self.index = faiss.IndexIVFFlat(
                self._centers, dims, num_cells, faiss.METRIC_INNER_PRODUCT
            )
            self.index.nprobe = max(1, round(probed * num_cells))
            # k-means on a sample of 40 templates per cell, about the minimum without a warning.
            rng = np.random.default_rng(0)
            sample = rng.choice(len(templates), min(len(templates), 40 * num_cells), replace=False)
            self.index.train(np.ascontiguousarray(templates[np.sort(sample)]))
        else:
            raise ValueError(f"kind must be 'flat' or 'ivf', got {kind!r}")
        self.index.add(templates)

    def __call__(self, probes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the best people of each probe, best first; see :class:`ExactSearch`.

        Where ``'ivf'`` finds fewer than k people for a probe, the others are -1 with similarity
        ``-inf``.
        """
        k = min(k, self.num_people)
        best = _Best(len(probes), k)
        rows, wanted = np.arange(len(probes)), k + 8
        while len(rows):
            wanted = min(wanted, len(self.templates))
            _, found = self.index.search(np.ascontiguousarray(probes[rows]), wanted)
            row, place = np.nonzero(found >= 0)
            best.add(probes, self.templates, self.owner, rows[row], found[row, place])
            # Several templates of one person may fill the list: search more for those probes.
            short = (best.person[rows, -1] < 0) & (found[:, -1] >= 0)
            if wanted == len(self.templates):
                break
            rows, wanted = rows[short], 4 * wanted
        return best.person, best.similarity


class _Best:
    """The k best people seen so far for every probe.

    Attributes:
        person: int64 (P, k), -1 where fewer were found.
        similarity: float32 (P, k), ``-inf`` where fewer were found.
    """

    def __init__(self, num_probes: int, k: int):
        self.person = np.full((num_probes, k), -1, np.int64)
        self.similarity = np.full((num_probes, k), -np.inf, np.float32)

    def add(
        self,
        probes: np.ndarray,
        templates: np.ndarray,
        owner: np.ndarray,
        row: np.ndarray,
        column: np.ndarray,
    ) -> None:
        """Compare probes ``row`` with templates ``column``, (N,) each, and keep the best."""
        if not len(row):
            return
        similarity = np.empty(len(row), np.float32)
        for start in range(0, len(row), TEMPLATE_BLOCK):
            some = slice(start, start + TEMPLATE_BLOCK)
            product = probes[row[some]].astype(np.float64) * templates[column[some]]
            # A sum along the rows of numpy adds every row in the same order, wherever it stands.
            similarity[some] = product.sum(axis=1)
        changed = np.unique(row)
        k = self.person.shape[1]
        row = np.concatenate([row, np.repeat(changed, k)])
        person = np.concatenate([owner[column], self.person[changed].ravel()])
        similarity = np.concatenate([similarity, self.similarity[changed].ravel()])
        # The best template of every person, then the best people of every probe.
        order = np.lexsort((-similarity, person, row))
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(row[order]) != 0) | (np.diff(person[order]) != 0)
        kept = order[new & (person[order] >= 0)]
        kept = kept[np.lexsort((person[kept], -similarity[kept], row[kept]))]
        _, first, count = np.unique(row[kept], return_index=True, return_counts=True)
        place = np.arange(len(kept)) - np.repeat(first, count)
        kept, place = kept[place < k], place[place < k]
        self.person[row[kept], place] = person[kept]
        self.similarity[row[kept], place] = similarity[kept]


def find_identical(probes: np.ndarray, others: np.ndarray) -> tuple[list[int], list[int]]:
    """Find unit embeddings that are equal up to rounding, those of the same image.

    Args:
        probes: float32 (P, D).
        others: float32 (N, D).

    Returns:
        Row of the probe and row of the other of each pair, probe by probe.
    """
    rows, columns = [], []
    for block, near, scores in product_blocks(probes, others, PROBE_BLOCK, TEMPLATE_BLOCK):
        row, column = np.nonzero(scores >= np.float32(1 - 1e-4))
        row, column = block.start + row, near.start + column
        same = (probes[row].astype(np.float64) * others[column]).sum(axis=1) >= SAME
        rows.append(row[same])
        columns.append(column[same])
    if not rows:
        return [], []
    row, column = np.concatenate(rows), np.concatenate(columns)
    order = np.lexsort((column, row))
    return row[order].tolist(), column[order].tolist()


SEARCHES = dict(exact=ExactSearch, faiss=FaissSearch)


def search_config(search: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a search that is given by name or as ``dict(type=name, ...)``.

    Raises:
        ValueError: There is no such search.
    """
    config = dict(type=search) if isinstance(search, str) else dict(search)
    if config.get('type') not in SEARCHES:
        raise ValueError(f"search must be 'exact' or 'faiss', got {config.get('type')!r}")
    return config


def build_search(
    config: Mapping[str, Any], templates: np.ndarray, owner: np.ndarray
) -> ExactSearch | FaissSearch:
    """Build a search among templates of a config; see :func:`search_config`."""
    options = dict(config)
    return SEARCHES[options.pop('type')](templates, owner, **options)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "faiss is not installed: pip install 'mmvlr[gallery]', or search='exact'"
        ) from error
    return faiss
