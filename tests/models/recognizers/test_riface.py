import math

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from torch.nn import functional as F

from mmvlr.models import RIFace
from mmvlr.models.losses import Proximities, RecognizabilityIndex, proximities
from mmvlr.models.quality import FaceBatch, RecognizabilityQuality

PAPERS_PRM = dict(
    type='PerceptibilityRegression',
    source='embedding',
    with_norm=False,
    hidden=(),
    dropout=0.0,
    zero_init=False,
)
LOGS = {
    *('xi', 'xi_std', 'xi_hat', 'xi_hat_std'),
    *('d_p', 'd_n', 'd_ui', 'effective_rank'),
}


@pytest.fixture
def make(tiny_backbone, tiny_preprocessor):
    def build(**kwargs):
        arguments = dict(
            backbone=dict(tiny_backbone),
            head=dict(type='RecognitionModule', num_classes=3, dropout=0.0),
            attention=dict(type='PerceptibilityAttention', reduction=4),
            regression=dict(PAPERS_PRM),
            loss_diversion=dict(type='IndexDiversionLoss', tau=50.0),
            data_preprocessor=dict(tiny_preprocessor),
        )
        return RIFace(**{**arguments, **kwargs})

    return build


def with_ui(model, statistics=True):
    model.set_ui_center(torch.randn(16))
    if statistics:
        model.set_ui_statistics(torch.tensor(0.3), torch.tensor(0.2))
    return model


def losses_of(outputs):
    return {name for name in outputs if 'loss' in name}


def gradients(model, loss):
    """Names of the parts that a loss moves."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name.split('.')[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }


def test_losses_and_logs_have_the_documented_names(make, batch):
    before = make().train()(*batch, mode='loss')
    assert losses_of(before) == {'loss_cls', 'loss_regression', 'loss_attention'}
    assert set(before) >= LOGS
    model = with_ui(make()).train()
    after = model(*batch, mode='loss')
    assert losses_of(after) == {*losses_of(before), 'loss_diversion'}
    assert set(after) >= {*LOGS, 'mu_ui', 'sigma_ui'}
    total, logged = model.parse_losses(after)
    terms = [value for name, value in after.items() if name.startswith('loss_')]
    torch.testing.assert_close(total, sum(terms))
    assert logged['mu_ui'].item() == pytest.approx(0.3)
    assert logged['sigma_ui'].item() == pytest.approx(0.2)


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def unit(vector):
    length = math.sqrt(dot(vector, vector))
    return [value / length for value in vector]


def mean(values):
    return sum(values) / len(values)


def deviation(values):
    return math.sqrt(mean([(value - mean(values)) ** 2 for value in values]))


def slow_losses(embeddings, attended, labels, prototypes, center, weight, bias, ui_mean, ui_std):
    """The paper's formulas for lists of numbers; ArcFace with m = 0.45 and s = 64."""
    center = unit(center)
    terms = {name: [] for name in ('cls', 'regression', 'diversion', 'attention')}
    d = {name: [] for name in ('d_p', 'd_n', 'd_ui', 'xi', 'xi_hat')}
    for v, v_attn, label in zip(embeddings, attended, labels, strict=True):
        cosines = [dot(unit(v), unit(prototype)) for prototype in prototypes]
        others = [c for j, c in enumerate(cosines) if j != label]
        d_p, d_n, d_ui = 1 - cosines[label], 1 - max(others), 1 - dot(unit(v), center)
        xi, xi_hat = d_ui * d_n / (d_p + 1e-3), dot(v, weight) + bias
        for name, value in zip(d, (d_p, d_n, d_ui, xi, xi_hat), strict=True):
            d[name].append(value)

        own = 64 * math.cos(math.acos(cosines[label]) + 0.45)
        total = math.exp(own) + sum(math.exp(64 * c) for c in others)
        terms['cls'].append(math.log(total) - own)
        gap = abs(xi_hat - xi)
        terms['regression'].append(5 * (0.5 * gap**2 / 0.75 if gap < 0.75 else gap - 0.375))
        terms['diversion'].append(2 * max(0, 50 - (xi_hat - ui_mean) / ui_std))
        target = unit([a - dot(v, center) * b for a, b in zip(v, center, strict=True)])
        squares = [(a - b) ** 2 for a, b in zip(unit(v_attn), target, strict=True)]
        terms['attention'].append(mean(squares))
    return {
        **{f'loss_{name}': mean(values) for name, values in terms.items()},
        **{name: mean(values) for name, values in d.items()},
        **{f'{name}_std': deviation(d[name]) for name in ('xi', 'xi_hat')},
    }


def test_losses_are_the_formulas(make, batch):
    model = make().eval()
    center = torch.randn(16)
    model.set_ui_center(center)
    model.set_ui_statistics(torch.tensor(0.3), torch.tensor(0.2))
    found = model(*batch, mode='loss')
    feature_map, embeddings = model(batch[0])
    weight, bias = model.regression.parameters()
    expected = slow_losses(
        embeddings.double().tolist(),
        model.attention(feature_map).double().tolist(),
        [0, 1, 2, 0, 1, 2],
        model.head.weight.double().tolist(),
        center.double().tolist(),
        weight[0].double().tolist(),
        bias.item(),
        0.3,
        0.2,
    )
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-4, abs=1e-5), name


def test_users_see_xi_whatever_is_regressed(make, batch):
    """The same order of faces as the regressed logarithm, which is what was shown before."""
    formula = dict(type='RecognizabilityIndex', log=True)
    model = with_ui(make(recognizability=formula)).eval()
    feature_map, v = model(batch[0])
    with torch.no_grad():
        model.regression.layers[0].weight.mul_(20)
        model.regression.layers[0].bias.sub_(0.3)
    before = model.regression(feature_map, v).tolist()
    assert min(before) < 0
    after = [s.recognizability.item() for s in model(*batch, mode='predict')]
    measured = RecognizabilityQuality()(FaceBatch(model, batch[0])).tolist()
    for shown in (after, measured):
        assert shown == pytest.approx([math.exp(x) for x in before], rel=1e-4)
        assert sorted(range(6), key=shown.__getitem__) == sorted(range(6), key=before.__getitem__)
    # Losses work on the logarithm; what they log of xi is xi.
    model.set_ui_statistics(torch.tensor(0.3), torch.tensor(0.2))
    found = model(*batch, mode='loss')
    d = proximities(v, torch.tensor([0, 1, 2, 0, 1, 2]), model.head.weight, model.ui_center)
    xi = [a * b / (c + 1e-3) for a, b, c in torch.stack([d.d_ui, d.d_n, d.d_p], dim=1).tolist()]
    gaps = [abs(x - math.log(y)) for x, y in zip(before, xi, strict=True)]
    l1 = sum(5 * (g * g / 1.5 if g < 0.75 else g - 0.375) for g in gaps) / 6
    diversion = sum(2 * max(0, 50 - (x - 0.3) / 0.2) for x in before) / 6
    assert found['loss_regression'].item() == pytest.approx(l1, rel=1e-3)
    assert found['loss_diversion'].item() == pytest.approx(diversion, rel=1e-3)
    assert found['xi'].item() == pytest.approx(sum(xi) / 6, rel=1e-3)


@pytest.mark.parametrize('log', [False, True])
def test_restore_is_rising_and_finite(log):
    formula = RecognizabilityIndex(log=log)
    regressed = torch.cat([torch.linspace(-7, 7, 2001), torch.tensor([-1e4, 1e4, 1e30])]).sort()[0]
    index = formula.restore(regressed)
    assert index.isfinite().all() and (index.diff() > 0)[:-1].all()
    assert (index > 0).all() or not log
    values = torch.rand(3, 50)
    xi = RecognizabilityIndex()(Proximities(*values))
    torch.testing.assert_close(
        formula.restore(formula(Proximities(*values))), xi.clamp_min(1e-3 if log else 0)
    )


def test_total_has_the_weights_of_the_paper(make, batch):
    """L = L_cls + 5 L_L1 + 2 L_ID + 1 L_MSE."""
    model = make()
    assert model.loss_regression.loss_weight == 5
    assert model.loss_diversion.loss_weight == 2
    assert model.loss_attention.loss_weight == 1
    assert model.head.loss_module.loss_weight == 1


def test_which_part_each_loss_moves(make, batch):
    model = with_ui(make()).train()
    losses = model(*batch, mode='loss')
    assert gradients(model, losses['loss_cls']) == {'backbone', 'head'}
    # Neither xi nor the attention's target passes a gradient on to the prototypes.
    assert gradients(model, losses['loss_regression']) == {'backbone', 'regression'}
    assert gradients(model, losses['loss_diversion']) == {'backbone', 'regression'}
    assert gradients(model, losses['loss_attention']) == {'backbone', 'attention'}
    assert not any(losses[name].requires_grad for name in LOGS)


def test_no_gradient_through_the_attention_target(make, batch):
    """What reaches the backbone from L_MSE comes through the feature map alone."""
    model = with_ui(make()).eval()
    feature_map = torch.randn(6, 32, 4, 4, requires_grad=True)
    embeddings = torch.randn(6, 16, requires_grad=True)
    model.extract_feat = lambda inputs: (feature_map, embeddings)
    loss = model(*batch, mode='loss')['loss_attention']
    assert torch.autograd.grad(loss, feature_map, retain_graph=True)[0].any()
    assert torch.autograd.grad(loss, embeddings, allow_unused=True)[0] is None


def test_no_gradient_through_xi(make, batch):
    """With PRM at zero, xi_hat does not depend on v: any gradient would come through xi."""
    model = with_ui(make()).eval()
    torch.nn.init.zeros_(model.regression.layers[-1].weight)
    embeddings = torch.randn(6, 16, requires_grad=True)
    model.extract_feat = lambda inputs: (torch.randn(6, 32, 4, 4), embeddings)
    loss = model(*batch, mode='loss')['loss_regression']
    assert loss > 0
    assert not torch.autograd.grad(loss, embeddings)[0].any()


@pytest.mark.parametrize('regression_moves', [False, True])
@pytest.mark.parametrize('diversion_moves', [False, True])
def test_who_moves_the_backbone(make, batch, regression_moves, diversion_moves):
    model = with_ui(
        make(
            regression_moves_backbone=regression_moves,
            diversion_moves_backbone=diversion_moves,
        )
    ).train()
    losses = model(*batch, mode='loss')
    for name, moves in (('regression', regression_moves), ('diversion', diversion_moves)):
        expected = {'backbone', 'regression'} if moves else {'regression'}
        assert gradients(model, losses[f'loss_{name}']) == expected


def test_detaching_changes_no_value(make, batch):
    model = with_ui(make()).eval()
    moving = model(*batch, mode='loss')
    model.regression_moves_backbone = model.diversion_moves_backbone = False
    torch.testing.assert_close(model(*batch, mode='loss'), moving)


@pytest.mark.parametrize('load', ['torch', 'mmengine'])
def test_weights_of_a_backbone_start_the_tail_of_attention(make, batch, load):
    model = make(attention=dict(type='PerceptibilityAttention', reduction=4, projection='tail'))
    backbone = {n: torch.randn_like(v) for n, v in model.backbone.named_parameters()}
    weights = {f'backbone.{name}': value for name, value in backbone.items()}
    if load == 'torch':
        model.load_state_dict(weights, strict=False)
    else:
        load_state_dict(model, weights)
    for name, value in model.attention.tail.named_parameters():
        assert torch.equal(value, backbone[name]), name
    # A checkpoint that has the tail keeps it.
    trained = {**model.state_dict(), 'attention.tail.embedding.weight': torch.ones(16, 32, 1, 1)}
    model.load_state_dict(trained)
    assert (model.attention.tail.embedding.weight == 1).all()
    model.load_state_dict(weights | {'attention.channel_gate.0.bias': torch.ones(8)}, strict=False)
    assert (model.attention.tail.embedding.weight == 1).all()


def test_recognition_loss_of_the_attended_embedding(make, batch):
    model = with_ui(make(attended_weight=0.5))
    found = model.loss(*batch)
    attended = model.attention(model.extract_feat(batch[0])[0])
    labels = torch.stack([sample.gt_label for sample in batch[1]])
    cosines = F.normalize(attended, dim=1) @ F.normalize(model.head.weight, dim=1).T
    margin = torch.cos(cosines.gather(1, labels[:, None]).acos() + 0.45)
    expected = F.cross_entropy(64 * cosines.scatter(1, labels[:, None], margin), labels)
    torch.testing.assert_close(found['loss_cls_attention'], 0.5 * expected)
    assert 'loss_cls_attention' not in with_ui(make()).loss(*batch)


def test_without_attention_and_diversion(make, batch):
    model = with_ui(make(attention=None, loss_diversion=None)).train()
    losses = model(*batch, mode='loss')
    assert losses_of(losses) == {'loss_cls', 'loss_regression'}


def test_statistics_switch_diversion_on_and_travel(make):
    model = make()
    assert not model.has_ui_statistics
    model.set_ui_statistics(torch.tensor(0.7), torch.tensor(0.1))
    assert model.has_ui_statistics
    other = make()
    other.load_state_dict(model.state_dict())
    assert other.has_ui_statistics
    assert math.isclose(other.ui_mean.item(), 0.7, rel_tol=1e-6)
    assert math.isclose(other.ui_std.item(), 0.1, rel_tol=1e-6)


@pytest.mark.parametrize('flip_fusion', ['none', 'sum'])
@pytest.mark.parametrize('kind', ['backbone', 'attention', 'sum'])
def test_inference_embedding(make, batch, kind, flip_fusion):
    model = with_ui(make(inference_embedding=kind, flip_fusion=flip_fusion)).eval()

    def embed(inputs):
        feature_map, v = model(inputs)
        attended = F.normalize(model.attention(feature_map), dim=1)
        return {'backbone': v, 'attention': attended, 'sum': F.normalize(v, dim=1) + attended}[kind]

    expected = embed(batch[0])
    if flip_fusion == 'sum':
        expected = F.normalize(expected + embed(batch[0].flip(3)), dim=1)
    predictions = model(*batch, mode='predict')
    found = torch.stack([sample.embedding for sample in predictions])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['backbone', 'attention', 'sum'])
def test_qualities_are_those_of_the_backbone(make, batch, kind):
    model = with_ui(make(inference_embedding=kind)).eval()
    feature_map, v = model(batch[0])
    predictions = model(*batch, mode='predict')
    xi_hat = model.regression(feature_map, v)
    for i, sample in enumerate(predictions):
        torch.testing.assert_close(sample.recognizability, xi_hat[i])
        torch.testing.assert_close(sample.embedding_norm, v[i].norm())
        cosine = F.cosine_similarity(v[i], model.ui_center, dim=0)
        torch.testing.assert_close(sample.ers, min(1 - cosine, torch.tensor(1.0)))


def test_errors(make, batch):
    with pytest.raises(ValueError, match='inference_embedding must be'):
        make(inference_embedding='both')
    with pytest.raises(ValueError, match='needs attention'):
        make(attention=None, inference_embedding='sum')
    with pytest.raises(ValueError, match=r'model\.head'):
        make(head=None)(*batch, mode='loss')


def test_without_head_it_predicts(make, batch):
    predictions = make(head=None).eval()(*batch, mode='predict')
    assert all('recognizability' in sample for sample in predictions)
