"""Losses of distillation by plain loops, and what a model with them needs."""

import math

import pytest
import torch

from mmvlr.models import (
    CosineDistillationLoss,
    FeatureSimilarityDistillationLoss,
    RelationalDistillationLoss,
)
from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample


def cosine(one, other):
    one, other = one.flatten().tolist(), other.flatten().tolist()
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.hypot(*one) / math.hypot(*other)


@pytest.fixture
def features():
    """Student (map, embedding) of five faces, and the teacher's, by name."""
    student = torch.randn(5, 4, 2, 2), torch.randn(5, 6)
    return student, dict(feature_map=torch.randn(5, 4, 2, 2), embedding=torch.randn(5, 6))


@pytest.mark.parametrize(
    ('kind', 'place', 'name'),
    [
        (FeatureSimilarityDistillationLoss, 0, 'feature_map'),
        (CosineDistillationLoss, 1, 'embedding'),
    ],
)
def test_cosines_by_loops(features, kind, place, name):
    student, teacher = features
    pairs = zip(student[place], teacher[name], strict=True)
    expected = sum(1 - cosine(*pair) for pair in pairs) / 5
    assert kind(loss_weight=3.0)(student, teacher).item() == pytest.approx(3 * expected, rel=1e-5)
    assert kind()(student, {name: student[place]}) < 1e-6


def test_relations_by_loops_and_of_any_size(features):
    (feature_map, embedding), teacher = features
    wide = torch.cat([teacher['embedding'], torch.randn(5, 3)], 1)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    own = [cosine(embedding[i], embedding[j]) for i, j in pairs]
    other = [cosine(wide[i], wide[j]) for i, j in pairs]
    expected = sum((a - b) ** 2 for a, b in zip(own, other, strict=True)) / len(pairs)
    found = RelationalDistillationLoss()((feature_map, embedding), dict(embedding=wide))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    rotated = embedding @ torch.linalg.qr(torch.randn(6, 6))[0]
    assert RelationalDistillationLoss()((feature_map, rotated), dict(embedding=embedding)) < 1e-10
    with pytest.raises(ValueError, match='RelationalDistillationLoss'):
        CosineDistillationLoss()((feature_map, embedding), dict(embedding=wide))


def test_student_without_head_takes_the_rows_of_its_faces(tiny_backbone, tiny_preprocessor):
    model = MODELS.build(
        dict(
            type='FaceRecognizer',
            backbone=tiny_backbone,
            data_preprocessor=tiny_preprocessor,
            distillation=[dict(type='CosineDistillationLoss')],
        )
    ).eval()
    faces = torch.randn(3, 3, 32, 32)
    samples = [FaceDataSample(metainfo=dict(sample_idx=index)) for index in (7, 2, 5)]
    with pytest.raises(ValueError, match='TeacherHook'):
        model(faces, samples, mode='loss')
    own = model(faces)[1].detach()
    model.teacher = dict(
        sample_idx=torch.tensor([2, 5, 6, 7]), embedding=own[[1, 2, 0, 0]] * torch.rand(4, 1)
    )
    assert model(faces, samples, mode='loss')['loss_cosine'] < 1e-5
    swapped = model(faces, [samples[1], samples[0], samples[2]], mode='loss')
    expected = 2 / 3 * (1 - cosine(own[0], own[1]))
    assert swapped['loss_cosine'].item() == pytest.approx(expected, abs=1e-5)
    samples[0].set_metainfo(dict(sample_idx=9))
    with pytest.raises(ValueError, match='not seen'):
        model(faces, samples, mode='loss')
