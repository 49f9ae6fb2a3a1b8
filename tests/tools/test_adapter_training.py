"""Training with an adapter, from a config to the file of the adapter alone."""

import copy
import json

import numpy as np
import pytest
import torch

from mmvlr.apis import load_config, load_model
from mmvlr.apis.export import OnnxNetwork, publish
from mmvlr.apis.network import TorchNetwork, fingerprint_model
from mmvlr.cli.main import main
from mmvlr.engine.building import build_trainer
from mmvlr.engine.testing import evaluate_checkpoint
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.contract import ModelMismatchError

pytestmark = pytest.mark.slow

ADAPTED = """
_base_ = {base!r}
load_from = {load_from!r}
model = dict(backbone=dict(adapter=dict(type='LoRA', rank=4)))
optim_wrapper = dict(paramwise_cfg=dict(rates=dict(backbone=None, adapter=1e-2)))
# The tiny base embeds all faces nearly alike.
default_hooks = dict(
    ema=dict(type='FaceEMAHook', momentum=0.5),
    collapse=dict(min_effective_rank=1.0),
    checkpoint=dict(save_best='both'),
)
retain_dataloader = _base_.test_dataloader
retain_evaluator = [
    dict(type='ClosedSetMetric', ranks=(1,)),
    dict(type='GalleryVerificationMetric', fars=(0.1,)),
]
retain_combine = ('val/mAP', 'retain/verification_auc')
"""


@pytest.fixture(scope='module')
def base(trained):
    return trained / 'epoch_3.pth'


@pytest.fixture(scope='module')
def config(project, config_file, base):
    path = project / 'method' / 'adapted.py'
    path.write_text(ADAPTED.format(base=str(config_file), load_from=str(base)))
    return str(path)


@pytest.fixture(scope='module')
def adapted(project, config, tool):
    """Checkpoint of a training with an adapter and averaged weights."""
    folder = project / 'adapted'
    assert tool('train.py').main([config, '--work-dir', str(folder)]) == 0
    return folder / 'epoch_3.pth'


@pytest.fixture(scope='module')
def alone(adapted, project):
    """The adapter alone."""
    path = project / 'adapter.safetensors'
    command = ['export', str(adapted), str(path), '--license', 'MIT', '--adapter-only']
    assert main(command) == 0
    return path


def state(path):
    return load_checkpoint_file(str(path))['state_dict']


def predict(model):
    faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    return TorchNetwork(copy.deepcopy(model), 'cpu')(faces)


def same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, rtol=1e-5, atol=1e-5)


def test_only_the_adapter_and_the_heads_learn(base, adapted):
    before, after = state(base), state(adapted)
    kept = [name for name in before if name.startswith('backbone.')]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    ups = [value for name, value in after.items() if name.endswith('.up')]
    assert len(ups) == 7
    assert all(value.any() for value in ups)


def test_resumed_is_unbroken(adapted, config, tool, project):
    folder = project / 'adapted-resumed'
    resume = str(adapted.parent / 'epoch_2.pth')
    assert tool('train.py').main([config, '--work-dir', str(folder), '--resume', resume]) == 0
    one, other = state(adapted), state(folder / 'epoch_3.pth')
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n].nan_to_num(7), other[n].nan_to_num(7)) for n in one)


def test_merged_unmerged_and_alone_are_one_model(base, adapted, alone, tmp_path):
    merged, unmerged = load_model(adapted), load_model(adapted, merge=False)
    assert merged.adapter is None
    assert unmerged.adapter is not None
    expected = predict(unmerged)
    assert np.abs(expected['embedding'] - predict(load_model(base))['embedding']).max() > 0.01
    same(expected, predict(merged))
    attached = load_model(base, adapter=alone)
    same(expected, predict(attached))
    weights = {fingerprint_model(model)['weights'] for model in (merged, unmerged, attached)}
    assert len(weights) == 1
    for name in ('a.safetensors', 'a.onnx'):
        out = tmp_path / name
        command = ['export', str(base), str(out), '--license', 'MIT', '--adapter', str(alone)]
        assert main(command) == 0
    same(expected, predict(load_model(tmp_path / 'a.safetensors')))
    faces = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = OnnxNetwork(tmp_path / 'a.onnx')(faces)['embedding']
    np.testing.assert_allclose(found, expected['embedding'], rtol=1e-4, atol=1e-4)


def test_what_is_forgotten_is_measured_beside_the_validation(base, adapted, config):
    lines = [
        json.loads(line)
        for file in sorted(adapted.parent.glob('*/vis_data/scalars.json'))
        for line in file.read_text().splitlines()
    ]
    logged = {line['step']: line for line in lines if 'retain/verification_auc' in line}
    assert sorted(logged) == [0, 1, 2, 3]
    assert 0 < logged[0]['val/mAP'] < 1
    values = [logged[step]['both'] for step in (1, 2, 3)]
    for step, both in enumerate(values, 1):
        product = logged[step]['val/mAP'] * logged[step]['retain/verification_auc']
        assert both == pytest.approx(product**0.5, abs=1e-4)
    best = 1 + values.index(max(values))
    assert len(list(adapted.parent.glob(f'best_both_epoch_{best}.pth'))) == 1
    # Tested on its own: the base in the first row, averaged weights in the last one.
    for path, step in ((base, 0), (adapted, 3)):
        found = load_config(config)
        found.test_evaluator = found.retain_evaluator
        found.work_dir = str(adapted.parent / 'tested')
        result, _ = evaluate_checkpoint(found, str(path))
        for name, value in result.items():
            other = logged[step][
                name.replace('closed_set', 'retain').replace('verification/', 'retain/')
            ]
            assert other == pytest.approx(value, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (dict(retain_dataloader=None), 'retain_dataloader'),
        (dict(retain_combine=('val/mAP', 'retain/mAB')), 'retain/mAB'),
        (dict(retain_evaluator=dict(type='ClosedSetMetric', prefix='val')), 'prefix'),
    ],
)
def test_wrong_entries_of_retain(config, options, named, tmp_path):
    found = load_config(config)
    found.update(options)
    found.work_dir, found.load_from = str(tmp_path), None
    with pytest.raises(ValueError, match=named):
        hook = build_trainer(found).hooks[0]
        hook.measure = lambda runner: {'val/mAP': 0.5, 'retain/mAP': 0.5}
        hook.after_val_epoch(
            None, {'val/rank1': 1.0} | ({'val/mAP': 1.0} if named == 'prefix' else {})
        )


def test_file_of_the_adapter_refuses_another_base(trained, alone, adapted, base, tmp_path, capsys):
    with pytest.raises(ModelMismatchError, match=r'adapter\.safetensors'):
        load_model(trained / 'epoch_2.pth', adapter=alone)
    with pytest.raises(ValueError, match='--adapter'):
        load_model(alone)
    whole = tmp_path / 'whole.safetensors'
    publish(load_model(base), whole, license='MIT')
    with pytest.raises(ValueError, match='whole model'):
        load_model(base, adapter=whole)
    with pytest.raises(ValueError, match='no adapter'):
        publish(load_model(adapted), tmp_path / 'a.safetensors', 'MIT', adapter_only=True)
    assert not (tmp_path / 'a.safetensors').exists()
    out = str(tmp_path / 'a.onnx')
    with pytest.raises(SystemExit, match='2'):
        main(['export', str(adapted), out, '--license', 'MIT', '--adapter-only'])
    assert '--adapter-only' in capsys.readouterr().err


def test_checkpoint_is_not_tested_without_its_adapter(adapted, config, config_file, tool, capsys):
    assert tool('test.py').main([config, str(adapted)]) == 0
    assert tool('test.py').main([config_file, str(adapted)]) != 0
    assert 'adapter.' in capsys.readouterr().err


def test_rate_of_a_backbone_that_does_not_learn(config, tool, project, capsys):
    options = ['--cfg-options', 'optim_wrapper.paramwise_cfg.rates.backbone=1e-4']
    command = [config, '--work-dir', str(project / 'wrong'), *options]
    assert tool('train.py').main(command) != 0
    assert "'backbone'" in capsys.readouterr().err


DISTILLED = """
_base_ = {base!r}
load_from = {load_from!r}
model = dict(
    _delete_=True,
    type='FaceRecognizer',
    backbone=_base_.model.backbone,
    data_preprocessor=_base_.model.data_preprocessor,
    distillation=[
        dict(type='CosineDistillationLoss'),
        dict(type='RelationalDistillationLoss'),
        dict(type='FeatureSimilarityDistillationLoss'),
    ],
)
# The student sees degraded faces, which bear no label; the teacher the plain ones.
train_dataloader = dict(dataset=dict(pipeline=_base_.degraded))
custom_hooks = [dict(type='TeacherHook', checkpoint=load_from, dataloader=_base_.whole)]
optim_wrapper = dict(
    paramwise_cfg=dict(rates=dict(backbone=1e-2, head=None, attention=None, regression=None))
)
default_hooks = dict(collapse=dict(min_effective_rank=1.0))
"""


def test_student_learns_from_a_teacher_that_embeds_once(
    project, config_file, base, tool, monkeypatch
):
    path = project / 'method' / 'distilled.py'
    path.write_text(DISTILLED.format(base=str(config_file), load_from=str(base)))
    folder = project / 'distilled'
    command = [str(path), '--work-dir', str(folder / 'a')]
    assert tool('train.py').main(command) == 0
    lines = [
        json.loads(line)
        for file in (folder / 'a').glob('*/vis_data/scalars.json')
        for line in file.read_text().splitlines()
    ]
    steps = [line for line in lines if 'loss_relational' in line]
    names = {f'loss_{name}' for name in ('cosine', 'relational', 'feature_similarity')}
    assert names <= steps[0].keys()
    first, last = (sum(step['loss'] for step in part) for part in (steps[:4], steps[-4:]))
    assert 0 < last < first
    (kept,) = (folder / 'teachers').glob('*.pth')
    features = load_checkpoint_file(str(kept))
    assert len(features['sample_idx']) == len(features['embedding']) == 36
    # Another training with the same teacher does not embed again.
    monkeypatch.setattr('mmvlr.engine.hooks.teacher.extract_predictions', None)
    command = [str(path), '--work-dir', str(folder / 'b')]
    assert tool('train.py').main(command) == 0
    assert [file.name for file in (folder / 'teachers').glob('*.pth')] == [kept.name]
    one, other = state(folder / 'a' / 'epoch_3.pth'), state(folder / 'b' / 'epoch_3.pth')
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_model(folder / 'a' / 'epoch_3.pth').head is None


@pytest.mark.parametrize(
    ('options', 'named'),
    [
        (['custom_hooks=[]'], 'TeacherHook'),
        (['custom_hooks.0.dataloader.dataset.num_people=5'], 'training set'),
        (['model.distillation=[]'], 'distillation'),
    ],
)
def test_wrong_entries_of_distillation(project, config_file, base, tool, options, named, capsys):
    path = project / 'method' / 'distilled.py'
    path.write_text(DISTILLED.format(base=str(config_file), load_from=str(base)))
    command = [str(path), '--work-dir', str(project / f'wrong-{named}'), '--cfg-options', *options]
    assert tool('train.py').main(command) != 0
    assert named in capsys.readouterr().err
