"""The page that compares methods: from arrays to one self-contained HTML file.

Like the report page it only renders: no script, nothing loaded from elsewhere, figures embedded
for light and for dark displays.
"""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import plots
from .page import (
    PERCENT,
    Sections,
    details_content,
    discard_content,
    embedded_face,
    embedded_image,
    interval_text,
    number_text,
    quality_panels,
    render_page,
    value_text,
    write_page,
)
from .plots import DiscardCurve, FaceCard

SECTIONS: Sections = {
    'reading': ('In words', 'In words', None),
    'recognition': ('Recognition', 'Recognition', 'no recognition rates were given.'),
    'ablation': ('Ablation', 'Ablation', 'no ablation was given.'),
    'quality': ('Quality scores', 'Quality', 'no quality scores were given.'),
    'discard': ('Error versus discard', 'Discard', 'no curves were given.'),
    'hard_faces': ('Lowest faces of each measure', 'Faces', 'no faces were given.'),
    'activation': ('Activation maps', 'Activation', 'no activation maps were given.'),
    'runs': ('Runs', 'Runs', 'no runs were given.'),
    'missing': ('Not here', 'Not here', None),
    'details': ('Details', 'Details', 'no details were given.'),
}
# A figure whose difference to the best is at least as likely by chance is not called worse.
_SIGNIFICANT = 0.05
# Bands of more curves than this hide one another.
_MOST_BANDS = 3
_FOOTER = (
    'RI: recognizability index, how far a face can be trusted to be recognized. UI: '
    'unrecognizable identities. ERS: embedding recognizability score. All faces are shown at one '
    'size; most are only a few pixels wide.'
)


@dataclass(frozen=True)
class Score:
    """One figure of a method, over its seeds.

    Attributes:
        mean: Mean over the seeds.
        low: Lower end of the 95 % interval, or None.
        high: Upper end, or None.
        lowest: Lowest value over the seeds, or None.
        highest: Highest value over the seeds, or None.
        num_seeds: Number of seeds.
        p: Chance of so large a difference to the best of the column if there were none; None for
            the best itself and where it was not tested.
        best: Whether it is the best of its column.
        unit: ``'rate'`` is in [0, 1] and shown in percent, ``'number'`` is shown as it is.
        lower_is_better: As for an error or the area below an error curve.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    lowest: float | None = None
    highest: float | None = None
    num_seeds: int = 1
    p: float | None = None
    best: bool = False
    unit: Literal['rate', 'number'] = 'rate'
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        if self.unit not in ('rate', 'number'):
            raise ValueError(f"the unit of a score is 'rate' or 'number', not {self.unit!r}")


@dataclass(frozen=True)
class ScoreRow:
    """One method of a table.

    Attributes:
        name: For example ``RI-Face``.
        scores: One a column; None where there is none.
    """

    name: str
    scores: Sequence[Score | None]


@dataclass(frozen=True)
class ScoreTable:
    """Methods in rows, figures in columns.

    Attributes:
        title: For example ``TinyFace, ResNet-50``.
        note: One line below the title, or ''.
        columns: Names of the figures, such as ``rank-1``.
        rows: One a method.
        kind: What a row is.

    Raises:
        ValueError: A row has more or fewer scores than there are columns, or the scores of a
            column differ in ``unit`` or ``lower_is_better``.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[ScoreRow]
    kind: str = 'Method'

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.scores) != len(self.columns):
                raise ValueError(
                    f'table {self.title!r}: row {row.name!r} has {len(row.scores)} scores for '
                    f'{len(self.columns)} columns; fill it up with None'
                )
        for index, column in enumerate(self.columns):
            scores = [row.scores[index] for row in self.rows]
            kinds = {(score.unit, score.lower_is_better) for score in scores if score is not None}
            if len(kinds) > 1:
                raise ValueError(
                    f'table {self.title!r}: the scores of column {column!r} must agree in unit '
                    f'and lower_is_better, got {sorted(kinds)}'
                )


@dataclass(frozen=True)
class ActivationRow:
    """A face with what carries its similarity under each method.

    Attributes:
        face: (h, w, 3) uint8, RGB.
        maps: Method to its map (h', w') in [0, 1], coarser than the face or not.
        caption: Lines below the face.
    """

    face: np.ndarray
    maps: Mapping[str, np.ndarray]
    caption: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        plots.check_caption(self.caption)
        for method, values in self.maps.items():
            values = np.asarray(values)
            if values.ndim != 2 or not ((values >= 0) & (values <= 1)).all():
                raise ValueError(
                    f'the activation map of {method!r} must be (h, w) in [0, 1], got shape '
                    f'{values.shape}'
                )


@dataclass(frozen=True)
class ComparisonData:
    """Everything the comparison page shows; what is empty is left out, with its reason.

    Attributes:
        title: Heading of the page.
        subtitle: One line below.
        facts: Data sets, methods, seeds, date, version: short name to value, in order.
        notes: Sentences the reader must not miss.
        command: The command line that makes the page again.
        reading: Sentences that say what the figures mean; they come first.
        recognition: Tables of recognition rates.
        ablation: Tables of what each part of a method contributes.
        quality: Data set to measure to the set (``probe``, ``gallery``, ``ui``) to values (N,).
        quality_tables: Tables of how well measures tell probes from UI faces.
        discard: Data set to measure to its curve of rank-1 error over the discarded share.
        discard_bounds: Data set to reference curves: ``random``, ``perfect knowledge``.
        discard_tables: Tables of areas below the curves.
        hard_faces: Data set to measure (``ERS``, ``RI``) to its lowest faces, in order.
        activation: Faces with activation maps; columns are methods.
        activation_note: How the maps were made: target, layer, method.
        runs: All runs, each with its name, status, seconds, seed and so on; keys become columns,
            ``seconds`` is shown as hours and minutes.
        missing: What was planned and is not here, with the reason.
        details: Heading to name to value.
        omitted: Section (``recognition``, ``ablation``, ``quality``, ``discard``, ``hard_faces``,
            ``activation``, ``runs``, ``missing``, ``details``, ``reading``) to the reason why it
            is missing. Without one the page does not mention ``reading`` and ``missing``.
    """

    title: str
    subtitle: str = ''
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    command: str | None = None
    reading: Sequence[str] = ()
    recognition: Sequence[ScoreTable] = ()
    ablation: Sequence[ScoreTable] = ()
    quality: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]] = field(default_factory=dict)
    quality_tables: Sequence[ScoreTable] = ()
    discard: Mapping[str, Mapping[str, DiscardCurve]] = field(default_factory=dict)
    discard_bounds: Mapping[str, Mapping[str, DiscardCurve]] = field(default_factory=dict)
    discard_tables: Sequence[ScoreTable] = ()
    hard_faces: Mapping[str, Mapping[str, Sequence[FaceCard]]] = field(default_factory=dict)
    activation: Sequence[ActivationRow] = ()
    activation_note: str = ''
    runs: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[str] = ()
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    omitted: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.omitted) - set(SECTIONS))
        if unknown:
            raise ValueError(f'omitted: no section is called {unknown}; there are {list(SECTIONS)}')


def render_comparison(data: ComparisonData, out: str | os.PathLike[str]) -> Path:
    """Write the comparison page.

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
    return write_page(comparison_html(data), out)


def comparison_html(data: ComparisonData) -> str:
    """The comparison page as text; see :func:`render_comparison`.

    Example:
        >>> row = ScoreRow('RI-Face <r50>', [Score(0.327, best=True)])
        >>> table = ScoreTable('TinyFace', '', ['rank-1'], [row])
        >>> page = comparison_html(ComparisonData('Methods', recognition=[table]))
        >>> 'RI-Face &lt;r50&gt;' in page, '32.7' in page
        (True, True)
    """
    content = {
        'reading': data.reading,
        'recognition': _tables(data.recognition),
        'ablation': _tables(data.ablation),
        'quality': _quality(data),
        'discard': _discard(data),
        'hard_faces': [
            (
                dataset,
                [(measure, [embedded_face(c) for c in cards]) for measure, cards in of.items()],
            )
            for dataset, of in data.hard_faces.items()
            if of
        ],
        'activation': _activation(data.activation, data.activation_note),
        'runs': _runs(data.runs),
        'missing': data.missing,
        'details': details_content(data.details),
    }
    return render_page(
        _MACROS,
        SECTIONS,
        content,
        data,
        css=_CSS,
        spectrum=[],
        has_faces=any(content[key] for key in ('hard_faces', 'activation')),
        footer=_FOOTER,
    )


def _tables(tables: Sequence[ScoreTable]) -> dict[str, Any] | None:
    """Tables, and which of the marks in them need an explanation."""
    if not tables:
        return None
    scores = [score for table in tables for row in table.rows for score in row.scores if score]
    return {
        'tables': [_table(table) for table in tables],
        'has_interval': any(_interval(score) for score in scores),
        'has_seeds': any(score.num_seeds > 1 for score in scores),
        'marks': {_mark(score) for score in scores},
    }


def _table(table: ScoreTable) -> dict[str, Any]:
    columns = []
    for index, name in enumerate(table.columns):
        scores = [row.scores[index] for row in table.rows if row.scores[index] is not None]
        arrow = ('↓' if scores[0].lower_is_better else '↑') if scores else ''
        columns.append((name, arrow))
    return {
        'title': table.title,
        'note': table.note,
        'kind': table.kind,
        'columns': columns,
        'rows': [
            (row.name, [score and _cell(score) for score in row.scores]) for row in table.rows
        ],
    }


def _interval(score: Score) -> str:
    return interval_text(score.low, score.high, score.unit).removesuffix(PERCENT)


def _mark(score: Score) -> str:
    if score.best:
        return 'best'
    if score.p is None or math.isnan(score.p):
        return 'untested'
    return 'near' if score.p >= _SIGNIFICANT else 'worse'


def _cell(score: Score) -> dict[str, Any]:
    seeds = ''
    if score.num_seeds > 1:
        spread = interval_text(score.lowest, score.highest, score.unit).removesuffix(PERCENT)
        seeds = f'{score.num_seeds} seeds' + (f': {spread}' if spread else '')
    mark = _mark(score)
    return {
        'mean': number_text(score.mean, score.unit),
        'interval': _interval(score),
        'seeds': seeds,
        'mark': mark,
        'p': f'p = {score.p:.2g} against the best' if mark in ('near', 'worse') else '',
    }


def _quality(data: ComparisonData) -> dict[str, Any] | None:
    datasets = []
    for dataset, measures in data.quality.items():
        panels = quality_panels(measures)
        drawn = {panel['measure'] for panel in panels}
        without = [measure for measure in measures if measure not in drawn]
        if measures:
            datasets.append((dataset, panels, without))
    if not datasets and not data.quality_tables:
        return None
    return {'datasets': datasets, 'scores': _tables(data.quality_tables)}


def _discard(data: ComparisonData) -> dict[str, Any] | None:
    datasets = []
    for dataset, curves in data.discard.items():
        if len(curves) > _MOST_BANDS:
            curves = {name: replace(curve, low=None, high=None) for name, curve in curves.items()}
        if curves:
            bounds = data.discard_bounds.get(dataset, {})
            datasets.append((dataset, discard_content(curves, bounds)))
    if not datasets and not data.discard_tables:
        return None
    return {
        'datasets': datasets,
        'has_band': any(content['has_band'] for _, content in datasets),
        'scores': _tables(data.discard_tables),
    }


def _activation(rows: Sequence[ActivationRow], note: str) -> dict[str, Any] | None:
    if not rows:
        return None
    methods = list(dict.fromkeys(method for row in rows for method in row.maps))
    return {
        'note': note,
        'methods': methods,
        'rows': [
            {
                'face': {**embedded_image(row.face), 'caption': row.caption, 'border': None},
                'maps': [
                    (method, _overlay(row.face, row.maps[method]) if method in row.maps else None)
                    for method in methods
                ],
            }
            for row in rows
        ],
    }


def _overlay(face: np.ndarray, values: np.ndarray) -> dict[str, Any]:
    overlay = plots.overlay_attention(face, values, size=112)
    return {**embedded_image(overlay), 'caption': (), 'border': None}


def _runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not runs:
        return None
    columns = list(dict.fromkeys(name for run in runs for name in run))
    rows = []
    for run in runs:
        rows.append(
            [
                _duration(run[name])
                if name == 'seconds' and name in run
                else value_text(run.get(name))
                for name in columns
            ]
        )
    known = [run['seconds'] for run in runs if _is_number(run.get('seconds'))]
    return {
        'columns': ['time' if name == 'seconds' else name for name in columns],
        'numeric': [any(row[index][1] for row in rows) for index in range(len(columns))],
        'rows': [[text for text, _ in row] for row in rows],
        'statuses': list(Counter(str(run['status']) for run in runs if 'status' in run).items()),
        'total': _duration(sum(known))[0] if known else '',
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _duration(seconds: Any) -> tuple[str, bool]:
    if not _is_number(seconds):
        return value_text(None)[0], True
    minutes, rest = divmod(round(float(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours:,} h {minutes:02d} min', True
    return (f'{minutes} min {rest:02d} s' if minutes else f'{rest} s'), True


_CSS = """
.bullets{padding-left:1.2em;max-width:78ch}
.bullets li+li{margin-top:6px}
section>.how:last-child,.bullets:last-child{margin-bottom:0}
.block+.block,.block+.how{margin-top:30px}
.block>h3{font-size:1.1rem}
.block>h3+p{color:var(--muted);font-size:.88rem;line-height:1.4;margin-top:2px}
.block>.scroll{margin-top:10px}
.block>.panels,.block>.split,.block>.sides{margin-top:12px}
.scores,.runs,.maps{width:auto;min-width:100%}
.scores th:first-child,.scores td:first-child,.maps td:first-child,.maps th:first-child{
 position:sticky;left:0;z-index:1;background:var(--card);padding-right:14px}
.scores td:first-child{min-width:8em;overflow-wrap:break-word}
.scores th{line-height:1.3}
.scores th.num{white-space:normal;min-width:6em}
.scores td{vertical-align:top;line-height:1.3}
.scores small{display:block;font-size:.74rem;color:var(--muted)}
.scores i{font-style:normal;color:var(--muted);margin-right:.35em}
.scores .best{font-weight:700}
.scores .best small{font-weight:400}
.runs{font-size:.88rem}
.runs td{white-space:nowrap;padding-top:4px;padding-bottom:4px}
summary{cursor:pointer;color:var(--muted);margin-bottom:8px}
.sides{display:grid;gap:22px 36px;
 grid-template-columns:repeat(auto-fit,minmax(min(400px,100%),1fr))}
.sides>div{min-width:0}
.sides h4{margin:0 0 8px;font-size:.9rem;font-weight:500;color:var(--muted)}
.sides .faces{grid-template-columns:repeat(6,minmax(0,1fr));gap:12px 8px}
.maps{min-width:0}
.maps td{padding:8px 5px;vertical-align:top}
.maps th{padding:4px 5px;text-align:center}
.maps .face{width:104px}
@media (max-width:760px){
 .scores{font-size:.86rem}
 .scores td:first-child{min-width:6.4em;max-width:7.5em}
 .scores th:first-child,.scores td:first-child{padding-right:8px}
 .maps .face{width:84px}
 .sides .faces{grid-template-columns:repeat(4,minmax(0,1fr))}
}
"""

_MACROS = """
{% macro bullets(sentences) %}
<ul class="bullets">{% for sentence in sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% endmacro %}
{% macro about_scores(scores) %}
<p class="how">↑ higher is better, ↓ lower is better.
{%- if 'best' in scores.marks %} <b>Bold</b> is the best of its column.{% endif %}
{%- if 'near' in scores.marks %} ≈ cannot be told from the best (p ≥ 0.05).{% endif %}
{%- if 'worse' in scores.marks or 'untested' in scores.marks %} Without a mark a figure is
{%- if 'worse' in scores.marks %} worse than the best (p &lt; 0.05){% endif %}
{%- if 'worse' in scores.marks and 'untested' in scores.marks %} or{% endif %}
{%- if 'untested' in scores.marks %} not tested against it{% endif %}.{% endif %}
{%- if scores.has_seeds %} Figures of several seeds are means.{% endif %}
{%- if scores.has_interval %} First line below a figure: 95 % interval
{%- if scores.has_seeds %}; second: lowest and highest over the seeds{% endif %}.
{%- elif scores.has_seeds %} Below a figure: lowest and highest over the seeds.{% endif %}</p>
{% endmacro %}
{% macro score_tables(scores) %}
{% for table in scores.tables %}
<div class="block"><h3>{{ table.title }}</h3>
{% if table.note %}<p>{{ table.note }}</p>{% endif %}
{% if table.rows %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table class="scores">
<tr><th>{{ table.kind }}</th>
{% for name, arrow in table.columns %}<th class="num">{{ name }} {{ arrow }}</th>{% endfor %}</tr>
{% for name, cells in table.rows %}
<tr><td>{{ name }}</td>
{% for cell in cells %}
{% if cell %}
<td class="num {{ cell.mark }}"{% if cell.p %} title="{{ cell.p }}"{% endif %}>
{%- if cell.mark == 'near' %}<i>≈</i>{% endif %}{{ cell.mean }}
{%- if cell.interval %}<small>{{ cell.interval }}</small>{% endif %}
{%- if cell.seeds %}<small>{{ cell.seeds }}</small>{% endif %}</td>
{% else %}
<td class="num">&ndash;</td>
{% endif %}
{% endfor %}</tr>
{% endfor %}
</table></div>
{% else %}
<p class="none">No method has figures.</p>
{% endif %}</div>
{% endfor %}
{% endmacro %}
{% macro tables(scores) %}{{ about_scores(scores) }}{{ score_tables(scores) }}{% endmacro %}
{% macro quality(content) %}
{{ about_quality() }}
{% for dataset, panels, without in content.datasets %}
<div class="block"><h3>{{ dataset }}</h3>
{% if without %}<p>Without a finite value, and left out: {{ without | join(', ') }}.</p>{% endif %}
{% if panels %}{{ histograms(panels) }}{% endif %}</div>
{% endfor %}
{% if content.scores %}{{ tables(content.scores) }}{% endif %}
{% endmacro %}
{% macro discard(content) %}
{{ about_discard(content.has_band) }}
{% for dataset, curves in content.datasets %}
<div class="block"><h3>{{ dataset }}</h3>{{ discard_curves(curves) }}</div>
{% endfor %}
{% if content.scores %}{{ tables(content.scores) }}{% endif %}
{% endmacro %}
{% macro hard_faces(datasets) %}
<p class="how">The faces that each measure trusts least, the lowest first. A green border and ✓ mean
that the best gallery match is the right person, a red one and ✗ that it is not: the better a
measure, the fewer green ones are here.</p>
{% for dataset, measures in datasets %}
<div class="block"><h3>{{ dataset }}</h3><div class="sides">
{% for measure, cards in measures %}
<div><h4>lowest {{ measure }}</h4>
{% if cards %}<div class="faces">{% for card in cards %}{{ show(card) }}{% endfor %}</div>
{% else %}<p class="none">No faces were given.</p>{% endif %}</div>
{% endfor %}
</div></div>
{% endfor %}
{% endmacro %}
{% macro activation(content) %}
<p class="how">Which parts of a face carry its similarity, method by method. {{ content.note }}
Every map is scaled to its own range, so compare places within a map, not brightness between
maps; a face without any color has no place that speaks for its person.</p>
<div class="heat"><span>least</span><i></i><span>most</span></div>
<div class="scroll" tabindex="0" role="region" aria-label="Activation maps"><table class="maps">
<tr><th>Face</th>{% for method in content.methods %}<th>{{ method }}</th>{% endfor %}</tr>
{% for row in content.rows %}
<tr><td>{{ show(row.face) }}</td>
{% for method, overlay in row.maps %}
<td>{% if overlay %}{{ show(overlay, 'activation map of ' ~ method) }}{% endif %}</td>
{% endfor %}</tr>
{% endfor %}
</table></div>
{% endmacro %}
{% macro runs(content) %}
<p class="how">{{ content.rows | length }} runs
{%- for status, number in content.statuses %}{{ ': ' if loop.first else ', ' }}
{{- number }} {{ status }}{% endfor %}
{%- if content.total %}; {{ content.total }} in all{% endif %}.</p>
<details{% if content.rows | length <= 12 %} open{% endif %}><summary>All runs</summary>
<div class="scroll" tabindex="0" role="region" aria-label="Runs"><table class="runs">
<tr>{% for name in content.columns %}
<th{% if content.numeric[loop.index0] %} class="num"{% endif %}>{{ name }}</th>{% endfor %}</tr>
{% for row in content.rows %}
<tr>{% for text in row %}
<td{% if content.numeric[loop.index0] %} class="num"{% endif %}>{{ text }}</td>{% endfor %}</tr>
{% endfor %}
</table></div></details>
{% endmacro %}
{% set renderers = {'reading': bullets, 'recognition': tables, 'ablation': tables,
 'quality': quality, 'discard': discard, 'hard_faces': hard_faces, 'activation': activation,
 'runs': runs, 'missing': bullets, 'details': details} %}
"""
