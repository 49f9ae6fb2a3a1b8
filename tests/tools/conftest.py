"""A training that takes seconds: synthetic faces, a small RIFace, the default runtime."""

import importlib.util
import re
import sys
from types import SimpleNamespace

import pytest

from mmvlr.cli import main

CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['stop_at'])

load, pack = dict(type='LoadFace'), dict(type='PackFace')
resize = dict(type='ResizeFace', size=(32, 32))
plain = [load, resize, pack]
augmented = [load, resize, dict(type='FlipFace'), dict(type='RotateFace'), pack]
degraded = [load, dict(type='DegradeFace'), resize, pack]
in_order = dict(
    batch_size=9,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmvlr.face_collate'),
)
people = dict(type='SyntheticFaces', num_people=6, images_per_person=6)
whole = dict(**in_order, dataset=dict(**people, pipeline=plain))
unknown = dict(type='SyntheticUIFaces', num_images=8, pipeline=plain)

train_dataloader = dict(
    batch_size=9,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='mmvlr.face_collate'),
    dataset=dict(**people, pipeline=augmented),
)
val_dataloader = dict(
    **in_order, dataset=dict(type='ValidationSubset', dataset=people, pipeline=plain)
)
val_evaluator = dict(type='ClosedSetMetric', prefix='val', ranks=(1, 5))
test_dataloader = dict(
    **in_order,
    dataset=dict(
        type='SyntheticFaces',
        split='test',
        num_people=5,
        images_per_person=4,
        first_person=100,
        num_distractors=6,
        num_ui=4,
        pipeline=plain,
    ),
)
test_evaluator = dict(type='TinyFaceMetric', ranks=(1, 5))
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = test_cfg = dict()
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-4),
    constructor='PartRateConstructor',
    paramwise_cfg=dict(rates=dict(backbone=1e-3, head=1e-2, attention=1e-2, regression=1e-3)),
)
model = dict(
    type='RIFace',
    backbone=dict(
        type='MobileFaceNet',
        input_size=32,
        embed_dims=16,
        stem_channels=8,
        stages=((16, 8, 1, 2), (16, 16, 1, 2)),
        last_channels=32,
        dropout=0.2,
    ),
    head=dict(type='RecognitionModule', dropout=0.2),
    attention=dict(type='PerceptibilityAttention'),
    regression=dict(type='PerceptibilityRegression', dropout=0.5),
    loss_diversion=dict(type='IndexDiversionLoss'),
    data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32)),
)
custom_hooks = [
    dict(type='PrototypeInitHook', dataloader=whole),
    dict(type='UICenterHook', dataloader=dict(**in_order, dataset=unknown)),
    dict(
        type='RegressionFitHook',
        dataloader=whole,
        degraded_dataloader=dict(**in_order, dataset=dict(**people, pipeline=degraded)),
        copies=1,
    ),
    dict(type='StopAtHook'),
]
default_hooks = dict(logger=dict(interval=1), collapse=dict(interval=1))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
"""

STOP_AT = """
import os
import signal

from mmengine.hooks import Hook

from mmvlr.registry import HOOKS


@HOOKS.register_module()
class StopAtHook(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == int(os.environ.get('STOP_AT', -1)):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def load_tool(path):
    """Import a script as a module, for its ``main``."""
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def tool(root):
    """Return a function: path below ``tools`` or ``projects`` -> what has its ``main``.

    ``raising`` is the same where the errors themselves are looked at.
    """

    def load(name):
        script = root / 'projects' / name
        if script.is_file():
            return load_tool(script)
        verb = re.search(r"main\(\['(.+?)'", (root / 'tools' / name).read_text()).group(1)

        def run(argv):
            return main([verb, *argv])

        def raising(argv):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv('MMVLR_DEBUG', '1')
                return run(argv)

        return SimpleNamespace(main=run, raising=raising)

    return load


@pytest.fixture(scope='session')
def project(tmp_path_factory, root):
    """Folder with the config ``method/tiny.py`` and the module it imports."""
    folder = tmp_path_factory.mktemp('project')
    (folder / 'method').mkdir()
    (folder / 'method' / 'tiny.py').write_text(
        CONFIG.format(base=str(root / 'configs/_base_/default_runtime.py'))
    )
    (folder / 'stop_at.py').write_text(STOP_AT)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture(scope='session')
def config_file(project):
    return str(project / 'method' / 'tiny.py')


@pytest.fixture(scope='session')
def trained(project, config_file, tool):
    """Work dir of an unbroken run of three epochs."""
    folder = project / 'unbroken'
    assert tool('train.py').main([config_file, '--work-dir', str(folder)]) == 0
    return folder
