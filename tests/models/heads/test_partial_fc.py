"""PartialFC against RecognitionModule: the same losses, gradients and centers on any ranks."""

import re
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmvlr.models import ArcFaceLoss, PartialRecognitionModule, RecognitionModule
from mmvlr.models.losses import MarginSoftmaxLoss
from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample

from ...ranks import run_on_ranks

CLASSES, FACES, STEPS = 7, 12, 4
# Bounds and starts for the short embeddings of a random network: every formula is at work.
LOSSES = dict(
    SoftmaxLoss=dict(),
    NormFaceLoss=dict(scale=16.0),
    CosFaceLoss=dict(scale=16.0),
    ArcFaceLoss=dict(scale=16.0, loss_weight=0.5),
    CurricularFaceLoss=dict(scale=16.0, momentum=0.5),
    MagFaceLoss=dict(scale=16.0, norm_bounds=(0.01, 9.0), loss_weight=2.0),
    AdaFaceLoss=dict(scale=16.0, momentum=0.3, initial_mean=2.0, initial_std=1.0),
)


class in_double:
    """Within it the library computes in float64 where it says ``float()``."""

    def __enter__(self):
        self.patch = mock.patch.object(torch.Tensor, 'float', torch.Tensor.double)
        self.patch.start()

    def __exit__(self, *_):
        self.patch.stop()


def batches():
    """Faces and labels of all ranks. In the first, not every shard has a person."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (STEPS, FACES), generator=generator)
    labels[0] = 5 + torch.arange(FACES) % 2
    return torch.randn(STEPS, FACES, 3, 32, 32, generator=generator), labels


def make_model(backbone, head, loss, **kwargs):
    torch.manual_seed(3)
    config = dict(
        type='FaceRecognizer',
        backbone=backbone,
        head=dict(
            type=head,
            num_classes=CLASSES,
            dropout=0.0,
            loss=dict(type=loss, **LOSSES[loss]),
            **kwargs,
        ),
        data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32)),
    )
    model = MODELS.build(config).train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    with torch.no_grad():
        model(batches()[0][0])
    # BN would go on to take its statistics from a rank's own faces.
    model.backbone.eval()
    return model


def train(model, adam, rows):
    """Losses, gradients of the first step, and parameters and buffers at the end."""
    inner = model.module if hasattr(model, 'module') else model
    dtype = inner.head.weight.dtype
    if adam:
        # A small eps makes a whole step of what is 0 but for rounding.
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, eps=1e-3, weight_decay=1e-3)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    losses, first = [], {}
    # In float32 a kink of the network may turn rounding into a difference later on.
    steps = STEPS if dtype == torch.float64 else 1
    for faces, labels in zip(*(part[:steps] for part in batches()), strict=True):
        samples = [FaceDataSample(gt_label=label) for label in labels[rows]]
        optimizer.zero_grad()
        loss = model(faces[rows].to(dtype), samples, mode='loss')['loss_cls']
        loss.backward()
        first = first or {
            name: p.grad.clone() for name, p in inner.named_parameters() if p.requires_grad
        }
        losses.append(loss.detach())
        optimizer.step()
    state = {**dict(inner.named_parameters()), **dict(inner.named_buffers())}
    return torch.stack(losses), first, {name: value.detach() for name, value in state.items()}


def sharded(num, backbone, loss, double, adam):
    model = make_model(backbone, 'PartialRecognitionModule', loss)
    if double:
        model.double()
    each = FACES // num
    rank = dist.get_rank() if num > 1 else 0
    if num > 1:
        # A rank that starts from another backbone or shard: DDP must mend the one only.
        with torch.no_grad():
            model.backbone.stem.conv.weight += rank
        model = DistributedDataParallel(model)
    return train(model, adam, slice(rank * each, (rank + 1) * each))


def all_losses(num, backbone, cases):
    if num > 1:
        dist.init_process_group('gloo')
    found = {}
    for loss, double, adam in cases:
        if double:
            with in_double():
                found[loss, double] = sharded(num, backbone, loss, double, adam)
        else:
            found[loss, double] = sharded(num, backbone, loss, double, adam)
    return found


CASES = [(loss, double, index % 2 == 0) for index, loss in enumerate(LOSSES) for double in (0, 1)]


@pytest.fixture(scope='module')
def expected_of(tiny_backbone):
    """What :class:`RecognitionModule` makes of all faces at once, and where it starts."""
    found = {}
    with DefaultScope.overwrite_default_scope('mmvlr'):
        for loss, double, adam in CASES:
            model = make_model(tiny_backbone, 'RecognitionModule', loss)
            start = {name: value.clone() for name, value in model.state_dict().items()}
            if double:
                with in_double():
                    found[loss, double] = train(model.double(), adam, slice(None)), start
            else:
                found[loss, double] = train(model, adam, slice(None)), start
    return found


@pytest.mark.parametrize('num', [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_equals_the_full_softmax(num, tiny_backbone, expected_of, tmp_path):
    if num == 1:
        found = [all_losses(1, tiny_backbone, CASES)]
    else:
        found = run_on_ranks(num, tmp_path / 'ranks', all_losses, num, tiny_backbone, CASES)
    for loss, double, _ in CASES:
        expected, start = expected_of[loss, double]
        results = [result[loss, double] for result in found]
        tolerance = dict(rtol=1e-9, atol=1e-10) if double else dict(rtol=1e-4, atol=1e-4)
        for losses, first, state in results:
            torch.testing.assert_close(losses, expected[0], **tolerance)
            for got, want in ((first, expected[1]), (state, expected[2])):
                assert got.keys() == want.keys()
                for name in set(got) - {'head.weight'}:
                    torch.testing.assert_close(got[name], want[name], **tolerance, msg=name)
        for part in (1, 2):
            shards = [result[part]['head.weight'] for result in results]
            sizes = {1: [7], 2: [3, 4], 3: [2, 2, 3]}
            assert [len(shard) for shard in shards] == sizes[num]
            torch.testing.assert_close(
                torch.cat(shards), expected[part]['head.weight'], **tolerance
            )
        # Statistics are bitwise the same on every rank.
        for name in (name for name in expected[2] if 'loss_module' in name):
            assert all(torch.equal(result[2][name], results[0][2][name]) for result in results)
        # The comparison has something to compare: everything moved.
        for name in ('head.weight', 'backbone.stem.conv.weight'):
            moved = (start[name] - expected[2][name]).abs().amax()
            assert moved > 10 * tolerance['atol']


# Sampling -----------------------------------------------------------------------------------------


def sampled_loss(seed):
    if not dist.is_initialized():
        dist.init_process_group('gloo')
    head = PartialRecognitionModule(41, 6, rate=0.3, dropout=0.0, loss=dict(type='AdaFaceLoss'))
    chosen = []
    choose = head.sampled
    head.sampled = lambda labels: chosen.append(choose(labels)) or chosen[-1]
    generator = torch.Generator().manual_seed(seed)
    embeddings = 30 * torch.randn(8, 6, generator=generator)
    labels = torch.randint(41, (8,), generator=generator)
    rank = dist.get_rank()
    mine = embeddings[4 * rank : 4 * rank + 4].requires_grad_()
    # Ranks draw their own negatives.
    torch.manual_seed(100 * seed + rank)
    loss = head.loss(mine, labels[4 * rank : 4 * rank + 4])['loss_cls']
    loss.backward()
    classes = chosen[0] + head.classes.start
    return loss.detach(), classes, mine.grad, head.weight.grad, head.weight.detach(), labels


def several_samples():
    return [sampled_loss(seed) for seed in range(3)]


def test_sampled_negatives(tmp_path):
    drawn = set()
    for one, two in zip(*run_on_ranks(2, tmp_path / 'ranks', several_samples), strict=True):
        labels = one[5]
        # 20 and 21 classes, of which 6 are used.
        assert len(one[1]) == len(two[1]) == 6
        classes = torch.cat([one[1], two[1]])
        assert (classes.diff() > 0).all()
        assert set(labels.tolist()) <= set(classes.tolist())
        drawn.add(tuple(classes.tolist()))
        # The same as a full softmax over the classes that were drawn.
        weight = torch.cat([one[4], two[4]])
        head = RecognitionModule(len(classes), 6, dropout=0.0, loss=dict(type='AdaFaceLoss'))
        with torch.no_grad():
            head.weight.copy_(weight[classes])
        generator = torch.Generator().manual_seed(len(drawn) - 1)
        embeddings = (30 * torch.randn(8, 6, generator=generator)).requires_grad_()
        loss = head.loss(embeddings, torch.searchsorted(classes, labels))['loss_cls']
        loss.backward()
        torch.testing.assert_close(one[0], loss.detach())
        assert torch.equal(one[0], two[0])
        # DDP's average divides by 2.
        gradient = torch.cat([one[2], two[2]]) / 2
        torch.testing.assert_close(gradient, embeddings.grad, rtol=1e-4, atol=1e-6)
        expected = torch.zeros(41, 6)
        expected[classes] = head.weight.grad
        torch.testing.assert_close(torch.cat([one[3], two[3]]), expected, rtol=1e-4, atol=1e-6)
    assert len(drawn) == 3


@pytest.mark.parametrize('rate, num', [(0.01, 3), (0.2, 4), (0.9, 18)])
def test_number_of_sampled(rate, num):
    head = PartialRecognitionModule(20, 6, rate=rate)
    people = torch.tensor([17, -1, 3, 5, 3, -1])
    drawn = [head.sampled(people) for _ in range(200)]
    for rows in drawn:
        assert len(rows) == num
        assert {3, 5, 17} <= set(rows.tolist())
        assert (rows.diff() > 0).all()
    # All others have the same chance.
    counts = torch.bincount(torch.cat(drawn), minlength=20)
    others = torch.ones(20, dtype=torch.bool)
    others[[3, 5, 17]] = False
    expected = 200 * (num - 3) / 17
    assert (counts[others] - expected).abs().max() <= 5 * (expected * (1 - expected / 200)) ** 0.5


def test_no_sampling_in_eval_mode():
    head = PartialRecognitionModule(20, 6, rate=0.2, dropout=0.0).eval()
    full = RecognitionModule(20, 6, dropout=0.0).eval()
    full.load_state_dict(head.state_dict())
    embeddings, labels = torch.randn(5, 6), torch.tensor([0, 19, 2, 7, 7])
    torch.testing.assert_close(head.loss(embeddings, labels), full.loss(embeddings, labels))
    assert torch.equal(head(embeddings), full(embeddings))


# Weights ------------------------------------------------------------------------------------------


def weights_of(num):
    dist.init_process_group('gloo')
    torch.manual_seed(0)
    head = PartialRecognitionModule(CLASSES, 5)
    after = torch.rand(1)
    result = dict(start=head.weight.detach().clone(), after=after)
    whole = torch.arange(35.0).view(7, 5) + 1
    head.set_prototypes(whole)
    result['set'] = head.weight.detach().clone()
    assert 'weight' not in head.state_dict()
    with head.gathered():
        result['gathered'] = head.state_dict()['weight'].clone() if dist.get_rank() == 0 else None
    assert 'weight' not in head.state_dict()
    head.load_state_dict(dict(weight=2 * whole))
    result['loaded'] = head.weight.detach().clone()
    with pytest.raises(ValueError, match=r'has shape \(9, 5\), the model needs \(7, 5\)'):
        head.load_state_dict(dict(weight=torch.zeros(9, 5)))
    with pytest.raises(ValueError, match=r'have shape \(3, 5\), not \(7, 5\)'):
        head.set_prototypes(torch.zeros(3, 5))
    with pytest.raises(ValueError, match='2 classes cannot be shared among 3 ranks'):
        PartialRecognitionModule(2, 5)
    # What needs all prototypes.
    backbone = dict(type='MobileFaceNet', input_size=32, embed_dims=5, stem_channels=8)
    backbone.update(stages=((16, 8, 1, 2),), last_channels=8)
    head_config = dict(type='PartialRecognitionModule', num_classes=7)
    for name in ('RIFace', 'CRFIQA'):
        with pytest.raises(ValueError, match=f'{name} compares faces with the prototypes of all'):
            MODELS.build(dict(type=name, backbone=backbone, head=head_config))
    labels = torch.zeros(2 + (dist.get_rank() == 1), dtype=torch.int64)
    with pytest.raises(RuntimeError, match=re.escape('batches of [2, 3, 2] faces')):
        head.loss(torch.randn(len(labels), 5), labels)
    with pytest.raises(IndexError, match='labels from 0 to 7, but there are 7 classes'):
        head.loss(torch.randn(2, 5), torch.tensor([0, 5 + dist.get_rank()]))
    head.num_ranks = 2
    with pytest.raises(RuntimeError, match='made for 2 ranks, not 3'):
        head.loss(torch.randn(2, 5), torch.tensor([0, 1]))
    return result


def test_weights_on_three_ranks(tmp_path):
    results = run_on_ranks(3, tmp_path / 'ranks', weights_of, 3)
    torch.manual_seed(0)
    head = PartialRecognitionModule(CLASSES, 5)
    after = torch.rand(1)
    assert torch.equal(torch.cat([result['start'] for result in results]), head.weight)
    assert all(torch.equal(result['after'], after) for result in results)
    whole = torch.arange(35.0).view(7, 5) + 1
    unit = nn.functional.normalize(whole, dim=1)
    assert torch.equal(torch.cat([result['set'] for result in results]), unit)
    assert torch.equal(results[0]['gathered'], unit)
    assert torch.equal(torch.cat([result['loaded'] for result in results]), 2 * whole)


def test_many_prototypes_are_drawn_in_parts():
    head = PartialRecognitionModule(10_000, 4)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(10_000))
    assert len(head.weight.unique(dim=0)) == 10_000
    assert head.weight.mean(0).abs().max() < 0.03


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize('rate', [0, -0.1, 1.5])
def test_rate(rate):
    with pytest.raises(ValueError, match='rate must be above 0 and at most 1'):
        PartialRecognitionModule(5, 6, rate=rate)


def test_loss_that_cannot_be_sharded():
    class WholeLogits(ArcFaceLoss):
        def logits(self, cosines, labels, norms=None):
            return cosines

    class WholeForward(MarginSoftmaxLoss):
        def forward(self, cosines, labels, norms=None):
            return cosines.mean()

    for loss, message in (
        (WholeLogits(), 'WholeLogits.*logits'),
        (WholeForward(), 'WholeForward.*forward'),
        (nn.MSELoss(), 'MSELoss.*PrototypeLoss'),
    ):
        with (
            mock.patch(
                'mmvlr.models.heads.recognition_module.MODELS.build', lambda _, loss=loss: loss
            ),
            pytest.raises(ValueError, match=message),
        ):
            PartialRecognitionModule(5, 6)
