"""Training with sharded prototypes from the command line: checkpoints that fit any ranks."""

import sys
from unittest import mock

import pytest
import torch
from mmengine.config import Config

from mmvlr.apis import build_trainer, evaluate_checkpoint, load_config
from mmvlr.utils.compat import load_checkpoint_file

from ..ranks import run_on_ranks

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings('ignore:.*has been created:UserWarning'),
]

PLAIN = """
from torch import nn

from mmvlr.models import FaceBackbone
from mmvlr.registry import MODELS


@MODELS.register_module()
class PlainBackbone(FaceBackbone):
    # Without BN, whose statistics are those of a rank's own faces.
    embed_dims, feat_channels = 12, 6

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, stride=8)
        self.linear = nn.Linear(96, 12)

    def forward(self, inputs):
        feature_map = self.conv(inputs).tanh()
        return feature_map, self.linear(feature_map.flatten(1))
"""
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['plain_backbone'])

plain = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]
people = dict(type='SyntheticFaces', num_people=7, images_per_person=7, pipeline=plain)
collate = dict(collate_fn=dict(type='mmvlr.face_collate'))
in_order = dict(batch_size=9, sampler=dict(type='DefaultSampler', shuffle=False), **collate)
train_dataloader = dict(
    batch_size=12,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=people,
    **collate,
)
val_dataloader = dict(
    **in_order, dataset=dict(type='ValidationSubset', dataset=people, pipeline=plain)
)
val_evaluator = dict(type='ClosedSetMetric', prefix='val', ranks=(1,))
test_dataloader = dict(
    **in_order,
    dataset=dict(
        type='SyntheticFaces',
        split='test',
        num_people=5,
        images_per_person=4,
        first_person=100,
        pipeline=plain,
    ),
)
test_evaluator = dict(type='TinyFaceMetric', ranks=(1,))
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = test_cfg = dict()
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=1e-3, eps=1e-4, weight_decay=1e-3),
    constructor='PartRateConstructor',
    paramwise_cfg=dict(rates=dict(backbone=1e-3, head=1e-2)),
)
model = dict(
    type='FaceRecognizer',
    backbone=dict(type='PlainBackbone'),
    head=dict(
        type='PartialRecognitionModule', dropout=0.0, loss=dict(type='AdaFaceLoss', scale=16.0)
    ),
    data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32)),
)
custom_hooks = [dict(type='PrototypeInitHook', dataloader=dict(**in_order, dataset=people))]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1), logger=dict(interval=1))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
"""
# The same faces in a step, whatever the number of ranks.
TOGETHER = 12


@pytest.fixture(scope='module')
def folder(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp('partial')
    (folder / 'plain_backbone.py').write_text(PLAIN)
    (folder / 'tiny.py').write_text(
        CONFIG.format(base=str(root / 'configs/_base_/default_runtime.py'))
    )
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def train(folder, name, num, resume=None, **options):
    options = {
        'work_dir': str(folder / name),
        'train_dataloader.batch_size': TOGETHER // max(num, 1),
        **options,
    }
    config = load_config(folder / 'tiny.py', options)
    config.launcher = 'pytorch' if num else 'none'
    if resume:
        config.load_from, config.resume = str(resume), True
    # What only describes the run takes longer than the run.
    with (
        mock.patch.object(Config, 'pretty_text', 'left out'),
        mock.patch('mmengine.runner.runner.collect_env', dict),
    ):
        build_trainer(config).train()


def read(path):
    """Weights and the optimizer's state of a checkpoint, by name."""
    checkpoint = load_checkpoint_file(str(path))
    found = dict(checkpoint['state_dict'])
    for number, state in checkpoint.get('optimizer', dict(state={}))['state'].items():
        found.update({f'{number}.{key}': value for key, value in state.items()})
    return found


@pytest.fixture(scope='module')
def whole(folder):
    """A run of :class:`RecognitionModule`; also imports everything before others are forked."""
    train(folder, 'whole', 0, **{'model.head.type': 'RecognitionModule'})
    return folder / 'whole'


@pytest.fixture(scope='module')
def two_ranks(folder, whole):
    run_on_ranks(2, folder / 'two_log', train, folder, 'two', 2)
    return folder / 'two'


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_checkpoint_is_whole(two_ranks, whole):
    files = sorted(path.name for path in two_ranks.glob('*.pth'))
    # The best one is saved without the optimizer.
    assert len(files) == 4
    assert files[0].startswith('best')
    for name, shaped in zip(files, (1, 3, 3, 3), strict=True):
        found = read(two_ranks / name)
        assert found['head.weight'].shape == (7, 12)
        prototypes = [value for value in found.values() if value.shape == (7, 12)]
        assert len(prototypes) == shaped
        assert all((value.abs().sum(1) > 0).all() for value in prototypes)
    for epoch in (1, 3):
        assert_close(*(read(path / f'epoch_{epoch}.pth') for path in (two_ranks, whole)))


@pytest.mark.parametrize('num', [0, 2, 3])
def test_goes_on_with_another_number_of_ranks(folder, two_ranks, num, tmp_path):
    start, end = (read(two_ranks / f'epoch_{epoch}.pth') for epoch in (2, 3))
    arguments = folder, f'from{num}', num, two_ranks / 'epoch_2.pth'
    if num:
        run_on_ranks(num, tmp_path / 'ranks', train, *arguments)
    else:
        train(*arguments)
    found = read(folder / f'from{num}' / 'epoch_3.pth')
    assert_close(found, end)
    if num == 2:
        assert all(torch.equal(found[name], value) for name, value in end.items())
    for name in (name for name, value in end.items() if value.shape == (7, 12)):
        assert ((end[name] - start[name]).abs().amax(1) > 3e-4).all()


def evaluate(folder, checkpoint, num):
    config = load_config(folder / 'tiny.py', dict(work_dir=str(folder / 'test')))
    config.launcher = 'pytorch' if num > 1 else 'none'
    return evaluate_checkpoint(config, str(checkpoint))[0]


def test_evaluation_on_any_ranks(folder, two_ranks, tmp_path):
    checkpoint = two_ranks / 'epoch_3.pth'
    single = evaluate(folder, checkpoint, 1)
    assert single['tinyface/rank1'] > 0
    found = run_on_ranks(3, tmp_path / 'ranks', evaluate, folder, checkpoint, 3)
    assert found == [single] * 3


def refused(folder, two_ranks):
    people = r"epoch_1\.pth cannot be resumed.*7 people there, 6 here.*6: '0/6' there, nobody here"
    others = {'train_dataloader.dataset.num_people': 6, 'custom_hooks': []}
    for message, resume, options in (
        ('clip_grad does not go with', None, {'optim_wrapper.clip_grad': dict(max_norm=1.0)}),
        (r'\(EMAHook\) do not go with', None, {'custom_hooks': [dict(type='EMAHook')]}),
        (people, two_ranks / 'epoch_1.pth', others),
    ):
        with pytest.raises(ValueError, match=message):
            train(folder, 'refused', 2, resume, **options)


def test_what_is_refused(folder, two_ranks, tmp_path):
    run_on_ranks(2, tmp_path / 'ranks', refused, folder, two_ranks)


def fine_tuned(folder, two_ranks):
    options = {
        'load_from': str(two_ranks / 'epoch_3.pth'),
        'train_dataloader.dataset.num_people': 6,
        'train_cfg.max_epochs': 1,
        'custom_hooks': [],
        # Nothing moves: what was loaded is what is saved.
        'optim_wrapper.paramwise_cfg.rates': dict(backbone=0.0, head=0.0),
    }
    train(folder, 'fine_tuned', 2, **options)


def test_fine_tuning_on_other_people(folder, two_ranks, tmp_path):
    """The network is taken, the sharded prototypes of others are left out."""
    run_on_ranks(2, tmp_path / 'ranks', fine_tuned, folder, two_ranks)
    found, start = read(folder / 'fine_tuned' / 'epoch_1.pth'), read(two_ranks / 'epoch_3.pth')
    assert found['head.weight'].shape == (6, 12)
    assert (found['head.weight'].norm(dim=1) - 1).abs().max() < 1e-5
    assert not torch.allclose(found['head.weight'], start['head.weight'][:6], atol=0.1)
    for name in ('backbone.conv.weight', 'backbone.linear.weight'):
        assert torch.equal(found[name], start[name])


def by_iteration(folder):
    options = {
        'train_cfg': dict(_delete_=True, type='IterBasedTrainLoop', max_iters=2),
        'param_scheduler': [],
        'val_cfg': None,
        'val_dataloader': None,
        'val_evaluator': None,
        'default_hooks.checkpoint': dict(
            _delete_=True, type='CheckpointHook', by_epoch=False, interval=2
        ),
        'log_processor.by_epoch': False,
        'model.head.rate': 0.5,
    }
    train(folder, 'iterations', 2, **options)


def test_checkpoint_by_iteration_with_sampling(folder, whole, tmp_path):
    run_on_ranks(2, tmp_path / 'ranks', by_iteration, folder)
    found = read(folder / 'iterations' / 'iter_2.pth')
    assert found['head.weight'].shape == (7, 12)
    assert sum(value.shape == (7, 12) for value in found.values()) == 3
