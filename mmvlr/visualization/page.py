"""What the pages share: style sheet, layout, and how values, faces and figures get into them.

A page is one file. Images are embedded, the style sheet is inline, there is no script, and a
content security policy forbids the page to load anything, so it opens the same from a disk, a mail
attachment or a web server. Figures are embedded twice, for light and for dark displays.
"""

import base64
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from mmvlr.utils.io import write_atomic

from . import plots
from .plots import DiscardCurve, FaceCard, Theme

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

# Section -> (title, short title, reason given where the data do not say why it is missing). A
# section whose reason is None then leaves no trace: a page without it lacks nothing.
Sections = Mapping[str, tuple[str, str, str | None]]

MISSING = '\u2013'
PERCENT = '\u202f%'
_SET_NAMES = {'probe': 'probes', 'gallery': 'gallery', 'ui': 'UI faces'}
_DISCARD_SHARES = (0.0, 0.1, 0.3, 0.5)
# Faces larger than this are shrunk: they are shown at about half of it.
_MAX_FACE_SIDE = 160


def write_page(page: str, out: str | os.PathLike[str]) -> Path:
    """Write a page beside its destination and rename it, so that a reader never sees half of it."""
    # A file name from a disk may hold bytes that are no text; they must not lose the whole page.
    content = page.encode('utf-8', 'replace')
    return write_atomic(Path(out), lambda beside: beside.write_bytes(content))


def render_page(
    macros: str,
    sections: Sections,
    content: Mapping[str, Any],
    data: Any,
    css: str = '',
    **variables: Any,
) -> str:
    """Fill the layout.

    Args:
        macros: Jinja macros, and ``renderers``, which maps every section to one of them.
        sections: Sections in order.
        content: Section to what its macro gets; empty where it is left out.
        data: Has ``title``, ``subtitle``, ``facts``, ``notes``, ``command`` and ``omitted``.
        css: Style sheet of the macros, if they need more than the common one.
        **variables: ``spectrum`` (faces in the header), ``has_faces`` (offer to show their pixels)
            and ``footer``.
    """
    page = _template(macros).render(
        data=data,
        facts=[(name, value_text(value)[0]) for name, value in data.facts.items()],
        sections={
            key: {
                'title': title,
                'short': short,
                'content': content[key],
                'reason': data.omitted.get(key, reason),
            }
            for key, (title, short, reason) in sections.items()
            if content[key] or data.omitted.get(key, reason) is not None
        },
        css=_style_sheet() + css,
        **variables,
    )
    return page.lstrip()


@cache
def _template(macros: str) -> 'Template':
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError(
            'The page needs jinja2, which is not installed: pip install "mmvlr[demo]"'
        ) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_MACROS + macros + _LAYOUT)


def value_text(value: Any) -> tuple[str, bool]:
    """Text of a value, and whether it is a number (which is set to the right)."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return MISSING, False
    if isinstance(value, bool):
        return ('yes' if value else 'no'), False
    if isinstance(value, int):
        return f'{value:,}', True
    if isinstance(value, float):
        return (MISSING if math.isnan(value) else f'{value:.4g}'), True
    if isinstance(value, Mapping):
        return ', '.join(f'{name}: {value_text(item)[0]}' for name, item in value.items()), False
    if isinstance(value, list | tuple):
        return ', '.join(value_text(item)[0] for item in value), False
    return str(value), False


def number_text(value: float | None, unit: str = 'rate') -> str:
    """A rate in percent, or a number as it is; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    if unit == 'rate':
        return f'{100 * value:.1f}{PERCENT}'
    return f'{value:.3f}' if 0.001 <= abs(value) < 10 else f'{value:.4g}'


def interval_text(low: float | None, high: float | None, unit: str = 'rate') -> str:
    """Both ends of an interval, or nothing where one is unknown."""
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return ''
    # One unit is enough for both ends.
    first = number_text(low, unit).removesuffix(PERCENT)
    return f'{first} {MISSING} {number_text(high, unit)}'


def data_uri(kind: str, data: bytes) -> str:
    """An image (``png``, ``jpeg``) as an address that holds it."""
    return f'data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}'


def _encode(image: np.ndarray, extension: str, parameters: Sequence[int] = ()) -> bytes:
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    return cv2.imencode(extension, bgr, list(parameters))[1].tobytes()


def embedded_image(image: np.ndarray) -> dict[str, Any]:
    """A face, embedded without loss at VLR sizes and as JPEG above them."""
    image = plots.check_face(image)
    if max(image.shape[:2]) > _MAX_FACE_SIDE:
        image = plots.resize_longer_side(image, _MAX_FACE_SIDE, cv2.INTER_AREA)
    height, width = image.shape[:2]
    if max(height, width) <= 64:
        uri = data_uri('png', _encode(image, '.png'))
    else:
        uri = data_uri('jpeg', _encode(image, '.jpg', (cv2.IMWRITE_JPEG_QUALITY, 88)))
    return {'uri': uri, 'width': width, 'height': height}


def embedded_face(card: FaceCard) -> dict[str, Any]:
    """What the macro ``show`` needs of a face."""
    return {**embedded_image(card.image), 'caption': card.caption, 'border': card.border}


def embedded_figure(draw: Callable[[Theme], 'Figure'], alt: str) -> dict[str, Any]:
    """A figure for light and for dark displays."""
    from PIL import Image

    image: dict[str, Any] = {'alt': alt}
    for name, theme in (('light', plots.LIGHT), ('dark', plots.DARK)):
        pixels = plots.figure_pixels(draw(theme))
        image['height'], image['width'] = pixels.shape[:2]
        # Line art needs few colors: a palette cuts the page to a third.
        buffer = BytesIO()
        indexed = Image.fromarray(pixels).quantize(96, dither=Image.Dither.NONE)
        indexed.save(buffer, 'png', optimize=True)
        image[name] = data_uri('png', buffer.getvalue())
    return image


def legend_entry(label: Any, color: int | None, dash: str = '-', extra: str = '') -> dict[str, Any]:
    """One entry of a legend; it stands in the page, where it wraps, scales and can be searched."""
    count = len(plots.LIGHT.series)
    if color is None:
        return {'label': label, 'color': 'var(--muted)', 'dash': dash, 'extra': extra}
    return {
        'label': label,
        'color': f'var(--s{color % count})',
        'dash': plots.DASHES[color // count % 4],
        'extra': extra,
    }


def read_off(targets: Any, x: Any, y: Any) -> np.ndarray:
    """Values of a curve at the targets, between its points linearly; NaN outside of it."""
    x = np.asarray(x, dtype=np.float64).reshape(-1)
    y = np.broadcast_to(np.asarray(y, dtype=np.float64).reshape(-1), x.shape)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return np.full(len(targets), np.nan)
    return np.interp(targets, x[known], y[known], left=np.nan, right=np.nan)


def _finite(values: Any) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    return values[np.isfinite(values)]


def _auc(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Chance that a random positive exceeds a random negative; a tie counts half."""
    if not len(positive) or not len(negative):
        return None
    negative = np.sort(negative)
    below = np.searchsorted(negative, positive, 'left')
    not_above = np.searchsorted(negative, positive, 'right')
    return float((below + not_above).mean() / (2 * len(negative)))


def quality_panels(quality: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Histograms for the macro ``histograms``, one a measure.

    Args:
        quality: Measure to the set (``probe``, ``gallery``, ``ui``) to values (N,). A measure
            without a finite value is left out.
    """
    panels = []
    for measure, sets in quality.items():
        finite = {name: _finite(values) for name, values in sets.items()}
        finite = {name: values for name, values in finite.items() if len(values)}
        if not finite:
            continue
        auc = _auc(finite.get('probe', np.empty(0)), finite.get('ui', np.empty(0)))
        panels.append(
            {
                'measure': measure,
                'auc': None if auc is None else f'{auc:.3f}',
                'legend': [
                    legend_entry(
                        _SET_NAMES.get(name, name),
                        plots.SET_COLORS.get(name, index),
                        extra=f'{len(values):,} · median {np.median(values):.3g}',
                    )
                    for index, (name, values) in enumerate(finite.items())
                ],
                'image': embedded_figure(
                    lambda theme, finite=finite, measure=measure: plots.quality_figure(
                        finite, measure, theme, legend=False
                    ),
                    f'Histogram of {measure} over {", ".join(finite)}',
                ),
            }
        )
    return panels


def discard_content(
    curves: Mapping[str, DiscardCurve], bounds: Mapping[str, DiscardCurve]
) -> dict[str, Any] | None:
    """Figure and table for the macro ``discard_curves``; None without curves."""
    if not curves:
        return None
    entries = [
        (legend_entry(name, plots.MEASURE_COLORS.get(name, index + 3)), curve)
        for index, (name, curve) in enumerate(curves.items())
    ]
    for index, (name, curve) in enumerate(bounds.items()):
        entries.append((legend_entry(name, None, '--' if index else ':'), curve))
    rows = []
    for entry, curve in entries:
        errors = read_off(_DISCARD_SHARES, curve.shares, curve.errors)
        cells = [number_text(error) for error in errors]
        known_area = curve.auc is not None and math.isfinite(curve.auc)
        area = f'{curve.auc:.3f}' if known_area else MISSING
        rows.append((entry, area, cells))
    return {
        'image': embedded_figure(
            lambda theme: plots.discard_figure(curves, bounds, theme, legend=False),
            f'Rank-1 error over discarded share for {", ".join(curves)}',
        ),
        'shares': [f'{100 * share:.0f}{PERCENT}' for share in _DISCARD_SHARES],
        'rows': rows,
        'has_band': any(curve.low is not None for _, curve in entries),
    }


def _style_sheet() -> str:
    """The style sheet, with the colors of the figures as variables."""

    def variables(theme: Theme) -> str:
        series = ''.join(f'--s{i}:{color};' for i, color in enumerate(theme.series))
        return (
            f'--card:{theme.surface};--ink:{theme.ink};--muted:{theme.muted};'
            f'--line:{theme.line};--right:{theme.right};--wrong:{theme.wrong};{series}'
        )

    return (
        f':root{{color-scheme:light dark;--bg:#f3f5f8;--well:#eef1f5;{variables(plots.LIGHT)}}}'
        '@media (prefers-color-scheme:dark){'
        f':root{{--bg:#0d1117;--well:#10151c;{variables(plots.DARK)}}}}}{_CSS}'
    )


def details_content(details: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list]]:
    """Headings with rows of (name, text, whether it is a number); empty ones are left out."""
    return [
        (heading, [(name, *value_text(value)) for name, value in rows.items()])
        for heading, rows in details.items()
        if rows
    ]


_CSS = """
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.6rem;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);
 font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
main,header>div,nav>div,footer{max-width:1120px;margin:0 auto;padding:0 20px}
a{color:inherit}
h1,h2,h3,p,figure,dl,dd,ul{margin:0;padding:0}
h1{font-size:clamp(1.7rem,4.5vw,2.5rem);line-height:1.15;letter-spacing:-.02em}
h2{font-size:1.3rem;line-height:1.3;letter-spacing:-.01em}
h3{font-size:1rem;line-height:1.35}
header{background:var(--card);border-bottom:1px solid var(--line)}
header>div{padding-top:40px;padding-bottom:28px}
.subtitle{color:var(--muted);font-size:1.08rem;margin-top:8px;max-width:70ch}
.facts{display:flex;flex-wrap:wrap;gap:12px 34px;margin-top:22px}
.facts dt{color:var(--muted);font-size:.78rem;line-height:1.3}
.facts dd{font-weight:600;overflow-wrap:anywhere}
.note{margin-top:20px;padding:9px 14px;border-left:4px solid var(--s1);border-radius:4px;
 background:color-mix(in srgb,var(--s1) 10%,var(--card))}
.note+.note{margin-top:8px}
.command{margin-top:16px;font-size:.85rem;color:var(--muted)}
.command pre{margin:4px 0 0;padding:10px 14px;border-radius:8px;background:var(--well);
 color:var(--ink);overflow-x:auto;user-select:all;
 font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.spectrum{margin-top:26px}
.spectrum>div{display:grid;grid-auto-flow:column;grid-auto-columns:1fr;gap:3px}
.spectrum .face{border-radius:0}
.spectrum .frame{border:0;border-radius:3px}
.spectrum .caption{font-size:.72rem}
.ramp{height:4px;border-radius:2px;margin-top:8px;
 background:linear-gradient(90deg,var(--s4),var(--s1),var(--s2))}
.ends{display:flex;justify-content:space-between;color:var(--muted);font-size:.8rem;
 margin-top:4px}
nav{position:sticky;top:0;z-index:2;border-bottom:1px solid var(--line);
 background:color-mix(in srgb,var(--card) 92%,transparent);backdrop-filter:blur(8px)}
nav>div{display:flex;align-items:center;gap:20px;white-space:nowrap;height:2.9rem;
 font-size:.88rem}
nav ul{display:flex;gap:22px;list-style:none;overflow-x:auto;scrollbar-width:none;flex:1;
 line-height:2.9rem}
nav a{text-decoration:none;color:var(--muted)}
nav a:hover{color:var(--ink)}
main{padding-top:22px;padding-bottom:10px}
section{background:var(--card);border:1px solid var(--line);border-radius:14px;
 padding:24px 26px 26px;margin-bottom:20px}
section.omitted{background:none;border-style:dashed;padding:12px 26px;color:var(--muted);
 display:flex;flex-wrap:wrap;gap:2px 14px;align-items:baseline}
section.omitted h2{font-size:1rem}
.how{color:var(--muted);max-width:78ch;margin-top:5px;margin-bottom:18px}
.panels{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(310px,100%),1fr));
 gap:0 26px;margin-bottom:-24px}
.panel{display:grid;grid-template-rows:subgrid;grid-row:span 4;min-width:0;padding-bottom:24px}
.panel.short{grid-row:span 3}
.panel p{color:var(--muted);font-size:.85rem;line-height:1.4;margin-top:2px}
.panel h3 span{float:right;font-weight:400;font-size:.88rem;color:var(--muted);
 font-variant-numeric:tabular-nums}
.panel h3 b{color:var(--ink)}
.panel image{padding-top:8px;align-self:end}
image img{display:block;width:100%;height:auto}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;list-style:none;font-size:.82rem;
 margin-top:8px}
.legend small,.entry small{color:var(--muted);font-size:inherit}
.legend li,.entry{overflow-wrap:anywhere}
.swatch{display:inline-block;width:18px;height:0;border-top:3px solid;vertical-align:middle;
 margin-right:6px}
.split{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:36px;
 align-items:center}
.split table{font-size:.92rem}
.split th,.split td{padding-left:6px;padding-right:6px}
.split .entry{padding-left:24px;text-indent:-24px;min-width:8em;overflow-wrap:break-word;
 line-height:1.3}
.scroll{overflow-x:auto}
.legend+.split{margin-top:10px}
.split+.scroll{margin-top:18px}
.rates .entry{min-width:7em;overflow-wrap:break-word}
.rates small{display:block;font-size:.78rem;color:var(--muted);line-height:1.3}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{font-weight:500;color:var(--muted);font-size:.82rem;text-align:left;vertical-align:bottom}
th,td{padding:7px 10px;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
.num{text-align:right;white-space:nowrap}
td.main{font-weight:700;font-size:1.08rem}
td.main small{display:none;font-size:.74rem;font-weight:400;color:var(--muted)}
td.soft{color:var(--muted);font-size:.9rem}
.headline td:first-child{white-space:nowrap}
.scale{width:26%;min-width:120px}
.scale div{position:relative;height:16px}
.scale i{position:absolute;top:7px;height:2px;left:0;right:0;background:var(--line)}
.scale i.band{top:3px;height:10px;border-radius:2px;background:var(--s0);opacity:.35}
.scale i.mark{top:2px;height:12px;width:2px;right:auto;margin-left:-1px;background:var(--muted);
 opacity:.7}
.scale i.dot{top:0;height:16px;width:4px;right:auto;margin-left:-2px;border-radius:2px;
 background:var(--s0)}
.ticks{display:flex;justify-content:space-between}
.switch{display:inline-flex;align-items:center;gap:7px;font-size:.88rem;color:var(--muted);
 cursor:pointer}
.faces{display:grid;grid-template-columns:repeat(12,minmax(0,1fr));gap:14px 10px}
.group+.group{margin-top:26px}
.group h3{margin-bottom:10px}
.face{min-width:0}
.frame{position:relative;display:block;aspect-ratio:1;border:4px solid transparent;
 border-radius:9px;background:var(--well);overflow:hidden}
.frame img{display:block;width:100%;height:100%;object-fit:contain}
.frame.right{border-color:var(--right)}
.frame.wrong{border-color:var(--wrong)}
.frame u{position:absolute;right:0;bottom:0;width:20px;height:20px;border-top-left-radius:7px;
 font:700 13px/20px system-ui,sans-serif;text-align:center;text-decoration:none;
 color:var(--card)}
.right u{background:var(--right)}
.wrong u{background:var(--wrong)}
body:has(#pixels:checked) .face img{image-rendering:pixelated}
.caption{font-size:.8rem;line-height:1.3;margin-top:5px;text-align:center;
 font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.caption span{display:block;color:var(--muted)}
.caption span:first-child{color:var(--ink)}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(176px,1fr));gap:20px}
.pair>div{display:grid;grid-template-columns:1fr 1fr;gap:2px}
.pair .frame{border:0;border-radius:9px 0 0 9px}
.pair .face+.face .frame{border-radius:0 9px 9px 0}
.heat{display:flex;align-items:center;gap:10px;font-size:.82rem;color:var(--muted);
 margin-bottom:16px}
.heat i{width:150px;height:8px;border-radius:4px;
 background:linear-gradient(90deg,#8a8a8a,#6b3f7a,#c43c4e,#f57d15,#fcffa4)}
.failure{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,5fr) minmax(0,1fr);gap:26px;
 padding:18px 0;border-top:1px solid var(--line)}
.failure:last-child{padding-bottom:0}
.failure h3{font-size:.8rem;font-weight:500;color:var(--muted);margin-bottom:6px}
.matches{display:grid;grid-template-columns:repeat(5,minmax(0,1fr));gap:10px}
.none{color:var(--muted);font-size:.82rem;line-height:1.35}
.details{columns:2;column-gap:44px}
.details>div{break-inside:avoid;margin-bottom:24px}
.details table{font-size:.9rem;margin-top:4px}
.details td{padding:5px 0;vertical-align:top;overflow-wrap:anywhere}
.details td:first-child{color:var(--muted);padding-right:16px;width:42%}
.details td.num{white-space:normal}
footer{color:var(--muted);font-size:.82rem;padding-bottom:34px}
@media (max-width:760px){
 main,header>div,nav>div,footer{padding-left:14px;padding-right:14px}
 header>div{padding-top:26px}
 section{padding:18px 16px 20px;border-radius:12px}
 section.omitted{padding:10px 16px}
 .split{grid-template-columns:minmax(0,1fr);gap:16px}
 .scale,.wide{display:none}
 td.main small{display:block}
 th,td{padding:6px 5px}
 table{font-size:.92rem}
 .headline td:first-child,.headline th.num{white-space:normal}
 .headline{font-size:.86rem}
 .headline th{font-size:.75rem}
 .headline td:first-child{min-width:5.6em;line-height:1.3}
 .headline th+th,.headline td+td{padding-left:6px}
 .headline th,.headline td{padding-right:0}
 .split table{font-size:.82rem}
 .split th,.split td{padding-left:3px;padding-right:3px}
 .split .entry{min-width:0;text-indent:0;padding-left:0}
 .rates{font-size:.82rem}
 .rates small{font-size:.68rem;white-space:normal}
 .rates .entry{min-width:0}
 .split .swatch,.rates .swatch{width:10px;margin-right:4px}
 .facts{gap:10px 24px}
 .faces{grid-template-columns:repeat(6,minmax(0,1fr));gap:10px 6px}
 .faces .caption{font-size:.72rem}
 .faces .frame u,.matches .frame u{width:15px;height:15px;font-size:10px;line-height:15px}
 .pairs{grid-template-columns:repeat(auto-fill,minmax(140px,1fr));gap:14px 12px}
 .failure{grid-template-columns:1fr 1fr 1fr;gap:14px}
 .failure .of-five{grid-column:1/-1;grid-row:2}
 .matches{gap:6px}
 .frame{border-width:3px}
 .details{columns:1}
 .spectrum .face:nth-child(even){display:none}
}
@media print{nav,.switch{display:none}section{break-inside:avoid;border:0;padding:12px 0}
 body,header{background:#fff}}
"""

_MACROS = """
{% macro show(face, alt='face') %}
<figure class="face">
<span class="frame{% if face.border %} {{ face.border }}{% endif %}">
<img src="{{ face.uri }}" width="{{ face.width }}" height="{{ face.height }}"
 alt="{{ alt }}" loading="lazy">
{% if face.border %}
<u title="{{ face.border }}">{{ '✓' if face.border == 'right' else '✗' }}</u>
{% endif %}
</span>
{{ lines(face.caption) }}
</figure>
{% endmacro %}
{% macro lines(caption) %}
{% if caption %}
<figcaption class="caption">
{% for line in caption %}<span>{{ line }}</span>{% endfor %}
</figcaption>
{% endif %}
{% endmacro %}
{% macro plot(image) %}
<image>
<source media="(prefers-color-scheme: dark)" srcset="{{ image.dark }}">
<img src="{{ image.light }}" width="{{ image.width }}" height="{{ image.height }}"
 alt="{{ image.alt }}">
</image>
{% endmacro %}
{% macro key(entry) %}
<i class="swatch" style="border-color:{{ entry.color }};border-top-style:
{{- {'-': 'solid', '--': 'dashed', '-.': 'double', ':': 'dotted'}[entry.dash] }}"></i>
{{- entry.label }}{% if entry.extra %} <small>{{ entry.extra }}</small>{% endif %}
{% endmacro %}
{% macro legend(entries) %}
<ul class="legend">
{% for entry in entries %}<li>{{ key(entry) }}</li>{% endfor %}
</ul>
{% endmacro %}
{% macro about_quality() %}
<p class="how">How the scores are spread over each set of faces. A good measure puts the
unrecognizable faces (UI) to the left of the probes; AUC is the chance that a random probe scores
above a random UI face: 1 is perfect, 0.5 is guessing.</p>
{% endmacro %}
{% macro histograms(panels) %}
<div class="panels">
{% for panel in panels %}
<div class="panel short"><h3>{{ panel.measure }}
{%- if panel.auc %}<span>AUC <b>{{ panel.auc }}</b></span>{% endif %}</h3>
{{ legend(panel.legend) }}{{ plot(panel.image) }}</div>
{% endfor %}
</div>
{% endmacro %}
{% macro about_discard(has_band) %}
<p class="how">The rank-1 error of the probes that are left when the poorest are refused. The
faster a curve falls, and the smaller the area below it, the better the measure knows which
answers to trust. The random level is a measure that knows nothing; with perfect knowledge the
wrong answers go first.{% if has_band %} Bands are 95 % intervals.{% endif %}</p>
{% endmacro %}
{% macro discard_curves(curves) %}
<div class="split">{{ plot(curves.image) }}
<div class="scroll"><table>
<tr><th rowspan="2">Measure</th><th class="num" rowspan="2">Area</th>
<th class="num" colspan="{{ curves.shares | length }}">Error with this share discarded</th></tr>
<tr>{% for share in curves.shares %}<th class="num">{{ share }}</th>{% endfor %}</tr>
{% for entry, area, cells in curves.rows %}
<tr><td class="entry">{{ key(entry) }}</td><td class="num"><b>{{ area }}</b></td>
{% for cell in cells %}<td class="num">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div></div>
{% endmacro %}
{% macro details(groups) %}
<p class="how">What is needed to compare this run with another, and to repeat it.</p>
<div class="details">
{% for heading, rows in groups %}
<div><h3>{{ heading }}</h3><table>
{% for name, value, is_number in rows %}
<tr><td>{{ name }}</td><td{% if is_number %} class="num"{% endif %}>{{ value }}</td></tr>
{% endfor %}
</table></div>
{% endfor %}
</div>
{% endmacro %}
"""

_LAYOUT = """
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ data.title }}</title>
<link rel="icon" href="data:,">
<style>{{ css | safe }}</style>
</head>
<body>
<header><div>
<h1>{{ data.title }}</h1>
{% if data.subtitle %}<p class="subtitle">{{ data.subtitle }}</p>{% endif %}
{% if facts %}
<dl class="facts">
{% for name, value in facts %}<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>{% endfor %}
</dl>
{% endif %}
{% for note in data.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% if spectrum %}
<div class="spectrum"><div>{% for card in spectrum %}{{ show(card) }}{% endfor %}</div>
<div class="ramp"></div>
<p class="ends"><span>lowest recognizability index</span><span>highest</span></p></div>
{% endif %}
{% if data.command %}
<div class="command">Command that makes this page again<pre>{{ data.command }}</pre></div>
{% endif %}
</div></header>
<nav><div><ul>
{% for id, section in sections.items() if section.content %}
<li><a href="#{{ id }}">{{ section.short }}</a></li>
{% endfor %}
</ul>
{% if has_faces %}
<label class="switch"><input type="checkbox" id="pixels">
<span><span class="wide">show </span>pixels</span></label>
{% endif %}
</div></nav>
<main>
{% for id, section in sections.items() %}
{% if section.content %}
<section id="{{ id }}"><h2>{{ section.title }}</h2>
{{ renderers[id](section.content) }}</section>
{% else %}
<section id="{{ id }}" class="omitted"><h2>{{ section.title }}</h2>
<p>Left out: {{ section.reason }}</p></section>
{% endif %}
{% endfor %}
</main>
<footer>{{ footer }}</footer>
</body>
</html>
"""
