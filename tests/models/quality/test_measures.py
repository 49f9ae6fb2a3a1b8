"""Each measure against its formula written out."""

import math

import numpy as np
import pytest
import torch

from mmvlr.models.quality import (
    CRFIQAQuality,
    ERSQuality,
    FaceBatch,
    NormQuality,
    QualityMeasure,
    RecognizabilityQuality,
    SharpnessQuality,
    SizeQuality,
)
from mmvlr.registry import QUALITIES


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('model_type', ['RIFace', 'FaceRecognizer', 'CRFIQA'])
def test_norm_and_ers(make_model, inputs, model_type):
    model = make_model(model_type)
    faces = FaceBatch(model, inputs)
    norm, ers = NormQuality()(faces), ERSQuality()(faces)
    center = model.ui_center.double().tolist()
    for row, embedding in enumerate(model(inputs)[1].detach().double().tolist()):
        length = math.sqrt(sum(x * x for x in embedding))
        along = sum(x * u for x, u in zip(embedding, center, strict=True)) / length
        assert norm[row].item() == pytest.approx(length, rel=1e-5)
        assert ers[row].item() == pytest.approx(min(1 - along, 1), abs=1e-5)
    assert norm.dtype == ers.dtype == torch.float32
    assert ers.max() <= 1


def test_ers_is_capped_where_the_face_is_opposite_to_the_center(make_model, inputs):
    model = make_model()
    model.set_ui_center(-model(inputs)[1][0].detach())
    assert ERSQuality()(FaceBatch(model, inputs))[0] == 1


@pytest.mark.parametrize(
    ('model_type', 'measure', 'attribute'),
    [
        ('RIFace', RecognizabilityQuality(), 'recognizability'),
        ('CRFIQA', CRFIQAQuality(), 'crfiqa'),
    ],
)
def test_learned_qualities_are_the_linear_read_out(
    make_model, inputs, model_type, measure, attribute
):
    model = make_model(model_type)
    found = measure(FaceBatch(model, inputs))
    weight = model.regression.layers[0].weight[0].detach().double().tolist()
    bias = model.regression.layers[0].bias.item()
    for row, embedding in enumerate(model(inputs)[1].detach().double().tolist()):
        if model_type == 'RIFace':
            length = math.sqrt(sum(x * x for x in embedding))
            embedding = [*embedding, length, math.log(length)]
        expected = bias + sum(w * x for w, x in zip(weight, embedding, strict=True))
        assert found[row].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    # What a metric reads from the data samples is the same number.
    for value, sample in zip(found, model(inputs, mode='predict'), strict=True):
        assert getattr(sample, attribute).item() == pytest.approx(value.item(), rel=1e-4, abs=1e-5)


def test_size():
    faces = FaceBatch(images=[image(8, 18), image(30, 10), image(12, 12)])
    assert SizeQuality()(faces).tolist() == [8, 10, 12]
    found = SizeQuality('geometric_mean')(faces).tolist()
    assert found == pytest.approx([12, math.sqrt(300), 12])


def laplacian_variance(gray):
    """By explicit convolution, pixel by pixel."""
    kernel = [[0, 1, 0], [1, -4, 1], [0, 1, 0]]
    height, width = len(gray), len(gray[0])
    values = []
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            values.append(sum(kernel[dy + 1][dx + 1] * gray[y + dy][x + dx] for dy, dx in around))
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


def test_sharpness_on_the_common_size():
    face = image(20, 24)
    gray = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in face.tolist()]
    found = SharpnessQuality(size=(20, 24))(FaceBatch(images=[face])).item()
    assert found == pytest.approx(laplacian_variance(gray), rel=1e-5)


def test_sharpness_shrinks_by_area_averaging():
    face = image(16, 32)
    gray = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in face.tolist()]
    small = [
        [
            sum(gray[2 * y + dy][8 * x + dx] for dy in (0, 1) for dx in range(8)) / 16
            for x in range(4)
        ]
        for y in range(8)
    ]
    found = SharpnessQuality(size=(8, 4))(FaceBatch(images=[face])).item()
    assert found == pytest.approx(laplacian_variance(small), rel=1e-4)


def test_sharpness_falls_with_blur_and_does_not_reward_few_pixels():
    sharp = image(64, 64)
    blurred = sharp[:-1, :-1] / 4.0 + sharp[1:, :-1] / 4 + sharp[:-1, 1:] / 4 + sharp[1:, 1:] / 4
    few = sharp[::8, ::8]
    flat = np.full((9, 9, 3), 100, np.uint8)
    found = SharpnessQuality()(FaceBatch(images=[sharp, blurred.astype(np.uint8), few, flat]))
    assert found[0] > found[1] > found[3]
    assert found[0] > found[2] / 4
    assert found[3] == pytest.approx(0, abs=1e-3)
    # The same 8 x 8 pixels, as they are and drawn large, are about equally sharp.
    large = np.repeat(np.repeat(few, 4, 0), 4, 1)
    assert SharpnessQuality()(FaceBatch(images=[large])) > found[2]


def test_all_measures_share_one_pass_of_the_backbone(make_model, inputs):
    model = make_model()
    calls = []
    model.backbone.register_forward_hook(lambda *_: calls.append(1))
    faces = FaceBatch(model, inputs)
    for measure in ('RecognizabilityQuality', 'ERSQuality', 'NormQuality', 'SERFIQQuality'):
        assert QUALITIES.build(dict(type=measure))(faces).shape == (5,)
    assert len(calls) == 1


def test_measures_are_found_by_name():
    names = [QUALITIES.get(key).name for key in sorted(QUALITIES.module_dict)]
    shipped = {'ri', 'ers', 'norm', 'serfiq', 'crfiqa', 'size', 'sharpness'}
    shipped |= {'prefiqs', 'grafiqs', 'ccs', 'ccas', 'froq'}
    assert shipped <= set(names)
    assert len(names) == len(set(names))
    assert QUALITIES.build(dict(type='NormQuality', name='length')).name == 'length'
    assert NormQuality.name == 'norm'


def test_errors(make_model, inputs):
    plain = make_model('FaceRecognizer')
    faces = FaceBatch(plain, inputs)
    with pytest.raises(ValueError, match='needs an RIFace, not a FaceRecognizer'):
        RecognizabilityQuality()(faces)
    with pytest.raises(ValueError, match='needs a CRFIQA, not a FaceRecognizer'):
        CRFIQAQuality()(faces)
    plain.set_ui_center(torch.zeros(16))
    with pytest.raises(ValueError, match='UICenterHook'):
        ERSQuality()(faces)
    with pytest.raises(ValueError, match='training mode'):
        NormQuality()(FaceBatch(make_model().train(), inputs))
    with pytest.raises(ValueError, match="'norm' needs a model"):
        NormQuality()(FaceBatch(images=[image(9, 9)]))
    with pytest.raises(ValueError, match="'norm' needs a model"):
        NormQuality()(FaceBatch(plain))
    with pytest.raises(ValueError, match="'size' needs images"):
        SizeQuality()(faces)
    with pytest.raises(ValueError, match="not 'area'"):
        SizeQuality('area')
    with pytest.raises(ValueError, match='at least 3 pixels'):
        SharpnessQuality(size=(2, 32))

    class MapQuality(QualityMeasure):
        name = 'map'

        def measure(self, faces):
            return faces.embedding

    with pytest.raises(ValueError, match=r"'map' returned \(5, 16\) for 5 faces"):
        MapQuality()(faces)
