import base64
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.stats import norm

from mmvlr.evaluation.functional import Curve
from mmvlr.visualization import (
    DARK,
    LIGHT,
    AttentionCard,
    DiscardCurve,
    FaceCard,
    Failure,
    Metric,
    ReportData,
    cmc_figure,
    contact_sheet,
    det_figure,
    discard_figure,
    figure_pixels,
    group_scalars,
    overlay_attention,
    plots,
    quality_figure,
    rates_figure,
    render_report,
    report,
    report_html,
    training_figure,
)

SECTIONS = list(report.SECTIONS)
KINDS = ('open_set', 'verification')


def face(rng, height=20, width=16):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def data():
    rng = np.random.default_rng(0)
    steps = np.arange(1, 121)
    ranks = np.arange(1, 51)
    rates = 1 - 0.6 * ranks**-0.5
    alarms = np.geomspace(0.001, 1, 61)
    hits = alarms**0.2
    curve = Curve(alarms, hits, hits * 0.9, np.minimum(hits * 1.1, 1))
    shares = np.arange(0, 1, 0.05)
    errors = 0.4 * (1 - shares)
    right = FaceCard(face(rng), ('RI 1.70',), 'right')
    wrong = FaceCard(face(rng), ('RI 0.21',), 'wrong')
    return ReportData(
        title='RI-Face on synthetic faces',
        subtitle='A test page',
        facts={'Method': 'RI-Face', 'mmvlr': '0.1.0'},
        notes=['These faces are synthetic.'],
        command='python tools/analysis/report.py work_dirs/run',
        headline=[
            Metric('rank-1', 0.8125, 0.79, 0.83, {'pixel correlation': 0.42}),
            Metric('area', 0.1234, unit='number'),
        ],
        spectrum=[wrong, right],
        scalars={
            'loss': (steps, 20.0 / steps),
            'xi_hat': (steps, rng.random(120)),
            'd_ui': (steps, rng.random(120)),
            'effective_rank': (steps, rng.random(120)),
            'tinyface/rank1': (steps[::40], rng.random(3)),
            'lr': (steps, np.full(120, 1e-4)),
        },
        epoch_steps=np.array([40, 80, 120]),
        cmc={
            'RI-Face': Curve(ranks, rates, rates - 0.02, rates + 0.02),
            'base': Curve(ranks, rates / 2),
        },
        open_set={'RI-Face': curve, 'base': Curve(alarms, hits / 2)},
        verification={'RI-Face': curve},
        quality={
            name: {
                key: rng.normal(size=50) + 2 * (key != 'ui') for key in ('probe', 'gallery', 'ui')
            }
            for name in ('RI', 'ERS', 'norm')
        },
        discard={
            'RI': DiscardCurve(shares, errors, 0.2, errors - 0.02, errors + 0.02),
            'norm': DiscardCurve(shares, errors, 0.25),
        },
        discard_bounds={'random': DiscardCurve(shares, np.array([0.4]), 0.38)},
        lowest=[wrong] * 3,
        highest=[right] * 3,
        attention=[AttentionCard(face(rng), rng.random((7, 7)), ('RI 0.80',))],
        failures=[Failure(wrong, [wrong, wrong, right], right), Failure(wrong, [wrong])],
        details={'Counts': {'probes': 12345, 'left out': 0}, 'Environment': {'torch': '2.4'}},
    )


@pytest.fixture(scope='module')
def page(data):
    return report_html(data)


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


def test_page_is_one_file_without_external_references(data, tmp_path):
    out = tmp_path / 'sub' / 'report.html'
    assert render_report(data, str(out)) == out
    assert [path.name for path in out.parent.iterdir()] == ['report.html']
    page = out.read_text(encoding='utf-8')
    parsed = Page(page)
    assert parsed.stack == []
    assert 'script' not in parsed.tags and 'iframe' not in parsed.tags
    assert parsed.links and all(link.startswith(('data:', '#')) for link in parsed.links)
    assert not re.search(r'@import|url\(|https?:', page)
    # A fragment that leads nowhere would be a broken entry of the navigation.
    for link in parsed.links:
        assert not link.startswith('#') or f'id="{link[1:]}"' in page
    assert page.startswith('<!DOCTYPE html>')
    assert out.stat().st_size < 3e6


def test_every_embedded_image_decodes(page):
    uris = re.findall(r'data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)', page)
    assert len(uris) > 30
    for _, payload in uris:
        assert cv2.imdecode(np.frombuffer(base64.b64decode(payload), np.uint8), -1) is not None


def test_faces_of_vlr_size_are_embedded_without_loss():
    image = face(np.random.default_rng(1), 16, 12)
    page = report_html(ReportData('t', lowest=[FaceCard(image)]))
    payload = re.search(r'data:image/png;base64,([^"]+)', section(page, 'faces')).group(1)
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(payload), np.uint8), -1)
    assert np.array_equal(decoded[..., ::-1], image)


def test_large_faces_are_shrunk():
    page = report_html(ReportData('t', lowest=[FaceCard(np.zeros((800, 400, 3), np.uint8))]))
    assert 'width="80" height="160"' in section(page, 'faces')


def test_full_page_holds_the_numbers(page):
    assert 'omitted' not in re.findall(r'<section[^>]*>', page)
    headline = section(page, 'headline')
    for text in (
        '81.2\u202f%',
        '79.0 \u2013 83.0\u202f%',
        'pixel correlation',
        '42.0\u202f%',
        '0.123',
    ):
        assert text in headline
    assert '0.200' in section(page, 'discard') and '0.380' in section(page, 'discard')
    assert '12,345' in section(page, 'details')
    assert 'These faces are synthetic.' in page
    assert section(page, 'failures').count('class="failure"') == 2
    assert 'none in the gallery' in section(page, 'failures')
    assert section(page, 'faces').count('frame right') == 3
    assert section(page, 'faces').count('frame wrong') == 3
    # Each figure comes for light and for dark displays.
    assert (
        page.count('<image>') == page.count('prefers-color-scheme: dark)') == 6 + 1 + 2 + 2 + 3 + 1
    )


def test_auc_of_probes_against_ui():
    quality = {'RI': {'probe': np.array([1.0, 2.0, np.nan]), 'ui': np.array([0.0, 1.0])}}
    # Pairs: (1, 0) above, (1, 1) tie, (2, 0) and (2, 1) above.
    assert '0.875' in section(report_html(ReportData('t', quality=quality)), 'quality')
    quality = {'RI': {'probe': np.ones(3)}}
    assert '<span>AUC' not in section(report_html(ReportData('t', quality=quality)), 'quality')


@pytest.mark.parametrize('empty', [None, 'empty'])
def test_sections_without_data_say_why(empty):
    kinds = {'scalars': {}, 'cmc': {}, 'quality': {}, 'discard': {}, 'details': {}}
    values = {} if empty is None else {**kinds, 'lowest': [], 'attention': [], 'failures': []}
    reason = 'ArcFace has no <spatial> attention.'
    page = report_html(ReportData('t', omitted={'attention': reason}, **values))
    Page(page)
    for key in SECTIONS:
        assert f'href="#{key}"' not in page
        if key in KINDS:
            assert f'id="{key}"' not in page
        else:
            assert 'class="omitted"' in section(page, key)
    assert 'Left out: ArcFace has no &lt;spatial&gt; attention.' in section(page, 'attention')
    assert report.SECTIONS['cmc'][2] in section(page, 'cmc')
    assert 'id="pixels"' not in page


@pytest.mark.parametrize('key', KINDS)
def test_section_that_few_data_sets_have_needs_a_reason_to_be_missing(page, key):
    assert f'href="#{key}"' in page
    assert page.index('id="cmc"') < page.index(f'id="{key}"') < page.index('id="quality"')
    for empty in (None, {}):
        assert f'"{key}"' not in report_html(ReportData('t', **{key: empty}))
        data = ReportData('t', omitted={key: 'too <few> strangers.'}, **{key: empty})
        reasoned = report_html(data)
        assert 'Left out: too &lt;few&gt; strangers.' in section(reasoned, key)
        assert 'class="omitted"' in section(reasoned, key) and f'"#{key}"' not in reasoned


def cells(page, key):
    """Text of the table of a section, row by row, the small print after a bar."""
    rows = []
    for row in re.findall('<tr>.*?</tr>', section(page, key), re.DOTALL):
        found = re.findall('<t[hd].*?</t[hd]>', row, re.DOTALL)
        texts = [re.sub('<.*?>', '', cell.replace('<small>', '|')) for cell in found]
        rows.append([text.replace('\u202f%', '').replace(' \u2013 ', '-') for text in texts])
    return rows


def test_rates_are_read_off_by_the_logarithm():
    # One more decade gives 30 % more; at 0.1 a straight line over x itself would read 45.5 %.
    x = np.array([0.01, 1.0])
    curves = {
        'model': Curve(x, np.array([0.4, 1.0]), np.array([0.3, 0.9]), np.array([0.5, 1.0])),
        'short': Curve(np.array([0.2, 1.0]), np.array([0.25, 1.0])),
        'unknown': Curve(x, np.full(2, np.nan)),
        'half': Curve(x, np.array([0.0, 0.2]), np.full(2, np.nan), np.full(2, np.nan)),
    }
    page = report_html(ReportData('t', open_set=curves, verification=curves))
    open_set = cells(page, 'open_set')
    assert open_set[0] == ['TPIR at', 'FPIR 0.3', 'FPIR 0.2', 'FPIR 0.1', 'FPIR 0.01']
    assert [cell.split('|')[0] for cell in open_set[1][1:]] == ['84.3', '79.0', '70.0', '40.0']
    assert open_set[1][3:] == ['70.0|60.0-75.0', '40.0|30.0-50.0']
    dash = '\u2013'
    assert open_set[2] == ['short', '43.9', '25.0', dash, dash]
    assert open_set[3] == ['unknown', dash, dash, dash, dash]
    assert open_set[4] == ['half', '14.8', '13.0', '10.0', '0.0']
    verification = cells(page, 'verification')
    assert verification[0] == ['TAR at', 'FAR 0.3', 'FAR 0.1', 'FAR 0.01', 'FAR 0.001']
    assert verification[1][2:] == ['70.0|60.0-75.0', '40.0|30.0-50.0', dash]


def test_cmc_table_holds_the_rates_of_its_ranks():
    curves = {
        'long': Curve(np.arange(1.0, 11), np.linspace(0.1, 1, 10)),
        'short': Curve(np.arange(1.0, 3), np.array([0.2, 0.3])),
    }
    table = cells(report_html(ReportData('t', cmc=curves)), 'cmc')
    assert table == [
        ['Rank', '1', '5', '10'],
        ['long', '10.0', '50.0', '100.0'],
        ['short', '20.0', '\u2013', '\u2013'],
    ]


@pytest.mark.parametrize('key', ['cmc', *KINDS, 'discard'])
def test_bands_are_explained_where_there_are_any(data, page, key):
    def without(curve):
        return replace(curve, low=None, high=None)

    bare = {name: without(curve) for name, curve in getattr(data, key).items()}
    pattern = re.compile('bands are 95 % intervals', re.IGNORECASE)
    assert pattern.search(section(page, key))
    assert not pattern.search(section(report_html(ReportData('t', **{key: bare})), key))


@pytest.mark.parametrize('key', KINDS)
def test_rate_figures_are_embedded_for_light_and_dark(data, page, key):
    for figure, image in zip(
        (rates_figure, det_figure),
        re.findall('<image>.*?</image>', section(page, key), re.DOTALL),
        strict=True,
    ):
        uris = re.findall(r'data:image/png;base64,([A-Za-z0-9+/=]+)', image)
        for uri, theme in zip(uris, (DARK, LIGHT), strict=True):
            embedded = cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), 1)[..., ::-1]
            drawn = figure_pixels(figure(getattr(data, key), key, theme, legend=False))
            # The palette moves colors a little; the other theme or figure is far off.
            assert np.abs(embedded.astype(int) - drawn).mean() < 1


def test_one_missing_section_leaves_the_others(data):
    page = report_html(replace(data, attention=None, lowest=None, scalars=None, quality=None))
    assert page.count('class="omitted"') == 3
    assert 'Highest RI' in page and '<h3>Lowest RI' not in page


def test_text_is_escaped(data):
    evil = '<script>alert("x")</script> & \'ü\' 李 $x_1$'
    card = FaceCard(data.lowest[0].image, (evil,))
    steps = np.arange(3)
    page = report_html(
        replace(
            data,
            title=evil,
            subtitle=evil,
            facts={evil: evil},
            notes=[evil],
            command=evil,
            headline=[Metric(evil, 0.5, baselines={evil: 0.1})],
            spectrum=[card],
            scalars={evil: (steps, steps), 'xi' + evil: (steps, steps)},
            cmc={evil: Curve(steps + 1.0, np.ones(3))},
            open_set={evil: Curve(np.array([0.1, 1]), np.ones(2))},
            verification={evil: Curve(np.array([0.1, 1]), np.ones(2))},
            # Names of measures are drawn into the figure; the font has no Han characters.
            quality={'<b>$x_1$': {'<i>': np.arange(3.0)}},
            discard={evil: DiscardCurve(steps / 3, steps / 3)},
            lowest=[card],
            attention=[AttentionCard(card.image, np.eye(3), (evil,))],
            failures=[Failure(card, [card], card)],
            details={evil: {evil: evil}},
        )
    )
    assert Page(page).stack == []
    assert '<script' not in page and '<b>$x' not in page and '<i>' not in section(page, 'quality')
    assert page.count('&lt;script&gt;alert(') > 15
    for key in KINDS:
        # In the legend, in the table and in the description of both images.
        assert section(page, key).count('&lt;script&gt;alert(') == 4
    assert 'ü' in page and '李' in page


def test_undecodable_names_do_not_lose_the_page(tmp_path):
    out = render_report(ReportData('face_\udcff.jpg'), tmp_path / 'r.html')
    assert 'face_?.jpg' in out.read_text(encoding='utf-8')


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('fraction', [0.3, 1.0])
def test_nan_does_not_crash(data, fraction):
    rng = np.random.default_rng(2)

    def holes(values):
        values = np.array(values, dtype=float)
        values[rng.random(values.shape) < fraction] = np.nan
        return values

    def with_holes(curves):
        return {
            name: Curve(curve.x, holes(curve.y), holes(curve.y), holes(curve.y))
            for name, curve in curves.items()
        }

    nan = float('nan')
    page = report_html(
        replace(
            data,
            headline=[Metric('rank-1', nan, nan, nan, {'base': nan}), Metric('rank-5', 0.5)],
            scalars={key: (steps, holes(values)) for key, (steps, values) in data.scalars.items()},
            cmc=with_holes(data.cmc),
            open_set=with_holes(data.open_set),
            verification=with_holes(data.verification),
            quality={
                measure: {key: holes(values) for key, values in sets.items()}
                for measure, sets in data.quality.items()
            },
            discard={
                key: DiscardCurve(
                    curve.shares, *(holes(curve.errors), nan), *(holes(curve.errors),) * 2
                )
                for key, curve in data.discard.items()
            },
            attention=[AttentionCard(data.lowest[0].image, holes(np.ones((7, 7))))],
            details={'Counts': {'rate': nan, 'array': np.float32(nan), 'none': None}},
        )
    )
    assert '>nan' not in page


def test_failed_write_leaves_the_earlier_page(tmp_path, monkeypatch):
    out = tmp_path / 'report.html'
    out.write_text('earlier')

    def half(self, content):
        with self.open('wb') as file:
            file.write(content[:10])
        raise OSError('disk full')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', half)
        with pytest.raises(OSError, match='disk full'):
            render_report(ReportData('t'), out)
    assert out.read_text() == 'earlier'
    assert list(tmp_path.iterdir()) == [out]

    bad = ReportData('t', lowest=[FaceCard(np.zeros((4, 4)))])
    with pytest.raises(ValueError, match='uint8'):
        render_report(bad, out)
    assert out.read_text() == 'earlier'
    render_report(ReportData('t'), out)
    assert 'earlier' not in out.read_text()


def test_wrong_input_is_named():
    with pytest.raises(TypeError, match='tuple of lines'):
        FaceCard(np.zeros((4, 4, 3), np.uint8), 'RI 0.4')
    with pytest.raises(ValueError, match=r'\(4, 4\)'):
        report_html(ReportData('t', lowest=[FaceCard(np.zeros((4, 4), np.uint8))]))


def test_import_needs_no_matplotlib():
    code = 'import sys, mmvlr.visualization; print("matplotlib" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'


def test_missing_matplotlib_is_explained(data, monkeypatch):
    for name in ('matplotlib', 'matplotlib.figure', 'matplotlib.backends.backend_agg'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=re.escape('pip install "mmvlr[demo]"')):
        report_html(data)


def test_figures_leave_pyplot_alone(data):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures = [
        training_figure(data.scalars, data.epoch_steps),
        cmc_figure(data.cmc),
        rates_figure(data.open_set, 'open_set'),
        det_figure(data.open_set, 'open_set'),
        quality_figure(data.quality['RI'], 'RI'),
        discard_figure(data.discard, data.discard_bounds),
    ]
    for figure in figures:
        pixels = figure_pixels(figure)
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
        assert len(figure.legends) == 1
    assert dict(matplotlib.rcParams) == before
    if 'matplotlib.pyplot' in sys.modules:
        assert sys.modules['matplotlib.pyplot'].get_fignums() == []


@pytest.mark.parametrize('theme', [LIGHT, DARK])
def test_figures_take_the_surface_of_the_theme(data, theme):
    corner = figure_pixels(cmc_figure(data.cmc, theme=theme, legend=False))[0, 0]
    assert tuple(corner) == plots._hex_rgb(theme.surface)


def test_training_axis_is_logarithmic_percent_or_plain():
    steps = np.arange(1, 11)
    wide = {'loss': (steps, 10.0**-steps)}
    assert training_figure(wide).axes[0].get_yscale() == 'log'
    rates = {'tinyface/rank1': (steps, np.linspace(0.4, 0.7, 10))}
    axes = training_figure(rates).axes[0]
    assert axes.get_yscale() == 'linear'
    assert axes.yaxis.get_major_formatter()(0.7, 0) == '70 %'
    assert training_figure({'xi': (steps, steps - 5.0)}).axes[0].get_yscale() == 'linear'


def band_edges(axes):
    """Lower and upper edges of the bands of a figure: (points, 3) of x, low, high each."""
    bands = []
    for collection in axes.collections:
        points = collection.get_paths()[0].vertices
        x = np.unique(points[:, 0])
        ends = [points[points[:, 0] == place, 1] for place in x]
        bands.append(np.array([(a, min(b), max(b)) for a, b in zip(x, ends, strict=True)]))
    return bands


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_cmc_figure_draws_rates_over_ranks(data):
    axes = cmc_figure(data.cmc, max_rank=20).axes[0]
    assert axes.get_xscale() == 'log' and 20 < axes.get_xlim()[1] < 21
    model, rank1, base, _ = axes.lines
    assert np.array_equal(model.get_xdata(), np.arange(1, 51))
    assert np.array_equal(model.get_ydata(), data.cmc['RI-Face'].y)
    assert np.array_equal(base.get_ydata(), data.cmc['base'].y)
    assert (rank1.get_xdata(), rank1.get_ydata()) == ([1], [data.cmc['RI-Face'].y[0]])
    (band,) = band_edges(axes)
    curve = data.cmc['RI-Face']
    assert np.allclose(band, np.stack([curve.x, curve.low, curve.high], axis=1))


@pytest.mark.parametrize(
    'kind, names', [('open_set', ('FPIR', 'TPIR')), ('verification', ('FAR', 'TAR'))]
)
def test_rates_figure(data, kind, names):
    figure = rates_figure(data.open_set, kind, DARK)
    axes = figure.axes[0]
    assert axes.get_xscale() == 'log' and axes.get_yscale() == 'linear'
    assert np.allclose(axes.get_xlim(), (0.001, 1)) and axes.get_ylim() == (0, 1)
    assert axes.get_xlabel().endswith(f'({names[0]})')
    assert axes.get_ylabel().endswith(f'({names[1]})')
    assert len(axes.lines) == 2
    for line, curve, color in zip(axes.lines, data.open_set.values(), DARK.series[:2], strict=True):
        assert np.array_equal(line.get_xdata(), curve.x)
        assert np.array_equal(line.get_ydata(), curve.y)
        assert line.get_color() == color
    (band,) = band_edges(axes)
    curve = data.open_set['RI-Face']
    assert np.allclose(band, np.stack([curve.x, curve.low, curve.high], axis=1))
    figure.canvas.draw()
    assert labels(axes.xaxis) == ['0.001', '0.01', '0.1', '1']
    assert labels(axes.yaxis)[-1] == '100 %'
    assert [text.get_text() for text in figure.legends[0].texts] == list(data.open_set)
    assert not rates_figure(data.open_set, kind, legend=False).legends


@pytest.mark.parametrize(
    'lowest, limit, expected',
    [
        ([0.2, 0.04], 0.04, ['0.05', '0.1', '0.2', '0.5', '1']),
        ([0.0], 0.1, ['0.1', '0.2', '0.5', '1']),
    ],
)
def test_rates_axis_starts_at_the_smallest_rate_above_0(lowest, limit, expected):
    curves = {f'{x}': Curve(np.array([x, 1.0]), np.array([0.5, 1.0])) for x in lowest}
    figure = rates_figure(curves, 'open_set')
    assert np.allclose(figure.axes[0].get_xlim(), (limit, 1))
    figure.canvas.draw()
    assert labels(figure.axes[0].xaxis) == expected


@pytest.mark.parametrize(
    'kind, names', [('open_set', ('FPIR', 'FNIR')), ('verification', ('FAR', 'FRR'))]
)
def test_det_figure_draws_misses_in_normal_deviates(kind, names):
    # Normal scores two deviations apart: hits = cdf(ppf(false alarms) + 2).
    x = np.array([0.002, 0.01, 0.1, 0.3, 1.0])
    y = norm.cdf(norm.ppf(x) + 2)
    low, high = norm.cdf(norm.ppf(x) + 1.5), norm.cdf(norm.ppf(x) + 2.5)
    figure = det_figure({'model': Curve(x, y, low, high)}, kind)
    axes = figure.axes[0]
    assert axes.get_xlabel().endswith(f'({names[0]})')
    assert axes.get_ylabel().endswith(f'({names[1]})')
    (line,) = axes.lines
    # Where every false alarm is allowed there is nothing to draw.
    deviates = norm.ppf(x[:-1])
    assert np.allclose(line.get_xdata(), deviates)
    assert np.allclose(line.get_ydata(), norm.ppf(1 - y[:-1]))
    assert np.allclose(line.get_ydata(), -deviates - 2)
    (band,) = band_edges(axes)
    expected = np.stack([deviates, -deviates - 2.5, -deviates - 1.5], axis=1)
    assert np.allclose(band, expected)
    # Round rates around 0.002 ... 0.6 and around cdf(-1.98) = 0.024 ... cdf(1.38) = 0.916.
    assert np.allclose(norm.cdf(axes.get_xlim()), (0.001, 0.6))
    assert np.allclose(norm.cdf(axes.get_ylim()), (0.01, 0.99))
    for axis in (axes.xaxis, axes.yaxis):
        rates = [float(text.removesuffix(' %')) / 100 for text in labels(axis)]
        assert len(rates) > 4 and np.allclose(axis.get_ticklocs(), norm.ppf(rates))


def test_det_figure_keeps_0_and_1_within_its_axes():
    x = np.array([0.0, 0.01, 0.1, 0.5, 1.0])
    curve = Curve(x, np.array([0.0, 0, 0.7, 1, 1]), np.zeros(5), np.ones(5))
    axes = det_figure({'model': curve}, 'open_set').axes[0]
    low, high = axes.get_ylim()
    assert np.isfinite([low, high]).all()
    assert np.allclose(axes.lines[0].get_ydata(), [high, norm.ppf(0.3), low])
    assert np.allclose(band_edges(axes)[0][:, 1:], [[low, high]] * 3)


@pytest.mark.parametrize('kind', KINDS)
def test_tick_labels_of_rates_do_not_touch(kind):
    for lowest in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.4):
        x = np.geomspace(lowest, 1, 50)
        curves = {'model': Curve(x, x**0.1), 'poor': Curve(x, x)}
        for draw in (rates_figure, det_figure):
            figure = draw(curves, kind)
            figure.canvas.draw()
            axes = figure.axes[0]
            boxes = [
                label.get_window_extent()
                for axis in (axes.xaxis, axes.yaxis)
                for label in axis.get_ticklabels()
                if label.get_text()
            ]
            for index, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[:index]), (lowest, draw)
            whole = figure.get_tightbbox().get_points()
            assert (whole >= 0).all() and (whole <= figure.get_size_inches()).all()


def test_discard_figure_draws_the_band(data):
    axes = discard_figure(data.discard, data.discard_bounds).axes[0]
    (band,) = band_edges(axes)
    curve = data.discard['RI']
    assert np.allclose(band, np.stack([curve.shares, curve.low, curve.high], axis=1))
    wide = replace(curve, high=curve.errors + 0.2)
    assert discard_figure({'RI': wide}).axes[0].get_ylim()[1] > wide.high.max()


def test_group_scalars():
    one = (np.arange(3), np.ones(3))
    names = {
        'Losses': ['loss', 'train/loss_id'],
        'Recognizability index': ['xi', 'xi_hat'],
        'Proximities': ['d_p', 'd_n', 'd_ui', 'd_p_mean'],
        'UI statistics': ['mu_ui', 'sigma_ui'],
        'Effective rank': ['effective_rank', 'train/eff_rank'],
        'Validation': ['tinyface/rank1', 'mAP', 'surv/tar@far0.1'],
        'Learning rates': ['lr', 'base_lr', 'lr_backbone'],
        'Other': ['grad_norm'],
    }
    scalars = {name: one for members in reversed(names.values()) for name in members}
    scalars |= {'time': one, 'data_time': one, 'memory': one, 'x': (np.arange(2), [np.nan] * 2)}
    groups = group_scalars(scalars)
    assert {title: list(members) for title, members in groups.items()} == names
    assert list(groups) == list(names)


def test_smoothing_leaves_nan_out():
    values = np.ones(200)
    values[50] = np.nan
    assert np.allclose(plots._smooth(values), 1)


def test_contact_sheet_geometry_and_pixels():
    rng = np.random.default_rng(3)
    images = [face(rng, 10, 10) for _ in range(5)]
    borders = ['right', 'wrong', None, 'right', 'wrong']
    cards = [FaceCard(i, ('RI 0.5', 'id 3'), b) for i, b in zip(images, borders, strict=True)]
    sheet = contact_sheet(cards, columns=3, size=40, gap=6, border=2)
    assert sheet.shape == (2 * (44 + 30 + 6) + 6, 3 * (44 + 6) + 6, 3)
    assert sheet.dtype == np.uint8
    for index, card in enumerate(cards):
        y, x = 6 + index // 3 * 80, 6 + index % 3 * 50
        enlarged = card.image.repeat(4, axis=0).repeat(4, axis=1)
        assert np.array_equal(sheet[y + 2 : y + 42, x + 2 : x + 42], enlarged)
        color = {'right': LIGHT.right, 'wrong': LIGHT.wrong, None: LIGHT.line}[card.border]
        frame = sheet[y : y + 44, x : x + 44]
        for edge in (frame[:2], frame[-2:], frame[:, :2], frame[:, -2:]):
            assert (edge == plots._hex_rgb(color)).all()
        below = sheet[y + 44 : y + 74, x : x + 44]
        assert (below != plots._hex_rgb(LIGHT.surface)).any()
    assert (sheet[80:, 2 * 50 + 6 :] == 255).all()
    assert (sheet[:6] == 255).all() and (sheet[:, :6] == 255).all()


def test_contact_sheet_keeps_the_aspect_ratio_and_shortens_text():
    image = np.full((20, 10, 3), 7, np.uint8)
    sheet = contact_sheet([FaceCard(image, ('a long caption ' * 9,))], size=40, gap=5, border=0)
    assert sheet.shape == (40 + 15 + 10, 50, 3)
    assert (sheet[5:45, 15:35] == 7).all()
    assert (sheet[5:45, 5:15] == plots._hex_rgb(LIGHT.line)).all()
    assert (sheet[:, :2] == 255).all() and (sheet[:, -2:] == 255).all()
    plain = contact_sheet([FaceCard(image)], size=40, interpolation='bicubic', theme=DARK)
    assert tuple(plain[0, 0]) == plots._hex_rgb(DARK.surface)
    with pytest.raises(ValueError, match='at least one'):
        contact_sheet([])


@pytest.mark.parametrize('shape', [(20, 20), (24, 12), (9, 18), (112, 112), (300, 200)])
def test_overlay_shape(shape):
    image = face(np.random.default_rng(4), *shape)
    overlay = overlay_attention(image, np.random.default_rng(5).normal(size=(7, 7)), size=96)
    scale = 96 / max(shape)
    assert overlay.shape == (round(shape[0] * scale), round(shape[1] * scale), 3)
    assert overlay.dtype == np.uint8


def test_overlay_colors_the_attended_place_only():
    image = np.full((28, 28, 3), 100, np.uint8)
    attention = np.zeros((7, 7))
    attention[5, 1] = -3.0
    attention[1, 5] = 4.0
    overlay = overlay_attention(image, attention, size=112).astype(int)
    spread = overlay.max(axis=2) - overlay.min(axis=2)
    assert spread[:56, 56:].max() > 60
    assert np.abs(overlay[5 * 16 + 8, 16 + 8] - 100).max() <= 1
    assert (overlay_attention(image, np.ones((7, 7))) == 100).all()
    assert (overlay_attention(image, np.full((7, 7), np.nan)) == 100).all()
    attention[3, 3] = np.nan
    overlay_attention(image, attention)
    with pytest.raises(ValueError, match='attention map'):
        overlay_attention(image, np.ones(7))
