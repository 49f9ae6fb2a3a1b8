"""Figures and images of face recognition and face quality: arrays in, figures or pixels out.

The figures are built on matplotlib's object interface and its Agg canvas, so nothing here touches
``pyplot``, its state or a display; matplotlib itself is imported when the first figure is made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from mmvlr.evaluation.functional import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.ImageFont import FreeTypeFont, ImageFont

Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Theme:
    """Colors of a figure, as ``#rrggbb``.

    Attributes:
        surface: Background, the same as the page's cards.
        ink: Text of axis labels.
        muted: Tick labels and reference lines.
        line: Grid and axis lines.
        series: Colors of the curves, in order.
        right: Border of a correct match.
        wrong: Border of a wrong match.
    """

    surface: str
    ink: str
    muted: str
    line: str
    series: tuple[str, ...]
    right: str
    wrong: str


LIGHT = Theme(
    surface='#ffffff',
    ink='#1b2430',
    muted='#5b6878',
    line='#e1e6ec',
    series=(
        '#2563eb',
        '#d97706',
        '#0d9488',
        '#8b3fd9',
        '#e0315d',
        '#5a8a12',
        '#0e8fb3',
        '#64748b',
    ),
    right='#16934a',
    wrong='#d92d3a',
)
DARK = Theme(
    surface='#171c24',
    ink='#e6edf3',
    muted='#95a3b5',
    line='#2b3440',
    series=(
        '#6ea8fe',
        '#f2ae49',
        '#3fcdb8',
        '#c191ff',
        '#ff7f9b',
        '#a5cf55',
        '#55c8e6',
        '#9fb0c3',
    ),
    right='#3fcf78',
    wrong='#ff6b74',
)

# A measure keeps its color in every figure, and a set of faces has one that no measure has.
MEASURE_COLORS = {'RI': 0, 'ERS': 1, 'norm': 2}
SET_COLORS = {'probe': 3, 'gallery': 5, 'ui': 4}
DASHES = ('-', '--', '-.', ':')


def check_caption(caption: Any) -> None:
    """Raise TypeError for a plain string, which would be taken for lines of one letter."""
    if isinstance(caption, str):
        raise TypeError(f'a caption is a tuple of lines, got the string {caption!r}')


@dataclass(frozen=True)
class FaceCard:
    """One face with what is to be said of it.

    Attributes:
        image: (h, w, 3) uint8, RGB, at its native size.
        caption: Lines below the face; the first one is set larger.
        border: ``'right'`` (green), ``'wrong'`` (red) or None.
    """

    image: np.ndarray
    caption: tuple[str, ...] = ()
    border: Literal['right', 'wrong'] | None = None

    def __post_init__(self) -> None:
        check_caption(self.caption)


@dataclass(frozen=True)
class DiscardCurve:
    """Rank-1 error of the probes that are kept when the worst ones are discarded.

    Attributes:
        shares: (R,) discarded shares in [0, 1).
        errors: (R,) rank-1 error in [0, 1] on what is left; one value means a constant level.
        auc: Area under the curve, or None.
        low: (R,) lower end of the 95 % interval of the error, or None.
        high: (R,) upper end, or None.
    """

    shares: np.ndarray
    errors: np.ndarray
    auc: float | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def new_figure(width: float, height: float, theme: Theme = LIGHT) -> tuple['Figure', 'Axes']:
    """A figure of one set of axes in the colors of a theme, outside ``pyplot``.

    Args:
        width: In inches.
        height: In inches.
        theme: Colors.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Figures need matplotlib, which is not installed: pip install "mmvlr[demo]"'
        ) from error

    figure = Figure(figsize=(width, height), dpi=200, layout='constrained', facecolor=theme.surface)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=theme.surface)
    for side in ('top', 'right', 'left'):
        axes.spines[side].set_visible(False)
    axes.spines['bottom'].set_color(theme.line)
    axes.grid(axis='y', color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.muted, labelsize=9, length=0, pad=4)
    axes.tick_params(which='minor', length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=theme.ink, fontsize=9.5)
        axis.get_offset_text().set(color=theme.muted, fontsize=8.5)
    return figure, axes


def figure_pixels(figure: 'Figure') -> np.ndarray:
    """Draw a figure: (height, width, 3) uint8, RGB."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _style(index: int, theme: Theme) -> dict[str, Any]:
    count = len(theme.series)
    return {'color': theme.series[index % count], 'linestyle': DASHES[index // count % 4]}


def _legend(
    axes: 'Axes', names: Sequence[str], styles: Sequence[Mapping[str, Any]], theme: Theme
) -> None:
    from matplotlib.lines import Line2D

    # Above the axes no curve can run through it.
    axes.figure.legend(
        [Line2D([], [], linewidth=2, **style) for style in styles],
        # '$' would start a formula, and a leading '_' would hide the entry.
        [re.sub(r'^_', ' _', name.replace('$', r'\$')) for name in names],
        loc='outside upper center',
        ncols=2 if len(names) > 1 else 1,
        frameon=False,
        fontsize=8.5,
        labelcolor=theme.ink,
        handlelength=1.4,
    )


def _band(axes: 'Axes', x: np.ndarray, low: Any, high: Any, color: str) -> None:
    if low is not None and high is not None:
        low, high = _floats(low), _floats(high)
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)


def _percent(rate: float) -> str:
    return f'{100 * rate:.4g} %'


def _percent_axis(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter

    # PercentFormatter would write 70.0 % as soon as the axis is zoomed.
    axis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))


# Scalars of mmengine's logger that say nothing about the model.
_BOOKKEEPING = re.compile(r'^(iter|epoch|step|eta|time|data_time|memory)$')
_SCALAR_GROUPS = (
    ('Learning rates', r'(^|_)lr(_|$)'),
    ('Losses', r'loss'),
    ('Recognizability index', r'^xi'),
    ('Proximities', r'^d_?(p|n|ui)(_|$)'),
    ('UI statistics', r'(mu|sigma)_?ui|^ui_'),
    ('Effective rank', r'eff(ective)?_?rank|^erank'),
    ('Validation', r'rank-?_?\d+|(^|_)map(_|$)|tar@|tpir@|auc|acc|fnmr|^mean'),
)
_GROUP_ORDER = (
    'Losses',
    'Recognizability index',
    'Proximities',
    'UI statistics',
    'Effective rank',
    'Validation',
    'Learning rates',
    'Other',
)


def group_scalars(scalars: Scalars) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Sort logged scalars into the panels of the training curves, by name.

    The last part of a name such as ``tinyface/rank1`` decides; times and memory are dropped, and
    so is a scalar without a single finite value.

    Args:
        scalars: Name to (steps, values).

    Returns:
        Panel title to the scalars in it, in reading order; empty panels are left out.

    Example:
        >>> import numpy as np
        >>> one = (np.arange(2), np.ones(2))
        >>> groups = group_scalars({'lr': one, 'loss_cls': one, 'time': one, 'xi_hat': one})
        >>> {title: list(members) for title, members in groups.items()}
        {'Losses': ['loss_cls'], 'Recognizability index': ['xi_hat'], 'Learning rates': ['lr']}
    """
    found: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, (steps, values) in scalars.items():
        key = name.rsplit('/', 1)[-1].lower()
        if _BOOKKEEPING.match(key) or not np.isfinite(_floats(values)).any():
            continue
        title = next((t for t, pattern in _SCALAR_GROUPS if re.search(pattern, key)), 'Other')
        found.setdefault(title, {})[name] = (_floats(steps), _floats(values))
    return {title: found[title] for title in _GROUP_ORDER if title in found}


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving mean over 1/40 of the curve; a NaN is left out of the mean, not spread."""
    width = len(values) // 40 * 2 + 1
    kernel = np.ones(width)
    known = np.isfinite(values)
    count = np.convolve(known, kernel, 'same')
    total = np.convolve(np.where(known, values, 0.0), kernel, 'same')
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def training_figure(
    scalars: Scalars,
    epoch_steps: np.ndarray | None = None,
    theme: Theme = LIGHT,
    legend: bool = True,
) -> 'Figure':
    """Scalars of one panel over the iterations.

    A curve of more than 80 points is drawn pale, with its moving mean on top; learning rates,
    which have steps and no noise, are drawn as they are. The axis is
    logarithmic where positive values spread over more than a factor of 30, and in percent where
    every name belongs to validation and every value is a rate.

    Args:
        scalars: Name to (steps (N,), values (N,)); values may be NaN.
        epoch_steps: (E,) iterations at which epochs end, or None.
        theme: Colors.
        legend: Whether to draw the names into the figure.

    Returns:
        The figure.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(4.2, 2.7, theme)
    axes.set_xlabel('iteration')
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    styles = [_style(index, theme) for index in range(len(scalars))]
    levels = []
    titles = set(group_scalars(scalars))
    for (steps, values), style in zip(scalars.values(), styles, strict=True):
        steps, values = _floats(steps), _floats(values)
        finite = values[np.isfinite(values)]
        if len(finite):
            levels += np.quantile(finite, [0.02, 0.98]).tolist()
        if len(values) > 80 and titles != {'Learning rates'}:
            axes.plot(steps, values, alpha=0.25, linewidth=0.8, color=style['color'])
            values = _smooth(values)
        few = {'marker': 'o', 'markersize': 3.5} if len(values) <= 30 else {}
        axes.plot(steps, values, linewidth=1.8, **few, **style)

    if levels and min(levels) > 0 and max(levels) / min(levels) > 30:
        axes.set_yscale('log')
    elif titles == {'Validation'} and levels:
        if min(levels) >= 0 and max(levels) <= 1:
            _percent_axis(axes.yaxis)
    else:
        axes.ticklabel_format(axis='y', scilimits=(-3, 4))
    if epoch_steps is not None and len(epoch_steps):
        _mark_epochs(axes, _floats(epoch_steps), theme)
    if legend:
        _legend(axes, list(scalars), styles, theme)
    return figure


def _mark_epochs(axes: 'Axes', epoch_steps: np.ndarray, theme: Theme) -> None:
    every = -(-len(epoch_steps) // 8)
    for index, step in enumerate(epoch_steps, start=1):
        if len(epoch_steps) <= 40 or index % every == 0:
            axes.axvline(step, color=theme.line, linewidth=0.8, zorder=0.5)
        if index % every == 0:
            axes.annotate(
                f'{index}',
                (step, 1.0),
                xycoords=('data', 'axes fraction'),
                xytext=(0, 2),
                textcoords='offset points',
                ha='center',
                va='bottom',
                fontsize=7.5,
                color=theme.muted,
            )


def cmc_figure(
    curves: Mapping[str, Curve],
    max_rank: int = 50,
    theme: Theme = LIGHT,
    legend: bool = True,
) -> 'Figure':
    """Cumulative match characteristic of one or more systems, ranks on a logarithmic axis.

    Args:
        curves: Name of the system to its curve: rates over the ranks 1, ..., K.
        max_rank: Last rank drawn.
        theme: Colors.
        legend: Whether to draw the names into the figure.

    Returns:
        The figure.
    """
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

    figure, axes = new_figure(4.4, 3.1, theme)
    styles = [_style(index, theme) for index in range(len(curves))]
    last = 1
    for curve, style in zip(curves.values(), styles, strict=True):
        ranks, rates = _floats(curve.x), _floats(curve.y)
        last = max(last, min(len(ranks), max_rank))
        axes.plot(ranks, rates, linewidth=2, **style)
        axes.plot(ranks[:1], rates[:1], marker='o', markersize=5, color=style['color'])
        _band(axes, ranks, curve.low, curve.high, style['color'])
    axes.set_xscale('log')
    axes.set_xlim(0.94, max(last, 2) * 1.04)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    ticks = [rank for rank in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500) if rank <= last]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticks(ticks, [f'{rank}' for rank in ticks])
    axes.set_ylim(0, 1)
    _percent_axis(axes.yaxis)
    axes.set_xlabel('rank k')
    axes.set_ylabel('probes identified within rank k')
    if legend:
        _legend(axes, list(curves), styles, theme)
    return figure


# Kind of curve -> labels of the false alarms, of the hits and of the misses.
_RATE_LABELS = {
    'open_set': (
        'false positive identification rate (FPIR)',
        'true positive identification rate (TPIR)',
        'false negative identification rate (FNIR)',
    ),
    'verification': (
        'false acceptance rate (FAR)',
        'true acceptance rate (TAR)',
        'false rejection rate (FRR)',
    ),
}


def rates_figure(
    curves: Mapping[str, Curve],
    kind: Literal['open_set', 'verification'],
    theme: Theme = LIGHT,
    legend: bool = True,
) -> 'Figure':
    """Hits over false alarms, these on a logarithmic axis: TPIR over FPIR or TAR over FAR.

    Args:
        curves: Name of the system to its curve.
        kind: Whether x and y are FPIR and TPIR, or FAR and TAR.
        theme: Colors.
        legend: Whether to draw the names into the figure.

    Returns:
        The figure.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    figure, axes = new_figure(4.4, 3.3, theme)
    styles = [_style(index, theme) for index in range(len(curves))]
    lowest = 1.0
    for curve, style in zip(curves.values(), styles, strict=True):
        x = _floats(curve.x)
        axes.plot(x, _floats(curve.y), linewidth=2, **style)
        _band(axes, x, curve.low, curve.high, style['color'])
        lowest = min([lowest, *x[x > 0]])
    # A single comparison that can fail leaves one point at 1, which is no range.
    lowest = lowest if lowest < 1 else 0.1
    axes.set_xscale('log')
    axes.set_xlim(lowest, 1)
    axes.xaxis.set_minor_locator(NullLocator())
    # Decades alone would leave a short axis with one label.
    steps = (1, 2, 5) if lowest > 0.005 else (1,)
    ticks = [step * 10.0**power for power in range(-9, 1) for step in steps]
    ticks = [tick for tick in ticks if lowest * (1 - 1e-9) <= tick <= 1]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: np.format_float_positional(value, precision=9, trim='-'))
    )
    axes.set_ylim(0, 1)
    _percent_axis(axes.yaxis)
    # The labels of both axes meet in the corner.
    axes.tick_params(axis='x', pad=8)
    x_label, y_label, _ = _RATE_LABELS[kind]
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if legend:
        _legend(axes, list(curves), styles, theme)
    return figure


# Rates at which a DET axis may begin, end and be labeled, the most telling first: where labels
# would run into each other, the earlier one stays.
_DET_TICKS = (0.01, 0.1, 0.4, 0.8, 0.99, 0.001, 0.2, 0.6, 0.9, 0.999, 0.05, 1e-4, 1e-5)


def det_figure(
    curves: Mapping[str, Curve],
    kind: Literal['open_set', 'verification'],
    theme: Theme = LIGHT,
    legend: bool = True,
) -> 'Figure':
    """Detection error trade-off: misses over false alarms, FNIR over FPIR or FRR over FAR.

    Both axes are normal deviates, on which scores that are normally distributed give a straight
    line (Martin et al., "The DET curve in assessment of detection task performance", 1997). What
    is drawn are the deviates; the tick labels are rates. The axes end at round rates next to the
    curves; misses beyond, such as 0 and 1, are drawn at the end of their axis. Points at which no
    or every false alarm is allowed tell nothing of the system and are left out.

    Args:
        curves: Name of the system to its curve of hits, as in :func:`rates_figure`; a miss is
            one minus it.
        kind: Whether x and y are FPIR and TPIR, or FAR and TAR.
        theme: Colors.
        legend: Whether to draw the names into the figure.

    Returns:
        The figure.
    """
    from scipy.stats import norm

    figure, axes = new_figure(4.4, 3.3, theme)
    axes.grid(axis='x', color=theme.line, linewidth=0.8)
    styles = [_style(index, theme) for index in range(len(curves))]
    drawn = []
    for curve in curves.values():
        x = _floats(curve.x)
        inside = (x > 0) & (x < 1)
        ends = (None if end is None else _floats(end) for end in (curve.low, curve.high))
        low, high = (None if end is None else 1 - end[inside] for end in ends)
        # The lower end of the hits is the upper end of the misses.
        drawn.append(Curve(x[inside], 1 - _floats(curve.y)[inside], high, low))
    x_limits = _det_limits([curve.x for curve in drawn])
    misses = [values for curve in drawn for values in (curve.y, curve.low, curve.high)]
    y_limits = _det_limits([values for values in misses if values is not None])

    def deviates(misses: np.ndarray | None) -> np.ndarray | None:
        return None if misses is None else norm.ppf(np.clip(misses, *y_limits))

    for curve, style in zip(drawn, styles, strict=True):
        x = norm.ppf(curve.x)
        axes.plot(x, deviates(curve.y), linewidth=2, **style)
        _band(axes, x, deviates(curve.low), deviates(curve.high), style['color'])
    axes.set_xlim(norm.ppf(x_limits))
    axes.set_ylim(norm.ppf(y_limits))
    # Labels are wider than they are high.
    for axis, limits, most in ((axes.xaxis, x_limits, 8), (axes.yaxis, y_limits, 16)):
        gap = np.diff(norm.ppf(limits))[0] / most
        ticks: list[float] = []
        for tick in _DET_TICKS:
            apart = np.abs(norm.ppf(ticks) - norm.ppf(tick)) >= gap
            if limits[0] <= tick <= limits[1] and apart.all():
                ticks.append(tick)
        axis.set_ticks(norm.ppf(ticks), [_percent(tick) for tick in ticks])
    axes.tick_params(axis='x', pad=8)
    x_label, _, y_label = _RATE_LABELS[kind]
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if legend:
        _legend(axes, list(curves), styles, theme)
    return figure


def _det_limits(rates: Sequence[np.ndarray]) -> tuple[float, float]:
    """The ticks next to all rates other than 0 and 1; 40 % and 60 % are always in between."""
    ticks = np.sort(_DET_TICKS)
    values = np.concatenate([*rates, [0.4, 0.6]])
    values = values[(values > 0) & (values < 1)]
    first = np.searchsorted(ticks, values.min(), 'right') - 1
    last = np.searchsorted(ticks, values.max(), 'left')
    return float(ticks[max(first, 0)]), float(ticks[min(last, len(ticks) - 1)])


def quality_figure(
    sets: Mapping[str, np.ndarray],
    measure: str,
    theme: Theme = LIGHT,
    legend: bool = True,
) -> 'Figure':
    """Histograms of a quality measure over sets of faces, on common bins.

    The bins reach from the 0.2 % to the 99.8 % quantile; what lies outside is counted in the
    outermost bin, so that one extreme value does not squeeze everything else together.

    Args:
        sets: ``probe``, ``gallery``, ``ui`` (or any other name) to values (N,); NaN is ignored.
        measure: Name of the measure, the label of the axis.
        theme: Colors.
        legend: Whether to draw the names into the figure.

    Returns:
        The figure.
    """
    figure, axes = new_figure(4.2, 2.7, theme)
    finite = {name: _floats(values) for name, values in sets.items()}
    finite = {name: values[np.isfinite(values)] for name, values in finite.items()}
    finite = {name: values for name, values in finite.items() if len(values)}
    styles = []
    if finite:
        limits = [np.quantile(values, [0.002, 0.998]) for values in finite.values()]
        low, high = min(limit[0] for limit in limits), max(limit[1] for limit in limits)
        if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, 41)
        for index, (name, values) in enumerate(finite.items()):
            style = _style(SET_COLORS.get(name, index), theme)
            styles.append(style)
            counts, _ = np.histogram(np.clip(values, low, high), edges)
            heights = counts / len(values)
            axes.stairs(heights, edges, fill=True, color=style['color'], alpha=0.2)
            axes.stairs(heights, edges, color=style['color'], linewidth=1.5)
    _percent_axis(axes.yaxis)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(measure.replace('$', r'\$'))
    axes.set_ylabel('share of the set')
    if legend and finite:
        _legend(axes, list(finite), styles, theme)
    return figure


def discard_figure(
    curves: Mapping[str, DiscardCurve],
    bounds: Mapping[str, DiscardCurve] | None = None,
    theme: Theme = LIGHT,
    legend: bool = True,
) -> 'Figure':
    """Rank-1 error against the share of probes discarded as too poor.

    Args:
        curves: Quality measure to its curve.
        bounds: Reference lines, such as ``random`` and ``perfect knowledge``: gray, the first
            dotted, the others dashed.
        theme: Colors.
        legend: Whether to draw names and areas into the figure.

    Returns:
        The figure.
    """
    figure, axes = new_figure(4.4, 3.1, theme)
    entries = []
    for index, (name, curve) in enumerate(curves.items()):
        entries.append((name, curve, _style(MEASURE_COLORS.get(name, index + 3), theme)))
    for index, (name, curve) in enumerate((bounds or {}).items()):
        entries.append((name, curve, {'color': theme.muted, 'linestyle': '--' if index else ':'}))
    top = 0.0
    for _, curve, style in entries:
        shares = _floats(curve.shares)
        errors = np.broadcast_to(_floats(curve.errors), shares.shape)
        is_bound = style['color'] == theme.muted
        axes.plot(shares, errors, lw=1.4 if is_bound else 2, zorder=2 - is_bound, **style)
        _band(axes, shares, curve.low, curve.high, style['color'])
        reached = errors if curve.high is None else np.append(errors, _floats(curve.high))
        top = max([top, *reached[np.isfinite(reached)]])
    axes.set_ylim(0, min(1.0, top * 1.08) or 1.0)
    axes.set_xlim(left=0)
    _percent_axis(axes.xaxis)
    _percent_axis(axes.yaxis)
    axes.set_xlabel('share of probes discarded, lowest quality first')
    axes.set_ylabel('rank-1 error of the rest')
    if legend:
        labels = [n if c.auc is None else f'{n} ({c.auc:.3f})' for n, c, _ in entries]
        _legend(axes, labels, [style for *_, style in entries], theme)
    return figure


def check_face(image: np.ndarray) -> np.ndarray:
    """Raise ValueError unless it is (h, w, 3) uint8 with at least one pixel."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f'a face must be (h, w, 3) uint8 RGB, got {image.shape} {image.dtype}')
    return image


def resize_longer_side(image: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """Resize to a longer side of ``size`` pixels; the aspect ratio stays."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA if scale < 1 else interpolation)


def overlay_attention(
    face: np.ndarray, attention: np.ndarray, size: int = 112, strength: float = 0.75
) -> np.ndarray:
    """Lay a spatial attention map over its face.

    The face turns gray, and the map is scaled to its own range: the least attended place stays
    as it is, the most attended one is colored. Both are resized bicubically.

    Args:
        face: (h, w, 3) uint8, RGB.
        attention: (h', w') real, any range; NaN counts as the lowest value.
        size: Longer side of the result, in pixels.
        strength: Opacity of the color at the most attended place, in [0, 1].

    Returns:
        (H, W, 3) uint8, RGB, with ``max(H, W) == size``. A constant map colors nothing.

    Example:
        >>> face = np.full((16, 12, 3), 128, np.uint8)
        >>> overlay_attention(face, np.eye(7), size=112).shape
        (112, 84, 3)
    """
    attention = np.asarray(attention, dtype=np.float32)
    if attention.ndim != 2 or not attention.size:
        raise ValueError(f'an attention map must be (h, w), got {attention.shape}')
    base = resize_longer_side(check_face(face), size, cv2.INTER_CUBIC)
    gray = cv2.cvtColor(base, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)

    finite = attention[np.isfinite(attention)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    scaled = np.nan_to_num(attention, nan=low, posinf=high, neginf=low)
    scaled = (scaled - low) / (high - low) if high > low else np.zeros_like(scaled)
    shape = base.shape[1], base.shape[0]
    scaled = cv2.resize(scaled, shape, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    table = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    color = cv2.cvtColor(table, cv2.COLOR_BGR2RGB).astype(np.float32)
    opacity = strength * scaled[..., None]
    return np.rint(gray * (1 - opacity) + color * opacity).astype(np.uint8)


def _font(points: int) -> 'FreeTypeFont | ImageFont':
    from PIL import ImageFont

    try:
        import matplotlib
    except ImportError:
        return ImageFont.load_default(points)
    # The font that matplotlib carries covers Latin, Greek and Cyrillic on every machine.
    path = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(str(path), points)


def _hex_rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def contact_sheet(
    cards: Sequence[FaceCard],
    columns: int = 8,
    size: int = 96,
    gap: int = 8,
    border: int = 4,
    interpolation: Literal['nearest', 'bicubic'] = 'nearest',
    theme: Theme = LIGHT,
) -> np.ndarray:
    """Faces of any native size in a grid, all equally large, captions below.

    A cell is ``size + 2 * border`` wide and as high, plus 15 pixels for every caption line of the
    longest caption; cells are ``gap`` apart and ``gap`` from the edge. A face that is not square
    is centered in its cell.

    Args:
        cards: Faces in reading order.
        columns: Faces in a row.
        size: Longer side of a face, in pixels.
        gap: Distance between cells, in pixels.
        border: Width of the frame that says right or wrong, in pixels.
        interpolation: ``nearest`` shows the pixels of the camera, ``bicubic`` what is given to
            a network.
        theme: Colors.

    Returns:
        (H, W, 3) uint8, RGB.

    Example:
        >>> face = np.zeros((20, 20, 3), np.uint8)
        >>> contact_sheet([FaceCard(face, ('RI 0.41',))] * 5, columns=3, size=40).shape
        (150, 176, 3)
    """
    if not cards:
        raise ValueError('a contact sheet needs at least one face')
    line_height = 15
    cell = size + 2 * border
    cell_height = cell + line_height * max(len(card.caption) for card in cards)
    columns = min(columns, len(cards))
    rows = -(-len(cards) // columns)
    shape = rows * (cell_height + gap) + gap, columns * (cell + gap) + gap, 3
    sheet = np.empty(shape, np.uint8)
    sheet[:] = _hex_rgb(theme.surface)
    frames = {
        'right': _hex_rgb(theme.right),
        'wrong': _hex_rgb(theme.wrong),
        None: _hex_rgb(theme.line),
    }
    method = {'nearest': cv2.INTER_NEAREST, 'bicubic': cv2.INTER_CUBIC}[interpolation]
    corners = []
    for index, card in enumerate(cards):
        row, column = divmod(index, columns)
        y, x = gap + row * (cell_height + gap), gap + column * (cell + gap)
        corners.append((y, x))
        sheet[y : y + cell, x : x + cell] = frames[card.border]
        sheet[y + border : y + border + size, x + border : x + border + size] = _hex_rgb(theme.line)
        face = resize_longer_side(check_face(card.image), size, method)
        height, width = face.shape[:2]
        top, left = y + border + (size - height) // 2, x + border + (size - width) // 2
        sheet[top : top + height, left : left + width] = face
    if any(card.caption for card in cards):
        _write_captions(sheet, cards, corners, cell, line_height, theme)
    return sheet


def _write_captions(
    sheet: np.ndarray,
    cards: Sequence[FaceCard],
    corners: Sequence[tuple[int, int]],
    cell: int,
    line_height: int,
    theme: Theme,
) -> None:
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(sheet)
    draw, font = ImageDraw.Draw(canvas), _font(11)
    for card, (y, x) in zip(cards, corners, strict=True):
        for number, line in enumerate(card.caption):
            while len(line) > 1 and draw.textlength(line, font) > cell:
                line = line.rstrip('…')[:-1] + '…'
            draw.text(
                (x + cell / 2, y + cell + number * line_height + 2),
                line,
                fill=theme.muted if number else theme.ink,
                font=font,
                anchor='ma',
            )
    sheet[:] = np.asarray(canvas)
