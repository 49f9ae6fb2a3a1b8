"""Gradient checkpointing of every backbone: the same gradients and statistics, less memory."""

import pytest
import torch
from torch import nn

from .test_contract import BACKBONES, random_faces, scramble_bn

each_backbone = pytest.mark.parametrize(
    'make',
    [BACKBONES[name] for name in ('iresnet', 'inception-resnet', 'mobilefacenet-conv')],
    ids=['iresnet', 'inception-resnet', 'mobilefacenet'],
)


def passes(make, **kwargs):
    """Gradients and buffers after two steps, without and with checkpointing."""
    found, state = [], None
    for with_cp in (False, True):
        backbone = scramble_bn(make(with_cp=with_cp, dropout=0.3, **kwargs))
        state = state or {k: v.clone() for k, v in backbone.state_dict().items()}
        backbone.load_state_dict(state)
        backbone.train()
        torch.manual_seed(1)
        for faces in random_faces(backbone, 4).split(2):
            backbone(faces)[1].sin().sum().backward()
        gradients = {n: p.grad for n, p in backbone.named_parameters() if p.grad is not None}
        found.append((gradients, dict(backbone.named_buffers())))
    return found


@each_backbone
@pytest.mark.parametrize('frozen_bn', [False, True])
def test_same_gradients_and_statistics(make, frozen_bn):
    """Bit for bit, with dropout; BN does not count a batch again when it is computed again."""
    (gradients, buffers), (with_cp, buffers_with_cp) = passes(make, frozen_bn=frozen_bn)
    assert gradients.keys() == with_cp.keys()
    assert len(gradients) >= 20
    assert [n for n in gradients if not torch.equal(gradients[n], with_cp[n])] == []
    assert [n for n in buffers if not torch.equal(buffers[n], buffers_with_cp[n])] == []


@each_backbone
def test_synchronized_bn_counts_a_batch_once(make):
    """``sync_bn`` turns BN into another class."""
    counts = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        backbone = nn.SyncBatchNorm.convert_sync_batchnorm(make(with_cp=with_cp)).train()
        backbone(random_faces(backbone, 4))[1].sum().backward()
        counts.append({n: b.clone() for n, b in backbone.named_buffers()})
    assert any(name.endswith('num_batches_tracked') for name in counts[0])
    for name, value in counts[0].items():
        torch.testing.assert_close(counts[1][name], value, msg=name)


def kept_numbers(backbone, faces):
    """How many numbers autograd keeps for the backward pass."""
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.__setitem__(t.data_ptr(), t.numel()) or t, lambda t: t
    ):
        backbone(faces)
    return sum(kept.values()) - sum(p.numel() for p in backbone.parameters())


@each_backbone
def test_saves_what_happens_inside_of_blocks(make):
    plain, with_cp = make().train(), make(with_cp=True).train()
    faces = random_faces(plain, 8)
    assert kept_numbers(with_cp, faces) < 0.6 * kept_numbers(plain, faces)


@each_backbone
def test_no_effect_in_eval(make, monkeypatch):
    backbone = make(with_cp=True).eval()
    plain = make().eval()
    plain.load_state_dict(backbone.state_dict())
    monkeypatch.setattr('mmvlr.models.backbones.base.checkpoint', None)
    faces = random_faces(backbone, 2)
    # Gradients of faces are asked for in eval mode too (activation maps).
    faces.requires_grad_()
    torch.testing.assert_close(backbone(faces), plain(faces), rtol=0, atol=0)
    with torch.no_grad():
        backbone.train()(faces)
    with pytest.raises(TypeError, match='not callable'):
        backbone(faces)


def test_a_trained_block_behind_a_frozen_stem_is_recomputed(monkeypatch):
    """What goes into the first block needs no gradient there; its parameters do."""
    backbone = BACKBONES['mobilefacenet-conv'](with_cp=True).train()
    backbone.stem.requires_grad_(False)
    backbone.stem_depthwise.requires_grad_(False)
    backbone.stem_pointwise.requires_grad_(False)
    backbone(random_faces(backbone, 2))[1].sum().backward()
    assert all(p.grad is not None for p in backbone.blocks.parameters())
    assert isinstance(backbone.blocks[0], nn.Module)
