"""Closed-set search against a slow reference, in plain loops over the whole score matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvlr.evaluation.functional import (
    ClosedSetRanks,
    _blocks,
    closed_set_identification,
    closed_set_ranks,
    cmc,
)

quick = settings(deadline=None, max_examples=40)


def slow_search(gallery, gallery_ids, probe, probe_ids):
    """Rank and average precision of every probe, as the evaluation script walks its lists."""
    ranks, precisions = [], []
    for vector, person in zip(probe, probe_ids, strict=True):
        scores = [float(np.dot(row.astype(float), vector.astype(float))) for row in gallery]
        correct = [other == person and person != -100 for other in gallery_ids]
        order = sorted(range(len(gallery)), key=lambda i: (-scores[i], correct[i]))
        ap, old_recall, old_precision, hits, rank = 0.0, 0.0, 1.0, 0, None
        for place, index in enumerate(order):
            if correct[index]:
                hits += 1
                rank = rank or place + 1
            recall, precision = hits / sum(correct), hits / (place + 1)
            ap += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        ranks.append(rank)
        precisions.append(ap)
    return np.array(ranks), np.array(precisions)


def unit(rng, *shape):
    vectors = rng.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_exact_products(rng, num, dim=8):
    """Unit vectors whose products are multiples of 1/4: many ties, no rounding."""
    vectors = np.zeros((num, dim), dtype=np.float32)
    for vector in vectors:
        vector[rng.choice(dim, 4, replace=False)] = rng.choice([-0.5, 0.5], 4)
    return vectors


def draw_problem(seed, make=with_exact_products, num_gallery=None, num_probes=None):
    """A gallery with several images of some people, strangers and distractors; its probes."""
    rng = np.random.default_rng(seed)
    num_people = rng.integers(1, 8)
    num_gallery = num_gallery or rng.integers(num_people, 60)
    num_probes = num_probes or rng.integers(1, 20)
    # Every person of the probes is there once; others are strangers, distractors or more images.
    gallery_ids = np.concatenate(
        [np.arange(num_people), rng.choice([-100, -100, 0, 1, 2, 50, 51], num_gallery)]
    )[:num_gallery]
    rng.shuffle(gallery_ids)
    probe_ids = rng.integers(0, num_people, num_probes)
    return make(rng, num_gallery), gallery_ids, make(rng, num_probes), probe_ids


@quick
@given(seed=st.integers(0, 2**32 - 1))
def test_equals_the_slow_reference_when_everything_ties(seed):
    problem = draw_problem(seed)
    found = closed_set_ranks(*problem)
    ranks, precisions = slow_search(*problem)
    np.testing.assert_array_equal(found.rank, ranks)
    np.testing.assert_allclose(found.average_precision, precisions, atol=1e-12)


@pytest.mark.parametrize('seed', range(3))
def test_equals_the_slow_reference_on_real_numbers(seed):
    problem = draw_problem(seed, lambda rng, n: unit(rng, n, 24), num_gallery=300, num_probes=90)
    found = closed_set_ranks(*problem, block_size=128)
    ranks, precisions = slow_search(*problem)
    assert ranks.max() > 20  # not a problem on which everything is found
    np.testing.assert_array_equal(found.rank, ranks)
    np.testing.assert_allclose(found.average_precision, precisions, atol=1e-12)


@quick
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_gallery_and_probes_does_not_matter(seed):
    gallery, gallery_ids, probe, probe_ids = draw_problem(seed)
    rng = np.random.default_rng(seed)
    there, here = rng.permutation(len(gallery)), rng.permutation(len(probe))
    found = closed_set_ranks(gallery, gallery_ids, probe, probe_ids)
    again = closed_set_ranks(gallery[there], gallery_ids[there], probe[here], probe_ids[here])
    np.testing.assert_array_equal(again.rank, found.rank[here])
    np.testing.assert_array_equal(again.average_precision, found.average_precision[here])
    np.testing.assert_array_equal(again.top_score, found.top_score[here])


@quick
@given(seed=st.integers(0, 2**32 - 1), block_size=st.integers(1, 80))
def test_block_size_does_not_matter(seed, block_size):
    problem = draw_problem(seed, lambda rng, n: unit(rng, n, 33))
    found = closed_set_ranks(*problem, top_k=4)
    again = closed_set_ranks(*problem, top_k=4, block_size=block_size)
    for name in ('rank', 'average_precision', 'mate_score', 'top_index', 'top_score'):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


@quick
@given(seed=st.integers(0, 2**32 - 1))
def test_distractor_never_helps(seed):
    gallery, gallery_ids, probe, probe_ids = draw_problem(seed)
    rng = np.random.default_rng(seed)
    before = closed_set_ranks(gallery, gallery_ids, probe, probe_ids)
    # One of the distractors is a copy of the first probe: it must push that one back.
    more = np.concatenate([gallery, with_exact_products(rng, 3), probe[:1]])
    more_ids = np.concatenate([gallery_ids, [-100] * 4])
    after = closed_set_ranks(more, more_ids, probe, probe_ids)
    assert (after.rank >= before.rank).all()
    assert (after.average_precision <= before.average_precision + 1e-12).all()
    assert after.rank[0] > before.rank[0]


@pytest.mark.parametrize('dim', [3, 33, 192, 512])
@pytest.mark.parametrize('num_gallery', [5, 63, 130, 331])
def test_exact_copies_of_a_mate_tie_with_it_wherever_they_stand(dim, num_gallery):
    rng = np.random.default_rng(dim + num_gallery)
    gallery, probe = unit(rng, num_gallery, dim), unit(rng, 7, dim)
    copies = rng.choice(num_gallery, num_gallery // 2, replace=False)
    gallery[copies] = gallery[copies[0]]
    gallery_ids = np.full(num_gallery, -100)
    gallery_ids[copies[0]] = 1
    scores = gallery.astype(float) @ probe.T.astype(float)
    expected = len(copies) + (scores > scores[copies[0]] + 1e-9).sum(axis=0)
    for block_size in (1, 17, 64, 100, 2048):
        found = closed_set_ranks(gallery, gallery_ids, probe, [1] * 7, block_size=block_size)
        np.testing.assert_array_equal(found.rank, expected)


def test_hand_made_example():
    # Scores of the only probe: 1 (mate), .8 (stranger), .6 (mate), 0 (distractor).
    gallery = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1.0]])
    result = closed_set_identification(gallery, [1, 2, 1, -100], [[1.0, 0]], [1], ranks=(1, 2))
    # AP: first hit at place 1 gives (1 + 1) / 2, the second at place 3 (1/2 + 2/3) / 2.
    assert result == dict(rank1=1.0, rank2=1.0, mAP=pytest.approx((1 + 7 / 12) / 2), num_probes=1)


def test_tie_with_an_impostor_counts_against_the_probe():
    same_image = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    found = closed_set_ranks(same_image, [1, 2, 3], [[1.0, 0]], [1])
    assert found.rank.tolist() == [2]
    # Mates that tie with each other do not hurt.
    found = closed_set_ranks(same_image, [1, 1, 3], [[1.0, 0]], [1])
    assert found.rank.tolist() == [1]
    assert found.average_precision.tolist() == [1.0]


def test_keys_and_rates():
    problem = draw_problem(5, num_gallery=40, num_probes=15)
    result = closed_set_identification(*problem)
    ranks, precisions = slow_search(*problem)
    assert list(result) == ['rank1', 'rank5', 'rank10', 'rank20', 'mAP', 'num_probes']
    for k in (1, 5, 10, 20):
        assert result[f'rank{k}'] == pytest.approx((ranks <= k).mean())
    assert result['mAP'] == pytest.approx(precisions.mean())
    assert result['num_probes'] == 15
    assert all(type(value) in (float, int) for value in result.values())


def test_without_map_the_ranks_are_the_same():
    problem = draw_problem(8, num_gallery=50, num_probes=12)
    with_map = closed_set_identification(*problem)
    without = closed_set_identification(*problem, with_map=False)
    del with_map['mAP']
    assert without == with_map
    assert closed_set_ranks(*problem, with_map=False).average_precision.shape == (0,)


def test_many_mates_per_probe():
    rng = np.random.default_rng(0)
    gallery, probe = with_exact_products(rng, 200), with_exact_products(rng, 9)
    gallery_ids, probe_ids = rng.integers(0, 2, 200), rng.integers(0, 2, 9)
    found = closed_set_ranks(gallery, gallery_ids, probe, probe_ids, block_size=32)
    ranks, precisions = slow_search(gallery, gallery_ids, probe, probe_ids)
    np.testing.assert_array_equal(found.rank, ranks)
    np.testing.assert_allclose(found.average_precision, precisions, atol=1e-12)


def test_top_images():
    rng = np.random.default_rng(1)
    gallery, probe = unit(rng, 150, 16), unit(rng, 20, 16)
    ids = np.arange(150)
    found = closed_set_ranks(gallery, ids, probe, ids[:20], top_k=7, block_size=32)
    scores = probe @ gallery.T
    order = np.argsort(-scores, axis=1)[:, :7]
    np.testing.assert_array_equal(found.top_index, order)
    np.testing.assert_allclose(
        found.top_score, np.take_along_axis(scores, order, axis=1), atol=1e-6
    )
    np.testing.assert_allclose(found.mate_score, scores[np.arange(20), np.arange(20)], atol=1e-6)
    assert (found.top_index[:, 0] == ids[:20]).tolist() == (found.rank == 1).tolist()


def test_top_images_of_a_gallery_smaller_than_asked_for():
    found = closed_set_ranks(np.eye(3), [1, 2, 3], np.eye(3)[:2], [1, 2], top_k=9)
    # Equal scores stand in the order of the gallery.
    assert found.top_index.tolist() == [[0, 1, 2], [1, 0, 2]]
    none = closed_set_ranks(np.eye(3), [1, 2, 3], np.eye(3)[:2], [1, 2], top_k=0)
    assert none.top_index.shape == none.top_score.shape == (2, 0)


def test_best_image_is_the_mate_of_mate_score():
    gallery = np.array([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]], dtype=np.float32)
    found = closed_set_ranks(gallery, [4, 4, -100], [[1.0, 0.0]], [4])
    assert found.mate_score.tolist() == pytest.approx([0.8])


def test_probe_without_mate_is_an_error_or_dropped():
    gallery, gallery_ids = np.eye(4), [1, 2, 3, -100]
    probe, probe_ids = np.eye(4)[[3, 1, 3, 0]], [9, 2, -100, 1]
    with pytest.raises(ValueError, match=r'probe_ids: 2 of 4 .* first row 0 \(identity 9\)'):
        closed_set_identification(gallery, gallery_ids, probe, probe_ids)

    found = closed_set_ranks(gallery, gallery_ids, probe, probe_ids, on_missing_mate='drop')
    assert isinstance(found, ClosedSetRanks)
    assert found.probe_index.tolist() == [1, 3]
    assert found.rank.tolist() == [1, 1]
    assert found.num_dropped == 2
    result = closed_set_identification(
        gallery, gallery_ids, probe, probe_ids, on_missing_mate='drop'
    )
    assert (result['num_probes'], result['num_dropped'], result['rank1']) == (2, 2, 1.0)

    with pytest.raises(ValueError, match='probe_ids: 2 of 2'):
        closed_set_ranks(gallery, gallery_ids, probe[:2], [8, 9], on_missing_mate='drop')


def test_drop_counts_nobody_when_all_have_mates():
    result = closed_set_identification(np.eye(2), [1, 2], np.eye(2), [1, 2], on_missing_mate='drop')
    assert (result['num_probes'], result['num_dropped']) == (2, 0)


def test_cmc():
    rng = np.random.default_rng(0)
    ranks = rng.integers(1, 30, 200)
    curve = cmc(ranks, max_rank=35)
    assert curve.tolist() == [(ranks <= k).mean() for k in range(1, 36)]
    with pytest.raises(ValueError, match='count from 1'):
        cmc([0, 1], 3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_tensors_of_any_precision(dtype):
    # 0.5 is exact in all of them, so the answer is too.
    gallery, gallery_ids, probe, probe_ids = draw_problem(3, num_gallery=50, num_probes=12)
    expected = closed_set_ranks(gallery, gallery_ids, probe, probe_ids)
    found = closed_set_ranks(
        torch.from_numpy(gallery).to(dtype).requires_grad_(),
        torch.from_numpy(gallery_ids),
        torch.from_numpy(probe).to(dtype),
        torch.from_numpy(probe_ids),
    )
    np.testing.assert_array_equal(found.rank, expected.rank)
    np.testing.assert_array_equal(found.average_precision, expected.average_precision)
    assert found.rank.dtype == np.int64


def test_torch_and_numpy_agree_to_the_last_bit():
    problem = draw_problem(2, lambda rng, n: unit(rng, n, 40), num_gallery=90, num_probes=20)
    expected = closed_set_ranks(*problem, top_k=5)
    found = closed_set_ranks(*(torch.from_numpy(array) for array in problem), top_k=5)
    np.testing.assert_array_equal(found.mate_score, expected.mate_score)
    np.testing.assert_array_equal(found.top_score, expected.top_score)


def test_half_precision_storage_is_multiplied_in_single_precision():
    rng = np.random.default_rng(0)
    gallery, probe = unit(rng, 80, 64).astype(np.float16), unit(rng, 10, 64).astype(np.float16)
    found = closed_set_ranks(gallery, np.arange(80), probe, np.arange(10))
    exact = (probe.astype(float) * gallery[:10].astype(float)).sum(axis=1)
    # Half-precision products would be off by about 1e-4.
    np.testing.assert_allclose(found.mate_score, exact, atol=1e-6)


def test_autocast_does_not_change_the_scores():
    rng = np.random.default_rng(0)
    problem = unit(rng, 80, 64), np.arange(80), unit(rng, 10, 64), np.arange(10)
    expected = closed_set_ranks(*problem)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = closed_set_ranks(*problem)
    np.testing.assert_array_equal(found.mate_score, expected.mate_score)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_equals_cpu():
    problem = draw_problem(4, num_gallery=500, num_probes=70)
    expected = closed_set_ranks(*problem, top_k=3)
    on_gpu = torch.from_numpy(problem[0]).cuda(), problem[1], problem[2], problem[3]
    found = closed_set_ranks(*on_gpu, top_k=3, block_size=64)
    np.testing.assert_array_equal(found.rank, expected.rank)
    np.testing.assert_array_equal(found.top_score, expected.top_score)


@pytest.mark.filterwarnings('error')
def test_memory_mapped_gallery_is_read_block_by_block(tmp_path, monkeypatch):
    gallery, gallery_ids, probe, probe_ids = draw_problem(6, num_gallery=500, num_probes=40)
    np.save(tmp_path / 'gallery.npy', gallery)
    on_disk = np.load(tmp_path / 'gallery.npy', mmap_mode='r')
    longest = []
    plain = _blocks.float32_rows

    def watched(matrix, index):
        rows = plain(matrix, index)
        longest.append(len(rows))
        return rows

    monkeypatch.setattr(_blocks, 'float32_rows', watched)
    found = closed_set_ranks(on_disk, gallery_ids, probe, probe_ids, block_size=64)
    assert max(longest) == 64
    monkeypatch.undo()
    expected = closed_set_ranks(gallery, gallery_ids, probe, probe_ids)
    np.testing.assert_array_equal(found.rank, expected.rank)


def test_input_is_left_alone():
    problem = draw_problem(9, num_gallery=30, num_probes=5)
    copies = [array.copy() for array in problem]
    closed_set_ranks(*problem, top_k=3)
    for array, copy in zip(problem, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


GOOD = dict(gallery=np.eye(3), gallery_ids=[1, 2, 3], probe=np.eye(3)[:2], probe_ids=[1, 2])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(gallery=np.eye(3) * 2), r'gallery: row 0 is not of length one'),
        (dict(probe=np.diag([1.0, 1.01, 1])[:2]), r'probe: row 1 is not of length one'),
        (dict(gallery=np.diag([1.0, np.nan, 1])), 'gallery: row 1 holds NaN or infinity'),
        (dict(probe=np.diag([np.inf, 1, 1])[:2]), 'probe: row 0 holds NaN or infinity'),
        (dict(gallery=np.diag([1.0, 1, 0])), 'gallery: row 2 is zero'),
        (dict(gallery=np.ones(3)), r'gallery must have shape \(N, D\), got \(3,\)'),
        (dict(gallery=np.ones((0, 3)), gallery_ids=[]), 'gallery is empty'),
        (dict(probe=np.ones((2, 0))), 'probe is empty'),
        (dict(probe=np.eye(2)), 'gallery and probe must have the same embedding size, got 3 and 2'),
        (dict(gallery=np.eye(3) == 1), 'gallery must hold real numbers, got bool'),
        (dict(gallery_ids=[1, 2]), 'gallery_ids must have 3 entries, got 2'),
        (dict(probe_ids=[[1], [2]]), r'probe_ids must be one-dimensional, got shape \(2, 1\)'),
        (dict(probe_ids=[1.0, 2.0]), 'probe_ids must be integers'),
        (dict(block_size=0), 'block_size'),
        (dict(on_missing_mate='ignore'), 'on_missing_mate'),
    ],
)
def test_bad_input_is_named(change, message):
    for function in (closed_set_ranks, closed_set_identification):
        with pytest.raises(ValueError, match=message):
            function(**(GOOD | change))


def test_bad_row_is_found_in_any_block():
    gallery = np.tile([[1.0, 0.0]], (200, 1))
    gallery[150] *= 1.1
    with pytest.raises(ValueError, match='gallery: row 150 is not'):
        closed_set_ranks(gallery, np.arange(200), gallery[:1], [0], block_size=64)


def test_bad_ranks():
    with pytest.raises(ValueError, match='ranks count from 1'):
        closed_set_identification(**GOOD, ranks=(0,))
    with pytest.raises(ValueError, match='top_k'):
        closed_set_ranks(**GOOD, top_k=-1)


def test_length_is_checked_up_to_a_thousandth():
    almost = np.eye(3) * 1.0005
    assert closed_set_identification(**(GOOD | dict(gallery=almost)))['rank1'] == 1.0
