"""Training under torchrun: what two gloo ranks learn, and what happens when one of them fails."""

import os
import re
import socket
import subprocess
import sys
import time

import pytest
import torch

from mmvlr.utils.compat import load_checkpoint_file

pytestmark = pytest.mark.slow

RANKS = """
import hashlib
import os
import signal
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook

from mmvlr.engine import unwrap
from mmvlr.registry import HOOKS


@HOOKS.register_module()
class RecordHook(Hook):
    priority = 'LOWEST'

    def __init__(self):
        self.iterations, self.buffers = [], []

    def before_train_epoch(self, runner):
        model = unwrap(runner.model)
        self.buffers.append({name: value.clone() for name, value in model.named_buffers()})

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        faces = zip(data_batch['inputs'], data_batch['data_samples'])
        images = {s.sample_idx: hashlib.sha256(x.numpy().tobytes()).digest() for x, s in faces}
        values = {name: value.item() for name, value in outputs.items()}
        self.iterations.append(dict(epoch=runner.epoch, images=images, **values))

    def after_train(self, runner):
        self.before_train_epoch(runner)
        if 'RECORD' in os.environ:
            weights = unwrap(runner.model).state_dict()
            record = dict(iterations=self.iterations, buffers=self.buffers, weights=weights)
            torch.save(record, Path(os.environ['RECORD']) / f'rank{get_rank()}.pth')


@HOOKS.register_module()
class TroubleHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if get_rank() == 1 and runner.iter + 1 == int(os.environ.get('RAISE_AT', -1)):
            raise RuntimeError('the trouble of rank 1')
        marker = Path(os.environ.get('KILL_ONCE', __file__))
        if get_rank() == 1 and runner.epoch == 1 and batch_idx == 1 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""

BASE = """
_base_ = {base!r}
custom_imports = dict(imports=['stop_at', 'ranks'])
default_hooks = dict(record=dict(type='RecordHook'), trouble=dict(type='TroubleHook'))
"""

# 42 images: the last batch is short. Without dropout, and with batch norm frozen, whose layers
# see the images of their rank only, nothing is left that depends on the rank.
EQUAL = """
train_dataloader = dict(batch_size=16, drop_last=False, dataset=dict(images_per_person=7))
train_cfg = dict(max_epochs=2)
val_dataloader = val_evaluator = val_cfg = None
default_hooks.update(
    checkpoint=dict(save_best=None),
    # A random network with frozen batch norm embeds all faces nearly alike.
    collapse=dict(min_effective_rank=1.0),
)
model = dict(
    backbone=dict(dropout=0.0, frozen_bn=True, tail='conv'),
    head=dict(dropout=0.0, loss=dict(type='AdaFaceLoss', momentum=0.5)),
    regression=dict(dropout=0.0),
)
"""

ADAPTED = """
model = dict(
    backbone=dict(
        adapter=dict(
            type='LoRA', gate=dict(type='QualityGate', quality=dict(type='SharpnessQuality'))
        )
    )
)
optim_wrapper = dict(paramwise_cfg=dict(rates=dict(backbone=None, adapter=1e-3)))
train_cfg = dict(max_epochs=1)
default_hooks.update(collapse=dict(min_effective_rank=1.0))
"""


@pytest.fixture(scope='module')
def configs(tmp_path_factory, config_file):
    """Folder with ``ranks.py``, ``usual.py`` (batch norm and dropout as ever) and ``equal.py``."""
    folder = tmp_path_factory.mktemp('ranks')
    (folder / 'ranks.py').write_text(RANKS)
    (folder / 'usual.py').write_text(BASE.format(base=str(config_file)))
    (folder / 'equal.py').write_text(BASE.format(base=str(config_file)) + EQUAL)
    (folder / 'adapted.py').write_text(BASE.format(base=str(config_file)) + ADAPTED)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def free_port():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        return taken.getsockname()[1]


@pytest.fixture(scope='module')
def train(root, project, configs):
    """Return a function: launcher's variables, arguments of dist_train.sh -> finished process."""

    def run(*arguments, **variables):
        path = os.pathsep.join(str(folder) for folder in (root, project, configs))
        environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}
        environment |= {'PYTHON': sys.executable, 'PORT': str(free_port())}
        command = [str(root / 'tools' / 'dist_train.sh'), *map(str, arguments)]
        return subprocess.run(
            command,
            env=environment | {name: str(value) for name, value in variables.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=300,
        )

    return run


def load(folder, rank):
    return torch.load(folder / f'rank{rank}.pth', weights_only=True)


def different(one, other):
    """Names of the tensors that differ in a bit; NaN equals NaN."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(*(v[name].nan_to_num(7) for v in (one, other)))]


@pytest.fixture(scope='module')
def usual(train, configs):
    """Work dir of two undisturbed ranks, with what each of them recorded."""
    folder = configs / 'usual'
    folder.mkdir()
    done = train(configs / 'usual.py', 2, '--work-dir', folder, RECORD=folder)
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


def test_two_ranks_learn_what_one_learns(train, tool, configs, monkeypatch):
    one, two = configs / 'one', configs / 'two'
    one.mkdir()
    two.mkdir()
    monkeypatch.setenv('RECORD', str(one))
    config = str(configs / 'equal.py')
    assert tool('train.py').main([config, '--work-dir', str(one)]) == 0
    done = train(
        *(config, 2, '--work-dir', two, '--cfg-options', 'train_dataloader.batch_size=8'),
        RECORD=two,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    single, ranks = load(one, 0), [load(two, 0), load(two, 1)]

    # The same images, to the last gray level, in the same iterations.
    assert [len(step['images']) for step in single['iterations']] == [16, 16, 10] * 2
    for step, *shares in zip(single['iterations'], *(r['iterations'] for r in ranks), strict=True):
        assert [len(share['images']) * 2 for share in shares] == [len(step['images'])] * 2
        assert step['images'] == shares[0]['images'] | shares[1]['images']
        losses = [name for name in step if 'loss' in name]
        assert {'loss', 'loss_cls', 'loss_regression', 'loss_attention'} <= set(losses)
        assert ('loss_diversion' in losses) == (step['epoch'] == 1)
        for name in losses:
            mean = (shares[0][name] + shares[1][name]) / 2
            assert mean == pytest.approx(step[name], rel=1e-5), name
    weights = [run['weights'] for run in (single, *ranks)]
    for name in weights[0]:
        torch.testing.assert_close(
            weights[0][name], weights[1][name], rtol=1e-5, atol=2e-6, equal_nan=True
        )
    # The statistics of AdaFace and of the UI set have moved, and are those of the whole batch.
    assert weights[0]['head.loss_module.norm_mean'] < 10
    assert weights[0]['ui_mean'].isfinite()
    assert different(weights[1], weights[2]) == []


def test_ranks_with_a_gated_adapter_hold_the_same(train, configs):
    folder = configs / 'adapted'
    folder.mkdir()
    done = train(configs / 'adapted.py', 2, '--work-dir', folder, RECORD=folder)
    assert done.returncode == 0, done.stdout[-3000:]
    weights = [load(folder, rank)['weights'] for rank in (0, 1)]
    learned = [name for name in weights[0] if name.endswith('.up')]
    assert learned
    assert all(weights[0][name].any() for name in [*learned, 'adapter.gate.std'])
    assert different(*weights) == []


def test_ranks_hold_the_same(usual):
    """Parameters and buffers, running statistics of batch norm included, bit for bit."""
    first, second = load(usual, 0), load(usual, 1)
    names = {'ui_center', 'ui_mean', 'ui_std', 'backbone.features.running_var'}
    for mine, others in zip(first['buffers'], second['buffers'], strict=True):
        assert names <= set(mine)
        assert different(mine, others) == []
    assert different(first['weights'], second['weights']) == []
    # Three epochs and the end: the center moves, mu_UI and sigma_UI are measured once.
    states = first['buffers']
    assert len(states) == 4
    assert len({tuple(state['ui_center'].tolist()) for state in states}) == 3
    assert [bool(state['ui_mean'].isfinite()) for state in states] == [False, True, True, True]


def test_restarted_ranks_end_like_undisturbed_ones(train, configs, usual):
    folder, marker = configs / 'restarted', configs / 'killed'
    done = train(
        *(configs / 'usual.py', 2, '--work-dir', folder, '--resume'),
        MAX_RESTARTS=1,
        KILL_ONCE=marker,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert marker.exists()
    started = re.findall(r'--resume: (.*)', done.stdout)
    assert started[0].endswith('yet; start from random weights')
    assert started[1:] == [f'go on from {folder}/epoch_1.pth']
    states = [load_checkpoint_file(str(place / 'epoch_3.pth')) for place in (usual, folder)]
    assert different(*(state['state_dict'] for state in states)) == []
    moments = [state['optimizer']['state'] for state in states]
    assert moments[0].keys() == moments[1].keys()
    assert all(different(moments[0][key], moments[1][key]) == [] for key in moments[0])


def test_error_of_a_rank_ends_the_job(train, configs):
    begun = time.monotonic()
    done = train(configs / 'usual.py', 2, '--work-dir', configs / 'failed', RAISE_AT=3)
    assert done.returncode != 0
    # Far below the half hour for which gloo waits for a rank that is gone.
    assert time.monotonic() - begun < 240
    cause = done.stdout[done.stdout.index('Root Cause') :]
    assert re.search(r'rank +: 1 ', cause)
    assert 'Traceback (most recent call last)' in cause
    assert 'in before_train_iter' in cause
    assert 'RuntimeError: the trouble of rank 1' in cause
