"""Audit a gallery: what in it looks wrong, with the reasons. Suggestions only; nothing is changed.

The gallery is its own reference. How similar an image is to the other images of its person, and to
other people, gives two distributions; where the observed similarity is far more likely under the
wrong one, there is a finding. All templates are means here, whatever the rule of the gallery.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, t

from mmvlr.evaluation.functional._blocks import product_blocks
from mmvlr.structures.face_table import MEASURES

from .findings import KINDS, Audit, Finding
from .gallery import Gallery
from .gate import FORCED
from .search import PROBE_BLOCK, TEMPLATE_BLOCK

_BLOCK = PROBE_BLOCK, TEMPLATE_BLOCK
#: People of several images below which their halves say too little.
_FEW = 10


@dataclass(frozen=True)
class _Scores:
    """Center and spread of the similarity to the own person and to others.

    The former has the heavy tails of Student's t, as some images are much poorer than usual; the
    latter is normal.
    """

    own: tuple[float, float]
    other: tuple[float, float]

    def evidence(self, similarity: np.ndarray) -> np.ndarray:
        """Return the logarithm of the likelihood ratio, own against other."""
        # Below the usual similarity of others, it says nothing more.
        clipped = np.maximum(similarity, self.other[0])
        return t.logpdf(clipped, 4, *self.own) - norm.logpdf(clipped, *self.other)


def audit(
    gallery: Gallery,
    *,
    wrong: float = 0.01,
    alike: float = 0.96,
    gain: float = 0.05,
    quality: str | None = None,
    least: float | None = None,
) -> Audit:
    """Look for what is wrong in a gallery.

    Args:
        gallery: The gallery, which is not changed.
        wrong: Share of images, and of people, that are expected to be wrong: the more, the more is
            found, and the more of it is right.
        alike: Similarity from which on two images are taken for copies of one.
        gain: How much the similarity among the other images has to rise without an image for it to
            be named.
        quality: Quality of good images (default: ``'ri'``, else the first there is).
        least: Lowest quality of a good image (default: that of the poorest 5 % of the images).

    Raises:
        ValueError: The gallery is empty, or a number is out of its range.

    Example:
        >>> gallery = Gallery(dict(embedding=dict(dims=2)))
        >>> gallery.enroll('Ann', [[1.0, 0.0], [1.0, 0.0]], names=['a.png', 'copy.png'])
        >>> [(found.kind, found.image, found.other_image) for found in audit(gallery).findings]
        [('duplicate', 'copy.png', 'a.png')]
    """
    if not len(gallery):
        raise ValueError('the gallery is empty: there is nothing to audit')
    for name, value in dict(wrong=wrong, alike=alike).items():
        if not 0 < value < 1:
            raise ValueError(f'{name} must lie in (0, 1), got {value}')
    state = gallery._state
    images, starts, people = state.images, state.starts, state.people
    owner = np.repeat(np.arange(len(people)), np.diff(starts))
    unit = _whiten(images.unit, starts, owner)
    findings, copies = _find_copies(images.unit, owner, images.names, people, alike)
    told, about = set(), {}
    means, own = _compare(unit, starts, owner, np.ones(len(owner), bool))
    others = _others(unit, means, owner)
    if np.isfinite(own).sum() > 1 and len(people) > 2:
        scores = _Scores(_spread(own), others)
        # An image that is wrong spoils the template by which the others are judged: the most
        # suspicious of each person is taken out, and all are judged once more.
        first = _find_wrong(unit, own, means, owner, scores, wrong, copies)
        worst = {owner[row]: row for row, *_ in sorted(first, key=lambda one: -own[one[0]])}
        kept = ~np.isin(np.arange(len(owner)), [*worst.values()])
        means, own = _compare(unit, starts, owner, kept)
        collisions = _find_collisions(unit, starts, means, people, own, scores, wrong)
        # Of one person under two names, each image resembles both.
        pairs = {frozenset((one.person, one.other_person)) for one in collisions}
        findings += collisions
        for row, other, probability in _find_wrong(unit, own, means, owner, scores, wrong, copies):
            kind, who = ('stranger', '') if other < 0 else ('wrong person', people[other])
            person, name, value = people[owner[row]], images.names[row], float(own[row])
            if frozenset((person, who)) in pairs:
                continue
            findings.append(Finding(kind, person, name, who, '', probability, None, value))
            told.add(row)
        about = dict(
            own_similarity=scores.own[0], other_similarity=scores.other[0], spread=scores.other[1]
        )
    findings += _find_lowering(unit, images.names, starts, people, gain, told)
    findings += _find_poor(images, starts, people, quality, least)
    for row in np.flatnonzero(images.qualities.get(FORCED, np.zeros(len(owner))) == 1):
        findings.append(Finding('forced', people[owner[row]], images.names[row]))
    kinds = list(KINDS)
    findings.sort(key=lambda one: (kinds.index(one.kind), -(one.probability or 0)))
    return Audit(findings, len(people), len(owner), about)


def _normalize(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(length, 1e-12)).astype(np.float32)


def _whiten(unit: np.ndarray, starts: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Take out what all faces share, and weaken the directions in which images of one person vary.

    Within-class covariance normalization (Hatch, Kajarekar and Stolcke, Interspeech 2006), half of
    it shrunk to a sphere. It tells people of very small faces apart much better.
    """
    centered = unit.astype(np.float64) - unit.mean(axis=0, dtype=np.float64)
    counts = np.diff(starts)
    means = np.add.reduceat(centered, starts[:-1]) / counts[:, None]
    rest = (centered - means[owner])[counts[owner] > 1]
    if len(counts) < 3 or not rest.any():
        return unit
    within = rest.T @ rest / len(rest)
    sphere = np.trace(within) / len(within) * np.eye(len(within))
    return _normalize(centered @ np.linalg.cholesky(np.linalg.inv((within + sphere) / 2)))


def _spread(values: np.ndarray) -> tuple[float, float]:
    """Return center and spread; findings among the values hardly move them."""
    values = values[np.isfinite(values)]
    low, center, high = np.percentile(values, [25, 50, 75])
    return float(center), float(max((high - low) / 1.349, 1e-3))


def _compare(
    unit: np.ndarray, starts: np.ndarray, owner: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each person, and how similar each image is to that of the others.

    Images that are not kept do not count in the means; NaN where nothing else is kept. A person
    without a kept image has the mean of all.
    """
    weight = kept | ~np.logical_or.reduceat(kept, starts[:-1])[owner]
    weighted = unit.astype(np.float64) * weight[:, None]
    sums = np.add.reduceat(weighted, starts[:-1])
    own = np.einsum('nd,nd->n', unit, _normalize(sums[owner] - weighted))
    others = np.add.reduceat(weight.astype(int), starts[:-1])[owner] - weight
    own[others == 0] = np.nan
    return _normalize(sums), own


def _others(unit: np.ndarray, means: np.ndarray, owner: np.ndarray) -> tuple[float, float]:
    """Return mean and spread of the similarity to other people.

    The spread is that of the upper tail, where it matters: one of a hundred is above 2.33.
    """
    edges = np.linspace(-1, 1, 2001)
    counts, total = np.zeros(2000, np.int64), 0.0
    for rows, columns, block in product_blocks(unit, means, *_BLOCK):
        number = np.arange(columns.start, columns.start + block.shape[1])
        values = block[owner[rows][:, None] != number[None]]
        counts += np.histogram(values, edges)[0]
        total += float(values.sum(dtype=np.float64))
    mean = total / max(counts.sum(), 1)
    shares = counts.cumsum() / max(counts.sum(), 1)
    inside = edges[1:][min(int(np.searchsorted(shares, norm.cdf(1))), 1999)] - mean
    tail = edges[1:][min(int(np.searchsorted(shares, 0.99)), 1999)] - mean
    return mean, float(max(inside, tail / norm.ppf(0.99), 1e-3))


def _find_copies(
    unit: np.ndarray, owner: np.ndarray, names: list[str], people: list[str], alike: float
) -> tuple[list[Finding], set[tuple[int, int]]]:
    """Return the copies, and (row of the image, other person) of those under two names."""
    findings, copies, seen = [], set(), set()
    for rows, columns, block in product_blocks(unit, unit, *_BLOCK):
        for row, column in zip(*np.nonzero(block >= alike), strict=True):
            first, second = int(columns.start + column), int(rows.start + row)
            if first >= second:
                continue
            same = owner[first] == owner[second]
            if not same:
                copies |= {(second, int(owner[first])), (first, int(owner[second]))}
            elif second in seen:
                # Of three copies of an image, two are too many.
                continue
            else:
                seen.add(second)
            findings.append(
                Finding(
                    'duplicate' if same else 'two names',
                    people[owner[second]],
                    names[second],
                    people[owner[first]],
                    names[first],
                    value=float(block[row, column]),
                )
            )
    return findings, copies


def _find_wrong(
    unit: np.ndarray,
    own: np.ndarray,
    means: np.ndarray,
    owner: np.ndarray,
    scores: _Scores,
    wrong: float,
    copies: set[tuple[int, int]],
) -> list[tuple[int, int, float]]:
    """Find images that belong to another person, or to nobody, by Bayes' rule.

    Before its similarities are seen, an image belongs to its person with probability 1 - wrong, and
    else to nobody of the gallery or to somebody, equally likely.

    Returns:
        Row of the image, its person or -1, and the probability.
    """
    findings = []
    for rows, _, block in product_blocks(unit, means, PROBE_BLOCK, len(means)):
        place = np.arange(len(block))
        evidence = scores.evidence(block.astype(np.float64))
        evidence[place, owner[rows]] = -np.inf
        logs = np.log(wrong / 2 / (len(means) - 1)) + evidence
        logs[place, owner[rows]] = np.log1p(-wrong) + scores.evidence(own[rows])
        logs = np.concatenate([logs, np.full((len(logs), 1), np.log(wrong / 2))], axis=1)
        shares = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        best = shares.argmax(axis=1)
        suspect = np.isfinite(own[rows]) & (best != owner[rows]) & (shares[place, best] > 0.5)
        for row in np.flatnonzero(suspect):
            at, other = rows.start + int(row), int(best[row])
            if (at, other) not in copies:
                other = -1 if other == len(means) else other
                findings.append((at, other, float(shares[row, best[row]])))
    return findings


def _find_collisions(
    unit: np.ndarray,
    starts: np.ndarray,
    means: np.ndarray,
    people: list[str],
    own: np.ndarray,
    scores: _Scores,
    wrong: float,
) -> list[Finding]:
    """Find people who are more alike than two people are.

    A new image x of a person with template a has the similarity m to it, and is otherwise random:
    for a template b with a . b = c, x . a - x . b = m (1 - c) - sqrt(1 - c^2) z, where z has the
    spread of similarities to others. The probability of confusion is that of a negative value,
    averaged over the m of this gallery.
    """
    usual = own[np.isfinite(own)]
    prior = np.log(2 * wrong / max(len(people) - 1, 1))
    # How alike two templates of one person are is seen by halving the images of each.
    halves = [
        float(np.prod(_normalize(np.stack([own[::2].sum(0), own[1::2].sum(0)])), axis=0).sum())
        for own in np.split(unit, starts[1:-1])
        if len(own) > 1
    ]
    alike = _spread(np.array(halves)) if len(halves) >= _FEW else scores.own
    pairs = _Scores(alike, _others(means, means, np.arange(len(means))))
    findings = []
    for rows, columns, block in product_blocks(means, means, *_BLOCK):
        odds = prior + pairs.evidence(block.astype(np.float64))
        for row, column in zip(*np.nonzero(odds > 0), strict=True):
            first, second = int(rows.start + row), int(columns.start + column)
            if first >= second:
                continue
            alike = float(np.clip(block[row, column], -1, 1))
            distance = usual * (1 - alike) / max((1 - alike**2) ** 0.5 * scores.other[1], 1e-6)
            findings.append(
                Finding(
                    'collision',
                    people[first],
                    other_person=people[second],
                    probability=float(1 / (1 + np.exp(-odds[row, column]))),
                    confusion=float(norm.cdf(-distance).mean()),
                    value=alike,
                )
            )
    return findings


def _find_lowering(
    whole: np.ndarray,
    names: list[str],
    starts: np.ndarray,
    people: list[str],
    gain: float,
    told: set[int],
) -> list[Finding]:
    """Find images without which the others of the person are more similar to each other."""
    findings = []
    for number in np.flatnonzero(np.diff(starts) >= 3):
        rows = np.arange(starts[number], starts[number + 1])
        unit = whole[rows].astype(np.float64)
        rest = unit.sum(axis=0) - unit
        before = np.einsum('nd,nd->n', unit, _normalize(rest))
        for place, row in enumerate(rows.tolist()):
            others = np.delete(np.arange(len(rows)), place)
            without = _normalize(rest[others] - unit[place])
            after = np.einsum('nd,nd->n', unit[others], without)
            change = float((after - before[others]).mean())
            if change >= gain and row not in told:
                findings.append(Finding('lowers', people[number], names[row], value=change))
    return findings


def _find_poor(
    images: Any, starts: np.ndarray, people: list[str], quality: str | None, least: float | None
) -> list[Finding]:
    """Find people of whom no image reaches the quality."""
    name = quality or next((one for one in MEASURES if one in images.qualities), None)
    if name is None:
        return []
    if name not in images.qualities:
        there = ', '.join(images.qualities) or 'none'
        raise ValueError(f'the images were enrolled without the quality {name!r}, with: {there}')
    values = images.qualities[name]
    if not np.isfinite(values).any():
        return []
    level = float(np.nanpercentile(values, 5)) if least is None else least
    best = np.fmax.reduceat(values, starts[:-1])
    return [
        Finding('no good image', people[number], value=float(best[number]))
        for number in np.flatnonzero(best < level)
    ]
