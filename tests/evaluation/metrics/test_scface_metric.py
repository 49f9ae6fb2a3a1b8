"""SCface by plain loops: rank-k at each distance and their mean."""

import numpy as np
import pytest

from mmvlr.evaluation.functional import bootstrap_interval, cmc_curve
from mmvlr.evaluation.metrics import SCfaceMetric

from .faces import (
    check_intervals,
    discard_area,
    evaluate,
    make_faces,
    of,
    ranks_and_precisions,
    saved,
)


@pytest.fixture
def faces():
    """12 mugshots, probes of 8 of them at three distances, and roles SCface does not have.

    The distances differ in their number of probes, so that the mean over distances is not the
    mean over probes.
    """
    rng = np.random.default_rng(0)
    rows = [('gallery', person, 0) for person in range(12)]
    for person in range(8):
        rows += [('probe', person, d) for d, num in ((1, 5), (2, 4), (3, 2)) for _ in range(num)]
    rows += [('unmated', 20 + i, 1) for i in range(5)] + [('pair', 3, 0)] * 4
    centers = rng.standard_normal((25, 8))
    return make_faces(rows, centers, lambda role, person, d: {1: 1.6, 2: 1.1}.get(d, 0.6), rng)


def expected_rates(faces, ranks):
    probes = of(faces, 'probe')
    found, precisions = ranks_and_precisions(of(faces, 'gallery'), probes)
    distance = np.array([probe['distance'] for probe in probes])
    result = {}
    for k in ranks:
        rates = [np.mean([r <= k for r in found[distance == d]]) for d in (1, 2, 3)]
        result |= {f'scface/d{d}_rank{k}': rate for d, rate in zip((1, 2, 3), rates, strict=True)}
        result[f'scface/mean_rank{k}'] = sum(rates) / 3
    result['scface/mAP'] = precisions.mean()
    for name, key in (('ri', 'recognizability'), ('norm', 'embedding_norm')):
        quality = [probe[key].item() for probe in probes]
        result[f'scface/discard_auc_{name}'] = discard_area(quality, found != 1)
    return result


def test_equals_plain_loops(faces):
    expected = expected_rates(faces, (1, 3))
    assert evaluate(SCfaceMetric(ranks=(1, 3)), faces) == pytest.approx(expected, abs=1e-6)
    assert expected['scface/d1_rank1'] < expected['scface/d2_rank1'] < expected['scface/d3_rank1']
    assert set(evaluate(SCfaceMetric(), faces)) == set(expected_rates(faces, (1,)))
    assert 'scface/mean_rank1' in expected


def test_table_of_a_file_gives_the_same(faces, tmp_path):
    metric = SCfaceMetric(ranks=(1, 3), intervals=True, num_resamples=20)
    assert metric.report(saved(faces, tmp_path / 'faces.npz')) == evaluate(metric, faces)


def test_intervals(faces):
    full = check_intervals(SCfaceMetric, faces)
    probes = of(faces, 'probe')
    found, _ = ranks_and_precisions(of(faces, 'gallery'), probes)
    values = np.stack([[probe['distance'] for probe in probes], found == 1], axis=1)

    def at_distance_2(kept):
        return kept[kept[:, 0] == 2, 1].mean()

    people = [probe['identity'] for probe in probes]
    alone = bootstrap_interval(values, people, at_distance_2, num_resamples=200)
    assert full['scface/d2_rank1_low'] == pytest.approx(alone.low)
    assert full['scface/d2_rank1_high'] == pytest.approx(alone.high)


@pytest.mark.filterwarnings('error')
def test_resamples_without_a_distance_are_left_out(faces):
    # Only two of eight people were seen at distance 3: a tenth of the resamples has neither.
    lost = {f['sample_idx'] for f in of(faces, 'probe') if f['distance'] == 3 and f['identity'] > 1}
    kept = [f for f in faces if f['sample_idx'] not in lost]
    kept = [{**face, 'sample_idx': index} for index, face in enumerate(kept)]
    found = evaluate(SCfaceMetric(intervals=True, num_resamples=100), kept)
    assert all(np.isfinite(value) for value in found.values())


def test_curves(faces):
    metric = SCfaceMetric(curves=True, num_resamples=50)
    found = evaluate(metric, faces)
    assert set(metric.drawn) == {'cmc', 'discard'}
    curves = metric.drawn['cmc']
    assert list(curves) == ['all probes', 'D1', 'D2', 'D3']
    probes = [probe for probe in of(faces, 'probe') if probe['distance'] == 1]
    ranks, _ = ranks_and_precisions(of(faces, 'gallery'), probes)
    people = np.array([probe['identity'] for probe in probes])
    expected = cmc_curve(ranks, 12, people, 50)
    for name in ('x', 'y', 'low', 'high'):
        np.testing.assert_array_equal(getattr(curves['D1'], name), getattr(expected, name))
    for d in (1, 2, 3):
        assert curves[f'D{d}'].y[0] == found[f'scface/d{d}_rank1']
    assert curves['all probes'].y[-1] == 1.0
    assert set(metric.drawn['discard']) == {'ri', 'norm'}
    # Nobody asked for curves, nobody waits for them.
    metric = SCfaceMetric()
    evaluate(metric, faces)
    assert metric.drawn == {}


def test_missing_distance(faces):
    for face in faces:
        face.pop('distance')
    with pytest.raises(ValueError, match='SCfaceMetric: there are probes without a distance'):
        evaluate(SCfaceMetric(), faces)


def test_one_probe_without_distance(faces, tmp_path):
    table = saved(faces, tmp_path / 'faces.npz')
    table.columns['distance'][np.flatnonzero(table.role == 'probe')[3]] = 0
    with pytest.raises(ValueError, match='probes without a distance'):
        SCfaceMetric().report(table)


@pytest.mark.parametrize('role', ['gallery', 'probe'])
def test_missing_role(faces, role):
    rest = [face for face in faces if face['role'] != role]
    rest = [{**face, 'sample_idx': index} for index, face in enumerate(rest)]
    with pytest.raises(ValueError, match=f'SCfaceMetric: the test set has no face of role {role}'):
        evaluate(SCfaceMetric(), rest)
