"""Search against a list of all similarities in float64, sorted in plain Python."""

import sys

import numpy as np
import pytest

from mmvlr.identification import ExactSearch, FaissSearch
from mmvlr.identification import search as module
from mmvlr.utils.vectors import unit_rows


def slow_search(probes, templates, owner, k):
    """Best people of every probe: best template counts, ties in order of enrollment."""
    people, similarities = [], []
    for probe in probes.astype(np.float64):
        best = {}
        for template, person in zip(templates.astype(np.float64), owner.tolist(), strict=True):
            score = np.float32((probe * template).sum())
            best[person] = max(best.get(person, -np.inf), score)
        ranked = sorted(best, key=lambda person: (-best[person], person))[:k]
        people.append(ranked)
        similarities.append([best[person] for person in ranked])
    return np.array(people), np.array(similarities, np.float32)


def material(rng, num_people, most, dims, num_probes):
    counts = rng.integers(1, most + 1, num_people)
    owner = np.repeat(np.arange(num_people), counts)
    templates = unit_rows(rng.standard_normal((len(owner), dims)))
    # Many equal templates, of one person and of several, and probes that equal a template.
    templates[rng.integers(0, len(owner), len(owner) // 2)] = templates[0]
    probes = unit_rows(rng.standard_normal((num_probes, dims)))
    probes[::3] = templates[rng.integers(0, len(owner), len(probes[::3]))]
    return probes, templates, owner


@pytest.mark.parametrize('block', [(1, 1), (7, 4), (64, 256)])
@pytest.mark.parametrize('most', [1, 4])
@pytest.mark.parametrize('k', [1, 5, 1000])
def test_exact_search_equals_the_slow_one(block, most, k, monkeypatch):
    monkeypatch.setattr(module, 'TEMPLATE_BLOCK', block[0])
    monkeypatch.setattr(module, 'PROBE_BLOCK', block[1])
    probes, templates, owner = material(np.random.default_rng(k + most), 40, most, 6, 23)
    person, similarity = ExactSearch(templates, owner)(probes, k)
    expected = slow_search(probes, templates, owner, k)
    np.testing.assert_array_equal(person, expected[0])
    np.testing.assert_array_equal(similarity, expected[1])
    assert person.shape == (23, min(k, 40))


def test_ties_stand_in_order_of_enrollment_beyond_every_block():
    same = unit_rows(np.tile(np.random.default_rng(0).standard_normal((1, 192)), (20_000, 1)))
    person, similarity = ExactSearch(same, np.arange(20_000))(same[:1], 4)
    assert person.tolist() == [[0, 1, 2, 3]]
    assert len(set(similarity[0].tolist())) == 1


def test_alone_as_in_a_batch():
    rng = np.random.default_rng(4)
    templates = unit_rows(rng.standard_normal((3000, 192)))
    probes = unit_rows(rng.standard_normal((300, 192)))
    search = ExactSearch(templates, np.arange(3000))
    person, similarity = search(probes, 3)
    for row in (0, 17, 299):
        alone = search(probes[row : row + 1], 3)
        assert person[row].tolist() == alone[0][0].tolist()
        assert similarity[row].tolist() == alone[1][0].tolist()


@pytest.mark.parametrize('search', [ExactSearch, FaissSearch])
@pytest.mark.parametrize('most', [1, 6])
def test_a_person_with_many_near_templates_crowds_nobody_out(search, most):
    if search is FaissSearch:
        pytest.importorskip('faiss')
    rng = np.random.default_rng(5)
    owner = np.repeat(np.arange(50), rng.integers(1, most + 1, 50))
    templates = unit_rows(rng.standard_normal((len(owner), 16)))
    # A person with more templates near a probe than are asked for at first.
    crowd = unit_rows(templates[:1] + 0.01 * rng.standard_normal((60, 16)))
    templates, owner = np.concatenate([templates, crowd]), np.concatenate([owner, [50] * 60])
    probes = np.concatenate([templates[:1], unit_rows(rng.standard_normal((30, 16)))])
    for k in (1, 5, 51, 99):
        found = search(templates, owner)(probes, k)
        expected = slow_search(probes, templates, owner, k)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_faiss_ivf_finds_most_and_says_what_it_did_not():
    pytest.importorskip('faiss')
    rng = np.random.default_rng(6)
    centers = rng.standard_normal((40, 32))
    templates = unit_rows(np.repeat(centers, 50, axis=0) + 0.5 * rng.standard_normal((2000, 32)))
    owner = np.arange(2000)
    probes = unit_rows(templates[::20] + 0.05 * rng.standard_normal((100, 32)))
    exact = ExactSearch(templates, owner)(probes, 1)
    some = FaissSearch(templates, owner, kind='ivf')(probes, 1)
    assert (some[0] == exact[0]).mean() > 0.9
    everything = FaissSearch(templates, owner, kind='ivf', num_cells=8, probed=1)(probes, 3)
    np.testing.assert_array_equal(everything[0], slow_search(probes, templates, owner, 3)[0])
    # One cell of many holds fewer people than were asked for.
    few = FaissSearch(templates, owner, kind='ivf', num_cells=40, probed=0.01)(probes, 500)
    assert ((few[0] < 0) == np.isneginf(few[1])).all()
    assert (few[0][:, -1] < 0).all()
    assert (few[0][:, 0] >= 0).all()


def test_what_faiss_cannot_do(monkeypatch):
    pytest.importorskip('faiss')
    with pytest.raises(ValueError, match="'flat' or 'ivf', got 'hnsw'"):
        FaissSearch(np.eye(2, dtype=np.float32), np.arange(2), kind='hnsw')
    with pytest.raises(ValueError, match='probed must be above 0'):
        FaissSearch(np.eye(2, dtype=np.float32), np.arange(2), kind='ivf', probed=4)
    monkeypatch.setitem(sys.modules, 'faiss', None)
    with pytest.raises(ImportError, match=r"pip install 'mmvlr\[gallery\]'"):
        FaissSearch(np.eye(2, dtype=np.float32), np.arange(2))
