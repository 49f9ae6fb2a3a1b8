"""Rules of other projects' code, by plain loops."""

import math

import numpy as np
import pytest

from mmvlr.evaluation.functional import closed_set_identification, open_set_rates


@pytest.mark.parametrize('tied', [False, True])
def test_average_precision(tied):
    rng = np.random.default_rng(0)
    gallery, probe = rng.standard_normal((60, 4)), rng.standard_normal((20, 4))
    if tied:
        gallery, probe = np.sign(gallery), np.sign(probe)
    gallery, probe = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (gallery, probe))
    gallery, probe = gallery.astype(np.float32), probe.astype(np.float32)
    owner, person = rng.integers(8, size=60), rng.integers(8, size=20)
    expected = dict(torchmetrics=[], pml=[])
    for row, who in zip(probe, person, strict=True):
        score = (gallery * row).sum(axis=1)
        # Ties count against the probe: mates come after others of the same score.
        order = sorted(range(60), key=lambda i, s=score, w=who: (-s[i], owner[i] == w))
        hit = owner[order] == who
        precision = [hit[: place + 1].mean() for place in np.flatnonzero(hit)]
        inside = sum(np.flatnonzero(hit) < hit.sum())
        expected['torchmetrics'].append(np.mean(precision))
        expected['pml'].append(sum(precision[:inside]) / hit.sum())
    for rule, values in expected.items():
        found = closed_set_identification(gallery, owner, probe, person, map_rule=rule)
        assert found['mAP'] == pytest.approx(np.mean(values), abs=1e-6)
    with pytest.raises(ValueError, match='map_rule'):
        closed_set_identification(gallery, owner, probe, person, map_rule='voc')


@pytest.mark.parametrize('fpir', [0.01, 0.1, 0.25, 1])
def test_threshold_is_the_nth_score(fpir):
    rng = np.random.default_rng(1)
    mated, unmated = np.round(rng.random(50), 2), np.round(rng.random(37), 2)
    found = open_set_rates(mated, unmated, (fpir,), 'insightface')
    threshold = sorted(unmated)[-math.ceil(37 * fpir)]
    assert found[f'tpir@fpir{fpir:g}'] == (mated > threshold).mean()
    assert found[f'threshold@fpir{fpir:g}'] == np.nextafter(threshold, 2)
    assert found['auc'] == open_set_rates(mated, unmated, (fpir,))['auc']
