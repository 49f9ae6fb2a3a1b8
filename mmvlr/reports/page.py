"""Common parts of the pages: insert values, faces and figures into templates.

A page is one file. Images are embedded, the style sheet is inline, there is no script, and a
content security policy forbids the page to load anything, so it opens the same from a disk, a mail
attachment or a web server. Text and layout of a page are in ``templates/`` and ``style.css``; all
external text is escaped.
"""

import base64
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from mmvlr.evaluation.functional import roc_area
from mmvlr.utils.io import write_atomic

from . import drawing, faces, figures, rate_figures

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from matplotlib.figure import Figure

# Section -> (title, short title, default reason why it is missing). A section whose reason is None
# is optional: if it is missing, the page does not mention it.
Sections = Mapping[str, tuple[str, str, str | None]]

MISSING = '\u2013'
PERCENT = '\u202f%'
# Faces larger than this are shrunk: they are shown at about half of it.
_MAX_FACE_SIDE = 160
_HERE = Path(__file__).parent


def write_page(page: str, out: str | os.PathLike[str]) -> Path:
    """Write a page atomically.

    Args:
        page: Result of :func:`~mmvlr.reports.render_report` or a similar function.
        out: The HTML file; missing folders are created. An earlier file survives any failure.
    """
    # A file name may hold bytes that are invalid Unicode; they must not prevent writing the page.
    content = page.encode('utf-8', 'replace')
    return write_atomic(Path(out), lambda beside: beside.write_bytes(content))


@dataclass(frozen=True)
class PageData:
    """Content of every page.

    Attributes:
        title: Heading of the page.
        subtitle: One line below.
        facts: Method, data set, date, version: short name to value, in order.
        notes: Important sentences, such as 'These faces are synthetic.'
        command: The command line that makes the page again.
        reading: Sentences that interpret the figures; they come first.
        details: Heading to name to value.
        omitted: Section (a key of ``SECTIONS``) to the reason why it is missing. Without one the
            page does not mention sections that few pages have.

    Raises:
        ValueError: ``omitted`` names a section that does not exist.
    """

    SECTIONS: ClassVar[Sections] = {}

    title: str
    subtitle: str = ''
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    command: str | None = None
    reading: Sequence[str] = ()
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    omitted: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.omitted) - set(self.SECTIONS))
        if unknown:
            raise ValueError(
                f'omitted: no section is called {unknown}; there are {list(self.SECTIONS)}'
            )


def render_page(template: str, data: PageData, **content: Any) -> str:
    """Fill a template.

    Args:
        template: Its name without endings. It maps every section to a macro in ``renderers``.
        data: Content of the page.
        **content: Arguments of the macros by section, where they are not attributes of ``data``;
            empty sections are left out.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
    """
    page = _load_environment().get_template(f'{template}.html.j2')
    shown = {
        key: dict(title=title, short=short, content=found, reason=reason)
        for key, (title, short, default) in data.SECTIONS.items()
        for found in [content[key] if key in content else getattr(data, key)]
        for reason in [data.omitted.get(key, default)]
        if found or reason is not None
    }
    return page.render(data=data, sections=shown)


@cache
def _load_environment() -> 'Environment':
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ImportError(
            'The page needs jinja2, which is not installed: pip install "mmvlr[report]"'
        ) from error
    environment = Environment(
        loader=FileSystemLoader(_HERE / 'templates'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= dict(
        style_sheet=Markup((_HERE / 'style.css').read_text(encoding='utf-8')),
        drawing=drawing,
        faces=faces,
        figures=figures,
        rate_figures=rate_figures,
        draw=embed_figure,
        median=np.median,
        skewness=compute_skewness,
        roc_area=roc_area,
        count=Counter,
        percent=PERCENT,
        read_off=read_off,
        format_interval=format_interval,
        join_keys=join_keys,
        collect=collect,
    )
    environment.tests['finite'] = lambda value: is_number(value) and math.isfinite(value)
    environment.filters |= dict(
        embed=embed_image,
        number=format_number,
        interval=lambda item: format_interval(item.low, item.high, item.unit),
        value=format_value,
        is_number=is_number,
        duration=format_duration,
        place=place_on_scale,
        has_bands=lambda curves: any(curve.low is not None for curve in curves.values()),
    )
    return environment


def keep_finite_measures(
    quality: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, np.ndarray]]:
    """Return the finite values of each measure over each set; a measure without any is left out."""
    found = {measure: drawing.keep_finite(sets) for measure, sets in quality.items()}
    return {measure: sets for measure, sets in found.items() if sets}


def is_number(value: Any) -> bool:
    """Return whether a value is a number, which is aligned to the right."""
    value = value.item() if isinstance(value, np.generic) else value
    return isinstance(value, int | float) and not isinstance(value, bool)


def format_value(value: Any) -> str:
    """Return any plain value as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int):
        return f'{value:,}'
    if isinstance(value, float):
        return f'{value:.4g}'
    if isinstance(value, Mapping):
        return ', '.join(f'{name}: {format_value(item)}' for name, item in value.items())
    if isinstance(value, list | tuple):
        return ', '.join(map(format_value, value))
    return str(value)


def format_number(value: float | None, unit: str = 'rate') -> str:
    """Return a ``rate`` in percent, an ``area`` or a ``number``; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    if unit == 'rate':
        return f'{100 * value:.1f}{PERCENT}'
    return f'{value:.3f}' if unit == 'area' or 0.001 <= abs(value) < 10 else f'{value:.4g}'


def format_interval(low: float | None, high: float | None, unit: str = 'rate') -> str:
    """Return both ends of an interval, or nothing where one is unknown."""
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return ''
    # One unit is enough for both ends.
    first = format_number(low, unit).removesuffix(PERCENT)
    return f'{first} {MISSING} {format_number(high, unit)}'


def format_duration(seconds: Any) -> str:
    """Return a time as hours and minutes, or minutes and seconds."""
    if not is_number(seconds) or not math.isfinite(seconds):
        return MISSING
    minutes, rest = divmod(round(float(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f'{hours:,} h {minutes:02d} min'
    return f'{minutes} min {rest:02d} s' if minutes else f'{rest} s'


def place_on_scale(value: float | None) -> float | None:
    """Return the position in percent of a rate on a scale from 0 to 1, None where there is none."""
    if value is None or not math.isfinite(value):
        return None
    return round(100 * min(max(value, 0.0), 1.0), 2)


def compute_skewness(values: np.ndarray) -> float:
    """Return the third standardized moment of values (N,): below 0, the long tail is on the left.

    Example:
        >>> round(compute_skewness(np.array([0.0, 3.0, 4.0, 4.0])), 3)
        -0.958
    """
    centered = np.asarray(values, np.float64) - np.mean(values)
    spread = np.sqrt(np.mean(centered**2))
    return float(np.mean(centered**3) / spread**3) if spread > 0 else 0.0


def join_keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return all keys of some mappings, in the order in which they come first."""
    return list(dict.fromkeys(name for row in rows for name in row))


def collect(rows: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    """Return the values of this name in some mappings."""
    return [row[name] for row in rows if name in row]


def read_off(targets: Sequence[float], x: Any, y: Any, log: bool = False) -> list[float | None]:
    """Interpolate the values of a curve at some positions, linearly between its points.

    Args:
        targets: The positions.
        x: (K,) increasing.
        y: (K,), or one value; None if unknown.
        log: Whether to interpolate over the logarithm of x.

    Returns:
        A value for each target, NaN outside of the curve.
    """
    x, y = drawing.flatten(x), drawing.flatten(np.nan if y is None else y)
    y = np.broadcast_to(y, x.shape)
    if log:
        with np.errstate(divide='ignore'):
            x, targets = np.log(x), np.log(targets)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return [math.nan] * len(targets)
    return np.interp(targets, x[known], y[known], left=np.nan, right=np.nan).tolist()


def embed_image(image: np.ndarray) -> dict[str, Any]:
    """Embed a face: without loss at VLR sizes, as JPEG above them."""
    image = faces.check_face(image)
    if max(image.shape[:2]) > _MAX_FACE_SIDE:
        image = faces.resize_longer_side(image, _MAX_FACE_SIDE, cv2.INTER_AREA)
    height, width = image.shape[:2]
    small = max(height, width) <= 64
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    quality = [] if small else [cv2.IMWRITE_JPEG_QUALITY, 88]
    data = cv2.imencode('.png' if small else '.jpg', bgr, quality)[1].tobytes()
    address = f'data:image/{"png" if small else "jpeg"};base64,'
    return dict(
        address=address + base64.b64encode(data).decode('ascii'), width=width, height=height
    )


def embed_figure(draw: Callable[..., 'Figure'], description: str, *args: Any) -> 'Markup':
    """Draw a figure, without its legend, into the page.

    Args:
        draw: Draws it.
        description: What it shows.
        *args: Arguments for ``draw``.
    """
    from markupsafe import Markup

    return Markup(drawing.render_svg(draw(*args), description))
