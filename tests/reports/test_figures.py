"""Figures: what they draw, that texts do not touch, and the SVG that goes into a page."""

import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import norm

from mmvlr.evaluation.functional import Curve
from mmvlr.reports import (
    DiscardCurve,
    draw_cmc,
    draw_det,
    draw_discard,
    draw_quality,
    draw_rates,
    draw_risk_coverage,
    draw_training,
    group_scalars,
    render_pixels,
    render_report,
    render_svg,
)
from mmvlr.reports.drawing import COLORS, SERIES
from mmvlr.reports.figures import smooth

from .pages import find_overlaps


def draw_all(data):
    yield draw_training(data.scalars, data.epoch_steps)
    yield draw_cmc(data.cmc)
    yield draw_rates(data.open_set, 'open_set')
    yield draw_det(data.verification, 'verification')
    yield draw_quality(data.quality['RI'], 'RI')
    yield draw_discard(data.discard, data.discard_bounds)


@pytest.mark.slow
def test_import_needs_no_matplotlib():
    code = 'import sys, mmvlr.reports; print("matplotlib" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == 'False'


@pytest.mark.parametrize('package', ['matplotlib', 'jinja2'])
def test_missing_packages_are_named(report_data, monkeypatch, package):
    from mmvlr.reports.page import _load_environment

    _load_environment.cache_clear()
    for name in [package, *(name for name in sys.modules if name.startswith(f'{package}.'))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'{package}.*mmvlr\[report\]'):
        render_report(report_data)


def test_figures_leave_pyplot_alone(report_data):
    import matplotlib

    before = dict(matplotlib.rcParams)
    for figure in draw_all(report_data):
        pixels = render_pixels(figure)
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
        assert len(figure.legends) == 1
        render_svg(figure, 'a figure')
    assert dict(matplotlib.rcParams) == before
    if 'matplotlib.pyplot' in sys.modules:
        assert sys.modules['matplotlib.pyplot'].get_fignums() == []


def test_svg_has_the_colors_of_the_page_and_its_text_as_text(report_data):
    for figure, again in zip(draw_all(report_data), draw_all(report_data), strict=True):
        svg = render_svg(figure, '<a> & "b"')
        root = ElementTree.fromstring(svg)
        assert root.get('aria-label') == '<a> & "b"' and root.get('viewBox')
        styles = ' '.join(element.get('style', '') for element in root.iter())
        assert '#' not in styles and 'var(--muted)' in styles and 'var(--s' in styles
        assert 'DejaVu' not in styles and 'font-size: 9px' in styles
        used = {e.get('href', '#')[1:] for e in root.iter()} - {''}
        used |= {e.get('clip-path', 'url(#)')[5:-1] for e in root.iter()} - {''}
        assert used == {e.get('id') for e in root.iter()} - {None}
        texts = {element.text for element in root.iter('text')}
        assert figure.axes[0].get_xlabel() in texts
        assert render_svg(again, '<a> & "b"') == svg


@pytest.mark.parametrize('text', ['<b>$x_1$</b>', 'font: 9px a', ' xmlns="', '<!--', '_hidden'])
def test_svg_of_hostile_names(text):
    figure = draw_quality({text: np.arange(5.0)}, text)
    assert text.strip() in figure.legends[0].texts[0].get_text().replace('\\$', '$')
    root = ElementTree.fromstring(render_svg(figure, text))
    assert text in {element.text for element in root.iter('text')} and not list(root.iter('b'))


@pytest.mark.parametrize('epochs, scale', [(1, 1e-7), (3, 1.0), (30, 1e6), (400, 1e-3)])
def test_texts_of_training_curves_do_not_touch(epochs, scale):
    steps = np.arange(1, 10 * epochs + 1)
    for values in (steps * scale, scale + steps * scale * 1e-4, 10.0 ** -(steps % 7)):
        figure = draw_training({'loss': (steps, values)}, steps[9::10])
        assert find_overlaps(figure) == ([], [])


@pytest.mark.parametrize(
    'low, width', [(0.3662, 4e-4), (-7, 0.8), (0, 1), (12345, 2), (1e-9, 1e-8)]
)
def test_texts_of_histograms_do_not_touch(low, width):
    values = low + width * np.random.default_rng(0).random(50)
    assert find_overlaps(draw_quality({'probe': values}, 'norm')) == ([], [])


@pytest.mark.parametrize('top', [0.004, 0.1, 1.0])
def test_texts_of_other_curves_do_not_touch(top):
    shares = np.arange(20) / 20
    curve = DiscardCurve(shares, top * (1 - shares))
    bounds = {'random': DiscardCurve(shares, np.array([top]))}
    assert find_overlaps(draw_discard({'RI': curve}, bounds)) == ([], [])
    for last in (1, 3, 30, 1000):
        ranks = np.arange(1.0, last + 1)
        assert find_overlaps(draw_cmc({'a': Curve(ranks, ranks / last)}, 500)) == ([], [])
    share = np.linspace(1, 0.1, 20)
    assert find_overlaps(draw_risk_coverage({'RI': (share, top * share)})) == ([], [])


@pytest.mark.parametrize('kind', ['open_set', 'verification'])
def test_texts_of_rates_do_not_touch(kind):
    for lowest in (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.4):
        x = np.geomspace(lowest, 1, 50)
        curves = {'model': Curve(x, x**0.1), 'poor': Curve(x, x)}
        for draw in (draw_rates, draw_det):
            assert find_overlaps(draw(curves, kind)) == ([], []), (lowest, draw)


def test_training_axis_is_logarithmic_percent_or_plain():
    steps = np.arange(1, 11)
    assert draw_training({'loss': (steps, 10.0**-steps)}).axes[0].get_yscale() == 'log'
    axes = draw_training({'tinyface/rank1': (steps, np.linspace(0.4, 0.7, 10))}).axes[0]
    assert axes.get_yscale() == 'linear'
    assert axes.yaxis.get_major_formatter()(0.7, 0) == '70 %'
    assert draw_training({'xi': (steps, steps - 5.0)}).axes[0].get_yscale() == 'linear'


def find_bands(axes):
    """Lower and upper edges of the bands of a figure: (points, 3) of x, low, high each."""
    bands = []
    for collection in axes.collections:
        points = collection.get_paths()[0].vertices
        x = np.unique(points[:, 0])
        ends = [points[points[:, 0] == place, 1] for place in x]
        bands.append(np.array([(a, min(b), max(b)) for a, b in zip(x, ends, strict=True)]))
    return bands


def read_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_cmc_figure_draws_rates_over_ranks(report_data):
    axes = draw_cmc(report_data.cmc, max_rank=20).axes[0]
    assert axes.get_xscale() == 'log' and 20 < axes.get_xlim()[1] < 21
    model, rank1, base, _ = axes.lines
    curve = report_data.cmc['RI-Face']
    assert np.array_equal(model.get_xdata(), np.arange(1, 51))
    assert np.array_equal(model.get_ydata(), curve.y)
    assert np.array_equal(base.get_ydata(), report_data.cmc['base'].y)
    assert (rank1.get_xdata(), rank1.get_ydata()) == ([1], [curve.y[0]])
    (band,) = find_bands(axes)
    assert np.allclose(band, np.stack([curve.x, curve.low, curve.high], axis=1))


@pytest.mark.parametrize(
    'kind, names', [('open_set', ('FPIR', 'TPIR')), ('verification', ('FAR', 'TAR'))]
)
def test_rates_figure(report_data, kind, names):
    curves = report_data.open_set
    figure = draw_rates(curves, kind)
    axes = figure.axes[0]
    assert axes.get_xscale() == 'log' and axes.get_yscale() == 'linear'
    assert np.allclose(axes.get_xlim(), (0.001, 1)) and axes.get_ylim() == (0, 1)
    assert axes.get_xlabel().endswith(f'({names[0]})')
    assert axes.get_ylabel().endswith(f'({names[1]})')
    lines = axes.lines
    for line, curve, color in zip(lines[:2], curves.values(), SERIES[:2], strict=True):
        assert np.array_equal(line.get_xdata(), curve.x)
        assert np.array_equal(line.get_ydata(), curve.y)
        assert line.get_color() == color
    # Of two random scores one is as often accepted as the other; a search is no such thing.
    chance = [(line.get_xdata(), line.get_ydata()) for line in lines[2:]]
    assert len(chance) == (kind == 'verification') == len(axes.texts)
    for x, y in chance:
        assert np.array_equal(x, y) and (x[0], x[-1]) == (0.001, 1)
    (band,) = find_bands(axes)
    curve = curves['RI-Face']
    assert np.allclose(band, np.stack([curve.x, curve.low, curve.high], axis=1))
    figure.canvas.draw()
    assert read_labels(axes.xaxis) == ['0.001', '0.01', '0.1', '1']
    assert read_labels(axes.yaxis)[-1] == '100 %'
    assert [text.get_text() for text in figure.legends[0].texts] == list(curves)


@pytest.mark.parametrize(
    'lowest, limit, expected',
    [
        ([0.2, 0.04], 0.04, ['0.05', '0.1', '0.2', '0.5', '1']),
        ([0.0], 0.1, ['0.1', '0.2', '0.5', '1']),
    ],
)
def test_rates_axis_starts_at_the_smallest_rate_above_0(lowest, limit, expected):
    curves = {f'{x}': Curve(np.array([x, 1.0]), np.array([0.5, 1.0])) for x in lowest}
    figure = draw_rates(curves, 'open_set')
    assert np.allclose(figure.axes[0].get_xlim(), (limit, 1))
    figure.canvas.draw()
    assert read_labels(figure.axes[0].xaxis) == expected


@pytest.mark.parametrize(
    'kind, names', [('open_set', ('FPIR', 'FNIR')), ('verification', ('FAR', 'FRR'))]
)
def test_det_figure_draws_misses_in_normal_deviates(kind, names):
    # Normal scores two deviations apart: hits = cdf(ppf(false alarms) + 2).
    x = np.array([0.002, 0.01, 0.1, 0.3, 1.0])
    y = norm.cdf(norm.ppf(x) + 2)
    low, high = norm.cdf(norm.ppf(x) + 1.5), norm.cdf(norm.ppf(x) + 2.5)
    axes = draw_det({'model': Curve(x, y, low, high)}, kind).axes[0]
    assert axes.get_xlabel().endswith(f'({names[0]})')
    assert axes.get_ylabel().endswith(f'({names[1]})')
    line, *chance = axes.lines
    # Where every false alarm is allowed there is nothing to draw.
    deviates = norm.ppf(x[:-1])
    assert np.allclose(line.get_xdata(), deviates)
    assert np.allclose(line.get_ydata(), norm.ppf(1 - y[:-1]))
    assert np.allclose(line.get_ydata(), -deviates - 2)
    # Guessing misses what it does not accept: the sum of both rates is 1.
    assert len(chance) == (kind == 'verification')
    for guess in chance:
        assert np.allclose(norm.cdf(guess.get_xdata()) + norm.cdf(guess.get_ydata()), 1)
    (band,) = find_bands(axes)
    assert np.allclose(band, np.stack([deviates, -deviates - 2.5, -deviates - 1.5], axis=1))
    # Round rates around 0.002 ... 0.6 and around cdf(-1.98) = 0.024 ... cdf(1.38) = 0.916.
    assert np.allclose(norm.cdf(axes.get_xlim()), (0.001, 0.6))
    assert np.allclose(norm.cdf(axes.get_ylim()), (0.01, 0.99))
    for axis in (axes.xaxis, axes.yaxis):
        rates = [float(text.removesuffix(' %')) / 100 for text in read_labels(axis)]
        assert len(rates) > 4 and np.allclose(axis.get_ticklocs(), norm.ppf(rates))


def test_det_figure_keeps_0_and_1_within_its_axes():
    x = np.array([0.0, 0.01, 0.1, 0.5, 1.0])
    curve = Curve(x, np.array([0.0, 0, 0.7, 1, 1]), np.zeros(5), np.ones(5))
    axes = draw_det({'model': curve}, 'open_set').axes[0]
    low, high = axes.get_ylim()
    assert np.isfinite([low, high]).all()
    assert np.allclose(axes.lines[0].get_ydata(), [high, norm.ppf(0.3), low])
    assert np.allclose(find_bands(axes)[0][:, 1:], [[low, high]] * 3)


def test_discard_figure_draws_the_band_and_chance(report_data):
    axes = draw_discard(report_data.discard, report_data.discard_bounds).axes[0]
    (band,) = find_bands(axes)
    curve = report_data.discard['RI']
    assert np.allclose(band, np.stack([curve.x, curve.low, curve.high], axis=1))
    *_, chance = axes.lines
    assert (chance.get_ydata() == 0.4).all() and [t.get_text() for t in axes.texts] == ['chance']
    wide = replace(curve, high=curve.y + 0.2)
    axes = draw_discard({'RI': wide}).axes[0]
    assert axes.get_ylim()[1] > wide.high.max() and not axes.texts


def test_ten_measures_stay_distinguishable(report_data):
    names = ('RI', 'ERS', 'norm', 'CR-FIQA', 'SER-FIQ', 'max', 'size', 'sharp', 'light', 'BRISQUE')
    curves = dict.fromkeys(names, report_data.discard['norm'])
    lines = draw_discard(curves, report_data.discard_bounds).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 11
    assert [line.get_color() for line in lines[:3]] == list(SERIES[:3])
    # A measure keeps its color whatever stands before it.
    (line, *_) = draw_discard({'norm': curves['norm']}).axes[0].lines
    assert line.get_color() == SERIES[2]
    assert lines[-1].get_color() == COLORS['muted']


def test_group_scalars():
    one = (np.arange(3), np.ones(3))
    names = {
        'Losses': ['loss', 'train/loss_id'],
        'Recognizability index': ['xi', 'xi_hat'],
        'Proximities': ['d_p', 'd_n', 'd_ui', 'd_p_mean'],
        'UI statistics': ['mu_ui', 'sigma_ui'],
        'Effective rank': ['effective_rank', 'train/eff_rank'],
        'Validation': ['tinyface/rank1', 'mAP', 'surv/tar@far0.1'],
        'Retained': ['retain/rank1', 'both'],
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
    assert np.allclose(smooth(values), 1)
