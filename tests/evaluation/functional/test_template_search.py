"""Open-set search with template rules: people are ranked, by plain loops over all templates."""

import numpy as np
import pytest
import torch

from mmvlr.evaluation.functional import open_set_identification, open_set_scores
from mmvlr.identification import (
    BestTemplate,
    Gallery,
    ImageTemplates,
    MeanTemplate,
    NormWeightedTemplate,
    RIWeightedTemplate,
)
from tests.evaluation.functional.test_closed_set_identification import unit, with_exact_products

RULES = (
    MeanTemplate(),
    NormWeightedTemplate(),
    RIWeightedTemplate(),
    BestTemplate(k=2),
    ImageTemplates(),
)


class Twice:
    """Two templates for every face, also for one of nobody."""

    needs = ()

    def many(self, unit, starts, qualities, people=None):
        counts = np.diff(starts)
        return np.repeat(unit, 2, axis=0), np.repeat(np.arange(len(counts)), 2 * counts)


def draw(seed, make, num_gallery=130, num_probes=40):
    rng = np.random.default_rng(seed)
    ids = rng.choice([-100, *range(15)], num_gallery)
    ids[rng.permutation(num_gallery)[:15]] = np.arange(15)
    mated_ids = rng.integers(0, 15, num_probes)
    qualities = dict(ri=rng.normal(size=num_gallery), norm=rng.uniform(1, 9, num_gallery))
    return (make(rng, num_gallery), ids, make(rng, num_probes), mated_ids, make(rng, 30)), qualities


def slow_search(problem, rule, qualities):
    """Score and rank of the own person, ties against the probe; best score of unmated probes."""
    gallery, ids, mated, mated_ids, unmated = problem
    people = [np.flatnonzero(ids == person) for person in range(15)]
    people += [[row] for row in np.flatnonzero(ids == -100)]
    templates = []
    for rows in people:
        own = {name: values[rows] for name, values in qualities.items()}
        if isinstance(rule, Twice):
            templates.append(gallery[rows])
        else:
            templates.append(rule(gallery[rows], own))
    scores = [[(t @ probe).max() for t in templates] for probe in np.concatenate([mated, unmated])]
    scores = np.array(scores)
    own = scores[np.arange(len(mated)), mated_ids]
    return own, (scores[: len(mated)] >= own[:, None]).sum(axis=1), scores[len(mated) :].max(axis=1)


@pytest.mark.parametrize('rule', [*RULES, Twice()], ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize('block_size', [5, 64, 2048])
def test_rules_by_plain_loops(rule, block_size):
    problem, qualities = draw(3, lambda rng, num: unit(rng, num, 24))
    found = open_set_scores(
        *problem, rank=99, template=rule, qualities=qualities, top_k=3, block_size=block_size
    )
    own, rank, best = slow_search(problem, rule, qualities)
    assert rank.max() > 15
    np.testing.assert_array_equal(found.rank, rank)
    np.testing.assert_allclose(found.mated_score, own, atol=1e-6)
    np.testing.assert_allclose(found.unmated_score, best, atol=1e-6)
    again = open_set_scores(*problem, rank=99, template=rule, qualities=qualities, top_k=3)
    for name in ('mate_score', 'mate_index', 'top_index', 'top_score'):
        np.testing.assert_array_equal(getattr(found.found, name), getattr(again.found, name))
    # What is found is told by a face of the person.
    ids, mated_ids = problem[1], problem[3]
    np.testing.assert_array_equal(ids[found.found.mate_index], mated_ids)
    first = ids[found.found.top_index[:, 0]] == mated_ids
    np.testing.assert_array_equal(first, rank == 1)


@pytest.mark.parametrize('seed', range(20))
@pytest.mark.parametrize('block_size', [7, 64])
def test_ties_between_people_count_against_the_probe(seed, block_size):
    """Products are multiples of 1/4 here: no rounding, many ties within and between people."""
    problem, _ = draw(seed, with_exact_products)
    found = open_set_scores(*problem, 99, ImageTemplates(), block_size=block_size)
    own, rank, best = slow_search(problem, ImageTemplates(), {})
    np.testing.assert_array_equal(found.rank, rank)
    np.testing.assert_array_equal(found.mated_score, own)
    np.testing.assert_array_equal(found.unmated_score, best)
    faces = open_set_scores(*problem, 999, 'none', block_size=block_size)
    assert (faces.rank >= found.rank).all() and (faces.rank > found.rank).any()


@pytest.mark.parametrize('rule', RULES, ids=lambda rule: type(rule).__name__)
def test_finds_whom_a_gallery_finds(rule):
    (gallery, ids, mated, mated_ids, unmated), qualities = draw(5, lambda rng, n: unit(rng, n, 16))
    enrolled = Gallery(dict(embedding=dict(dims=16)), template=rule.name)
    names = [f'{person}' if person >= 0 else f'nobody {row}' for row, person in enumerate(ids)]
    enrolled.enroll_many(names, gallery, qualities)
    matches = enrolled.search(mated, k=len(enrolled))
    place = [
        row.tolist().index(str(person))
        for row, person in zip(matches.person, mated_ids, strict=True)
    ]
    found = open_set_scores(gallery, ids, mated, mated_ids, unmated, 99, rule, qualities=qualities)
    np.testing.assert_array_equal(found.rank, np.array(place) + 1)
    best = enrolled.search(unmated, k=1).similarity[:, 0]
    np.testing.assert_allclose(found.unmated_score, best, atol=1e-6)


def test_rates_with_a_rule():
    problem, qualities = draw(6, lambda rng, num: unit(rng, num, 24))
    given = dict(qualities=qualities, fpirs=(0.2,), rank=3)
    found = open_set_identification(*problem, template=BestTemplate(k=1), **given)
    own, rank, best = slow_search(problem, BestTemplate(k=1), qualities)
    threshold = np.sort(best)[-7] + 1e-6  # 6 of 30 above it
    rate = ((own >= threshold) & (rank <= 3)).mean()
    assert found['tpir@fpir0.2'] == pytest.approx(rate)
    means = open_set_identification(*problem, template=MeanTemplate(), fpirs=(0.2,))
    protocol = open_set_identification(*problem, fpirs=(0.2,))
    assert means == pytest.approx(protocol, abs=1e-6)
    tensors = [torch.from_numpy(array) for array in problem]
    assert open_set_identification(*tensors, template=BestTemplate(k=1), **given) == found


def test_what_a_rule_refuses_is_named():
    problem, qualities = draw(7, lambda rng, num: unit(rng, num, 24))
    with pytest.raises(ValueError, match="'ri'"):
        open_set_scores(*problem, template=BestTemplate(), qualities=dict(norm=qualities['norm']))
    with pytest.raises(ValueError, match=r"qualities\['ri'\] must have 130 entries"):
        open_set_scores(*problem, template=BestTemplate(), qualities=dict(ri=[1.0]))
    gallery, ids, *probes = problem
    ids[:] = np.arange(len(ids)) % 15
    gallery = gallery.copy()
    gallery[ids == 4] = np.where(np.arange((ids == 4).sum()) % 2, -1, 1)[:, None] * gallery[4]
    gallery, ids = gallery[: 15 * 8], ids[: 15 * 8]
    with pytest.raises(ValueError, match=r'identity 4.* cancel out'):
        open_set_scores(gallery, ids, *probes, template=MeanTemplate())
