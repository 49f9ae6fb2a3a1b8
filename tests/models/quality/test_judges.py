"""PreFIQs, GraFIQs, TransFIRA's heads and FROQ against their formulas written out."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvlr.models.quality import (
    CCASQuality,
    CCSQuality,
    FaceBatch,
    FROQQuality,
    GraFIQsQuality,
    PreFIQsQuality,
    choose_layers,
)


def unit_list(vector):
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


class PlainBackbone(nn.Module):
    """Two convolutions with BN and a linear layer, without any folding."""

    def __init__(self, bn=True):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, bias=False)
        self.bn1, self.bn2 = (nn.BatchNorm2d(n) if bn else nn.Identity() for n in (4, 5))
        self.act, self.linear = nn.PReLU(), nn.Linear(20, 6)
        for layer in (self.bn1, self.bn2) if bn else ():
            nn.init.uniform_(layer.running_mean, -0.3, 0.3)
            nn.init.uniform_(layer.running_var, 0.2, 2)

    def stages(self):
        return [[self.conv1, self.bn1, self.act], [self.conv2, self.bn2]]

    def forward(self, x):
        feature_map = self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))
        return feature_map, self.linear(feature_map.flatten(1))


@pytest.fixture
def plain():
    def make(**kwargs):
        backbone = PlainBackbone(**kwargs).eval()
        return SimpleNamespace(backbone=backbone, training=False, extract_feat=backbone)

    return make


@pytest.fixture
def faces():
    return torch.rand(3, 3, 6, 6) * 2 - 1


# PreFIQs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(('share', 'scope'), [(0.4, 'layer'), (0.7, 'layer'), (0.4, 'global')])
def test_prefiqs_is_the_formula(plain, faces, share, scope):
    model = plain()
    backbone = model.backbone
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    found = PreFIQsQuality(share, scope)(FaceBatch(model, faces))
    whole = [embedding.tolist() for embedding in backbone(faces)[1]]
    layers = {name: before[f'{name}.weight'] for name in ('conv1', 'conv2', 'linear')}
    everything = [
        (abs(value), name, place)
        for name, weight in layers.items()
        for place, value in enumerate(weight.flatten().tolist())
    ]
    groups = [everything]
    if scope == 'layer':
        groups = [[entry for entry in everything if entry[1] == name] for name in layers]
    for group in groups:
        for _, name, place in sorted(group)[: round(share * len(group))]:
            getattr(backbone, name).weight.data.view(-1)[place] = 0
    pruned = [embedding.tolist() for embedding in backbone(faces)[1]]
    for row in range(3):
        f, g = unit_list(whole[row]), unit_list(pruned[row])
        distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(f, g, strict=True)))
        assert found[row].item() == pytest.approx(1 - distance / 2, abs=1e-5)


def test_pruned_copy_is_lazy_follows_the_weights_and_is_in_no_checkpoint(make_model, inputs):
    model, other = make_model(), make_model()
    names, measure = list(model.state_dict()), PreFIQsQuality()
    first = measure(FaceBatch(model, inputs))
    copy = measure.pruned(model.backbone)
    assert torch.equal(measure(FaceBatch(model, inputs)), first)
    assert measure.pruned(model.backbone) is copy and list(model.state_dict()) == names
    model.backbone.load_state_dict(other.backbone.state_dict())
    changed = measure(FaceBatch(model, inputs))
    assert torch.equal(changed, PreFIQsQuality()(FaceBatch(other, inputs)))
    assert not torch.allclose(changed, first)


# GraFIQs -----------------------------------------------------------------------------------------


def error_of_statistics(backbone, x):
    """The loss of one face: by explicit means, layer by layer, float64."""
    losses = []
    first = backbone.conv1(x)
    second = backbone.conv2(backbone.act(backbone.bn1(first)))
    for layer, maps in ((backbone.bn1, first), (backbone.bn2, second)):
        means, variances = [], []
        for channel in range(maps.shape[1]):
            values = maps[0, channel].flatten().tolist()
            mean = sum(values) / len(values)
            variance = sum((v - mean) ** 2 for v in values) / len(values)
            means.append((mean - layer.running_mean[channel].item()) ** 2)
            variances.append((variance - layer.running_var[channel].item()) ** 2)
        losses.append(sum(means) / len(means) + sum(variances) / len(variances))
    return sum(losses) / 2


@pytest.mark.parametrize('negate', [False, True])
def test_grafiqs_is_the_sum_of_numerical_gradients(plain, faces, negate):
    model = plain()
    found = GraFIQsQuality(negate=negate)(FaceBatch(model, faces[:2]))
    backbone = model.backbone.double()
    for row in range(2):
        total = 0.0
        for place in itertools.product(range(3), range(6), range(6)):
            step = torch.zeros(1, 3, 6, 6, dtype=torch.float64)
            step[0][place] = 1e-5
            high, low = (
                error_of_statistics(backbone, faces[row : row + 1].double() + sign * step)
                for sign in (1, -1)
            )
            total += abs(high - low) / 2e-5
        assert found[row].item() == pytest.approx(-total if negate else total, rel=1e-3)


def test_grafiqs_of_a_block(plain, faces):
    """Only BN layers behind the block count; frozen stages and frozen BN change nothing."""
    model = plain()
    backbone = model.backbone
    found = GraFIQsQuality(block=0)(FaceBatch(model, faces))
    middle = backbone.act(backbone.bn1(backbone.conv1(faces))).detach().requires_grad_()
    maps = backbone.conv2(middle)
    mean, variance = maps.mean((2, 3)), maps.var((2, 3), correction=0)
    bn = backbone.bn2
    loss = (mean - bn.running_mean).square().mean(1) + (variance - bn.running_var).square().mean(1)
    gradient = torch.autograd.grad(loss.sum() / 2, middle)[0]
    torch.testing.assert_close(found, gradient.abs().sum((1, 2, 3)), rtol=1e-4, atol=1e-6)
    for block in ('image', 0):
        measure = GraFIQsQuality(block=block)
        alone = torch.cat([measure(FaceBatch(model, face[None])) for face in faces])
        torch.testing.assert_close(measure(FaceBatch(model, faces)), alone, rtol=1e-4, atol=1e-6)


def test_grafiqs_where_bn_is_frozen_or_missing(make_model, plain, inputs, faces, tiny_backbone):
    model = make_model()
    expected = GraFIQsQuality(block=-2)(FaceBatch(model, inputs))
    frozen = make_model(backbone={**tiny_backbone, 'frozen_bn': True, 'frozen_stages': 3})
    frozen.load_state_dict(model.state_dict())
    with torch.inference_mode():
        found = GraFIQsQuality(block=-2)(FaceBatch(frozen.eval(), inputs))
    torch.testing.assert_close(found.clone(), expected, rtol=1e-4, atol=1e-6)
    assert not any(parameter.grad is not None for parameter in model.parameters())
    for measure, batch, told in (
        (GraFIQsQuality(), FaceBatch(plain(bn=False), faces), 'needs a backbone with BN'),
        (GraFIQsQuality(block=2), FaceBatch(plain(), faces), '2 stages'),
        (GraFIQsQuality(block=1), FaceBatch(plain(), faces), 'no BN layer is behind block 1'),
    ):
        with pytest.raises(ValueError, match=told):
            measure(batch)


# TransFIRA ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('measure_type', [CCSQuality, CCASQuality])
def test_heads_are_ridge_regression_on_cosines_to_class_centers(make_model, measure_type):
    model = make_model('FaceRecognizer')
    labels = [0, 1, 0, 2, 1, 0, 2, 1]
    drawn = {('clean', 0): torch.randn(8, 3, 32, 32)}
    drawn |= {('rough', copy): torch.randn(8, 3, 32, 32) for copy in range(2)}

    @torch.no_grad()
    def extract(loader, predict, copy=0, key=None):
        samples = [SimpleNamespace(gt_label=torch.tensor([label])) for label in labels]
        return dict(predict(drawn[loader, copy]), samples=samples)

    measure = measure_type('clean', 'rough', copies=2, alphas=(30.0,))
    assert measure.needs_training_faces
    measure.prepare(model, extract)
    raw = {key: model(inputs)[1].detach().double() for key, inputs in drawn.items()}
    clean = [unit_list(v) for v in raw['clean', 0].tolist()]

    def center(label, without=None):
        members = [j for j, own in enumerate(labels) if own == label and j != without]
        return unit_list([sum(clean[j][d] for j in members) for d in range(16)])

    rows, targets = [], []
    for vectors in raw.values():
        for i, vector in enumerate(vectors.tolist()):
            own = dot(unit_list(vector), center(labels[i], i))
            others = [dot(unit_list(vector), center(k)) for k in range(3) if k != labels[i]]
            rows.append(vector)
            targets.append(own if measure_type is CCSQuality else own - max(others))
    x, y = np.array(rows), np.array(targets)
    z = (x - x.mean(0)) / x.std(0)
    weight = np.linalg.solve(z.T @ z + 30 * np.eye(16), z.T @ (y - y.mean()))
    inputs = torch.randn(5, 3, 32, 32)
    new = (model(inputs)[1].detach().double().numpy() - x.mean(0)) / x.std(0)
    found = measure(FaceBatch(model, inputs))
    np.testing.assert_allclose(found.numpy(), new @ weight + y.mean(), rtol=1e-3, atol=1e-4)


# FROQ --------------------------------------------------------------------------------------------


def spearman(one, other):
    """Pearson's correlation of ranks, no ties."""

    def ranks(values):
        return [sorted(values).index(value) for value in values]

    a, b = ranks(one), ranks(other)
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    upper = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    return upper / math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))


@pytest.mark.parametrize('seed', range(4))
def test_layers_are_chosen_greedily(seed):
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=30)
    norms = rng.normal(size=(7, 30)) + np.outer(rng.uniform(-1, 1, 7), labels)
    order = sorted(range(7), key=lambda row: -spearman(norms[row], labels))[:5]
    expected, left = order[:1], order[1:]
    best = spearman(norms[expected[0]], labels)
    while left:
        tried = {
            row: spearman([sum(norms[k][n] for k in (*expected, row)) for n in range(30)], labels)
            for row in left
        }
        row = max(tried, key=tried.get)
        if tried[row] <= best:
            break
        best = tried[row]
        expected.append(row)
        left.remove(row)
    assert choose_layers(norms, labels, candidates=5) == expected


def test_froq_is_the_mean_norm_of_the_chosen_layers(plain, faces):
    model = plain()
    backbone = model.backbone
    first = backbone.conv1(faces)
    outputs = {'conv1': first, 'act': backbone.act(backbone.bn1(first))}
    found = FROQQuality(layers=['act', 'conv1'])(FaceBatch(model, faces))
    for row in range(3):
        norms = [math.sqrt(sum(v * v for v in o[row].flatten().tolist())) for o in outputs.values()]
        assert found[row].item() == pytest.approx(sum(norms) / 2, rel=1e-5)
    with pytest.raises(ValueError, match='no layer'):
        FROQQuality(layers=['conv9'])(FaceBatch(model, faces))


def test_froq_chooses_by_pseudo_labels(plain):
    model = plain()
    training = torch.rand(20, 3, 6, 6) * 2 - 1
    measure = FROQQuality(dataloader='some', grid=2, noise=0.2, seed=3)
    noise = 0.2 * torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(3))
    labels = []
    for face in training:
        cosines = []
        own = model.backbone(face[None])[1]
        for changed in (face.flip(2), face + noise):
            cosines.append(F.cosine_similarity(own, model.backbone(changed[None])[1]).item())
        cells = []
        for rows, columns in itertools.product((slice(0, 3), slice(3, 6)), repeat=2):
            hidden = face.clone()
            hidden[:, rows, columns] = 0
            cells.append(F.cosine_similarity(own, model.backbone(hidden[None])[1]).item())
        labels.append((sum(cosines) + sum(cells) / 4) / 3)
    found = measure.pseudo_labels(model, training)
    np.testing.assert_allclose(found.numpy(), labels, atol=1e-5)

    def extract(loader, predict):
        assert loader == 'some'
        with torch.no_grad():
            return dict(predict(training), samples=[])

    measure.prepare(model, extract)
    names = ['conv1', 'conv2', 'bn1', 'bn2', 'act', 'linear']
    each = {name: FROQQuality(layers=[name])(FaceBatch(model, training)) for name in names}
    norms = np.stack([each[name].double().numpy() for name in names])
    assert measure.layers == [names[row] for row in choose_layers(norms, np.array(labels))]


def test_arguments():
    for kind, options, told in (
        (PreFIQsQuality, dict(share=1), 'share'),
        (PreFIQsQuality, dict(scope='block'), 'scope'),
        (GraFIQsQuality, dict(block='last'), 'block'),
    ):
        with pytest.raises(ValueError, match=told):
            kind(**options)


@pytest.mark.parametrize('measure', [CCSQuality(), CCASQuality(), FROQQuality()])
def test_what_must_be_prepared_says_so(make_model, inputs, measure):
    with pytest.raises(ValueError, match='training faces'):
        measure(FaceBatch(make_model(), inputs))
