"""The page of one run."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mmvlr.evaluation.functional import Curve
from mmvlr.reports import AttentionCard, DiscardCurve, Metric, ReportData, render_report

from .pages import DASH, cut_section, read_rows

KINDS = ('open_set', 'verification')


@pytest.fixture
def page(report_page):
    return report_page


def test_headline_has_groups_arrows_intervals_and_baselines(page):
    rows = read_rows(cut_section(page, 'headline'))
    assert rows[0][:4] == ['Metric', 'This model', '95 % interval', 'pixels']
    assert [row[0] for row in rows[1:]] == ['Recognition', 'rank-1 ↑', 'Quality', 'area ↓']
    assert rows[2][1:4] == ['81.2|79.0-83.0', '79.0-83.0', '42.0']
    assert rows[4][1:4] == ['0.123', '', DASH]
    styles = re.findall(r'<i class="(\w+)" style="([^"]*)"', cut_section(page, 'headline'))
    assert dict(styles) == {
        'band': 'left:79.0%;right:auto;width:4.0%',
        'mark': 'left:42.0%',
        'dot': 'left:81.25%',
    }


def test_headline_without_groups_has_none():
    page = render_report(ReportData('t', headline=[Metric('a', 0.5), Metric('b', 0.5)]))
    assert [row[0] for row in read_rows(cut_section(page, 'headline'))] == ['Metric', 'a ↑', 'b ↑']


def test_full_page_holds_the_numbers(page):
    assert '0.200' in cut_section(page, 'discard') and '0.380' in cut_section(page, 'discard')
    assert '12,345' in cut_section(page, 'details')
    failures = cut_section(page, 'failures')
    assert failures.count('class="failure"') == 2 and 'none in the gallery' in failures
    faces = cut_section(page, 'faces')
    assert faces.count('frame right') == faces.count('frame wrong') == 3
    assert 'Highest RI' in faces and '<h3>Lowest RI' in faces
    # Training, CMC, two of rates each, quality, discard.
    assert page.count('<svg') == 7 + 1 + 2 + 2 + 3 + 1


def test_auc_of_probes_against_ui():
    quality = {'RI': {'probe': np.array([1.0, 2.0, np.nan]), 'ui': np.array([0.0, 1.0])}}
    # Pairs: (1, 0) above, (1, 1) tie, (2, 0) and (2, 1) above.
    assert '0.875' in cut_section(render_report(ReportData('t', quality=quality)), 'quality')
    quality = {'RI': {'probe': np.ones(3)}}
    assert '<span>AUC' not in cut_section(
        render_report(ReportData('t', quality=quality)), 'quality'
    )


def test_rates_are_read_off_by_the_logarithm():
    # One more decade gives 30 % more; at 0.1 a straight line over x itself would read 45.5 %.
    x = np.array([0.01, 1.0])
    curves = {
        'model': Curve(x, np.array([0.4, 1.0]), np.array([0.3, 0.9]), np.array([0.5, 1.0])),
        'short': Curve(np.array([0.2, 1.0]), np.array([0.25, 1.0])),
        'unknown': Curve(x, np.full(2, np.nan)),
        'half': Curve(x, np.array([0.0, 0.2]), np.full(2, np.nan), np.full(2, np.nan)),
    }
    page = render_report(ReportData('t', open_set=curves, verification=curves))
    assert read_rows(cut_section(page, 'open_set')) == [
        ['TPIR at', 'FPIR 0.3', 'FPIR 0.2', 'FPIR 0.1', 'FPIR 0.01'],
        ['model', '84.3|74.3-86.9', '79.0|69.0-82.5', '70.0|60.0-75.0', '40.0|30.0-50.0'],
        ['short', '43.9', '25.0', DASH, DASH],
        ['unknown', DASH, DASH, DASH, DASH],
        ['half', '14.8', '13.0', '10.0', '0.0'],
    ]
    verification = read_rows(cut_section(page, 'verification'))
    assert verification[0] == ['TAR at', 'FAR 0.3', 'FAR 0.1', 'FAR 0.01', 'FAR 0.001']
    assert verification[1][2:] == ['70.0|60.0-75.0', '40.0|30.0-50.0', DASH]


def test_cmc_table_holds_the_rates_of_its_ranks():
    curves = {
        'long': Curve(np.arange(1.0, 11), np.linspace(0.1, 1, 10)),
        'short': Curve(np.arange(1.0, 3), np.array([0.2, 0.3])),
    }
    assert read_rows(cut_section(render_report(ReportData('t', cmc=curves)), 'cmc')) == [
        ['Rank', '1', '5', '10'],
        ['long', '10.0', '50.0', '100.0'],
        ['short', '20.0', DASH, DASH],
    ]


@pytest.mark.parametrize('key', ['cmc', *KINDS, 'discard'])
def test_bands_are_explained_where_there_are_any(report_data, page, key):
    curves = getattr(report_data, key)
    bare = {name: replace(curve, low=None, high=None) for name, curve in curves.items()}
    pattern = re.compile('bands are 95 % intervals', re.IGNORECASE)
    assert pattern.search(cut_section(page, key))
    assert not pattern.search(cut_section(render_report(ReportData('t', **{key: bare})), key))


@pytest.mark.parametrize('at_border', [True, False])
def test_attention_at_the_border_is_said_to_be_meaningless(report_data, at_border):
    attention = np.zeros((7, 7))
    attention[(0, 3) if at_border else (3, 3)] = 1
    card = AttentionCard(report_data.attention[0].face, attention)
    page = render_report(ReportData('t', attention=[card] * 4))
    assert ('meaningless' in cut_section(page, 'attention')) == at_border


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('fraction', [0.3, 1.0])
def test_nan_does_not_crash(report_data, fraction):
    rng = np.random.default_rng(2)
    nan = float('nan')

    def punch(values):
        values = np.array(values, dtype=float)
        values[rng.random(values.shape) < fraction] = np.nan
        return values

    def punch_all(curves):
        return {
            name: replace(curve, y=punch(curve.y), low=punch(curve.y), high=punch(curve.y))
            for name, curve in curves.items()
        }

    face = report_data.lowest[0].image
    discard = punch_all(report_data.discard)
    page = render_report(
        replace(
            report_data,
            headline=[Metric('rank-1', nan, nan, nan, {'base': nan}), Metric('rank-5', 0.5)],
            scalars={
                key: (steps, punch(values)) for key, (steps, values) in report_data.scalars.items()
            },
            cmc=punch_all(report_data.cmc),
            open_set=punch_all(report_data.open_set),
            verification=punch_all(report_data.verification),
            quality={
                measure: {key: punch(values) for key, values in sets.items()}
                for measure, sets in report_data.quality.items()
            },
            discard={key: replace(curve, auc=nan) for key, curve in discard.items()},
            discard_bounds={'random': DiscardCurve(np.arange(2) / 2, np.array([nan]), auc=nan)},
            attention=[AttentionCard(face, punch(np.ones((7, 7))))] * 5,
            details={'Counts': {'rate': nan, 'array': np.float32(nan), 'none': None}},
        )
    )
    assert '>nan' not in page and '"nan' not in page
