"""The report page of a run: from arrays to one self-contained HTML file.

This module only renders; what it shares with others is in :mod:`mmvlr.visualization.page`.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mmvlr.evaluation.functional import Curve

from . import plots
from .page import (
    Sections,
    details_content,
    discard_content,
    embedded_face,
    embedded_figure,
    embedded_image,
    interval_text,
    legend_entry,
    number_text,
    quality_panels,
    read_off,
    render_page,
    write_page,
)
from .plots import DiscardCurve, FaceCard

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Metric:
    """One row of the table of headline metrics.

    Attributes:
        name: For example ``rank-1``.
        value: Of the reported model.
        low: Lower end of the 95 % interval, or None.
        high: Upper end, or None.
        baselines: Name of another system to its value; the names become columns.
        unit: ``'rate'`` is in [0, 1] and shown in percent, ``'number'`` is shown as it is.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    unit: Literal['rate', 'number'] = 'rate'


@dataclass(frozen=True)
class AttentionCard:
    """A face with the spatial attention that the model pays to it.

    Attributes:
        face: (h, w, 3) uint8, RGB.
        attention: (h', w') real, coarser than the face or not.
        caption: Lines below, such as the face's RI.
    """

    face: np.ndarray
    attention: np.ndarray
    caption: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        plots.check_caption(self.caption)


@dataclass(frozen=True)
class Failure:
    """A probe whose best match is another person.

    Attributes:
        probe: The probe; its caption tells its RI.
        matches: Best gallery images in order, with scores as captions and a border that says
            whether the identity is right.
        mate: The best-placed gallery image of the same person, with its score and rank; None
            where the gallery holds none.
    """

    probe: FaceCard
    matches: Sequence[FaceCard]
    mate: FaceCard | None = None


@dataclass(frozen=True)
class ReportData:
    """Everything the report page shows. What is None or empty is omitted with its reason.

    Attributes:
        title: Heading of the page.
        subtitle: One line below.
        facts: Method, data set, checkpoint, date, version: short name to value, in order.
        notes: Sentences the reader must not miss, such as 'These faces are synthetic.'
        command: The command line that makes the page again.
        headline: The metrics that answer how good the model is.
        spectrum: Faces in order of rising RI, shown as a band in the header.
        scalars: Name to (steps (N,), values (N,)), as logged.
        epoch_steps: (E,) iterations at which epochs end.
        cmc: System to its curve: identification rate over the ranks 1, ..., K.
        open_set: System to its curve: TPIR over FPIR.
        verification: System to its curve: TAR over FAR.
        quality: Measure (``RI``, ``ERS``, ``norm``) to the set (``probe``, ``gallery``, ``ui``)
            to values (N,).
        discard: Measure to its curve of rank-1 error over the discarded share.
        discard_bounds: Reference curves: ``random``, ``perfect knowledge``.
        lowest: Faces of lowest RI, in order.
        highest: Faces of highest RI, in order.
        attention: Faces with attention maps, over the range of RI.
        failures: Probes that are identified wrongly.
        details: Heading to name to value.
        omitted: Section (``headline``, ``training``, ``cmc``, ``open_set``, ``verification``,
            ``quality``, ``discard``, ``faces``, ``attention``, ``failures``, ``details``) to the
            reason why it is missing. Without one the page does not mention ``open_set`` and
            ``verification``, which few data sets have.
    """

    title: str
    subtitle: str = ''
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    command: str | None = None
    headline: Sequence[Metric] | None = None
    spectrum: Sequence[FaceCard] | None = None
    scalars: plots.Scalars | None = None
    epoch_steps: np.ndarray | None = None
    cmc: Mapping[str, Curve] | None = None
    open_set: Mapping[str, Curve] | None = None
    verification: Mapping[str, Curve] | None = None
    quality: Mapping[str, Mapping[str, np.ndarray]] | None = None
    discard: Mapping[str, DiscardCurve] | None = None
    discard_bounds: Mapping[str, DiscardCurve] | None = None
    lowest: Sequence[FaceCard] | None = None
    highest: Sequence[FaceCard] | None = None
    attention: Sequence[AttentionCard] | None = None
    failures: Sequence[Failure] | None = None
    details: Mapping[str, Mapping[str, Any]] | None = None
    omitted: Mapping[str, str] = field(default_factory=dict)


# Few data sets have what the sections without a reason show.
SECTIONS: Sections = {
    'headline': ('Results', 'Results', 'no metrics were given.'),
    'training': ('Training curves', 'Training', 'the run has no logged scalars.'),
    'cmc': ('Identification', 'Identification', 'no match ranks were computed.'),
    'open_set': ('Open-set identification', 'Open set', None),
    'verification': ('Verification', 'Verification', None),
    'quality': ('Quality scores', 'Quality', 'no quality scores were computed.'),
    'discard': ('Error versus discard', 'Discard', 'no ranks with quality scores were computed.'),
    'faces': ('Lowest and highest RI', 'Faces', 'no faces with an RI were given.'),
    'attention': ('Attention maps', 'Attention', 'the model has no spatial attention.'),
    'failures': ('Failures', 'Failures', 'no wrongly identified probes were given.'),
    'details': ('Details', 'Details', 'no details were given.'),
}

_PANEL_NOTES = {
    'Losses': 'The sum that is minimized, and its terms.',
    'Recognizability index': 'The target ξ and its prediction ξ̂, which should follow it.',
    'Proximities': (
        'Distance to the own prototype (dᴾ, should fall), to the nearest other (dᴺ) and to the '
        'UI center (should stay clear of 0).'
    ),
    'UI statistics': 'Mean and spread of ξ̂ over the unrecognizable faces.',
    'Effective rank': 'Dimensions the embeddings really use; near 1 they have collapsed.',
    'Validation': 'Measured on held-out faces.',
    'Learning rates': 'One line per group of parameters.',
    'Other': 'Further scalars of the log.',
}
_SYMBOLS = {
    'xi': 'ξ',
    'xi_hat': 'ξ̂',
    'd_p': 'd<sup>P</sup>',
    'd_n': 'd<sup>N</sup>',
    'd_ui': 'd<sup>UI</sup>',
    'mu_ui': '&mu;<sub>UI</sub>',
    'sigma_ui': '&sigma;<sub>UI</sub>',
}
_CMC_RANKS = (1, 5, 10, 20, 50)
# Kind of curve -> (hits, false alarms, rates of false alarms at which the table tells the hits).
_RATES = {
    'open_set': ('TPIR', 'FPIR', (0.3, 0.2, 0.1, 0.01)),
    'verification': ('TAR', 'FAR', (0.3, 0.1, 0.01, 0.001)),
}
_FOOTER = (
    'RI: recognizability index, how far a face can be trusted to be recognized. UI: '
    'unrecognizable identities. ERS: embedding recognizability score. All faces are shown at one '
    'size; most are only a few pixels wide.'
)


def render_report(data: ReportData, out: str | os.PathLike[str]) -> Path:
    """Write the report page.

    The page is written beside its destination and then renamed, so that a reader never sees half
    a page and an earlier one survives any failure.

    Args:
        data: What to show.
        out: The HTML file; missing folders are made.

    Returns:
        The path of the file.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        ValueError: A face is not (h, w, 3) uint8.
    """
    return write_page(report_html(data), out)


def report_html(data: ReportData) -> str:
    """The report page as text; see :func:`render_report`.

    Example:
        >>> page = report_html(ReportData('RI-Face <r50>', headline=[Metric('rank-1', 0.327)]))
        >>> 'RI-Face &lt;r50&gt;' in page, '32.7' in page
        (True, True)
    """
    content = {
        'headline': _headline(data.headline or ()),
        'training': _training(data),
        'cmc': _cmc(data.cmc or {}),
        'open_set': _rates(data.open_set or {}, 'open_set'),
        'verification': _rates(data.verification or {}, 'verification'),
        'quality': quality_panels(data.quality or {}),
        'discard': discard_content(data.discard or {}, data.discard_bounds or {}),
        'faces': [
            (heading, [embedded_face(card) for card in cards])
            for heading, cards in (('Lowest RI', data.lowest), ('Highest RI', data.highest))
            if cards
        ],
        'attention': [_attention(card) for card in data.attention or ()],
        'failures': [_failure(failure) for failure in data.failures or ()],
        'details': details_content(data.details or {}),
    }
    return render_page(
        _MACROS,
        SECTIONS,
        content,
        data,
        spectrum=[embedded_face(card) for card in data.spectrum or ()],
        has_faces=any(content[key] for key in ('faces', 'attention', 'failures'))
        or bool(data.spectrum),
        footer=_FOOTER,
    )


def _attention(card: AttentionCard) -> dict[str, Any]:
    overlay = plots.overlay_attention(card.face, card.attention, size=112)
    return {
        'face': {**embedded_image(card.face), 'caption': (), 'border': None},
        'overlay': {**embedded_image(overlay), 'caption': (), 'border': None},
        'caption': card.caption,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        'probe': embedded_face(failure.probe),
        'matches': [embedded_face(card) for card in failure.matches],
        'mate': None if failure.mate is None else embedded_face(failure.mate),
    }


def _headline(metrics: Sequence[Metric]) -> dict[str, Any] | None:
    if not metrics:
        return None
    columns = list(dict.fromkeys(name for metric in metrics for name in metric.baselines))
    rows = []
    for metric in metrics:
        rows.append(
            {
                'name': metric.name,
                'value': number_text(metric.value, metric.unit),
                'interval': interval_text(metric.low, metric.high, metric.unit),
                'baselines': [
                    number_text(metric.baselines.get(name), metric.unit) for name in columns
                ],
                'scale': _scale(metric) if metric.unit == 'rate' else None,
            }
        )
    return {
        'columns': columns,
        'rows': rows,
        'has_interval': any(row['interval'] for row in rows),
        'has_scale': any(row['scale'] for row in rows),
    }


def _scale(metric: Metric) -> dict[str, Any] | None:
    """Positions in percent of the value, its interval and the baselines between 0 and 1."""

    def place(value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        return round(100 * min(max(value, 0.0), 1.0), 2)

    value, low, high = place(metric.value), place(metric.low), place(metric.high)
    if value is None:
        return None
    band = None if low is None or high is None else (low, round(high - low, 2))
    marks = [place(other) for other in metric.baselines.values()]
    return {'value': value, 'band': band, 'marks': [mark for mark in marks if mark is not None]}


def _scalar_label(name: str) -> 'Markup | str':
    from markupsafe import Markup

    symbol = _SYMBOLS.get(name.rsplit('/', 1)[-1].lower())
    return name if symbol is None else Markup('<b>{}</b> {}').format(Markup(symbol), name)


def _training(data: ReportData) -> list[dict[str, Any]]:
    panels = []
    for title, members in plots.group_scalars(data.scalars or {}).items():
        panels.append(
            {
                'title': title,
                'note': _PANEL_NOTES[title],
                'legend': [legend_entry(_scalar_label(name), i) for i, name in enumerate(members)],
                'image': embedded_figure(
                    lambda theme, members=members: plots.training_figure(
                        members, data.epoch_steps, theme, legend=False
                    ),
                    f'{title} over iterations: {", ".join(members)}',
                ),
            }
        )
    return panels


def _cmc(curves: Mapping[str, Curve]) -> dict[str, Any] | None:
    if not curves:
        return None
    longest = max(len(curve.x) for curve in curves.values())
    ranks = [rank for rank in _CMC_RANKS if rank <= longest]
    rows = []
    for index, (name, curve) in enumerate(curves.items()):
        rates = dict(zip(curve.x, curve.y, strict=True))
        rows.append((legend_entry(name, index), [number_text(rates.get(rank)) for rank in ranks]))
    return {
        'image': embedded_figure(
            lambda theme: plots.cmc_figure(curves, theme=theme, legend=False),
            f'Cumulative match characteristic of {", ".join(curves)}',
        ),
        'ranks': ranks,
        'rows': rows,
        'has_band': any(curve.low is not None for curve in curves.values()),
    }


def _rates(
    curves: Mapping[str, Curve], kind: Literal['open_set', 'verification']
) -> dict[str, Any] | None:
    if not curves:
        return None
    hits, false_alarms, targets = _RATES[kind]
    rows = []
    for index, (name, curve) in enumerate(curves.items()):
        with np.errstate(divide='ignore'):
            x = np.log(np.asarray(curve.x, dtype=np.float64))
        ends = (np.nan if end is None else end for end in (curve.low, curve.high))
        value, low, high = (read_off(np.log(targets), x, y) for y in (curve.y, *ends))
        cells = [
            (number_text(v), interval_text(a, b)) for v, a, b in zip(value, low, high, strict=True)
        ]
        rows.append((legend_entry(name, index), cells))
    names = ', '.join(curves)
    return {
        'kind': kind,
        'hits': hits,
        'legend': [legend_entry(name, index) for index, name in enumerate(curves)],
        'images': [
            embedded_figure(
                lambda theme: plots.rates_figure(curves, kind, theme, legend=False),
                f'{hits} over {false_alarms} of {names}',
            ),
            embedded_figure(
                lambda theme: plots.det_figure(curves, kind, theme, legend=False),
                f'Detection error trade-off of {names}',
            ),
        ],
        'targets': [f'{false_alarms} {target:g}' for target in targets],
        'rows': rows,
        'has_band': any(curve.low is not None for curve in curves.values()),
    }


_MACROS = """
{% macro headline(table) %}
<p class="how">What the model reaches on the test set
{%- if table.columns %}, beside other systems on the same faces{% endif %}.
{% if table.has_scale %}<span class="wide">The blue mark on the scale is this model
{%- if table.has_interval %}, pale around it the 95 % interval{% endif %}
{%- if table.columns %}; gray ticks are the other systems{% endif %}.</span>{% endif %}</p>
<div class="scroll"><table class="headline">
<tr><th>Metric</th><th class="num">This model</th>
{% if table.has_interval %}<th class="num wide">95 % interval</th>{% endif %}
{% for name in table.columns %}<th class="num">{{ name }}</th>{% endfor %}
{% if table.has_scale %}
<th class="scale"><span class="ticks"><span>0</span><span>50</span><span>100 %</span></span></th>
{% endif %}</tr>
{% for row in table.rows %}
<tr><td>{{ row.name }}</td><td class="num main">{{ row.value }}
{%- if row.interval %}<small>{{ row.interval }}</small>{% endif %}</td>
{% if table.has_interval %}<td class="num soft wide">{{ row.interval }}</td>{% endif %}
{% for value in row.baselines %}<td class="num">{{ value }}</td>{% endfor %}
{% if table.has_scale %}
<td class="scale">{% if row.scale %}<div><i></i>
{% if row.scale.band %}
<i class="band" style="left:{{ row.scale.band[0] }}%;right:auto;width:
{{- row.scale.band[1] }}%"></i>
{% endif %}
{% for mark in row.scale.marks %}<i class="mark" style="left:{{ mark }}%"></i>{% endfor %}
<i class="dot" style="left:{{ row.scale.value }}%"></i></div>{% endif %}</td>
{% endif %}</tr>
{% endfor %}
</table></div>
{% endmacro %}
{% macro training(panels) %}
<p class="how">Values logged during training. Pale lines are single iterations and strong lines
their moving mean; vertical lines, numbered above, are the ends of epochs.</p>
<div class="panels">
{% for panel in panels %}
<div class="panel"><h3>{{ panel.title }}</h3><p>{{ panel.note }}</p>
{{ legend(panel.legend) }}{{ plot(panel.image) }}</div>
{% endfor %}
</div>
{% endmacro %}
{% macro cmc(curves) %}
<p class="how">How often the right identity is among the k best gallery matches (CMC curve). The
curve starts at the rank-1 rate, and higher is better
{%- if curves.has_band %}; bands are 95 % intervals{% endif %}.</p>
<div class="split">{{ plot(curves.image) }}
<div class="scroll"><table>
<tr><th>Rank</th>{% for rank in curves.ranks %}<th class="num">{{ rank }}</th>{% endfor %}</tr>
{% for entry, cells in curves.rows %}
<tr><td class="entry">{{ key(entry) }}</td>
{% for cell in cells %}<td class="num">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div></div>
{% endmacro %}
{% macro rates(curves) %}
<p class="how">How often {% if curves.kind == 'open_set' -%}
a person of the gallery is found and accepted (TPIR), against how often a stranger is taken for
somebody (FPIR)
{%- else -%}
two images of one person are accepted (TAR), against how often images of two people are (FAR)
{%- endif %}: higher is better in the first image, and lower in the second, the DET curve, which
shows the misses on normal-deviate axes{% if curves.has_band %}; bands are 95 % intervals
{%- endif %}.</p>
{{ legend(curves.legend) }}
<div class="split">{% for image in curves.images %}{{ plot(image) }}{% endfor %}</div>
<div class="scroll"><table class="rates">
<tr><th>{{ curves.hits }} at</th>
{% for target in curves.targets %}<th class="num">{{ target }}</th>{% endfor %}</tr>
{% for entry, cells in curves.rows %}
<tr><td class="entry">{{ key(entry) }}</td>
{% for value, interval in cells %}
<td class="num">{{ value }}{% if interval %}<small>{{ interval }}</small>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</table></div>
{% endmacro %}
{% macro quality(panels) %}
{{ about_quality() }}{{ histograms(panels) }}
{% endmacro %}
{% macro discard(curves) %}
{{ about_discard(curves.has_band) }}{{ discard_curves(curves) }}
{% endmacro %}
{% macro faces(groups) %}
<p class="how">Faces at both ends of the recognizability index. A green border and ✓ mean that
the best gallery match is the right person, a red one and ✗ that it is not: red belongs among
the lowest, green among the highest.</p>
{% for heading, cards in groups %}
<div class="group"><h3>{{ heading }}</h3>
<div class="faces">{% for card in cards %}{{ show(card) }}{% endfor %}</div></div>
{% endfor %}
{% endmacro %}
{% macro attention(cards) %}
<p class="how">Where the perceptibility attention looks: each face beside its spatial attention
map. Every map is scaled to its own range, so compare places within a face, not brightness
between faces.</p>
<div class="heat"><span>least</span><i></i><span>most attended</span></div>
<div class="pairs">
{% for card in cards %}
<figure class="pair"><div>{{ show(card.face) }}{{ show(card.overlay, 'attention map') }}</div>
{{ lines(card.caption) }}</figure>
{% endfor %}
</div>
{% endmacro %}
{% macro failures(items) %}
<p class="how">Probes whose best match is another person, with their best gallery matches and
their own mate. Green is the right identity, red a wrong one; a mate that scores just below the
first match was a near miss, and a probe of low RI should have been refused.</p>
{% for item in items %}
<div class="failure">
<div><h3>Probe</h3>{{ show(item.probe, 'probe') }}</div>
<div class="of-five"><h3>Best gallery matches</h3><div class="matches">
{% for card in item.matches %}{{ show(card, 'gallery match') }}{% endfor %}</div></div>
<div><h3>Own mate</h3>
{% if item.mate %}{{ show(item.mate, 'own mate') }}
{% else %}<p class="none">none in the gallery</p>{% endif %}</div>
</div>
{% endfor %}
{% endmacro %}
{% set renderers = {'headline': headline, 'training': training, 'cmc': cmc, 'open_set': rates,
 'verification': rates, 'quality': quality, 'discard': discard, 'faces': faces,
 'attention': attention, 'failures': failures, 'details': details} %}
"""
