"""Draw figures of decisions: ROC and DET curves, realized rates, error over coverage."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from mmvlr.evaluation.functional import Curve

from .drawing import (
    CHANCE,
    COLORS,
    SERIES,
    add_note,
    draw_curve,
    finish,
    flatten,
    format_percent,
    index_names,
    make_styles,
    new_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal['open_set', 'verification']

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
# Rates at which a DET axis may begin, end and be labeled, the most important first: where labels
# would overlap, the earlier one is kept.
_DET_TICKS = (0.01, 0.1, 0.4, 0.8, 0.99, 0.001, 0.2, 0.6, 0.9, 0.999, 0.05, 1e-4, 1e-5)


def draw_rates(curves: Mapping[str, Curve], kind: Kind) -> 'Figure':
    """Draw TPIR over FPIR or TAR over FAR, with false alarms on a logarithmic axis.

    With TAR over FAR, the ROC, the chance level is marked.

    Args:
        curves: Name of the system to its curve.
        kind: Whether x and y are FPIR and TPIR, or FAR and TAR.
    """
    axes = new_axes(4.4, 3.3)
    styles = make_styles(range(len(curves)))
    for curve, style in zip(curves.values(), styles, strict=True):
        draw_curve(axes, curve, style)
    x = np.concatenate([flatten(curve.x) for curve in curves.values()])
    lowest = x[x > 0].min(initial=1)
    # A single comparison that can fail leaves one point at 1, which is no range.
    lowest = lowest if lowest < 1 else 0.1
    if kind == 'verification':
        chance = np.geomspace(lowest, 1, 50)
        draw_curve(axes, Curve(chance, chance), CHANCE)
        add_note(axes, 'chance', (0.6, 0.6))
    axes.set(xscale='log', xlim=(lowest, 1), ylim=(0, 1))
    axes.minorticks_off()
    # With decades only, a short axis would have one label.
    steps = (1, 2, 5) if lowest > 0.005 else (1,)
    ticks = [step * 10.0**power for power in range(-9, 1) for step in steps]
    ticks = [tick for tick in ticks if lowest * (1 - 1e-9) <= tick <= 1]
    axes.set_xticks(ticks, [np.format_float_positional(t, precision=9, trim='-') for t in ticks])
    axes.yaxis.set_major_formatter(format_percent)
    return finish(axes, *_RATE_LABELS[kind][:2], curves, styles)


def draw_det(curves: Mapping[str, Curve], kind: Kind) -> 'Figure':
    """Draw the detection error trade-off: FNIR over FPIR or FRR over FAR.

    Both axes are normal deviates, on which scores that are normally distributed give a straight
    line (Martin et al., "The DET curve in assessment of detection task performance", 1997). The
    deviates are drawn; the tick labels are rates. The axes end at round rates next to the curves;
    misses beyond, such as 0 and 1, are drawn at the end of their axis. Points at which no or every
    false alarm is allowed carry no information and are left out. With FRR over FAR the chance level
    is marked.

    Args:
        curves: Name of the system to its curve of hits, as in :func:`draw_rates`; a miss is one
            minus it.
        kind: Whether x and y are FPIR and TPIR, or FAR and TAR.
    """
    from scipy.stats import norm

    axes = new_axes(4.4, 3.3)
    axes.grid(axis='x', color=COLORS['line'], linewidth=0.8)
    styles = make_styles(range(len(curves)))
    drawn = []
    for curve in curves.values():
        x = flatten(curve.x)
        inside = (x > 0) & (x < 1)
        # The lower end of the hits is the upper end of the misses.
        ends = (curve.y, curve.high, curve.low)
        misses = [None if end is None else 1 - flatten(end)[inside] for end in ends]
        drawn.append(Curve(x[inside], *misses))
    x_limits = _limit_det([curve.x for curve in drawn])
    misses = [values for curve in drawn for values in (curve.y, curve.low, curve.high)]
    y_limits = _limit_det([values for values in misses if values is not None])

    def deviate(misses: np.ndarray | None) -> np.ndarray | None:
        return None if misses is None else norm.ppf(np.clip(misses, *y_limits))

    for curve, style in zip(drawn, styles, strict=True):
        ends = (deviate(end) for end in (curve.y, curve.low, curve.high))
        draw_curve(axes, Curve(norm.ppf(curve.x), *ends), style)
    if kind == 'verification':
        # At chance level FRR = 1 - FAR; only this part of the line is within the axes.
        ends = norm.ppf(np.clip(x_limits, 1 - y_limits[1], 1 - y_limits[0]))
        draw_curve(axes, Curve(ends, -ends), CHANCE)
        add_note(axes, 'chance', (ends[1], -ends[1]))
    axes.set(xlim=norm.ppf(x_limits), ylim=norm.ppf(y_limits))
    # Labels are wider than they are high.
    for axis, limits, most in ((axes.xaxis, x_limits, 8), (axes.yaxis, y_limits, 16)):
        gap = np.diff(norm.ppf(limits))[0] / most
        ticks: list[float] = []
        for tick in _DET_TICKS:
            apart = np.abs(norm.ppf(ticks) - norm.ppf(tick)) >= gap
            if limits[0] <= tick <= limits[1] and apart.all():
                ticks.append(tick)
        axis.set_ticks(norm.ppf(ticks), [format_percent(tick) for tick in ticks])
    return finish(axes, _RATE_LABELS[kind][0], _RATE_LABELS[kind][2], curves, styles)


def _limit_det(rates: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the ticks next to all rates but 0 and 1; 40 % and 60 % are always in between."""
    ticks = np.sort(_DET_TICKS)
    values = np.concatenate([*rates, [0.4, 0.6]])
    values = values[(values > 0) & (values < 1)]
    first = np.searchsorted(ticks, values.min(), 'right') - 1
    last = np.searchsorted(ticks, values.max(), 'left')
    return float(ticks[max(first, 0)]), float(ticks[min(last, len(ticks) - 1)])


def draw_realized_fpir(rates: Mapping[str, np.ndarray], target: float) -> 'Figure':
    """Draw the false positive rates that thresholds realized on new people, one row per rule.

    Args:
        rates: Name of the rule to the rate in each split of the people, (S,).
        target: The target rate.

    Returns:
        The figure: the middle 95 % of the splits as a line, their mean as a point.
    """
    axes = new_axes(4.4, 3.3)
    axes.grid(axis='x', color=COLORS['line'], linewidth=0.8)
    axes.grid(visible=False, axis='y')
    for row, values in enumerate(rates.values()):
        low, high = np.percentile(values, [2.5, 97.5])
        color = SERIES[row % len(SERIES)]
        axes.plot([low, high], [row, row], color=color, linewidth=3, solid_capstyle='round')
        axes.plot([np.mean(values)], [row], marker='o', markersize=7, color=color)
    axes.axvline(target, color=COLORS['muted'], linewidth=1.2, linestyle='--')
    axes.set_yticks(range(len(rates)), list(rates))
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f'realized FPIR on other people (target {target:g})')
    return axes.figure


def draw_risk_coverage(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> 'Figure':
    """Draw the error of the answered faces against the share that is answered.

    Args:
        curves: Name of the measure that decides on abstention to (coverage, risk), (K,) each.
    """
    axes = new_axes(4.4, 3.3)
    styles = make_styles(index_names(curves).values())
    for (coverage, risk), style in zip(curves.values(), styles, strict=True):
        axes.plot(coverage, risk, linewidth=2, **style)
    axes.set_xlim(1, min(float(np.min(coverage)) for coverage, _ in curves.values()))
    axes.set_ylim(bottom=0)
    x_label = 'coverage: share of faces that are answered'
    return finish(axes, x_label, 'error of the answered faces', curves, styles)
