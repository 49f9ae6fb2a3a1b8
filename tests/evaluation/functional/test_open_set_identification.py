"""Open-set identification against plain loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mmvlr.evaluation.functional import open_set_identification, open_set_rates


def draw(seed, num_people=12, num_mated=60, num_unmated=50, dim=12, unit=True):
    rng = np.random.default_rng(seed)
    center = rng.standard_normal((num_people, dim))
    gallery_ids = np.concatenate([np.arange(num_people), rng.integers(0, num_people, 30)])
    mated_ids = rng.integers(0, num_people, num_mated)
    gallery = center[gallery_ids] + rng.standard_normal((len(gallery_ids), dim))
    mated = center[mated_ids] + 1.5 * rng.standard_normal((num_mated, dim))
    unmated = rng.standard_normal((num_unmated, dim))
    embeddings = [gallery, mated, unmated]
    if unit:
        embeddings = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in embeddings]
    gallery, mated, unmated = (x.astype(np.float32) for x in embeddings)
    return gallery, gallery_ids + 5, mated, mated_ids + 5, unmated


def slow_scores(gallery, gallery_ids, mated, mated_ids, unmated, rank, template):
    """Score of each mated probe, -inf if not within the rank; best score of each unmated one."""

    def normalized(vector):
        return vector / np.linalg.norm(vector)

    templates, template_ids = [], []
    if template == 'none':
        templates, template_ids = list(gallery), list(gallery_ids)
    else:
        for person in sorted(set(gallery_ids.tolist()) - {-100}):
            rows = gallery[gallery_ids == person].astype(float)
            if template == 'mean_unit':
                rows = np.stack([normalized(row) for row in rows])
            templates.append(normalized(rows.mean(axis=0)))
            template_ids.append(person)
        for row in gallery[gallery_ids == -100]:
            templates.append(normalized(row))
            template_ids.append(-100)
    mated_score = []
    for probe, person in zip(mated, mated_ids, strict=True):
        scores = [float(row @ normalized(probe)) for row in templates]
        own = max(s for s, other in zip(scores, template_ids, strict=True) if other == person)
        before = sum(
            s >= own for s, other in zip(scores, template_ids, strict=True) if other != person
        )
        mated_score.append(own if before + 1 <= rank else -np.inf)
    unmated_score = [max(float(row @ normalized(probe)) for row in templates) for probe in unmated]
    return np.array(mated_score), np.array(unmated_score)


@pytest.mark.parametrize('template', ['mean_unit', 'mean_raw', 'none'])
@pytest.mark.parametrize('rank', [1, 3, 20])
def test_exact_rule_equals_plain_loops(template, rank):
    problem = draw(rank, unit=template != 'mean_raw')
    fpirs = (0.5, 0.3, 0.2, 0.1, 0.02)
    result = open_set_identification(*problem, fpirs=fpirs, rank=rank, template=template)
    mated, unmated = slow_scores(*problem, rank, template)
    for fpir in fpirs:
        # Between two scores nothing changes: just above a score stands for all of them.
        candidates = np.concatenate([mated, unmated]) + 1e-6
        threshold = min(t for t in candidates if (unmated >= t).mean() <= fpir)
        assert result[f'tpir@fpir{fpir}'] == pytest.approx((mated >= threshold).mean())
        accepted = (unmated >= result[f'threshold@fpir{fpir}'] + 1e-6).mean()
        assert accepted == (unmated >= threshold).mean() <= fpir
    # A probe that is not found scores below everything, but sklearn wants finite scores.
    scores = np.concatenate([np.maximum(mated, -9), unmated])
    assert result['auc'] == pytest.approx(
        roc_auc_score(np.repeat([1, 0], [len(mated), len(unmated)]), scores)
    )


def test_rank_matters():
    problem = draw(0)
    strict = open_set_identification(*problem, rank=1)
    lenient = open_set_identification(*problem, rank=12)
    assert strict['tpir@fpir0.3'] < lenient['tpir@fpir0.3']
    assert strict['threshold@fpir0.3'] == lenient['threshold@fpir0.3']


def test_templates_differ():
    raw = draw(1, unit=False)
    unit = draw(1)
    by_template = [
        open_set_identification(*unit, template='mean_unit')['auc'],
        open_set_identification(*raw, template='mean_raw')['auc'],
        open_set_identification(*unit, template='none')['auc'],
    ]
    assert len(set(by_template)) == 3


def hand_made(unmated_scores, mated_scores=(0.75, 0.65)):
    """One person at (1, 0), so that the first coordinate of a probe is its score."""

    def at(scores):
        scores = np.asarray(scores, dtype=float)
        return np.stack([scores, np.sqrt(1 - scores**2)], axis=1)

    return [[1.0, 0.0]], [1], at(mated_scores), [1] * len(mated_scores), at(unmated_scores)


def test_exact_threshold_is_the_lowest_that_keeps_the_target():
    problem = hand_made(np.arange(10) / 10, (0.75, 0.65, 0.61, -0.1))
    result = open_set_identification(*problem, fpirs=(1.0, 0.35, 0.3, 0.2, 0.1))
    # Just above the score that would be one too many, so that 0.65 and 0.61 pass at 0.3.
    thresholds = [result[f'threshold@fpir{f}'] for f in ('1', 0.35, 0.3, 0.2, 0.1)]
    assert thresholds == pytest.approx([-0.1, 0.6, 0.6, 0.7, 0.8])
    rates = [result[f'tpir@fpir{f}'] for f in ('1', 0.35, 0.3, 0.2, 0.1)]
    assert rates == [1.0, 0.75, 0.75, 0.25, 0.0]


def test_mated_scores_between_two_unmated_ones_count():
    # 447 unmated probes at 0.2: 89 may be accepted; one mated probe lies between the 90th and
    # the 89th, and counts.
    unmated = np.linspace(0.9, 0.1, 447)
    mated = np.array([(unmated[88] + unmated[89]) / 2, 0.0])
    assert open_set_rates(mated, unmated, fpirs=(0.2,))['tpir@fpir0.2'] == 0.5


def test_ties_of_unmated_scores_are_accepted_together_or_not_at_all():
    # At 0.3 five of ten would be accepted, which is more than three.
    result = open_set_identification(
        *hand_made([0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1], (0.5, 0.6)),
        fpirs=(0.5, 0.3),
    )
    assert result['threshold@fpir0.5'] == pytest.approx(0.1)
    assert result['tpir@fpir0.5'] == 1.0
    assert result['threshold@fpir0.3'] == pytest.approx(0.5)
    assert result['tpir@fpir0.3'] == 0.5


def test_target_that_cannot_be_met_puts_the_threshold_just_above_everything():
    # The mated probe of score 0.8 ties with the highest unmated one and must not pass.
    result = open_set_identification(*hand_made([0.8, 0.1], (0.8, 0.9)), fpirs=(0.01,))
    highest = float(np.float32(0.8))
    assert highest < result['threshold@fpir0.01'] < highest + 1e-9
    assert result['tpir@fpir0.01'] == 0.5


def test_tie_with_the_highest_refused_score_is_refused():
    result = open_set_identification(*hand_made([0.8, 0.1], (0.8, 0.1)), fpirs=(0.5,))
    assert result['tpir@fpir0.5'] == 0.5
    assert result['threshold@fpir0.5'] == np.nextafter(np.float64(np.float32(0.1)), 1)


def test_area_counts_ties_half():
    # 0.6 beats 0.1 and ties with 0.6; 0.0 beats nothing.
    result = open_set_identification(*hand_made([0.6, 0.1], (0.6, 0.0)))
    assert result['auc'] == pytest.approx((1.5 + 0) / 4)


def test_grid_rule_equals_plain_loops():
    problem = draw(3, num_unmated=40)
    fpirs = (0.3, 0.21, 0.1, 0.01)
    result = open_set_identification(*problem, fpirs=fpirs, rank=3, threshold_rule='grid')
    mated, unmated = slow_scores(*problem, 3, 'mean_unit')
    grid = [
        unmated.min() + step * (unmated.max() - unmated.min()) / 1000 for step in range(1000)
    ] + [unmated.max()]
    share = [(unmated >= t).mean() for t in grid]
    for fpir in fpirs:
        # Nearest FPIR, then the lower one, then the lower threshold.
        step = min(range(1001), key=lambda i: (round(abs(share[i] - fpir), 9), share[i], grid[i]))
        assert result[f'threshold@fpir{fpir}'] == pytest.approx(grid[step], abs=1e-6)
        assert result[f'tpir@fpir{fpir}'] == pytest.approx((mated >= grid[step]).mean())
    found = [(mated >= t).mean() for t in grid]
    area = sum(
        (found[i] + found[i + 1]) / 2 * (share[i] - share[i + 1]) for i in range(len(grid) - 1)
    )
    assert result['auc'] == pytest.approx(area)


def test_grid_rule_may_exceed_the_target():
    # FPIR 0.3 is nearest to 0.26; the lowest step that has it is just above the score 0.6.
    problem = hand_made(np.arange(10) / 10)
    grid = open_set_identification(*problem, fpirs=(0.26,), threshold_rule='grid')
    assert 0.6 < grid['threshold@fpir0.26'] < 0.602
    assert grid['tpir@fpir0.26'] == 1.0
    exact = open_set_identification(*problem, fpirs=(0.26,))
    assert exact['threshold@fpir0.26'] == pytest.approx(0.7)
    assert exact['tpir@fpir0.26'] == 0.5


def test_grid_rule_prefers_the_lower_of_two_equally_near_rates():
    # 0.3125 lies midway between 2/8 and 3/8; the lowest step that has 2/8 is just above 0.5.
    problem = hand_made(np.arange(8) / 10)
    grid = open_set_identification(*problem, fpirs=(0.3125,), threshold_rule='grid')
    assert 0.5 < grid['threshold@fpir0.3125'] < 0.502


def test_target_is_met_in_spite_of_binary_fractions():
    # 0.29 * 100 is below 29 in binary; 29 of 100 may be accepted all the same.
    assert 0.29 * 100 < 29
    result = open_set_identification(*hand_made(np.arange(100) / 100), fpirs=(0.29,))
    assert result['threshold@fpir0.29'] == pytest.approx(0.70)


def test_distractors_of_the_gallery_are_templates_of_their_own():
    # Averaged, the two distractors would point to (0, 1) and match the unmated probe perfectly.
    gallery = np.array([[1.0, 0.0], [0.6, 0.8], [-0.6, 0.8]])
    result = open_set_identification(
        gallery, [3, -100, -100], [[1.0, 0.0]], [3], [[0.0, 1.0]], fpirs=(1.0,)
    )
    assert result['threshold@fpir1'] == pytest.approx(0.8)


def test_raw_mean_weighs_by_length():
    gallery = np.array([[9.0, 0.0], [0.0, 1.0]])
    problem = gallery, [1, 1], [[5.0, 0.0]], [1], [[3.0, 0.0]]
    result = open_set_identification(*problem, fpirs=(1.0,), template='mean_raw')
    assert result['threshold@fpir1'] == pytest.approx(9 / np.sqrt(82))
    with pytest.raises(ValueError, match='gallery: row 0 is not of length one'):
        open_set_identification(*problem, template='mean_unit')


def test_block_size_and_library_do_not_matter():
    problem = draw(7)
    expected = open_set_identification(*problem)
    assert open_set_identification(*problem, block_size=5) == pytest.approx(expected, abs=1e-7)
    tensors = [torch.as_tensor(array) for array in problem]
    assert open_set_identification(*tensors) == expected
    assert list(expected) == [
        f'{name}@fpir{fpir}' for fpir in (0.3, 0.2, 0.1, 0.01) for name in ('tpir', 'threshold')
    ] + ['auc']
    assert all(type(value) is float for value in expected.values())


@pytest.mark.filterwarnings('error')
def test_memory_mapped_embeddings(tmp_path):
    problem = draw(8)
    np.save(tmp_path / 'gallery.npy', problem[0])
    on_disk = np.load(tmp_path / 'gallery.npy', mmap_mode='r')
    assert open_set_identification(on_disk, *problem[1:]) == open_set_identification(*problem)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(mated_ids=[1, 9]), r'mated_ids: 1 of 2 have no mate in the gallery, first row 1'),
        (dict(mated_ids=[1]), 'mated_ids must have 2 entries'),
        (dict(unmated=[[1.0, 0.0, 0.0]]), 'gallery and unmated must have the same embedding size'),
        (dict(unmated=np.ones((0, 2))), 'unmated is empty'),
        (dict(unmated=[[2.0, 0.0]]), 'unmated: row 0 is not of length one'),
        (dict(fpirs=(1.5,)), r'fpirs must lie in \[0, 1\]'),
        (dict(template='median'), 'template'),
        (dict(threshold_rule='nearest'), 'threshold_rule'),
        (dict(rank=0), 'rank'),
        (
            dict(gallery=[[1.0, 0.0], [-1.0, 0.0]], gallery_ids=[1, 1]),
            'gallery: the embeddings of identity 1 cancel out',
        ),
    ],
)
def test_bad_input_is_named(change, message):
    good = dict(
        gallery=np.eye(2), gallery_ids=[1, 2], mated=np.eye(2), mated_ids=[1, 2], unmated=np.eye(2)
    )
    with pytest.raises(ValueError, match=message):
        open_set_identification(**(good | change))
