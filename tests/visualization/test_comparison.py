import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmvlr.visualization import (
    DARK,
    LIGHT,
    ActivationRow,
    ComparisonData,
    DiscardCurve,
    FaceCard,
    Score,
    ScoreRow,
    ScoreTable,
    comparison,
    comparison_html,
    discard_figure,
    figure_pixels,
    overlay_attention,
    quality_figure,
    render_comparison,
)

SECTIONS = list(comparison.SECTIONS)
DASH = '\u2013'
MEASURES = ('RI', 'ERS', 'norm', 'CR-FIQA', 'SER-FIQ', 'max', 'size', 'sharp', 'light', 'BRISQUE')


def face(rng, height=20, width=16):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def one_table(*scores, columns=('rank-1',), title='TinyFace', note=''):
    """Each score in a row of its own."""
    rows = [ScoreRow(f'method {index}', [score]) for index, score in enumerate(scores)]
    return ScoreTable(title, note, columns, rows)


@pytest.fixture(scope='module')
def data():
    rng = np.random.default_rng(0)
    shares = np.arange(0, 1, 0.1)
    errors = 0.4 * (1 - shares)
    curve = DiscardCurve(shares, errors, 0.2, errors - 0.02, errors + 0.02)
    best = Score(0.8125, 0.79, 0.83, 0.80, 0.82, 3, best=True)
    near = Score(0.8, 0.78, 0.82, 0.77, 0.81, 3, p=0.05)
    worse = Score(0.4, 0.38, 0.42, p=0.0499)
    area = Score(0.1234, unit='number', lower_is_better=True, best=True)
    right = FaceCard(face(rng), ('0.71',), 'right')
    wrong = FaceCard(face(rng), ('0.21',), 'wrong')
    return ComparisonData(
        title='Methods compared',
        subtitle='A test page',
        facts={'Data sets': ['TinyFace', 'SCface'], 'Seeds': 3},
        notes=['These faces are synthetic.'],
        command='python tools/analysis/compare_methods.py work_dirs',
        reading=['RI-Face is best.', 'AdaFace cannot be told from it.'],
        recognition=[one_table(best, near, worse, None, note='Fine-tuned.'), one_table(best)],
        ablation=[one_table(near, title='Parts')],
        quality={
            'TinyFace': {
                'RI': {key: rng.normal(size=50) for key in ('probe', 'gallery', 'ui')},
                'none': {'probe': np.full(3, np.nan)},
            },
            'SCface': {'ERS': {'probe': np.array([1.0, 2.0]), 'ui': np.array([0.0, 1.0])}},
        },
        quality_tables=[one_table(best, title='AUC against UI')],
        discard={'TinyFace': {'RI': curve, 'norm': curve}, 'SCface': {'RI': curve}},
        discard_bounds={'TinyFace': {'random': DiscardCurve(shares, np.array([0.4]), 0.38)}},
        discard_tables=[one_table(area, title='Areas')],
        hard_faces={'TinyFace': {'ERS': [right, wrong], 'RI': [wrong, wrong]}},
        activation=[
            ActivationRow(face(rng), {'RI-Face': rng.random((7, 7)), 'ArcFace': np.eye(7)}, ('A',)),
            ActivationRow(face(rng), {'AdaFace': np.zeros((7, 7))}),
        ],
        activation_note='Grad-CAM of the cosine.',
        runs=[
            {'run': 'a', 'status': 'done', 'seconds': 3725.4, 'seed': 0},
            {'run': 'b', 'status': 'done', 'seconds': 61, 'seed': 1},
            {'run': 'c', 'status': 'failed', 'reason': 'collapsed', 'seconds': None},
        ],
        missing=['CosFace on SCface: not run.'],
        details={'Bootstrap': {'resamples': 12345}, 'Nothing': {}},
    )


@pytest.fixture(scope='module')
def page(data):
    return comparison_html(data)


class Page(HTMLParser):
    """What the page refers to, which tags it uses, and whether they are balanced."""

    VOID = {'meta', 'link', 'img', 'source', 'input', 'br'}

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.stack = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.stack.append(tag)
        names = ('src', 'href', 'srcset', 'data', 'poster', 'action')
        self.links += [value for name, value in attrs if name in names]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def section(page, key):
    return re.search(f'<section id="{key}".*?</section>', page, re.DOTALL).group()


def rows_of(text):
    """Tables in a text, row by row: (class, text) of a cell, its small print after bars."""
    rows = []
    for row in re.findall('<tr>.*?</tr>', text, re.DOTALL):
        cells = re.findall('<t[hd](?: class="([^"]*)")?[^>]*>(.*?)</t[hd]>', row, re.DOTALL)
        plain = [
            (kind.removeprefix('num').strip(), re.sub('<.*?>', '', text.replace('<small>', '|')))
            for kind, text in cells
        ]
        rows.append([(kind, text.replace('\u202f', ' ').strip()) for kind, text in plain])
    return rows


def test_page_is_one_file_without_external_references(data, tmp_path):
    out = tmp_path / 'sub' / 'comparison.html'
    assert render_comparison(data, str(out)) == out
    assert [path.name for path in out.parent.iterdir()] == ['comparison.html']
    page = out.read_text(encoding='utf-8')
    parsed = Page(page)
    assert parsed.stack == []
    assert 'script' not in parsed.tags and 'iframe' not in parsed.tags
    assert parsed.links and all(link.startswith(('data:', '#')) for link in parsed.links)
    assert not re.search(r'@import|url\(|https?:', page)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page
    for key in SECTIONS:
        assert f'href="#{key}"' in page and f'<section id="{key}">' in page
    places = [page.index(f'<section id="{key}"') for key in SECTIONS]
    assert places == sorted(places)


def test_header(page):
    header = page[page.index('<header>') : page.index('</header>')]
    for text in ('Methods compared', 'A test page', 'TinyFace, SCface', 'synthetic', 'work_dirs'):
        assert text in header


def test_cells_hold_mean_interval_seeds_and_mark(page):
    rows = rows_of(section(page, 'recognition'))
    assert rows[0] == [('', 'Method'), ('', 'rank-1 ↑')]
    assert rows[1][1] == ('best', f'81.2 %|79.0 {DASH} 83.0|3 seeds: 80.0 {DASH} 82.0')
    assert rows[2][1] == ('near', f'≈80.0 %|78.0 {DASH} 82.0|3 seeds: 77.0 {DASH} 81.0')
    assert rows[3][1] == ('worse', f'40.0 %|38.0 {DASH} 42.0')
    assert rows[4] == [('', 'method 3'), ('', '&ndash;')]
    assert 'title="p = 0.05 against the best"' in section(page, 'recognition')
    assert '<p>Fine-tuned.</p>' in section(page, 'recognition')
    rows = rows_of(section(page, 'discard')[section(page, 'discard').index('Areas') :])
    assert rows == [[('', 'Method'), ('', 'rank-1 ↓')], [('', 'method 0'), ('best', '0.123')]]


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
    data = ComparisonData('t', recognition=[one_table(*scores)])
    how = re.search(
        '<p class="how">(.*?)</p>', section(comparison_html(data), 'recognition')
    ).group()
    for text in present:
        assert text in how
    for text in absent:
        assert text not in how


def test_seeds_without_a_range_and_unknown_figures():
    scores = [Score(0.5, num_seeds=2), Score(float('nan'), float('nan'), 0.5, num_seeds=1)]
    rows = rows_of(comparison_html(ComparisonData('t', ablation=[one_table(*scores)])))
    assert rows[1][1] == ('untested', '50.0 %|2 seeds')
    assert rows[2][1] == ('untested', DASH)


def embedded(image):
    """The figures of a <image>, the dark one first."""
    uris = re.findall(r'data:image/png;base64,([A-Za-z0-9+/=]+)', image)
    return [
        cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), 1)[..., ::-1] for uri in uris
    ]


def test_quality_figures(data, page):
    text = section(page, 'quality')
    images = re.findall('<image>.*?</image>', text, re.DOTALL)
    assert len(images) == 2
    for pixels, theme in zip(embedded(images[0]), (DARK, LIGHT), strict=True):
        drawn = figure_pixels(quality_figure(data.quality['TinyFace']['RI'], 'RI', theme, False))
        # The palette moves colors a little; the other theme or figure is far off.
        assert np.abs(pixels.astype(int) - drawn).mean() < 1
    assert text.index('TinyFace') < text.index('SCface') < text.index('AUC against UI')
    assert 'Without a finite value, and left out: none.' in text
    # Pairs: (1, 0) above, (1, 1) tie, (2, 0) and (2, 1) above.
    assert '<b>0.875</b>' in text
    assert rows_of(text)[1][1][1].startswith('81.2 %')


def test_discard_figures(data, page):
    text = section(page, 'discard')
    images = re.findall('<image>.*?</image>', text, re.DOTALL)
    assert len(images) == 2
    bounds = data.discard_bounds['TinyFace']
    for pixels, theme in zip(embedded(images[0]), (DARK, LIGHT), strict=True):
        drawn = figure_pixels(discard_figure(data.discard['TinyFace'], bounds, theme, False))
        assert np.abs(pixels.astype(int) - drawn).mean() < 1
    assert 'Bands are 95 % intervals' in text and '0.200' in text and '0.380' in text


def test_ten_measures_stay_distinguishable(data):
    curve = data.discard['TinyFace']['RI']
    curves = dict.fromkeys(MEASURES, curve)
    bounds = data.discard_bounds['TinyFace']
    both = replace(data, discard={'TinyFace': curves}, discard_tables=[])
    text = section(comparison_html(both), 'discard')
    keys = re.findall(r'style="(border-color:[^"]*)"', text)
    assert len(keys) == len(set(keys)) == len(MEASURES) + len(bounds)
    # Ten bands on top of one another would hide the curves.
    assert 'Bands' not in text
    (image,) = re.findall('<image>.*?</image>', text, re.DOTALL)
    bare = {name: replace(curve, low=None, high=None) for name in MEASURES}
    drawn = figure_pixels(discard_figure(bare, bounds, LIGHT, False))
    assert np.abs(embedded(image)[1].astype(int) - drawn).mean() < 1
    lines = discard_figure(bare, bounds).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 11


def test_hard_faces_stand_side_by_side(page):
    text = section(page, 'hard_faces')
    assert text.count('class="sides"') == 1
    first, second = text.split('lowest RI')
    assert 'lowest ERS' in first
    assert (first.count('frame right'), first.count('frame wrong')) == (1, 1)
    assert (second.count('frame right'), second.count('frame wrong')) == (0, 2)
    assert 'id="pixels"' in page


def test_activation_maps_stand_in_columns_of_methods(data, page):
    text = section(page, 'activation')
    assert 'Grad-CAM of the cosine.' in text
    rows = re.findall('<tr>.*?</tr>', text, re.DOTALL)
    assert re.findall('<th>(.*?)</th>', rows[0]) == ['Face', 'RI-Face', 'ArcFace', 'AdaFace']
    filled = [
        ['<img' in cell for cell in re.findall('<td>.*?</td>', row, re.DOTALL)] for row in rows[1:]
    ]
    assert filled == [[True, True, True, False], [True, False, False, True]]
    uris = re.findall(r'data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)', rows[1])
    shown, *overlays = (
        cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), 1)[..., ::-1] for uri in uris
    )
    row = data.activation[0]
    assert np.array_equal(shown, row.face)
    for overlay, values in zip(overlays, row.maps.values(), strict=True):
        assert np.abs(overlay.astype(int) - overlay_attention(row.face, values)).mean() < 8


def test_runs(page):
    text = section(page, 'runs')
    assert '3 runs: 2 done, 1 failed; 1 h 03 min in all.' in text
    rows = [[cell for _, cell in row] for row in rows_of(text)]
    assert rows == [
        ['run', 'status', 'time', 'seed', 'reason'],
        ['a', 'done', '1 h 02 min', '0', DASH],
        ['b', 'done', '1 min 01 s', '1', DASH],
        ['c', 'failed', DASH, DASH, 'collapsed'],
    ]
    assert '<th class="num">time' in text and '<th>reason' in text
    assert '<details open>' in text
    many = comparison_html(ComparisonData('t', runs=[{'run': str(i)} for i in range(99)]))
    assert '<details>' in section(many, 'runs') and '99 runs.' in section(many, 'runs')


def test_sentences_and_details(page):
    assert '<li>RI-Face is best.</li><li>AdaFace' in section(page, 'reading')
    assert '<li>CosFace on SCface: not run.</li>' in section(page, 'missing')
    assert '12,345' in section(page, 'details') and 'Nothing' not in section(page, 'details')


def test_sections_without_data_say_why():
    data = ComparisonData('t', omitted={'activation': 'no <model> was kept.'})
    page = comparison_html(data)
    assert Page(page).stack == []
    for key in SECTIONS:
        assert f'href="#{key}"' not in page
        if comparison.SECTIONS[key][2] is None:
            assert f'id="{key}"' not in page
        else:
            assert 'class="omitted"' in section(page, key)
    assert 'Left out: no &lt;model&gt; was kept.' in section(page, 'activation')
    assert comparison.SECTIONS['runs'][2] in section(page, 'runs')
    assert 'id="pixels"' not in page


@pytest.mark.parametrize('key', SECTIONS)
def test_one_missing_section_leaves_the_others(key, data, page):
    empty = {
        'quality': {'quality': {'TinyFace': {}}, 'quality_tables': []},
        'discard': {'discard': {'TinyFace': {}}, 'discard_tables': []},
        'hard_faces': {'hard_faces': {'TinyFace': {}}},
    }.get(key, {key: type(getattr(data, key))()})
    # Figures are slow to draw, and the other sections do not depend on them.
    kept = {} if key in ('quality', 'discard') else {'quality': {}, 'discard': {}}
    page = comparison_html(replace(data, **{**kept, **empty}, omitted={key: 'a reason.'}))
    for other in SECTIONS:
        assert ('class="omitted"' in section(page, other)) == (other == key)


def test_parts_of_a_section_may_be_missing(data):
    data = replace(
        data,
        discard={},
        quality={},
        recognition=[ScoreTable('Empty', '', ['rank-1', 'rank-5'], [])],
        hard_faces={'TinyFace': {'RI': []}},
    )
    page = comparison_html(data)
    assert 'No method has figures.' in section(page, 'recognition')
    assert 'No faces were given.' in section(page, 'hard_faces')
    for key in ('quality', 'discard'):
        assert '<table class="scores">' in section(page, key)
        assert '<image>' not in section(page, key)


def test_text_is_escaped(data):
    evil = '<script>alert("x")</script> & \'ü\' 李 $x_1$'
    card = FaceCard(face(np.random.default_rng(1)), (evil,))
    table = ScoreTable(evil, evil, [evil], [ScoreRow(evil, [Score(0.5)])])
    page = comparison_html(
        ComparisonData(
            evil,
            evil,
            {evil: evil},
            [evil],
            evil,
            [evil],
            [table],
            [table],
            # Names of measures are drawn into the figure; the font has no Han characters.
            {evil: {'<b>$x_1$': {'<i>': np.arange(3.0)}, evil: {'ui': np.full(2, np.nan)}}},
            [table],
            {evil: {evil: DiscardCurve(np.arange(3) / 3, np.arange(3) / 3)}},
            {evil: {evil: DiscardCurve(np.arange(3) / 3, np.arange(3) / 3)}},
            [table],
            {evil: {evil: [card]}},
            [ActivationRow(card.image, {evil: np.eye(3)}, (evil,))],
            evil,
            [{evil: evil, 'status': evil, 'seconds': evil}],
            [evil],
            {evil: {evil: evil}},
        )
    )
    assert Page(page).stack == []
    assert '<script' not in page and '<b>$x' not in page and '<i>' not in section(page, 'quality')
    for key in SECTIONS:
        assert '&lt;script&gt;alert(' in section(page, key)
    assert page.count('&lt;script&gt;alert(') > 40
    assert 'ü' in page and '李' in page


def test_undecodable_names_do_not_lose_the_page(tmp_path):
    out = render_comparison(ComparisonData('face_\udcff.jpg'), tmp_path / 'c.html')
    assert 'face_?.jpg' in out.read_text(encoding='utf-8')


def test_failed_write_leaves_the_earlier_page(tmp_path, monkeypatch):
    out = tmp_path / 'comparison.html'
    out.write_text('earlier')

    def half(self, content):
        with self.open('wb') as file:
            file.write(content[:10])
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', half)
        with pytest.raises(OSError, match='disk full'):
            render_comparison(ComparisonData('t'), out)
    assert out.read_text() == 'earlier' and list(tmp_path.iterdir()) == [out]
    bad = ComparisonData('t', hard_faces={'d': {'RI': [FaceCard(np.zeros((4, 4)))]}})
    with pytest.raises(ValueError, match='uint8'):
        render_comparison(bad, out)
    assert out.read_text() == 'earlier'
    render_comparison(ComparisonData('t'), out)
    assert 'earlier' not in out.read_text()


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"table 'T': row 'm' has 1 scores for 2 columns"):
        ScoreTable('T', '', ['a', 'b'], [ScoreRow('m', [None])])
    for other in (Score(1.0, unit='number'), Score(1.0, lower_is_better=True)):
        with pytest.raises(ValueError, match=r"table 'TinyFace': the scores of column 'rank-1'"):
            one_table(Score(0.5), None, other)
    with pytest.raises(ValueError, match="'rate' or 'number', not 'percent'"):
        Score(0.5, unit='percent')
    image = np.zeros((4, 4, 3), np.uint8)
    for wrong in (np.full((3, 3), 1.5), np.full((3, 3), -0.1), np.full((3, 3), np.nan), np.ones(3)):
        with pytest.raises(ValueError, match="activation map of 'ArcFace'"):
            ActivationRow(image, {'ArcFace': wrong})
    with pytest.raises(TypeError, match='tuple of lines'):
        ActivationRow(image, {}, 'RI 0.4')
    with pytest.raises(ValueError, match=r"no section is called \['figures'\]"):
        ComparisonData('t', omitted={'figures': 'none'})


def test_colors_are_those_of_the_report(page):
    for theme in (LIGHT, DARK):
        assert f'--card:{theme.surface}' in page
        for index, color in enumerate(theme.series):
            assert f'--s{index}:{color}' in page
