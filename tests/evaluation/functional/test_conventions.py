"""Conventions of published work: against values of that work's own code, and by plain loops."""

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from mmvlr.evaluation.functional import (
    CONVENTIONS,
    discard_areas,
    error_versus_discard,
    find_conventions,
    measure_harm,
    rank_consistency,
)

# What the code of CR-FIQA (erc.py), dasec (edc.py) and RCE (rce.py) gave for ``draw(levels)`` at
# FMR 0.01. Which of tied pairs CR-FIQA discards, and how RCE orders tied margins, follows from
# sorts of NumPy that are not stable, so these are without ties.
PUBLISHED = {
    61: dict(
        cr_fiqa=0.29279515234395975,
        fraunhofer=120.49174789067895,
        dasec=0.010744525630297186,
        dasec_best=0.009172335919405404,
        rce0=0.1687135315365379,
        rce3=0.09073493420900824,
        rce_code0=0.11011392053348157,
        rce_code3=0.10025048893428112,
    ),
    6: dict(
        dasec=0.009345794392523364,
        dasec_best=0.00825399598218185,
        rce_code0=0.10087524312308971,
        rce_code3=0.052392942224223416,
    ),
}


def draw(levels):
    """Pairs of 60 images whose qualities have ``levels`` values; with few, scores are tied too."""
    number = np.arange(240)
    pairs = np.stack([number * 7 % 60, (number * 11 + 3) % 60], axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    number = np.arange(len(pairs))
    same = number * 5 % 9 < 4
    quality = np.floor((np.arange(60) * 37 % 61) / 61 * levels) / levels
    noise = ((number * 7919 % 1009) / 1009 - 0.5) * (2 - quality[pairs].min(axis=1))
    score = np.round(np.where(same, 0.45, 0.1) + 0.35 * noise, 6 if levels == 61 else 2)
    return pairs, score, same, quality


@pytest.mark.parametrize('levels', PUBLISHED)
def test_equals_published_code(levels):
    pairs, score, same, quality = draw(levels)
    found = discard_areas(*quality[pairs].T, score, same, fmr=0.01)
    images, harm, margin = measure_harm(pairs, score, same, fmr=0.01)
    for alpha in (0, 3):
        found[f'rce{alpha}'] = rank_consistency(quality[images], harm, margin, alpha)
        found[f'rce_code{alpha}'] = rank_consistency(quality[images], harm, alpha=alpha)
    assert set(found) == set(CONVENTIONS)
    for name, value in PUBLISHED[levels].items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize('levels', [61, 6])
def test_nearest_threshold_by_plain_loops(levels):
    pairs, score, same, quality = draw(levels)
    quality = quality[pairs].min(axis=1)
    curve = error_versus_discard(
        quality, quality, score, same, 0.01, threshold='nearest', ties='order'
    )
    for step, fnmr in enumerate(curve['fnmr']):
        left = np.argsort(quality)[len(quality) * step // 20 :]
        fmr = {t: (score[left][~same[left]] >= t).mean() for t in sorted(score[left])}
        threshold = min(fmr, key=lambda t, fmr=fmr: abs(fmr[t] - 0.01))
        assert fnmr == pytest.approx((score[left][same[left]] <= threshold).mean(), abs=1e-12)


@pytest.mark.parametrize('levels', [61, 6])
def test_every_quality_is_a_step(levels):
    pairs, score, same, quality = draw(levels)
    quality = quality[pairs].min(axis=1)
    curve = error_versus_discard(
        quality, quality, score, same, 0.2, False, threshold='quantile', steps='values'
    )
    wrong, own = score[same] < np.quantile(score[same], 0.2), quality[same]
    levels = np.unique(own)
    assert curve['discard'].tolist() == [(own < q).mean() for q in levels] + [1.0]
    expected = [wrong[own >= q].mean() for q in levels] + [0.0]
    np.testing.assert_allclose(curve['fnmr'], expected, atol=1e-12)
    # The area of a step function, by a fine grid.
    grid = (np.arange(300_000) + 0.5) / 1e6
    place = np.searchsorted(curve['discard'], grid, side='right') - 1
    assert curve['pauc'] == pytest.approx(curve['fnmr'][place].sum() / 1e6, abs=1e-6)


def test_froq_divides_by_the_start():
    pairs, score, same, quality = draw(61)
    curve = error_versus_discard(*quality[pairs].T, score, same, 0.01)
    found = discard_areas(*quality[pairs].T, score, same, ['froq', 'clib_fiqa'], 0.01)
    assert found == dict.fromkeys(found, pytest.approx(curve['pauc'] / curve['fnmr'][0]))


def test_correlation_is_spearmans_without_weights_and_ties():
    rng = np.random.default_rng(0)
    quality, harm = rng.random((2, 50))
    assert rank_consistency(quality, harm) == pytest.approx(-spearmanr(quality, harm).statistic)
    assert rank_consistency(-harm, harm, alpha=3) == pytest.approx(1)
    assert rank_consistency(harm, harm) == pytest.approx(-1)
    assert np.isnan(rank_consistency([1], [0]))


def test_correlation_by_its_formula():
    rng = np.random.default_rng(1)
    quality, harm, margin = rng.integers(4, size=(3, 30)).astype(float)
    margin[:3] = -np.inf
    rows = zip(harm, margin, strict=True)
    by_harm = rankdata([h * 1e6 - (m if m > -np.inf else -1e3) for h, m in rows])
    weight = (by_harm / 30) ** 3
    error = sum(weight * (by_harm - rankdata(-quality)) ** 2)
    expected = 1 - 6 * error / ((30**2 - 1) * sum(weight))
    assert rank_consistency(quality, harm, margin, 3) == pytest.approx(expected)


def test_harm_by_plain_loops():
    pairs, score, same, _ = draw(6)
    images, harm, margin = measure_harm(pairs, score, same, 0.05)
    impostor = score[~same]
    threshold = min(np.unique(impostor), key=lambda t: (abs((impostor >= t).mean() - 0.05), t))
    for image, h, m in zip(images, harm, margin, strict=True):
        own = (pairs == image).any(axis=1)
        assert h == ((score[own] >= threshold) != same[own]).sum()
        genuine, other = score[own & same], score[own & ~same]
        both = len(genuine) and len(other)
        assert m == (genuine.min() - other.max() if both else -np.inf)


@pytest.mark.parametrize(
    'change, field',
    [
        (dict(threshold='best'), 'threshold'),
        (dict(ties='first'), 'ties'),
        (dict(steps='all'), 'steps'),
        (dict(steps='values', rethreshold=True), 'steps'),
    ],
)
def test_wrong_options(change, field):
    with pytest.raises(ValueError, match=field):
        error_versus_discard([1, 2], [1, 2], [0.1, 0.9], [0, 1], **change)


def test_unknown_convention():
    assert find_conventions('all') == tuple(CONVENTIONS)
    assert find_conventions('dasec') == ('dasec',)
    with pytest.raises(ValueError, match='nobody'):
        find_conventions(['dasec', 'nobody'])
    with pytest.raises(ValueError, match='pairs'):
        measure_harm([1, 2], [0.1, 0.9], [0, 1])
