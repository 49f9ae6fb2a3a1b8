"""Atomic files, published checkpoints and the contract in them."""

import hashlib
import math
import os
import stat

import pytest
import torch

from mmvlr.models import FaceDataPreprocessor, MobileFaceNet
from mmvlr.utils.checkpoint import (
    CheckpointMismatchError,
    check_architecture,
    save_pretrained,
    unwrap_state_dict,
)
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.contract import (
    ContractMismatchError,
    check_contract,
    contract_of_checkpoint,
)
from mmvlr.utils.io import sha256_of, write_atomic


def test_write(tmp_path):
    path = tmp_path / 'new' / 'deep' / 'a.txt'
    assert write_atomic(path, lambda p: p.write_text('content')) == path
    assert path.read_text() == 'content'
    assert list(path.parent.iterdir()) == [path]


def test_temporary_file_lies_beside_and_has_the_suffix(tmp_path):
    """A rename over file systems is a copy; and some writers choose the format by the suffix."""
    seen = []
    write_atomic(tmp_path / 'a.png', lambda p: seen.append(p) or p.write_text(''))
    assert seen[0].parent == tmp_path
    assert seen[0].suffix == '.png'
    assert seen[0].name != 'a.png'


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize('old', [None, 'old'])
def test_failure_leaves_the_old_file(tmp_path, error, old):
    path = tmp_path / 'a.txt'
    if old:
        path.write_text(old)

    def write(temporary):
        temporary.write_text('half')
        raise error

    with pytest.raises(error):
        write_atomic(path, write)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([old] if old else [])


def test_others_may_read_it(tmp_path):
    before = os.umask(0o022)
    try:
        path = write_atomic(tmp_path / 'a.txt', lambda p: p.write_text('x'))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_sha256(tmp_path):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'x' * 3_000_000)
    assert sha256_of(path) == hashlib.sha256(b'x' * 3_000_000).hexdigest()


def small_backbone():
    return MobileFaceNet(
        input_size=32, embed_dims=4, stem_channels=4, stages=((8, 4, 1, 2),), last_channels=8
    )


def test_save_pretrained(tmp_path):
    backbone, contract = small_backbone(), FaceDataPreprocessor(std=128).contract
    digest = save_pretrained(tmp_path / 'a.pth', backbone, contract, license='MIT')
    assert digest == sha256_of(tmp_path / 'a.pth')
    checkpoint = torch.load(tmp_path / 'a.pth', weights_only=True)
    assert contract_of_checkpoint(checkpoint) == contract
    assert checkpoint['meta']['license'] == 'MIT'
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    assert checkpoint['state_dict'].keys() == state.keys()
    assert all(torch.equal(checkpoint['state_dict'][name], state[name]) for name in state)
    load_checkpoint_file(str(tmp_path / 'a.pth'))


def test_state_dict_of():
    weight = torch.ones(1)
    for checkpoint in (
        dict(state_dict=dict(w=weight), meta={}),
        dict(w=weight),
        {'module.w': weight},
        dict(state_dict={'module.w': weight}),
    ):
        assert unwrap_state_dict(checkpoint) == dict(w=weight)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = small_backbone()
        self.head = torch.nn.Linear(4, 3)


def test_architecture_of_another_part_may_be_missing():
    state = {k: v for k, v in Model().state_dict().items() if k.startswith('backbone.')}
    check_architecture(Model(), state, 'a.pth')
    check_architecture(Model(), {**state, 'regression.weight': torch.ones(1)}, 'a.pth')
    old = {k: v for k, v in state.items() if 'num_batches_tracked' not in k}
    check_architecture(Model(), old, 'a.pth')


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda s: s.pop('backbone.stem.bn.bias'), r'1 weights of the model.*backbone\.stem\.bn'),
        (lambda s: s.update({'backbone.x': torch.ones(1)}), r'1 of its weights are unknown'),
        (
            lambda s: s.update({'head.bias': torch.ones(5)}),
            r'head\.bias: checkpoint \(5,\), model \(3,\)',
        ),
    ],
)
def test_architecture_mismatch(change, told):
    state = dict(Model().state_dict())
    check_architecture(Model(), dict(state_dict=state), 'a.pth')
    change(state)
    with pytest.raises(CheckpointMismatchError, match=rf'a\.pth.*{told}'):
        check_architecture(Model(), dict(state_dict=state), 'a.pth')


def test_contract():
    contract = FaceDataPreprocessor().contract
    check_contract(contract, dict(contract))
    other = {**contract, 'std': [128.0] * 3}
    with pytest.raises(ContractMismatchError, match=r'a\.pth .*std: checkpoint \[128.*127\.5'):
        check_contract(contract, other, 'a.pth')
    # A key that only one side has is a difference too.
    with pytest.raises(ContractMismatchError, match='alignment'):
        check_contract(contract, {k: v for k, v in contract.items() if k != 'alignment'})


def test_alignment_of_a_checkpoint_that_names_none_fits_all():
    contract = FaceDataPreprocessor().contract
    aligned, others = (dict(contract, alignment=name) for name in ('arcface112-a', 'arcface112-b'))
    check_contract(aligned, contract)
    for expected in (contract, others):
        with pytest.raises(ContractMismatchError, match="alignment: checkpoint 'arcface112-a'"):
            check_contract(expected, aligned)
    with pytest.raises(ContractMismatchError, match='crop: checkpoint 3, config None'):
        check_contract(contract, {**contract, 'crop': 3})


@pytest.mark.parametrize('checkpoint', [{}, dict(meta=None), dict(meta={}), dict(meta='x')])
def test_no_contract(checkpoint):
    assert contract_of_checkpoint(checkpoint) is None


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda w: w.to(torch.complex64), 'complex64'),
        (lambda w: w.to(torch.int8), 'int8'),
        (lambda w: torch.full_like(w, math.nan), 'not finite'),
        (lambda w: torch.full_like(w, math.inf).half(), 'not finite'),
        (lambda w: w.tolist(), 'list'),
    ],
)
def test_weights_that_are_no_weights(change, told):
    state = dict(Model().state_dict())
    check_architecture(Model(), {name: value.half() for name, value in state.items()}, 'a.pth')
    name = 'backbone.stem.bn.weight'
    state[name] = change(state[name])
    with pytest.raises(CheckpointMismatchError, match=rf'a\.pth.*{name}.*{told}'):
        check_architecture(Model(), dict(state_dict=state), 'a.pth')
