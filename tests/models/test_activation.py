"""Activation maps against the formulas written out in float64."""

import copy
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmvlr.models import FaceRecognizer, RIFace
from mmvlr.models.activation import METHODS, activation_maps

SIDE = 48
IRESNET = dict(type='IResNet', depth=18, input_size=SIDE, embed_dims=16)


@pytest.fixture(autouse=True)
def library():
    pytest.importorskip('pytorch_grad_cam', reason="needs pip install 'mmvlr[cam]'")


def randomized(model):
    """Random BN and PReLU, so that no part of a fresh network is the identity."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.2)
            if isinstance(module, nn.PReLU):
                module.weight.uniform_(0.1, 0.4)
    return model.eval()


@pytest.fixture
def mobilefacenet(tiny_backbone):
    return dict(tiny_backbone, input_size=SIDE)


def recognizer(backbone, **kwargs):
    return randomized(FaceRecognizer(backbone=backbone, **kwargs))


def riface(backbone, **kwargs):
    attention = dict(type='PerceptibilityAttention', reduction=4)
    return randomized(RIFace(backbone=backbone, attention=attention, **kwargs))


@pytest.fixture
def faces():
    return torch.randn(3, 3, SIDE, SIDE)


@pytest.fixture
def references():
    return 5 * torch.randn(3, 16)


def double_embeddings(model, faces):
    """Feature map and predicted embedding in float64, by the parts of a copy of the model."""
    model = copy.deepcopy(model).double().requires_grad_(True)
    feature_map, embedding = model.extract_feat(faces.double())
    kind = getattr(model, 'inference_embedding', 'backbone')
    if kind != 'backbone':
        attended = model.attention(feature_map)
        attended = attended / attended.norm(dim=1, keepdim=True)
        if kind == 'sum':
            attended = attended + embedding / embedding.norm(dim=1, keepdim=True)
        embedding = attended
    return feature_map, embedding


def activations_and_gradients(model, faces, references, scale=1.0):
    """Of the last feature map: both (B, C, h, w) float64."""
    feature_map, embedding = double_embeddings(model, faces)
    if references is None:
        target = embedding.square().sum(1).sqrt()
    else:
        r = references.double()
        target = (embedding * r).sum(1) / (embedding.square().sum(1) * r.square().sum(1)).sqrt()
    (gradient,) = torch.autograd.grad(scale * target.sum(), feature_map)
    return feature_map.detach().numpy(), gradient.numpy()


def enlarged(cam):
    """Scale a map (h, w) to [0, 1], enlarge it bilinearly to the face and scale it again."""
    cam = cam - cam.min()
    if not cam.any():
        return np.zeros((SIDE, SIDE))
    cam = cam / cam.max()
    cam = F.interpolate(torch.from_numpy(cam)[None, None], (SIDE, SIDE), mode='bilinear')
    cam = cam[0, 0].numpy()
    return (cam - cam.min()) / (cam.max() - cam.min())


def grad_cam(activations, gradients):
    maps = []
    for a, g in zip(activations, gradients, strict=True):
        channels, height, width = a.shape
        cam = np.zeros((height, width))
        for c in range(channels):
            weight = sum(g[c, i, j] for i in range(height) for j in range(width))
            weight /= height * width
            for i in range(height):
                for j in range(width):
                    cam[i, j] += weight * a[c, i, j]
        maps.append(enlarged(np.maximum(cam, 0)))
    return np.stack(maps)


def grad_cam_plus_plus(activations, gradients):
    """Equations 10 and 19 of the paper, with exp(S) as the class score."""
    maps = []
    for a, g in zip(activations, gradients, strict=True):
        channels, height, width = a.shape
        cam = np.zeros((height, width))
        for c in range(channels):
            weight = 0.0
            for i in range(height):
                for j in range(width):
                    alpha = g[c, i, j] ** 2 / (
                        2 * g[c, i, j] ** 2 + a[c].sum() * g[c, i, j] ** 3 + 1e-6
                    )
                    weight += alpha * max(g[c, i, j], 0)
            cam += weight * a[c]
        maps.append(enlarged(np.maximum(cam, 0)))
    return np.stack(maps)


def eigen_cam(activations, _):
    maps = []
    for a in activations:
        positions = a.reshape(len(a), -1).T
        positions = positions - positions.mean(0)
        _, vectors = np.linalg.eigh(positions.T @ positions)
        projection = (positions @ vectors[:, -1]).reshape(a.shape[1:])
        if -projection.min() > projection.max():
            projection = -projection
        maps.append(enlarged(np.maximum(projection, 0)))
    return np.stack(maps)


def check_maps(maps, faces):
    assert maps.shape == (len(faces), SIDE, SIDE) and maps.dtype == np.float32
    assert maps.min() >= 0 and maps.max() <= 1


@pytest.mark.parametrize('given', [True, False])
@pytest.mark.parametrize('name', ['mobilefacenet', 'tail', 'iresnet', 'adaface'])
def test_grad_cam_is_its_formula(name, given, mobilefacenet, faces, references):
    backbone = {
        'mobilefacenet': mobilefacenet,
        'tail': dict(mobilefacenet, variant='tfjs', embed_dims=16),
        'iresnet': IRESNET,
        'adaface': dict(IRESNET, variant='adaface', frozen_bn=True),
    }[name]
    model = recognizer(backbone)
    references = references if given else None
    maps = activation_maps(model, faces, references)
    check_maps(maps, faces)
    expected = grad_cam(*activations_and_gradients(model, faces, references))
    assert np.ptp(expected, axis=(1, 2)).max() > 0.99
    assert np.abs(maps - expected).max() < 1e-4


@pytest.mark.parametrize(
    'method, formula', [('gradcam++', grad_cam_plus_plus), ('eigencam', eigen_cam)]
)
def test_other_methods_are_their_formulas(method, formula, mobilefacenet, faces, references):
    model = recognizer(mobilefacenet)
    maps = activation_maps(model, faces, references, method)
    check_maps(maps, faces)
    # The margin losses' logit is 64 times the cosine.
    expected = formula(*activations_and_gradients(model, faces, references, scale=64))
    assert np.abs(maps - expected).max() < 1e-3


@pytest.mark.parametrize(
    'kind, given',
    [('backbone', True), ('backbone', False), ('attention', True), ('sum', True), ('sum', False)],
)
def test_riface_is_explained_by_the_embedding_it_predicts(
    kind, given, mobilefacenet, faces, references
):
    model = riface(mobilefacenet, inference_embedding=kind)
    references = references if given else None
    maps = activation_maps(model, faces, references)
    expected = grad_cam(*activations_and_gradients(model, faces, references))
    assert np.abs(maps - expected).max() < 1e-3


@pytest.mark.parametrize('method', ['gradcam', 'gradcam++'])
def test_unit_embeddings_need_references(method, mobilefacenet, faces):
    # No pixel changes their length: the map would be made of rounding errors.
    model = riface(mobilefacenet, inference_embedding='attention')
    with pytest.raises(ValueError, match='length 1 whatever the face: give references'):
        activation_maps(model, faces, method=method)
    activation_maps(model, faces, method='eigencam')


@pytest.mark.parametrize(
    'layer, backbone',
    [
        ('backbone.last', None),
        ('backbone.bn2', dict(IRESNET, variant='faceevolve')),
        ('backbone.block8', dict(type='InceptionResnetV1', embed_dims=16)),
    ],
)
@pytest.mark.parametrize('method', METHODS)
def test_default_layer_is_the_last_map_of_every_backbone(
    layer, backbone, method, mobilefacenet, references
):
    model = recognizer(backbone or mobilefacenet)
    side = 139 if layer == 'backbone.block8' else SIDE
    faces = torch.randn(2, 3, side, side)
    maps = activation_maps(model, faces, references[:2], method)
    assert np.ptp(maps, axis=(1, 2)).max() > 0.99
    assert np.array_equal(maps, activation_maps(model, faces, references[:2], method, layer))


def test_earlier_layer_is_another_finer_map(mobilefacenet, faces, references):
    model = recognizer(mobilefacenet)
    found = {}

    def keep(module, args, output):
        output.register_hook(lambda gradient: found.update(a=output, g=gradient))

    earlier = copy.deepcopy(model).double()
    earlier.backbone.blocks[0].register_forward_hook(keep)
    embedding = earlier.extract_feat(faces.double())[1]
    F.cosine_similarity(embedding, references.double()).sum().backward()
    assert found['a'].shape[-1] == SIDE // 4
    expected = grad_cam(found['a'].detach().numpy(), found['g'].numpy())
    maps = activation_maps(model, faces, references, layer='backbone.blocks.0')
    assert np.abs(maps - expected).max() < 1e-4


def test_references_move_the_map(mobilefacenet, faces, references):
    model = recognizer(mobilefacenet)
    maps = activation_maps(model, faces, references)
    others = activation_maps(model, faces, -references.numpy())
    assert (np.abs(maps - others).max((1, 2)) > 0.1).all()
    # Only the direction of a reference counts.
    assert np.abs(maps - activation_maps(model, faces, 7 * references)).max() < 1e-4
    moved = references.clone()
    moved[1] = -references[1]
    changed = np.abs(activation_maps(model, faces, moved) - maps).max((1, 2))
    assert (changed > 0.01).tolist() == [False, True, False]


@pytest.mark.parametrize('method', METHODS)
def test_deterministic_and_face_by_face(method, mobilefacenet, faces, references):
    model = recognizer(mobilefacenet)
    maps = activation_maps(model, faces, references, method)
    assert np.array_equal(maps, activation_maps(model, faces, references, method))
    for index, (face, reference) in enumerate(zip(faces, references, strict=True)):
        alone = activation_maps(model, face[None], reference[None], method)[0]
        assert np.abs(maps[index] - alone).max() < 1e-3


def test_faces_that_nothing_speaks_for_are_0_throughout(mobilefacenet, faces):
    model = recognizer(mobilefacenet)
    with torch.no_grad():
        model.backbone.last.act.weight.zero_()
        # Positive activations, all of which the embedding's only direction is lowered by.
        model.backbone.global_depthwise.conv.weight.fill_(-1)
        model.backbone.global_depthwise.bn.weight.fill_(1)
        model.backbone.embedding.weight.fill_(1)
        model.backbone.features.weight.fill_(1)
        model.backbone.features.bias.fill_(1e4)
    assert (activation_maps(model, faces) == 0).all()


@pytest.mark.parametrize('channels_last', [True, False])
@pytest.mark.parametrize('context', [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_caller_needs_no_gradients(context, channels_last, mobilefacenet, faces, references):
    model = recognizer(mobilefacenet, channels_last=channels_last)
    expected = activation_maps(model, faces, references)
    with context():
        # Tensors made here are inference tensors under inference_mode.
        maps = activation_maps(model, faces.clone(), references.clone())
    assert np.array_equal(maps, expected)
    frozen = copy.deepcopy(model).requires_grad_(False)
    assert np.array_equal(activation_maps(frozen, faces, references), expected)
    # Stages that run without a graph in training.
    frozen.backbone.frozen_stages = 2
    assert np.array_equal(activation_maps(frozen, faces, references), expected)
    assert frozen.backbone.frozen_stages == 2


def state(model):
    return (
        [(name, module.training) for name, module in model.named_modules()],
        [(name, p.requires_grad, id(p.grad)) for name, p in model.named_parameters()],
        {name: value.nan_to_num() for name, value in model.state_dict().items()},
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        [len(module._forward_hooks) for module in model.modules()],
    )


def same(first, second):
    return all(
        a == b
        if not isinstance(a, dict)
        else a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize('method', METHODS)
def test_model_is_left_as_found(method, mobilefacenet, faces, references):
    model = riface(dict(mobilefacenet, frozen_bn=True, dropout=0.5)).train()
    model.attention.eval()
    model.backbone.stem.requires_grad_(False)
    embedding = model.extract_feat(faces)[1]
    embedding.sum().backward()
    before = state(model)
    faces.requires_grad_()
    maps = activation_maps(model, faces, references, method)
    assert same(before, state(model)) and faces.grad is None
    assert any(p.grad is not None for p in model.parameters())
    # Computed in eval mode, without dropout.
    assert np.array_equal(maps, activation_maps(model.eval(), faces, references, method))


def test_model_is_left_as_found_after_an_error(mobilefacenet, faces, references):
    model = riface(mobilefacenet).train()
    before = state(model)
    with pytest.raises(RuntimeError):
        activation_maps(model, faces[:, :2], references)
    with pytest.raises(ValueError, match='not finite'):
        activation_maps(model, faces * math.nan, references)
    for layer, message in {
        'none': "no layer 'none'",
        'backbone': r'must be a map \(B, C, h, w\)',
        'backbone.features': r'must be a map \(B, C, h, w\), not \(3, 16\)',
        'attention.spatial_gate': 'takes no part',
    }.items():
        with pytest.raises(ValueError, match=message):
            activation_maps(model, faces, references, layer=layer)
    assert same(before, state(model))


def test_wrong_input_is_named(mobilefacenet, faces, references):
    model = recognizer(mobilefacenet)
    with pytest.raises(ValueError, match=r"one of \('gradcam', .*, not 'cam'"):
        activation_maps(model, faces, references, 'cam')
    for wrong in (references[:2], references[:, :8], references[0]):
        with pytest.raises(ValueError, match=r'must be \(3, 16\), one for every face'):
            activation_maps(model, faces, wrong)
    for value in (0.0, math.nan):
        wrong = references.clone()
        wrong[1] = value
        with pytest.raises(ValueError, match='reference 1'):
            activation_maps(model, faces, wrong)
    with pytest.raises(ValueError, match='reference 0'):
        activation_maps(model, faces, torch.full_like(references, math.inf))
    for wrong in (faces[0], faces[:0]):
        with pytest.raises(ValueError, match=r'\(B, 3, H, W\)'):
            activation_maps(model, wrong)


def test_missing_package_is_explained(mobilefacenet, faces, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(ImportError, match=r"pip install 'mmvlr\[cam\]'"):
        activation_maps(recognizer(mobilefacenet), faces)
