"""Figures of decisions: false positive rates that were kept, error against coverage."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .plots import DASHES, LIGHT, MEASURE_COLORS, Theme, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FREE_COLORS = (3, 4, 5, 6, 7)


def realized_fpir_figure(
    rates: Mapping[str, np.ndarray], target: float, theme: Theme = LIGHT
) -> 'Figure':
    """False positive rates that thresholds realized on new people, one row a rule.

    Args:
        rates: Name of the rule to the rate in each split of the people, (S,).
        target: The rate that was asked for.
        theme: Colors.

    Returns:
        The figure: the middle 95 % of the splits as a line, their mean as a point.
    """
    figure, axes = new_figure(4.4, 3.3, theme)
    axes.grid(axis='x', color=theme.line, linewidth=0.8)
    axes.grid(visible=False, axis='y')
    for row, values in enumerate(rates.values()):
        low, high = np.percentile(values, [2.5, 97.5])
        color = theme.series[row % len(theme.series)]
        axes.plot([low, high], [row, row], color=color, linewidth=3, solid_capstyle='round')
        axes.plot([np.mean(values)], [row], marker='o', markersize=7, color=color)
    axes.axvline(target, color=theme.muted, linewidth=1.2, linestyle='--')
    axes.set_yticks(range(len(rates)), list(rates))
    axes.set_ylim(len(rates) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f'realized FPIR on other people (target {target:g})')
    return figure


def risk_coverage_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], theme: Theme = LIGHT
) -> 'Figure':
    """Error of the answered faces against the share that is answered.

    Args:
        curves: Name of the measure that decides on abstention to (coverage, risk), (K,) each.
        theme: Colors.

    Returns:
        The figure.
    """
    figure, axes = new_figure(4.4, 3.3, theme)
    free = 0
    for name, (coverage, risk) in curves.items():
        if name in MEASURE_COLORS:
            index = MEASURE_COLORS[name]
        else:
            index, free = _FREE_COLORS[free % len(_FREE_COLORS)], free + 1
        style = dict(color=theme.series[index], linestyle=DASHES[free // 6 % len(DASHES)])
        axes.plot(coverage, risk, linewidth=2, label=name, **style)
    axes.set_xlim(1, min(float(np.min(coverage)) for coverage, _ in curves.values()))
    axes.set_ylim(bottom=0)
    axes.set_xlabel('coverage: share of faces that are answered')
    axes.set_ylabel('error of the answered faces')
    figure.legend(
        loc='outside upper center', ncols=3, frameon=False, fontsize=8, labelcolor=theme.ink
    )
    return figure
