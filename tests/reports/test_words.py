"""What pages say of their figures: right in every case, also where it does not flatter."""

import pytest

from mmvlr.evaluation.systems import Score
from mmvlr.reports import Metric
from mmvlr.reports.words import describe_judges, describe_methods, describe_run

AREAS = dict(ri=0.154, ers=0.224, norm=0.141)


def make_metrics(areas=AREAS, **others):
    metrics = {'rank1': Metric('rank-1', 0.735, 0.685, 0.782)}
    for name, area in areas.items():
        metrics[f'discard_auc_{name}'] = Metric('', area, area - 0.04, area + 0.04, unit='number')
    return metrics | others


def describe(metrics, chance=0.252, error=0.265, highest=()):
    return describe_run(metrics, chance, error, highest)


@pytest.mark.parametrize(
    'low, high, stands',
    [
        (-0.099, -0.042, 'RI predicts errors better than norm'),
        (-0.006, 0.035, 'RI and norm are not distinguishable'),
        (0.0, 0.02, 'RI and norm are not distinguishable'),
        (-0.02, 0.0, 'RI and norm are not distinguishable'),
        (0.01, 0.035, 'RI predicts errors worse than norm'),
        (float('nan'), float('nan'), 'RI and norm are not distinguishable'),
    ],
)
def test_ri_against_a_rival_goes_by_the_interval(low, high, stands):
    difference = Metric('', (low + high) / 2, low, high, unit='number', lower_is_better=True)
    sentences = describe(make_metrics(discard_ri_minus_norm=difference))
    (sentence,) = [text for text in sentences if 'norm' in text and 'difference' in text]
    assert sentence.startswith(stands)
    assert (f'{low:.3f} to {high:.3f}' if low == low else 'unknown') in sentence


@pytest.mark.parametrize('value, ahead', [(0.013, 'norm'), (-0.013, 'RI'), (0.0, 'neither')])
def test_who_is_ahead_within_chance_is_named(value, ahead):
    difference = Metric('', value, -0.03, 0.03, unit='number')
    assert f', {ahead} is ahead' in ' '.join(
        describe(make_metrics(discard_ri_minus_norm=difference))
    )


@pytest.mark.parametrize(
    'area, said', [(0.2, ''), (0.25, 'not distinguishable'), (0.3, 'worse than')]
)
def test_ri_against_chance(area, said):
    sentences = [s for s in describe(make_metrics(dict(ri=area))) if 'guessing' in s]
    assert len(sentences) == bool(said) and said in ''.join(sentences)


@pytest.mark.parametrize('half, falls', [(0.16, True), (0.265, False), (0.4, False)])
def test_error_of_the_better_half(half, falls):
    text = ' '.join(describe(make_metrics(error_best_half=Metric('', half))))
    assert ('does not fall' not in text) == falls and f'{100 * half:.1f}' in text and '26.5' in text


@pytest.mark.parametrize(
    'highest, said',
    [
        ([True] * 3, 'none are identified wrongly.'),
        ([True, False, True], '1 is identified wrongly.'),
        ([False, False, True], '2 are identified wrongly; the very highest is among them.'),
    ],
)
def test_faces_of_highest_ri(highest, said):
    assert f'Of the 3 probes of highest RI, {said}' in describe(make_metrics(), highest=highest)


def test_best_judge_chance_and_ui_are_named():
    text = ' '.join(
        describe(make_metrics(ui_auc_ri=Metric('', 0.949), ui_auc_norm=Metric('', 0.5)))
    )
    assert 'norm predicts errors best' in text
    assert 'norm 0.141, RI 0.154, ERS 0.224; chance 0.252' in text
    assert 'RI 94.9' in text and 'norm 50.0' in text


@pytest.mark.parametrize(
    'value, low, stands',
    [
        (0.735, 0.685, ', ahead of'),
        (0.43, 0.40, ', not clearly ahead of'),
        (0.41, 0.40, ', not ahead of'),
        (0.5, None, ', ahead of'),
    ],
)
def test_main_rate_against_plain_pixels(value, low, stands):
    high = None if low is None else value + 0.05
    (sentence,) = describe({'rank1': Metric('rank-1', value, low, high, {'pixels': 0.415})})
    assert sentence.startswith(f'Rank-1: {100 * value:.1f}')
    assert f'{stands} pixels (41.5' in sentence


def test_missing_numbers_leave_out_their_sentence():
    assert describe({}) == []
    (sentence,) = describe({'tpir20@fpir0.1': Metric('TPIR20 at FPIR 0.1', 0.2)})
    assert sentence.startswith('TPIR20 at FPIR 0.1: 20.0')
    metrics = {'rank1': Metric('rank-1', 0.5), 'mean_rank1': Metric('mean', 0.4)}
    assert describe(metrics)[0].startswith('Mean: 40.0')


def test_methods_and_judges():
    scores = dict(
        riface=Score(0.33, best=True), arcface=Score(0.32, p=0.4), mine=Score(0.1, p=0.01)
    )
    text = describe_methods('TinyFace', {'rank1': scores})
    assert 'RI-Face is first in rank-1 (33.0 %)' in text and text.endswith(': ArcFace.')
    lower = dict(unit='number', lower_is_better=True)
    areas = dict(
        ERS=Score(0.6, p=0.001, **lower),
        RI=Score(0.5, p=0.3, **lower),
        norm=Score(0.4, best=True, **lower),
    )
    text = describe_judges('TinyFace', areas)
    assert 'norm predicts errors best (area 0.400)' in text
    assert 'from it: RI. RI is number 2 of 3 (0.500).' in text
    assert 'number' not in describe_judges('TinyFace', dict(RI=Score(0.5, best=True, **lower)))
