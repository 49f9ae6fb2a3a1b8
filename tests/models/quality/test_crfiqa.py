"""CR-FIQA: target, loss and gradient against loops in float64; a short training."""

import math

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mmvlr.engine.scoring import measure_quality
from mmvlr.models.quality import CRFIQA, CRFIQAQuality, relative_classifiability
from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample


def cosine(a, b):
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(x * x for x in b))


def ratio(embedding, label, prototypes, eps=1e-9):
    cosines = [cosine(embedding, w) for w in prototypes]
    nearest = max(c for j, c in enumerate(cosines) if j != label)
    return cosines[label] / (nearest + 1 + eps)


def test_target():
    embeddings, prototypes = torch.randn(6, 16), torch.randn(4, 16)
    labels = torch.tensor([0, 1, 2, 3, 0, 2])
    # One face on the wrong side: its own cosine is negative.
    embeddings[5] = -prototypes[2]
    found = relative_classifiability(embeddings.requires_grad_(), labels, prototypes)
    assert not found.requires_grad
    expected = [
        ratio(v, y, prototypes.double().tolist())
        for v, y in zip(embeddings.double().tolist(), labels.tolist(), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found[5] < 0
    assert relative_classifiability(embeddings, labels, prototypes, eps=0.5).tolist() == (
        pytest.approx(
            [
                ratio(v, y, prototypes.double().tolist(), 0.5)
                for v, y in zip(embeddings.double().tolist(), labels.tolist(), strict=True)
            ],
            rel=1e-5,
            abs=1e-6,
        )
    )


def test_target_stays_finite_opposite_to_the_only_other_class():
    for _ in range(20):
        w = torch.randn(1, 16)
        found = relative_classifiability(3 * w, torch.tensor([0]), torch.cat([w, -w]))
        assert found.isfinite()
        assert found > 1e5


def samples_of(labels):
    return [FaceDataSample(gt_label=torch.tensor(label)) for label in labels]


def test_loss_and_gradient(make_model, monkeypatch):
    """Loss and gradient for v, weight and bias, from loops: 10 * smooth-L1, target constant."""
    model = make_model('CRFIQA')
    v = torch.randn(5, 16, requires_grad=True)
    monkeypatch.setattr(model, 'extract_feat', lambda _: (torch.zeros(5, 32, 2, 2), v))
    linear = model.regression.layers[0]
    with torch.no_grad():
        linear.weight.mul_(0.1)
    labels = [0, 1, 2, 0, 1]
    losses = model.loss(None, samples_of(labels))
    assert set(losses) == {
        *('loss_cls', 'loss_regression', 'cr', 'cr_std', 'cr_hat', 'cr_hat_std', 'effective_rank')
    }
    losses['loss_regression'].backward()

    faces, prototypes = v.detach().double().tolist(), model.head.weight.detach().double().tolist()
    weight, bias = linear.weight[0].detach().double().tolist(), linear.bias.item()
    total, for_weight, for_bias = 0.0, [0.0] * 16, 0.0
    kinds, targets, predictions = set(), [], []
    for row, face in enumerate(faces):
        target = ratio(face, labels[row], prototypes)
        prediction = bias + sum(w * x for w, x in zip(weight, face, strict=True))
        targets.append(target)
        predictions.append(prediction)
        difference = prediction - target
        if abs(difference) < 0.5:
            total += 10 * 0.5 * difference**2 / 0.5 / 5
            slope = 10 * difference / 0.5 / 5
        else:
            total += 10 * (abs(difference) - 0.25) / 5
            slope = 10 * math.copysign(1, difference) / 5
        kinds.add(abs(difference) < 0.5)
        for_bias += slope
        for d in range(16):
            for_weight[d] += slope * face[d]
            assert v.grad[row, d].item() == pytest.approx(slope * weight[d], rel=1e-4, abs=1e-6)
    assert kinds == {True, False}
    assert losses['loss_regression'].item() == pytest.approx(total, rel=1e-5)
    assert linear.weight.grad[0].tolist() == pytest.approx(for_weight, rel=1e-4, abs=1e-5)
    assert linear.bias.grad.item() == pytest.approx(for_bias, rel=1e-4, abs=1e-5)
    # Neither the target nor anything else of this loss moves the prototypes.
    assert model.head.weight.grad is None
    assert losses['cr'].item() == pytest.approx(np.mean(targets), rel=1e-5)
    assert losses['cr_std'].item() == pytest.approx(np.std(targets), rel=1e-4)
    assert losses['cr_hat'].item() == pytest.approx(np.mean(predictions), rel=1e-4)


def test_read_out_on_top_leaves_the_backbone_alone(make_model, inputs):
    for moves in (True, False):
        model = make_model('CRFIQA', regression_moves_backbone=moves)
        model.loss(inputs, samples_of([0, 1, 2, 0, 1]))['loss_regression'].backward()
        assert model.regression.layers[0].weight.grad.any()
        moved = [p.grad is not None and bool(p.grad.any()) for p in model.backbone.parameters()]
        assert any(moved) is moves


def test_starts_as_a_constant(tiny_backbone):
    model = CRFIQA(dict(tiny_backbone))
    assert not model.regression.layers[0].weight.any()
    assert model.regression.is_linear
    assert model.regression.layers[0].in_features == 16
    with pytest.raises(ValueError, match='no head'):
        model.loss(None, [])


def test_flip_fusion_leaves_the_quality_alone(make_model, inputs):
    model = make_model('CRFIQA')
    plain = model.predictions(inputs)
    model.flip_fusion = 'sum'
    fused = model.predictions(inputs)
    torch.testing.assert_close(fused['crfiqa'], plain['crfiqa'])
    assert not torch.allclose(fused['embedding'], plain['embedding'])


def test_training_lowers_the_loss(tiny_backbone, tiny_preprocessor, make_loader, tmp_path):
    """The target moves with the backbone: the read-out is held against its start, 0, at the end."""
    loader = make_loader(16, shuffle=True, num_people=8, images_per_person=8)
    model = MODELS.build(
        dict(
            type='CRFIQA',
            backbone=dict(tiny_backbone),
            head=dict(type='RecognitionModule', num_classes=8, dropout=0.0),
            data_preprocessor=dict(tiny_preprocessor),
        )
    )

    @torch.no_grad()
    def losses():
        batch = next(iter(make_loader(64, num_people=8, images_per_person=8)))
        data = model.eval().data_preprocessor(batch)
        found = model(**data, mode='loss')
        return found['loss_cls'].item(), found['loss_regression'].item()

    first_cls, _ = losses()
    runner = Runner(
        model,
        work_dir=str(tmp_path),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=30),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=3e-3)),
        default_scope='mmvlr',
        experiment_name='crfiqa',
        log_level='ERROR',
        default_hooks=dict(logger=None, checkpoint=None),
    )
    runner.train()
    cls, regression = losses()
    assert cls < 0.5 * first_cls
    quality = measure_quality(model, loader, [CRFIQAQuality()])['crfiqa']
    assert quality.std() > 0.01
    for parameter in model.regression.parameters():
        torch.nn.init.zeros_(parameter)
    assert regression < 0.3 * losses()[1]
