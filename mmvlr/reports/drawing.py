"""Common parts of all figures: colors, axes, legends, and rendering to pixels or SVG.

Figures are built on matplotlib's object interface, without ``pyplot``, its state or a display;
matplotlib is imported when the first figure is made. A figure is drawn once, in the colors of a
light display. :func:`render_svg` replaces the colors by variables of the style sheet, so that the
same figure suits a dark display too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from mmvlr.evaluation.functional import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = Mapping[str, Any]

#: Colors of light displays by the name of their variable in the style sheet.
COLORS = dict(
    card='#ffffff',
    ink='#1b2430',
    muted='#5b6878',
    line='#e1e6ec',
    right='#16934a',
    wrong='#d92d3a',
    s0='#2563eb',
    s1='#d97706',
    s2='#0d9488',
    s3='#8b3fd9',
    s4='#e0315d',
    s5='#5a8a12',
    s6='#0e8fb3',
    s7='#64748b',
)
#: Colors of the curves, in order.
SERIES = tuple(color for name, color in COLORS.items() if re.fullmatch(r's\d', name))
DASHES = ('-', '--', '-.', ':')
#: Style of the chance level.
CHANCE = {'color': COLORS['muted'], 'linestyle': ':', 'linewidth': 1.4, 'zorder': 1}
# A measure keeps its color in every figure, and a set of faces has one that no measure has.
_STYLES = {'RI': 0, 'ERS': 1, 'norm': 2, 'probe': 3, 'ui': 4}
_STYLES |= {'gallery': 5, 'gallery and distractors': 5}


def new_axes(width: float, height: float) -> 'Axes':
    """Make a figure with one set of axes, outside ``pyplot``; the size is in inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'Figures need matplotlib, which is not installed: pip install "mmvlr[report]"'
        ) from error

    size, surface = (width, height), COLORS['card']
    figure = Figure(figsize=size, dpi=200, layout='constrained', facecolor=surface)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=surface)
    for side in ('top', 'right', 'left'):
        axes.spines[side].set_visible(False)
    axes.spines['bottom'].set_color(COLORS['line'])
    axes.grid(axis='y', color=COLORS['line'], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=COLORS['muted'], labelsize=9, length=0, pad=4)
    axes.tick_params(which='minor', length=0)
    # The labels of both axes meet in the corner.
    axes.tick_params(axis='x', pad=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=COLORS['ink'], fontsize=9.5)
    return axes


def render_pixels(figure: 'Figure') -> np.ndarray:
    """Return a figure as (height, width, 3) uint8, RGB."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def render_svg(figure: 'Figure', description: str) -> str:
    """Return a figure as an ``<svg>`` element whose colors are variables of the style sheet.

    Text stays text, in the font of the page. The legend is left out: a page writes its own, which
    wraps and can be searched. Equal figures give equal elements.

    Args:
        figure: The figure.
        description: Text alternative of the figure.
    """
    import matplotlib

    figure.legends.clear()
    buffer = StringIO()
    # The salt makes the ids in the file depend on the figure only.
    with matplotlib.rc_context({'svg.fonttype': 'none', 'svg.hashsalt': description}):
        figure.savefig(buffer, format='svg', metadata=dict.fromkeys(('Creator', 'Date')))
    root = ElementTree.fromstring(buffer.getvalue())
    variables = {color: f'var(--{name})' for name, color in COLORS.items()}
    for element in list(root.iter()):
        for child in [c for c in element if re.search('(metadata|style)$', c.tag)]:
            element.remove(child)
        element.tag = element.tag.rpartition('}')[2]
        own = {name.rpartition('}')[2]: value for name, value in element.attrib.items()}
        # The family, which stands behind the size or, in later versions, by itself.
        style = re.sub(r'font-family: [^;]*;|(?<=px)[^;]*', '', own.get('style', ''))
        style = style.replace('font:', 'font-size:')
        own['style'] = re.sub('#[0-9a-f]{6}', lambda hit: variables.get(hit[0], hit[0]), style)
        # Ids such as axes_1 are in every figure, and nothing refers to them.
        empty = re.compile(r'id=[\w.]+_\d+|style=|(width|height)=.*pt')
        kept = {k: v for k, v in own.items() if not empty.fullmatch(f'{k}={v}')}
        element.attrib.clear()
        element.attrib |= kept
    root.attrib |= {'role': 'img', 'aria-label': description}
    return ElementTree.tostring(root, encoding='unicode')


def flatten(values: Any) -> np.ndarray:
    """Return values as float64 (N,)."""
    return np.asarray(values, dtype=np.float64).reshape(-1)


def index_names(names: Iterable[str]) -> dict[str, int]:
    """Give measures or sets of faces the numbers of their styles; see :func:`make_styles`.

    Example:
        >>> index_names(['size', 'norm', 'CR-FIQA'])
        {'size': 3, 'norm': 2, 'CR-FIQA': 4}
    """
    found: dict[str, int] = {}
    for name in names:
        found[name] = _STYLES.get(name, 3 + sum(other not in _STYLES for other in found))
    return found


def make_styles(indices: Iterable[int]) -> list[dict[str, Any]]:
    """Return color and line style of the curves with these numbers."""
    count = len(SERIES)
    return [
        {'color': SERIES[index % count], 'linestyle': DASHES[index // count % len(DASHES)]}
        for index in indices
    ]


def escape(text: str) -> str:
    """Escape a text for matplotlib, where ``$`` would start a formula."""
    return text.replace('$', r'\$')


def draw_curve(axes: 'Axes', curve: Curve, style: Style) -> None:
    """Draw ``x`` and ``y`` of a curve, and its band where it has one."""
    x = flatten(curve.x)
    axes.plot(x, np.broadcast_to(flatten(curve.y), x.shape), **{'linewidth': 2, **style})
    if curve.low is not None and curve.high is not None:
        low, high = flatten(curve.low), flatten(curve.high)
        axes.fill_between(x, low, high, color=style['color'], alpha=0.16, linewidth=0)


def finish(
    axes: 'Axes', x_label: str, y_label: str, names: Iterable[str], styles: Sequence[Style]
) -> 'Figure':
    """Label the axes, put a legend above them, where no curve can run through it."""
    from matplotlib.lines import Line2D

    axes.set(xlabel=x_label, ylabel=y_label)
    axes.figure.legend(
        [Line2D([], [], **{'linewidth': 2, **style}) for style in styles],
        # A leading '_' would hide an entry.
        [re.sub('^_', ' _', escape(name)) for name in names],
        loc='outside upper center',
        ncols=2 if len(styles) > 1 else 1,
        frameon=False,
        fontsize=8.5,
        labelcolor=COLORS['ink'],
        handlelength=1.4,
    )
    return axes.figure


def add_note(
    axes: 'Axes',
    text: str,
    place: tuple[float, float],
    offset: tuple[float, float] = (-3, 3),
    align: str = 'right',
    coordinates: Any = 'data',
) -> None:
    """Write small gray text beside a place of the axes; the offset is in points."""
    axes.annotate(
        text,
        place,
        xycoords=coordinates,
        xytext=offset,
        textcoords='offset points',
        ha=align,
        fontsize=8,
        color=COLORS['muted'],
    )


def format_percent(rate: float, _: Any = None) -> str:
    """Return the label of a tick that is a rate."""
    return f'{100 * rate:.4g} %'


def format_number(value: float, _: Any = None) -> str:
    """Return the label of a tick that is a number."""
    # A rounding error must not be labeled 1e-17 on an axis with ticks such as 0.3.
    return f'{value:.6g}' if abs(value) > 1e-12 else '0'


def keep_finite(sets: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the finite values of each set; a set without any is left out."""
    finite = {name: flatten(values) for name, values in sets.items()}
    finite = {name: values[np.isfinite(values)] for name, values in finite.items()}
    return {name: values for name, values in finite.items() if len(values)}
