"""The page that compares methods."""

import base64
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mmvlr.evaluation.systems import Score
from mmvlr.reports import (
    ActivationRow,
    ComparisonData,
    ScoreTable,
    draw_discard,
    draw_quality,
    overlay_attention,
    render_comparison,
    render_svg,
)

from .conftest import make_table
from .pages import DASH, cut_section, read_rows


@pytest.fixture
def page(comparison_page):
    return comparison_page


def test_cells_hold_mean_interval_seeds_and_mark(page):
    text = cut_section(page, 'recognition')
    assert read_rows(text)[:5] == [
        ['Method', 'rank-1 ↑'],
        ['method 0', '81.2|79.0-83.0|3 seeds: 80.0-82.0'],
        ['method 1', '≈80.0|78.0-82.0|3 seeds: 77.0-81.0'],
        ['method 2', '40.0|38.0-42.0'],
        ['method 3', DASH],
    ]
    marks = re.findall(r'<td class="num (\w+)"', text)
    assert marks[:3] == ['best', 'near', 'worse']
    assert 'title="p = 0.05 against the best"' in text and '<p>Fine-tuned.</p>' in text
    text = cut_section(page, 'discard')
    assert read_rows(text[text.index('Areas') :]) == [['Method', 'rank-1 ↓'], ['method 0', '0.123']]


@pytest.mark.parametrize(
    'scores, present, absent',
    [
        ([Score(0.5, best=True)], ['Bold'], ['≈', 'Without a mark', '95 %', 'seeds']),
        ([Score(0.5, p=0.5)], ['≈ cannot be told', 'p ≥ 0.05'], ['Bold', 'Without a mark']),
        ([Score(0.5, p=0.01)], ['is worse than the best (p &lt; 0.05).'], ['Bold', '≈', ' or not']),
        ([Score(0.5)], ['figure is not tested against it.'], ['worse', 'Bold']),
        ([Score(0.5, p=0.01), Score(0.5)], ['(p &lt; 0.05) or not tested against it.'], ['≈']),
        ([Score(0.5, p=float('nan'))], ['not tested'], ['worse']),
        ([Score(0.5, 0.4, 0.6)], ['below a figure: 95 % interval.'], ['seeds']),
        ([Score(0.5, num_seeds=2)], ['Below a figure: lowest and highest'], ['95 %']),
        (
            [Score(0.5, 0.4, 0.6, 0.4, 0.6, 2)],
            ['95 % interval; second: lowest and highest over the seeds.'],
            ['Below'],
        ),
    ],
)
def test_only_marks_that_occur_are_explained(scores, present, absent):
    page = render_comparison(ComparisonData('t', recognition=[make_table(*scores)]))
    how = re.search('<p class="how">(.*?)</p>', cut_section(page, 'recognition'), re.DOTALL)[1]
    how = ' '.join(how.split())
    for text in present:
        assert text in how
    for text in absent:
        assert text not in how


def test_seeds_without_a_range_and_unknown_figures():
    scores = [Score(0.5, num_seeds=2), Score(float('nan'), float('nan'), 0.5)]
    page = render_comparison(ComparisonData('t', ablation=[make_table(*scores)]))
    assert [row[1] for row in read_rows(cut_section(page, 'ablation'))[1:]] == [
        '50.0|2 seeds',
        DASH,
    ]


def test_quality_figures(comparison_data, page):
    text = cut_section(page, 'quality')
    assert text.count('<svg') == 2
    sets = comparison_data.quality['TinyFace']['RI']
    name = 'Histogram of RI over probe, gallery, ui'
    assert render_svg(draw_quality(sets, 'RI'), name) in text
    assert text.index('TinyFace') < text.index('SCface') < text.index('AUC against UI')
    assert 'left out: none.' in text
    # Pairs: (1, 0) above, (1, 1) tie, (2, 0) and (2, 1) above.
    assert '<b>0.875</b>' in text
    assert read_rows(text)[1][1].startswith('81.2')


def test_discard_figures(comparison_data, page):
    text = cut_section(page, 'discard')
    assert text.count('<svg') == 2
    curves, bounds = comparison_data.discard['TinyFace'], comparison_data.discard_bounds['TinyFace']
    name = 'Rank-1 error over discarded share for RI, norm'
    assert render_svg(draw_discard(curves, bounds), name) in text
    assert 'Bands are 95 % intervals' in text and '0.200' in text and '0.380' in text


def test_ten_measures_stay_distinguishable(comparison_data):
    bounds = comparison_data.discard_bounds['TinyFace']
    names = ('RI', 'ERS', 'norm', 'CR-FIQA', 'SER-FIQ', 'max', 'size', 'sharp', 'light', 'BRISQUE')
    curves = dict.fromkeys(names, comparison_data.discard['TinyFace']['RI'])
    data = replace(comparison_data, discard={'TinyFace': curves}, discard_tables=[])
    text = cut_section(render_comparison(data), 'discard')
    keys = re.findall(r'style="(border-color:[^"]*)"', text)
    assert len(keys) == len(set(keys)) == len(names) + len(bounds)
    # Ten bands on top of one another would hide the curves.
    assert 'Bands' not in text
    bare = {name: replace(curve, low=None, high=None) for name, curve in curves.items()}
    name = f'Rank-1 error over discarded share for {", ".join(names)}'
    assert render_svg(draw_discard(bare, bounds), name) in text


def test_hard_faces_stand_side_by_side(page):
    text = cut_section(page, 'hard_faces')
    assert text.count('class="sides"') == 1
    first, second = text.split('lowest RI')
    assert 'lowest ERS' in first
    assert (first.count('frame right'), first.count('frame wrong')) == (1, 1)
    assert (second.count('frame right'), second.count('frame wrong')) == (0, 2)
    assert 'id="pixels"' in page


def test_activation_maps_stand_in_columns_of_methods(comparison_data, page):
    text = cut_section(page, 'activation')
    assert 'Grad-CAM of the cosine.' in text and 'meaningless' not in text
    rows = re.findall('<tr>.*?</tr>', text, re.DOTALL)
    assert read_rows(rows[0]) == [['Face', 'RI-Face', 'ArcFace', 'AdaFace']]
    filled = [
        ['<img' in cell for cell in re.findall('<td>.*?</td>', row, re.DOTALL)] for row in rows[1:]
    ]
    assert filled == [[True, True, True, False], [True, False, False, True]]
    uris = re.findall(r'data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)', rows[1])
    shown, *overlays = (
        cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), 1)[..., ::-1] for uri in uris
    )
    row = comparison_data.activation[0]
    assert np.array_equal(shown, row.face)
    for overlay, values in zip(overlays, row.maps.values(), strict=True):
        assert np.abs(overlay.astype(int) - overlay_attention(row.face, values)).mean() < 8


def test_maps_of_a_method_that_peak_at_the_border_are_called_meaningless(comparison_data):
    corner, center = np.zeros((7, 7)), np.zeros((7, 7))
    corner[0, 0] = center[3, 3] = 1
    row = ActivationRow(comparison_data.activation[0].face, {'a.0': corner, 'fine': center})
    text = cut_section(render_comparison(ComparisonData('t', activation=[row] * 3)), 'activation')
    assert re.findall(r'maps of (\S+) are meaningless here: 3 of 3', text) == ['a.0']


def test_runs(page):
    text = cut_section(page, 'runs')
    assert '3 runs: 2 done, 1 failed; 1 h 03 min in all.' in text
    assert read_rows(text) == [
        ['run', 'status', 'time', 'seed', 'reason'],
        ['a', 'done', '1 h 02 min', '0', DASH],
        ['b', 'done', '1 min 01 s', '1', DASH],
        ['c', 'failed', DASH, DASH, 'collapsed'],
    ]
    assert '<th class="num">time' in text and '<th>reason' in text
    assert '<details open>' in text
    many = render_comparison(ComparisonData('t', runs=[{'run': str(i)} for i in range(99)]))
    assert '<details>' in cut_section(many, 'runs') and '99 runs.' in cut_section(many, 'runs')


def test_missing_and_details(page):
    assert '<li>CosFace on SCface: not run.</li>' in cut_section(page, 'missing')
    assert '12,345' in cut_section(page, 'details') and 'Nothing' not in cut_section(
        page, 'details'
    )


def test_parts_of_a_section_may_be_missing(comparison_data):
    data = replace(
        comparison_data,
        discard={},
        quality={},
        recognition=[ScoreTable('Empty', ['rank-1', 'rank-5'], {})],
        hard_faces={'TinyFace': {'RI': []}},
    )
    page = render_comparison(data)
    assert 'No method has figures.' in cut_section(page, 'recognition')
    assert 'No faces were given.' in cut_section(page, 'hard_faces')
    for key in ('quality', 'discard'):
        assert '<table class="scores">' in cut_section(page, key)
        assert '<svg' not in cut_section(page, key)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"'T'.*'m'.* 1 .* 2 "):
        ScoreTable('T', ['a', 'b'], {'m': [None]})
    for other in (Score(1.0, unit='number'), Score(1.0, lower_is_better=True)):
        with pytest.raises(ValueError, match=r"'TinyFace'.*'rank-1'"):
            make_table(Score(0.5), None, other)
    with pytest.raises(ValueError, match="'percent'"):
        Score(0.5, unit='percent')
