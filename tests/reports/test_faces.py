"""Contact sheets, attention over faces, and maps that tell nothing of them."""

import numpy as np
import pytest

from mmvlr.reports import ActivationRow, FaceCard, contact_sheet, overlay_attention
from mmvlr.reports.drawing import COLORS
from mmvlr.reports.faces import find_border, warn_of_border, warn_of_flatness

from .conftest import make_face


def parse_color(name):
    return tuple(bytes.fromhex(COLORS[name][1:]))


def test_contact_sheet_geometry_and_pixels():
    rng = np.random.default_rng(3)
    images = [make_face(rng, 10, 10) for _ in range(5)]
    borders = ['right', 'wrong', None, 'right', 'wrong']
    cards = [FaceCard(i, ('RI 0.5', 'id 3'), b) for i, b in zip(images, borders, strict=True)]
    sheet = contact_sheet(cards, columns=3, size=40, gap=6, border=2)
    assert sheet.shape == (2 * (44 + 30 + 6) + 6, 3 * (44 + 6) + 6, 3)
    assert sheet.dtype == np.uint8
    for index, card in enumerate(cards):
        y, x = 6 + index // 3 * 80, 6 + index % 3 * 50
        enlarged = card.image.repeat(4, axis=0).repeat(4, axis=1)
        assert np.array_equal(sheet[y + 2 : y + 42, x + 2 : x + 42], enlarged)
        frame = sheet[y : y + 44, x : x + 44]
        for edge in (frame[:2], frame[-2:], frame[:, :2], frame[:, -2:]):
            assert (edge == parse_color(card.border or 'line')).all()
        below = sheet[y + 44 : y + 74, x : x + 44]
        assert (below != parse_color('card')).any()
    assert (sheet[80:, 2 * 50 + 6 :] == 255).all()
    assert (sheet[:6] == 255).all() and (sheet[:, :6] == 255).all()


def test_contact_sheet_keeps_the_aspect_ratio_and_shortens_text():
    image = np.full((20, 10, 3), 7, np.uint8)
    sheet = contact_sheet([FaceCard(image, ('a long caption ' * 9,))], size=40, gap=5, border=0)
    assert sheet.shape == (40 + 15 + 10, 50, 3)
    assert (sheet[5:45, 15:35] == 7).all()
    assert (sheet[5:45, 5:15] == parse_color('line')).all()
    assert (sheet[:, :2] == 255).all() and (sheet[:, -2:] == 255).all()
    with pytest.raises(ValueError):
        contact_sheet([])


@pytest.mark.parametrize('shape', [(20, 20), (24, 12), (9, 18), (112, 112), (300, 200)])
def test_overlay_shape(shape):
    image = make_face(np.random.default_rng(4), *shape)
    overlay = overlay_attention(image, np.random.default_rng(5).normal(size=(7, 7)), size=96)
    scale = 96 / max(shape)
    assert overlay.shape == (round(shape[0] * scale), round(shape[1] * scale), 3)
    assert overlay.dtype == np.uint8


def test_overlay_colors_the_attended_place_only():
    image = np.full((28, 28, 3), 100, np.uint8)
    attention = np.zeros((7, 7))
    attention[5, 1] = -3.0
    attention[1, 5] = 4.0
    overlay = overlay_attention(image, attention, size=112).astype(int)
    spread = overlay.max(axis=2) - overlay.min(axis=2)
    assert spread[:56, 56:].max() > 60
    assert np.abs(overlay[5 * 16 + 8, 16 + 8] - 100).max() <= 1
    assert (overlay_attention(image, np.ones((7, 7))) == 100).all()
    assert (overlay_attention(image, np.full((7, 7), np.nan)) == 100).all()
    attention[3, 3] = np.nan
    overlay_attention(image, attention)
    with pytest.raises(ValueError):
        overlay_attention(image, np.ones(7))


@pytest.mark.parametrize('shape', [(1, 1), (3, 3), (4, 4), (5, 6), (7, 7), (14, 14), (112, 96)])
def test_border_is_a_seventh_of_the_image(shape):
    border = find_border(shape)
    for row, column in np.ndindex(shape):
        centers = [(row + 0.5) / shape[0], (column + 0.5) / shape[1]]
        assert border[row, column] == any(min(c, 1 - c) < 1 / 7 for c in centers)


def make_maps(at_border, inside, size=7):
    corner, center = np.zeros((size, size)), np.zeros((size, size))
    corner[0, -1] = center[size // 2, size // 2] = 1
    return [corner] * at_border + [center] * inside


@pytest.mark.parametrize(
    'at_border, inside, size, warns',
    [
        (10, 0, 7, True),
        (8, 2, 7, True),
        (7, 3, 7, False),
        (0, 10, 7, False),
        (8, 2, 112, True),
        # Three quarters of a map of 4 x 4 are border: eight of ten are hardly more than that.
        (10, 0, 4, True),
        (8, 2, 4, False),
        # A map of 3 x 3 has none, and nothing follows from two faces.
        (10, 0, 3, False),
        (2, 0, 7, False),
        (0, 0, 7, False),
    ],
)
def test_maps_that_peak_at_the_border_are_called_meaningless(at_border, inside, size, warns):
    maps = make_maps(at_border, inside, size)
    found = warn_of_border({'PAM': maps, 'fine': make_maps(0, 5)})
    assert len(found) == warns
    for sentence in found:
        assert 'PAM are meaningless' in sentence and f'{at_border} of {len(maps)}' in sentence


def test_flat_and_unknown_maps_have_no_peak():
    flat, unknown = np.full((7, 7), 0.5), np.full((7, 7), np.nan)
    assert not warn_of_border({'flat': [flat] * 5, 'unknown': [unknown] * 5})


def test_wrong_input_is_named():
    image = np.zeros((4, 4, 3), np.uint8)
    for make in (lambda text: FaceCard(image, text), lambda text: ActivationRow(image, {}, text)):
        with pytest.raises(TypeError, match='tuple'):
            make('RI 0.4')
    for wrong in (np.full((3, 3), 1.5), np.full((3, 3), -0.1), np.full((3, 3), np.nan), np.ones(3)):
        with pytest.raises(ValueError, match='ArcFace'):
            ActivationRow(image, {'ArcFace': wrong})


def test_attention_without_places_is_told():
    rng = np.random.default_rng(0)
    noise = rng.random((5, 7, 7))
    (told,) = warn_of_flatness([*(1 + 0.01 * noise), 0.5 + noise[0]])
    assert '5 of 6' in told
    assert not warn_of_flatness([*(0.5 + noise), np.ones((7, 7))])
    assert not warn_of_flatness([np.ones((7, 7))] * 2)
