"""Unit vectors against Python's own arithmetic of any precision."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import open_set_identification
from mmvlr.identification import Gallery, MeanTemplate
from mmvlr.preparation.ui_filtering import find_unrecognizable
from mmvlr.utils.vectors import unit_rows

SCALES = (1e-45, 1e-30, 1e-12, 1.0, 50.0, 1e12, 1e25, 1e38)


def unit_row(row):
    """Divide by the length, whose square is exact here, brought to about one first."""
    squared = sum(Fraction(value) ** 2 for value in row)
    power = (squared.numerator.bit_length() - squared.denominator.bit_length()) // 2
    length = Fraction(math.sqrt(squared / Fraction(4) ** power)) * Fraction(2) ** power
    return [float(Fraction(value) / length) for value in row]


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', 'int64'])
@pytest.mark.parametrize('double', [False, True])
def test_rows_of_every_size(kind, dtype, double):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 7))
    scales = {'float16': (1e-4, 1.0, 900.0), 'int64': (9.0, 1e6)}.get(dtype, SCALES)
    scales = (*scales, 1e-320, 1e-200, 1e200, 1e307) if dtype == 'float64' else scales
    rows = (rows / np.abs(rows).max(1, keepdims=True) * rng.choice(scales, (40, 1))).astype(dtype)
    given = kind(rows.copy())
    found = unit_rows(given, double=double)
    assert type(found) is type(given)
    assert str(found.dtype).endswith('float64' if double else 'float32')
    expected = [unit_row(row) for row in rows.tolist()]
    np.testing.assert_allclose(np.asarray(found), expected, 1e-12 if double else 4e-7, 1e-30)
    np.testing.assert_array_equal(np.asarray(given), rows)


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
def test_ordinary_rows_are_scaled_as_ever_whatever_stands_beside(kind):
    """Galleries and calibrations on disk were made of these bits."""
    rows = np.random.default_rng(1).standard_normal((60, 192)).astype(np.float32)
    rows *= np.logspace(-9, 9, 60, dtype=np.float32)[:, None]
    if kind is np.asarray:
        length = np.sqrt(np.einsum('nd,nd->n', rows, rows, dtype=np.float64)).astype(np.float32)
        expected = rows / length[:, None]
    else:
        tensor = torch.from_numpy(rows)
        expected = (tensor / tensor.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_array_equal(np.asarray(unit_rows(kind(rows))), expected)
    beside = np.concatenate([rows, rows[:1] * np.float32(1e-32), rows[-1:] * np.float32(1e25)])
    np.testing.assert_array_equal(np.asarray(unit_rows(kind(beside)))[:60], expected)


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
@pytest.mark.parametrize('value', [0.0, math.nan, math.inf, -math.inf])
def test_rows_without_direction_are_named(kind, value):
    rows = np.ones((5, 3))
    rows[3] = value
    with pytest.raises(ValueError, match='face 3'):
        unit_rows(kind(rows), 'face {}'.format)
    rows[1, 2] = value if value else 1
    with pytest.raises(ValueError, match='face 1 .* 1 more' if value else 'face 3'):
        unit_rows(kind(rows), 'face {}'.format)


@pytest.mark.parametrize('kind', [np.asarray, torch.as_tensor])
def test_what_is_no_real_matrix(kind):
    for wrong in (np.ones(3), np.ones((2, 2), bool), np.ones((2, 2), complex), np.ones((1, 2, 2))):
        with pytest.raises(ValueError, match=r'\(n, D\)'):
            unit_rows(kind(wrong))
    assert unit_rows(kind(np.empty((0, 4)))).shape == (0, 4)
    with pytest.raises(ValueError, match='zero'):
        unit_rows(kind(np.empty((1, 0))))


def gallery_similarities(rows):
    gallery = Gallery(dict(embedding=dict(dims=rows.shape[1])))
    gallery.enroll_many([str(row) for row in range(len(rows))], rows)
    found = gallery.search(rows, k=len(rows))
    return np.sort(found.similarity, axis=1)


def open_set_thresholds(rows):
    found = open_set_identification(
        rows, np.arange(len(rows)), rows, np.arange(len(rows)), -rows, template='mean_raw'
    )
    return list(found.values())


@pytest.mark.parametrize(
    'answer',
    [
        lambda rows: FaceTable(rows, ['probe'] * len(rows), range(len(rows))).unit.numpy(),
        lambda rows: MeanTemplate()(rows),
        lambda rows: find_unrecognizable(rows, 0.5)[0],
        gallery_similarities,
        open_set_thresholds,
    ],
    ids=['table', 'template', 'ui', 'gallery', 'open_set'],
)
@pytest.mark.parametrize('scale', [1e-35, 1e-30, 1e25, 1e35])
def test_nobody_normalizes_in_another_way(answer, scale):
    """The length of an embedding changes no answer, wherever it is asked for."""
    rows = np.random.default_rng(2).standard_normal((12, 8)).astype(np.float32)
    expected = answer(rows)
    scaled = rows.copy()
    scaled[::2] *= np.float32(scale)
    np.testing.assert_allclose(answer(scaled), expected, atol=1e-6)
    scaled[4] = 0
    with pytest.raises(ValueError, match='zero'):
        answer(scaled)
