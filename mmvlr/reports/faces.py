"""Render faces for reports: cards with captions, attention over a face, contact sheets."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from .drawing import COLORS

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

#: Width of the border of an image, as a share of its side: one place of a map of 7 x 7.
BORDER = 1 / 7
_LINE_HEIGHT = 15


def check_caption(caption: Any) -> None:
    """Raise TypeError for a plain string, which would be taken for lines of one letter."""
    if isinstance(caption, str):
        raise TypeError(f'a caption is a tuple of lines, got the string {caption!r}')


@dataclass(frozen=True)
class FaceCard:
    """One face with a caption.

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


def _scale_map(attention: np.ndarray) -> np.ndarray:
    """Scale a map to [0, 1]; one that is constant or unknown becomes 0."""
    attention = np.asarray(attention, dtype=np.float32)
    if attention.ndim != 2 or not attention.size:
        raise ValueError(f'an attention map must be (h, w), got {attention.shape}')
    finite = attention[np.isfinite(attention)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    known = np.nan_to_num(attention, nan=low, posinf=high, neginf=low)
    return (known - low) / (high - low) if high > low else np.zeros_like(known)


def overlay_attention(
    face: np.ndarray, attention: np.ndarray, size: int = 112, strength: float = 0.75
) -> np.ndarray:
    """Overlay a spatial attention map on its face.

    The face is converted to gray, and the map is scaled to its own range: the least attended
    position is unchanged, the most attended one is colored. Both are resized bicubically.

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
    scaled = _scale_map(attention)
    base = resize_longer_side(check_face(face), size, cv2.INTER_CUBIC)
    gray = cv2.cvtColor(base, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    shape = base.shape[1], base.shape[0]
    scaled = cv2.resize(scaled, shape, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    table = cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    color = cv2.cvtColor(table, cv2.COLOR_BGR2RGB).astype(np.float32)
    opacity = strength * scaled[..., None]
    return np.rint(gray * (1 - opacity) + color * opacity).astype(np.uint8)


def find_border(shape: tuple[int, int]) -> np.ndarray:
    """Return which places of a map of this shape have their center at the border, bool (h, w)."""
    rows, columns = (
        np.abs(2 * (np.arange(side) + 0.5) / side - 1) > 1 - 2 * BORDER for side in shape
    )
    return rows[:, None] | columns


def warn_of_border(maps: Mapping[str, Iterable[np.ndarray]]) -> list[str]:
    """Return warnings about maps that are meaningless, as they peak at the border of the image.

    If peaks were uniformly distributed, half of them would be at the border of a 7 x 7 map. A
    warning is given if their share exceeds the middle between that share and one.

    Args:
        maps: Maps (h, w) of different faces by name, such as ``'spatial attention'``. At least
            three are needed; a constant map has no peak.

    Example:
        >>> corner = np.eye(7)[:1].repeat(7, axis=0)
        >>> len(warn_of_border({'PAM': [corner] * 5, 'Grad-CAM': [corner.T[::-1] * 0] * 5}))
        1
    """
    warnings = []
    for name, found in maps.items():
        scaled = [_scale_map(values) for values in found]
        borders = [find_border(values.shape) for values in scaled]
        peaks = [
            bool(values.any() and border.flat[values.argmax()])
            for values, border in zip(scaled, borders, strict=True)
        ]
        chance = float(np.mean([border.mean() for border in borders] or [0]))
        if len(peaks) >= 3 and sum(peaks) > len(peaks) * (1 + chance) / 2:
            warnings.append(
                f'The maps of {name} are meaningless here: {sum(peaks)} of {len(peaks)} peak at '
                'the border of the image instead of on the face.'
            )
    return warnings


def warn_of_flatness(maps: Sequence[np.ndarray], least: float = 0.05) -> list[str]:
    """Return a warning if the gates of attention hardly differ from place to place.

    Args:
        maps: Gates (h, w), by which features are multiplied.
        least: Difference of highest and lowest, as a share of the highest, of a map that counts.
    """
    spreads = [float(np.ptp(values) / max(np.abs(values).max(), 1e-12)) for values in maps]
    flat = sum(spread < least for spread in spreads)
    if len(spreads) < 3 or flat <= len(spreads) / 2:
        return []
    return [
        f'The attention has learned no places: {flat} of {len(spreads)} maps differ by less than '
        f'{100 * least:.0f} % between their places, and their colors show such differences.'
    ]


def contact_sheet(
    cards: Sequence[FaceCard],
    columns: int = 8,
    size: int = 96,
    gap: int = 8,
    border: int = 4,
    interpolation: Literal['nearest', 'bicubic'] = 'nearest',
) -> np.ndarray:
    """Arrange faces of any native size in a grid, at equal size, with captions below.

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

    Returns:
        (H, W, 3) uint8, RGB.

    Example:
        >>> face = np.zeros((20, 20, 3), np.uint8)
        >>> contact_sheet([FaceCard(face, ('RI 0.41',))] * 5, columns=3, size=40).shape
        (150, 176, 3)
    """
    from PIL import ImageColor

    if not cards:
        raise ValueError('a contact sheet needs at least one face')
    cell = size + 2 * border
    cell_height = cell + _LINE_HEIGHT * max(len(card.caption) for card in cards)
    columns = min(columns, len(cards))
    rows = -(-len(cards) // columns)
    shape = rows * (cell_height + gap) + gap, columns * (cell + gap) + gap, 3
    sheet = np.empty(shape, np.uint8)
    sheet[:] = ImageColor.getrgb(COLORS['card'])
    method = {'nearest': cv2.INTER_NEAREST, 'bicubic': cv2.INTER_CUBIC}[interpolation]
    corners = []
    for index, card in enumerate(cards):
        row, column = divmod(index, columns)
        y, x = gap + row * (cell_height + gap), gap + column * (cell + gap)
        corners.append((y, x))
        inner = sheet[y + border : y + border + size, x + border : x + border + size]
        sheet[y : y + cell, x : x + cell] = ImageColor.getrgb(COLORS[card.border or 'line'])
        inner[:] = ImageColor.getrgb(COLORS['line'])
        face = resize_longer_side(check_face(card.image), size, method)
        height, width = face.shape[:2]
        top, left = (size - height) // 2, (size - width) // 2
        inner[top : top + height, left : left + width] = face
    if any(card.caption for card in cards):
        _write_captions(sheet, cards, corners, cell)
    return sheet


def _write_captions(
    sheet: np.ndarray, cards: Sequence[FaceCard], corners: Sequence[tuple[int, int]], cell: int
) -> None:
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(sheet)
    draw, font = ImageDraw.Draw(canvas), _find_font(11)
    for card, (y, x) in zip(cards, corners, strict=True):
        for number, line in enumerate(card.caption):
            while len(line) > 1 and draw.textlength(line, font) > cell:
                line = line.rstrip('…')[:-1] + '…'
            draw.text(
                (x + cell / 2, y + cell + number * _LINE_HEIGHT + 2),
                line,
                fill=COLORS['muted' if number else 'ink'],
                font=font,
                anchor='ma',
            )
    sheet[:] = np.asarray(canvas)


def _find_font(points: int) -> 'FreeTypeFont | ImageFont':
    from PIL import ImageFont

    try:
        import matplotlib
    except ImportError:
        return ImageFont.load_default(points)
    # The font that matplotlib carries covers Latin, Greek and Cyrillic on every machine.
    path = Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')
    return ImageFont.truetype(str(path), points)
