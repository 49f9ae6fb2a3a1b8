"""The report page of a run: from arrays to one self-contained HTML file.

This module only renders. Pictures are embedded, the style sheet is inline, there is no script,
and a content security policy forbids the page to load anything, so it opens the same from a disk,
a mail attachment or a web server. Figures are embedded twice, for light and for dark displays.
"""

import base64
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from mmvlr.evaluation.functional import Curve

from . import plots
from .plots import DiscardCurve, FaceCard, Theme

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.figure import Figure


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
        matches: Best gallery pictures in order, with scores as captions and a border that says
            whether the identity is right.
        mate: The best-placed gallery picture of the same person, with its score and rank; None
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


# Section -> (title, short title, reason given where the data do not say why it is missing). A
# section whose reason is None then leaves no trace: a data set without it lacks nothing.
SECTIONS: dict[str, tuple[str, str, str | None]] = {
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
    'Losses': 'The sum that is minimised, and its terms.',
    'Recognizability index': 'The target ξ and its prediction ξ̂, which should follow it.',
    'Proximities': (
        'Distance to the own prototype (dᴾ, should fall), to the nearest other (dᴺ) and to the '
        'UI centre (should stay clear of 0).'
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
_SET_NAMES = {'probe': 'probes', 'gallery': 'gallery', 'ui': 'UI faces'}
_CMC_RANKS = (1, 5, 10, 20, 50)
# Kind of curve -> (hits, false alarms, rates of false alarms at which the table tells the hits).
_RATES = {
    'open_set': ('TPIR', 'FPIR', (0.3, 0.2, 0.1, 0.01)),
    'verification': ('TAR', 'FAR', (0.3, 0.1, 0.01, 0.001)),
}
_DISCARD_SHARES = (0.0, 0.1, 0.3, 0.5)
_MISSING = '\u2013'
_PERCENT = '\u202f%'
# Faces larger than this are shrunk: they are shown at about half of it.
_MAX_FACE_SIDE = 160


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
    out = Path(out)
    # A file name from a disk may hold bytes that are no text; they must not lose the whole page.
    page = report_html(data).encode('utf-8', 'replace')
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f'.{out.name}.{os.getpid()}.tmp')
    try:
        beside.write_bytes(page)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return out


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
        'quality': _quality(data.quality or {}),
        'discard': _discard(data.discard or {}, data.discard_bounds or {}),
        'faces': [
            (heading, [_face(card) for card in cards])
            for heading, cards in (('Lowest RI', data.lowest), ('Highest RI', data.highest))
            if cards
        ],
        'attention': [_attention(card) for card in data.attention or ()],
        'failures': [_failure(failure) for failure in data.failures or ()],
        'details': [
            (heading, [(name, *_value(value)) for name, value in rows.items()])
            for heading, rows in (data.details or {}).items()
            if rows
        ],
    }
    page = _template().render(
        data=data,
        facts=[(name, _value(value)[0]) for name, value in data.facts.items()],
        spectrum=[_face(card) for card in data.spectrum or ()],
        sections={
            key: {
                'title': title,
                'short': short,
                'content': content[key],
                'reason': data.omitted.get(key, reason),
            }
            for key, (title, short, reason) in SECTIONS.items()
            if content[key] or data.omitted.get(key, reason) is not None
        },
        css=_css(),
    )
    return page.lstrip()


def _value(value: Any) -> tuple[str, bool]:
    """Text of a value, and whether it is a number (which is set to the right)."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        return _MISSING, False
    if isinstance(value, bool):
        return ('yes' if value else 'no'), False
    if isinstance(value, int):
        return f'{value:,}', True
    if isinstance(value, float):
        return (_MISSING if math.isnan(value) else f'{value:.4g}'), True
    if isinstance(value, Mapping):
        return ', '.join(f'{name}: {_value(item)[0]}' for name, item in value.items()), False
    if isinstance(value, list | tuple):
        return ', '.join(_value(item)[0] for item in value), False
    return str(value), False


def _number(value: float | None, unit: str = 'rate') -> str:
    if value is None or not math.isfinite(value):
        return _MISSING
    return f'{100 * value:.1f}{_PERCENT}' if unit == 'rate' else f'{value:.4g}'


def _interval(low: float | None, high: float | None, unit: str = 'rate') -> str:
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return ''
    # One unit is enough for both ends.
    first = _number(low, unit).removesuffix(_PERCENT)
    return f'{first} {_MISSING} {_number(high, unit)}'


def _uri(kind: str, data: bytes) -> str:
    return f'data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}'


def _encode(image: np.ndarray, extension: str, parameters: Sequence[int] = ()) -> bytes:
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    return cv2.imencode(extension, bgr, list(parameters))[1].tobytes()


def _image(image: np.ndarray) -> dict[str, Any]:
    """A face, embedded without loss at VLR sizes and as JPEG above them."""
    image = plots.check_face(image)
    if max(image.shape[:2]) > _MAX_FACE_SIDE:
        image = plots.resize_longer_side(image, _MAX_FACE_SIDE, cv2.INTER_AREA)
    height, width = image.shape[:2]
    if max(height, width) <= 64:
        uri = _uri('png', _encode(image, '.png'))
    else:
        uri = _uri('jpeg', _encode(image, '.jpg', (cv2.IMWRITE_JPEG_QUALITY, 88)))
    return {'uri': uri, 'width': width, 'height': height}


def _face(card: FaceCard) -> dict[str, Any]:
    return {**_image(card.image), 'caption': card.caption, 'border': card.border}


def _attention(card: AttentionCard) -> dict[str, Any]:
    overlay = plots.overlay_attention(card.face, card.attention, size=112)
    return {
        'face': {**_image(card.face), 'caption': (), 'border': None},
        'overlay': {**_image(overlay), 'caption': (), 'border': None},
        'caption': card.caption,
    }


def _failure(failure: Failure) -> dict[str, Any]:
    return {
        'probe': _face(failure.probe),
        'matches': [_face(card) for card in failure.matches],
        'mate': None if failure.mate is None else _face(failure.mate),
    }


def _picture(draw: Callable[[Theme], 'Figure'], alt: str) -> dict[str, Any]:
    """A figure for light and for dark displays."""
    from PIL import Image

    picture: dict[str, Any] = {'alt': alt}
    for name, theme in (('light', plots.LIGHT), ('dark', plots.DARK)):
        pixels = plots.figure_pixels(draw(theme))
        picture['height'], picture['width'] = pixels.shape[:2]
        # Line art needs few colours: a palette cuts the page to a third.
        buffer = BytesIO()
        indexed = Image.fromarray(pixels).quantize(96, dither=Image.Dither.NONE)
        indexed.save(buffer, 'png', optimize=True)
        picture[name] = _uri('png', buffer.getvalue())
    return picture


def _entry(label: Any, colour: int | None, dash: str = '-', extra: str = '') -> dict[str, Any]:
    """One entry of a legend; it stands in the page, where it wraps, scales and can be searched."""
    count = len(plots.LIGHT.series)
    if colour is None:
        return {'label': label, 'colour': 'var(--muted)', 'dash': dash, 'extra': extra}
    return {
        'label': label,
        'colour': f'var(--s{colour % count})',
        'dash': plots.DASHES[colour // count % 4],
        'extra': extra,
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
                'value': _number(metric.value, metric.unit),
                'interval': _interval(metric.low, metric.high, metric.unit),
                'baselines': [_number(metric.baselines.get(name), metric.unit) for name in columns],
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
                'legend': [_entry(_scalar_label(name), i) for i, name in enumerate(members)],
                'picture': _picture(
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
        rows.append((_entry(name, index), [_number(rates.get(rank)) for rank in ranks]))
    return {
        'picture': _picture(
            lambda theme: plots.cmc_figure(curves, theme=theme, legend=False),
            f'Cumulative match characteristic of {", ".join(curves)}',
        ),
        'ranks': ranks,
        'rows': rows,
        'has_band': any(curve.low is not None for curve in curves.values()),
    }


def _read_off(targets: Any, x: Any, y: Any) -> np.ndarray:
    """Values of a curve at the targets, between its points linearly; NaN outside of it."""
    x = np.asarray(x, dtype=np.float64).reshape(-1)
    y = np.broadcast_to(np.asarray(y, dtype=np.float64).reshape(-1), x.shape)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return np.full(len(targets), np.nan)
    return np.interp(targets, x[known], y[known], left=np.nan, right=np.nan)


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
        value, low, high = (_read_off(np.log(targets), x, y) for y in (curve.y, *ends))
        cells = [(_number(v), _interval(a, b)) for v, a, b in zip(value, low, high, strict=True)]
        rows.append((_entry(name, index), cells))
    names = ', '.join(curves)
    return {
        'kind': kind,
        'hits': hits,
        'legend': [_entry(name, index) for index, name in enumerate(curves)],
        'pictures': [
            _picture(
                lambda theme: plots.rates_figure(curves, kind, theme, legend=False),
                f'{hits} over {false_alarms} of {names}',
            ),
            _picture(
                lambda theme: plots.det_figure(curves, kind, theme, legend=False),
                f'Detection error trade-off of {names}',
            ),
        ],
        'targets': [f'{false_alarms} {target:g}' for target in targets],
        'rows': rows,
        'has_band': any(curve.low is not None for curve in curves.values()),
    }


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


def _quality(quality: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
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
                    _entry(
                        _SET_NAMES.get(name, name),
                        plots.SET_COLOURS.get(name, index),
                        extra=f'{len(values):,} · median {np.median(values):.3g}',
                    )
                    for index, (name, values) in enumerate(finite.items())
                ],
                'picture': _picture(
                    lambda theme, finite=finite, measure=measure: plots.quality_figure(
                        finite, measure, theme, legend=False
                    ),
                    f'Histogram of {measure} over {", ".join(finite)}',
                ),
            }
        )
    return panels


def _discard(
    curves: Mapping[str, DiscardCurve], bounds: Mapping[str, DiscardCurve]
) -> dict[str, Any] | None:
    if not curves:
        return None
    entries = [
        (_entry(name, plots.MEASURE_COLOURS.get(name, index + 3)), curve)
        for index, (name, curve) in enumerate(curves.items())
    ]
    for index, (name, curve) in enumerate(bounds.items()):
        entries.append((_entry(name, None, '--' if index else ':'), curve))
    rows = []
    for entry, curve in entries:
        errors = _read_off(_DISCARD_SHARES, curve.shares, curve.errors)
        cells = [_number(error) for error in errors]
        known_area = curve.auc is not None and math.isfinite(curve.auc)
        area = f'{curve.auc:.3f}' if known_area else _MISSING
        rows.append((entry, area, cells))
    return {
        'picture': _picture(
            lambda theme: plots.discard_figure(curves, bounds, theme, legend=False),
            f'Rank-1 error over discarded share for {", ".join(curves)}',
        ),
        'shares': [f'{100 * share:.0f}{_PERCENT}' for share in _DISCARD_SHARES],
        'rows': rows,
        'has_band': any(curve.low is not None for _, curve in entries),
    }


def _css() -> str:
    """The style sheet, with the colours of the figures as variables."""

    def variables(theme: Theme) -> str:
        series = ''.join(f'--s{i}:{colour};' for i, colour in enumerate(theme.series))
        return (
            f'--card:{theme.surface};--ink:{theme.ink};--muted:{theme.muted};'
            f'--line:{theme.line};--right:{theme.right};--wrong:{theme.wrong};{series}'
        )

    return (
        f':root{{color-scheme:light dark;--bg:#f3f5f8;--well:#eef1f5;{variables(plots.LIGHT)}}}'
        '@media (prefers-color-scheme:dark){'
        f':root{{--bg:#0d1117;--well:#10151c;{variables(plots.DARK)}}}}}{_CSS}'
    )


@cache
def _template() -> 'Template':
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError(
            'The report needs jinja2, which is not installed: pip install "mmvlr[demo]"'
        ) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_PAGE)


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
.panel picture{padding-top:8px;align-self:end}
picture img{display:block;width:100%;height:auto}
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

_PAGE = """
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
{% macro plot(picture) %}
<picture>
<source media="(prefers-color-scheme: dark)" srcset="{{ picture.dark }}">
<img src="{{ picture.light }}" width="{{ picture.width }}" height="{{ picture.height }}"
 alt="{{ picture.alt }}">
</picture>
{% endmacro %}
{% macro key(entry) %}
<i class="swatch" style="border-color:{{ entry.colour }};border-top-style:
{{- {'-': 'solid', '--': 'dashed', '-.': 'double', ':': 'dotted'}[entry.dash] }}"></i>
{{- entry.label }}{% if entry.extra %} <small>{{ entry.extra }}</small>{% endif %}
{% endmacro %}
{% macro legend(entries) %}
<ul class="legend">
{% for entry in entries %}<li>{{ key(entry) }}</li>{% endfor %}
</ul>
{% endmacro %}
{% macro headline(table) %}
<p class="how">What the model reaches on the test set
{%- if table.columns %}, beside other systems on the same faces{% endif %}.
{% if table.has_scale %}<span class="wide">The blue mark on the scale is this model
{%- if table.has_interval %}, pale around it the 95 % interval{% endif %}
{%- if table.columns %}; grey ticks are the other systems{% endif %}.</span>{% endif %}</p>
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
{{ legend(panel.legend) }}{{ plot(panel.picture) }}</div>
{% endfor %}
</div>
{% endmacro %}
{% macro cmc(curves) %}
<p class="how">How often the right identity is among the k best gallery matches (CMC curve). The
curve starts at the rank-1 rate, and higher is better
{%- if curves.has_band %}; bands are 95 % intervals{% endif %}.</p>
<div class="split">{{ plot(curves.picture) }}
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
two pictures of one person are accepted (TAR), against how often pictures of two people are (FAR)
{%- endif %}: higher is better in the first picture, and lower in the second, the DET curve, which
shows the misses on normal-deviate axes{% if curves.has_band %}; bands are 95 % intervals
{%- endif %}.</p>
{{ legend(curves.legend) }}
<div class="split">{% for picture in curves.pictures %}{{ plot(picture) }}{% endfor %}</div>
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
<p class="how">How the scores are spread over each set of faces. A good measure puts the
unrecognizable faces (UI) to the left of the probes; AUC is the chance that a random probe scores
above a random UI face: 1 is perfect, 0.5 is guessing.</p>
<div class="panels">
{% for panel in panels %}
<div class="panel short"><h3>{{ panel.measure }}
{%- if panel.auc %}<span>AUC <b>{{ panel.auc }}</b></span>{% endif %}</h3>
{{ legend(panel.legend) }}{{ plot(panel.picture) }}</div>
{% endfor %}
</div>
{% endmacro %}
{% macro discard(curves) %}
<p class="how">The rank-1 error of the probes that are left when the poorest are refused. The
faster a curve falls, and the smaller the area below it, the better the measure knows which
answers to trust. The random level is a measure that knows nothing; with perfect knowledge the
wrong answers go first.{% if curves.has_band %} Bands are 95 % intervals.{% endif %}</p>
<div class="split">{{ plot(curves.picture) }}
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
{% if spectrum or sections.faces.content or sections.attention.content
 or sections.failures.content %}
<label class="switch"><input type="checkbox" id="pixels">
<span><span class="wide">show </span>pixels</span></label>
{% endif %}
</div></nav>
<main>
{% set renderers = {'headline': headline, 'training': training, 'cmc': cmc, 'open_set': rates,
 'verification': rates, 'quality': quality, 'discard': discard, 'faces': faces,
 'attention': attention, 'failures': failures, 'details': details} %}
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
<footer>RI: recognizability index, how far a face can be trusted to be recognized. UI:
unrecognizable identities. ERS: embedding recognizability score. All faces are shown at one size;
most are only a few pixels wide.</footer>
</body>
</html>
"""
