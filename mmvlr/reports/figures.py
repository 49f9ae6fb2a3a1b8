"""Draw figures of face recognition and face quality from arrays."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmvlr.evaluation.functional import Curve

from .drawing import (
    CHANCE,
    COLORS,
    add_note,
    draw_curve,
    escape,
    finish,
    flatten,
    format_number,
    format_percent,
    index_names,
    keep_finite,
    make_styles,
    new_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class DiscardCurve(Curve):
    """Rank-1 error ``y`` of the probes that are kept when a share ``x`` of them is discarded.

    Attributes:
        auc: Area under the curve, or None.
    """

    auc: float | None = None


# Scalars of mmengine's logger that do not describe the model.
_BOOKKEEPING = re.compile(r'^(iter|epoch|step|eta|time|data_time|memory)$')
# Panels in reading order, and the patterns of their names; a name belongs to the first panel that
# matches, but rates are matched first: base_lr_loss would be no loss.
_PANELS = {
    'Losses': r'loss',
    'Recognizability index': r'^xi',
    'Proximities': r'^d_?(p|n|ui)(_|$)',
    'UI statistics': r'(mu|sigma)_?ui|^ui_',
    'Effective rank': r'eff(ective)?_?rank|^erank',
    'Validation': r'rank-?_?\d+|(^|_)map(_|$)|tar@|tpir@|auc|acc|fnmr|^mean',
    # Of another test set, see RetainHook.
    'Retained': r'^retain|^both$',
    'Learning rates': r'(^|_)lr(_|$)',
    'Other': r'',
}


def _choose_panel(key: str) -> str:
    order = ('Learning rates', *_PANELS)
    return next(title for title in order if re.search(_PANELS[title], key))


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
        panel = 'Retained' if name.startswith('retain') else _choose_panel(key)
        if not _BOOKKEEPING.match(key) and np.isfinite(flatten(values)).any():
            found.setdefault(panel, {})[name] = (flatten(steps), flatten(values))
    return {title: found[title] for title in _PANELS if title in found}


def smooth(values: np.ndarray) -> np.ndarray:
    """Return the moving mean over 1/40 of the curve; a NaN is left out of the mean."""
    kernel = np.ones(len(values) // 40 * 2 + 1)
    known = np.isfinite(values)
    count = np.convolve(known, kernel, 'same')
    total = np.convolve(np.where(known, values, 0.0), kernel, 'same')
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def draw_training(scalars: Scalars, epoch_steps: np.ndarray | None = None) -> 'Figure':
    """Draw the scalars of one panel over the iterations.

    A curve of more than 80 points is drawn pale, with its moving mean on top; learning rates,
    which have steps and no noise, are drawn unchanged. The axis is logarithmic where positive
    values spread over more than a factor of 30, and in percent where every name belongs to
    validation and every value is a rate.

    Args:
        scalars: Name to (steps (N,), values (N,)); values may be NaN.
        epoch_steps: (E,) iterations at which epochs end, or None.
    """
    axes = new_axes(4.2, 2.7)
    axes.locator_params(axis='x', nbins=5, integer=True)
    styles = make_styles(range(len(scalars)))
    levels = []
    titles = set(group_scalars(scalars))
    for (steps, values), style in zip(scalars.values(), styles, strict=True):
        steps, values = flatten(steps), flatten(values)
        finite = values[np.isfinite(values)]
        if len(finite):
            levels += np.quantile(finite, [0.02, 0.98]).tolist()
        if len(values) > 80 and titles != {'Learning rates'}:
            axes.plot(steps, values, alpha=0.25, linewidth=0.8, color=style['color'])
            values = smooth(values)
        few = {'marker': 'o', 'markersize': 3.5} if len(values) <= 30 else {}
        axes.plot(steps, values, linewidth=1.8, **few, **style)

    is_rate = titles == {'Validation'} and levels and min(levels) >= 0 and max(levels) <= 1
    if levels and min(levels) > 0 and max(levels) / min(levels) > 30:
        axes.set_yscale('log')
        axes.locator_params(axis='y', numticks=6)
        axes.minorticks_off()
    # The factor of scientific notation would overlap the numbers of the epochs.
    axes.yaxis.set_major_formatter(format_percent if is_rate else format_number)
    every = 1 if epoch_steps is None else -(-len(epoch_steps) // 8)
    for index, step in enumerate(() if epoch_steps is None else flatten(epoch_steps), start=1):
        if len(epoch_steps) <= 40 or index % every == 0:
            axes.axvline(step, color=COLORS['line'], linewidth=0.8, zorder=0.5)
        if index % every == 0:
            add_note(axes, f'{index}', (step, 1.0), (0, 2), 'center', axes.get_xaxis_transform())
    return finish(axes, 'iteration', '', scalars, styles)


def draw_cmc(curves: Mapping[str, Curve], max_rank: int = 50) -> 'Figure':
    """Draw cumulative match characteristics, ranks on a logarithmic axis.

    Args:
        curves: Name of the system to its curve: rates over the ranks 1, ..., K.
        max_rank: Last rank drawn.
    """
    axes = new_axes(4.4, 3.1)
    styles = make_styles(range(len(curves)))
    last = max([min(len(curve.x), max_rank) for curve in curves.values()], default=1)
    for curve, style in zip(curves.values(), styles, strict=True):
        draw_curve(axes, curve, style)
        axes.plot(curve.x[:1], curve.y[:1], marker='o', markersize=5, color=style['color'])
    ticks = [rank for rank in (1, 2, 3, 5, 10, 20, 50, 100, 200, 500) if rank <= last]
    axes.set(xscale='log', xlim=(0.94, max(last, 2) * 1.04), ylim=(0, 1))
    axes.minorticks_off()
    axes.set_xticks(ticks, [f'{rank}' for rank in ticks])
    axes.yaxis.set_major_formatter(format_percent)
    return finish(axes, 'rank k', 'probes identified within rank k', curves, styles)


def draw_quality(sets: Mapping[str, np.ndarray], measure: str) -> 'Figure':
    """Draw histograms of a quality measure over sets of faces, on common bins.

    The bins reach from the 0.2 % to the 99.8 % quantile; what lies outside is counted in the
    outermost bin, so that one extreme value does not squeeze everything else together.

    Args:
        sets: ``probe``, ``gallery``, ``ui`` (or any other name) to values (N,); NaN is ignored.
        measure: Name of the measure, the label of the axis.
    """
    axes = new_axes(4.2, 2.7)
    finite = keep_finite(sets)
    styles = make_styles(index_names(finite).values())
    if finite:
        limits = [np.quantile(values, [0.002, 0.998]) for values in finite.values()]
        low, high = min(limit[0] for limit in limits), max(limit[1] for limit in limits)
        if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, 41)
        for values, style in zip(finite.values(), styles, strict=True):
            heights = np.histogram(np.clip(values, low, high), edges)[0] / len(values)
            axes.stairs(heights, edges, fill=True, color=style['color'], alpha=0.2)
            axes.stairs(heights, edges, color=style['color'], linewidth=1.5)
    axes.locator_params(axis='x', nbins=5)
    axes.xaxis.set_major_formatter(format_number)
    axes.yaxis.set_major_formatter(format_percent)
    axes.set_ylim(bottom=0)
    return finish(axes, escape(measure), 'share of the set', finite, styles)


def draw_discard(
    curves: Mapping[str, DiscardCurve], bounds: Mapping[str, DiscardCurve] | None = None
) -> 'Figure':
    """Draw rank-1 error over the share of discarded probes of lowest quality.

    Args:
        curves: Quality measure to its curve.
        bounds: Reference lines, gray: ``random``, which is dotted and marked as chance, and others,
            such as ``perfect knowledge``, dashed.
    """
    axes = new_axes(4.4, 3.1)
    entries = list(zip(curves.items(), make_styles(index_names(curves).values()), strict=True))
    for (_, curve), style in entries:
        draw_curve(axes, curve, style)
    for name, curve in (bounds or {}).items():
        style = CHANCE if name == 'random' else {**CHANCE, 'linestyle': '--'}
        entries.append(((name, curve), style))
        draw_curve(axes, curve, style)
        if name == 'random':
            add_note(axes, 'chance', (curve.x[-1], curve.y[-1]))
    reached = np.concatenate(
        [flatten(end) for (_, c), _ in entries for end in (c.y, c.high) if end is not None] or [[0]]
    )
    top = float(np.max(reached, initial=0.0, where=np.isfinite(reached)))
    axes.set_ylim(0, min(1.0, top * 1.08) or 1.0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(format_percent)
    axes.yaxis.set_major_formatter(format_percent)
    labels = [n if c.auc is None else f'{n} ({c.auc:.3f})' for (n, c), _ in entries]
    x_label = 'share of probes discarded, lowest quality first'
    return finish(
        axes, x_label, 'rank-1 error of the rest', labels, [style for _, style in entries]
    )
