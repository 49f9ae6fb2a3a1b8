"""From a config file to a Runner."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmvlr.apis import build_tester, build_trainer, load_config, resolve_num_classes
from mmvlr.datasets import AlignmentRecipe
from mmvlr.engine.building import check_resizing, prepare, require_monitored, state_alignment

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(
    str(path.relative_to(ROOT / 'configs')) for path in ROOT.glob('configs/[!_]*/*.py')
)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / 'method' / 'r50_some.py'
    path.parent.mkdir()
    path.write_text("a = dict(b=1, c='x')\n")
    return path


def test_load_config(config_file):
    config = load_config(config_file)
    assert config.default_scope == 'mmvlr'
    assert config.work_dir == 'work_dirs/method/r50_some'
    assert config.a == dict(b=1, c='x')


def test_options_override(config_file):
    config = load_config(config_file, {'a.b': 2, 'work_dir': 'mine', 'default_scope': 'mmengine'})
    assert config.a == dict(b=2, c='x')
    assert config.work_dir == 'mine'
    assert config.default_scope == 'mmengine'


def test_missing_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.py does not exist; mmvlr config lists'):
        load_config(tmp_path / 'none.py')


@pytest.mark.parametrize(
    ('option', 'told'),
    [
        ('train_dataloder.batch_size', "'train_dataloder'; did you mean 'train_dataloader'"),
        ('default_hook.logger.interval', "'default_hooks'"),
        ('param_schedulers', "'param_scheduler'"),
        ('prototype_dataloder.batch_size', "'prototype_dataloader'"),
        ('entirely_unknown', "no key 'entirely_unknown'"),
        ('train_dataloader.batchsize', "'batchsize'; did you mean 'batch_size'"),
        ('model.head.loss.margn', "'margin'"),
        ('default_hooks.chekpoint.interval', "'checkpoint'"),
    ],
)
def test_misspelled_option(option, told):
    with pytest.raises(ValueError, match=rf'{re.escape(option)}.*{told}'):
        load_config(ROOT / 'configs/riface/mobilefacenet_tinyface.py', {option: 1})


def test_monitored_metric_has_to_be_made():
    config = Config(
        dict(
            val_evaluator=dict(type='ClosedSetMetric', prefix='other'),
            default_hooks=dict(checkpoint=dict(save_best='val/mAP')),
        )
    )
    with pytest.raises(ValueError, match=r"save_best.*'val/mAP'.*other/.*prefix='val'"):
        require_monitored(config)
    for best in ('other/mAP', 'auto', None, ['other/rank1']):
        config.default_hooks.checkpoint.save_best = best
        require_monitored(config)
    config.val_evaluator.pop('prefix')
    config.default_hooks.checkpoint.save_best = 'val/mAP'
    with pytest.raises(ValueError, match='val_evaluator'):
        require_monitored(config)


def test_options_that_add_something(messages):
    """New keys below known ones, elements of lists, and what only mmengine knows."""
    options = {
        'model.backbone.with_cp': True,
        'model.diversion_moves_backbone': False,
        'optim_wrapper.paramwise_cfg.rates.attention': None,
        'custom_hooks.1.diversion_begin': 0,
        'ui_dataloader.dataset.max_images': 9,
        'default_hooks.early': dict(type='EarlyStoppingHook', monitor='val/mAP'),
        'experiment_name': 'mine',
        'auto_scale_lr.enable': True,
    }
    config = load_config(ROOT / 'configs/riface/mobilefacenet_tinyface.py', options)
    assert config.model.backbone.with_cp
    assert config.custom_hooks[1].diversion_begin == 0
    assert not messages
    # This was used already when the file was read.
    load_config(ROOT / 'configs/riface/mobilefacenet_tinyface.py', {'tinyface_root': 'data/mine'})
    assert 'tinyface_root is a variable' in messages[0][1]


@pytest.mark.parametrize(
    ('text', 'near'),
    [
        ('train_dataloder = dict(batch_size=8)', 'train_dataloader'),
        ('param_schedulers = []  # the param_schedulers', 'param_scheduler'),
        ('default_hook = dict(logger=dict(interval=1))', 'default_hooks'),
        # Variables of one's own.
        ('eval_dataloader = 1\nhook = dict(loader="eval_dataloader")', None),
        ('train_cfgs = [dict()]\ntrain_cfg = train_cfgs[0]', None),
        ('_train_cfgs = 1\nfaces = 2', None),
    ],
)
def test_misspelled_key_of_a_file(config_file, text, near):
    config_file.write_text(text)
    if near is None:
        load_config(config_file)
        return
    with pytest.raises(ValueError, match=rf'r50_some\.py.*did you mean .{near}.\?'):
        load_config(config_file)


def config_with(**head):
    return Config(dict(model=dict(head=dict(type='RecognitionModule', **head))))


def test_num_classes_is_taken_from_the_data():
    config = config_with()
    resolve_num_classes(config, 7)
    assert config.model.head.num_classes == 7


@pytest.mark.parametrize('of_data', [7, None])
def test_stated_num_classes_that_agrees(of_data):
    config = config_with(num_classes=7)
    resolve_num_classes(config, of_data)
    assert config.model.head.num_classes == 7


def test_stated_num_classes_that_contradicts():
    with pytest.raises(ValueError, match='is 7, but the training set has 8 people'):
        resolve_num_classes(config_with(num_classes=7), 8)


def test_num_classes_from_nowhere():
    with pytest.raises(ValueError, match=r'neither in model\.head nor in the training set'):
        resolve_num_classes(config_with(), None)


def test_model_without_head():
    config = Config(dict(model=dict(head=None)))
    resolve_num_classes(config, 7)
    assert config.model.head is None


def test_preparing_a_distributed_run_without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.delenv('RANK', raising=False)
    config = Config(dict(launcher='pytorch'))
    prepare(config)
    assert config.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        # As mmengine itself wraps a model on GPUs.
        broadcast_buffers=False,
        find_unused_parameters=False,
    )
    config = Config(dict(launcher='none'))
    prepare(config)
    assert 'model_wrapper_cfg' not in config


def test_tester_of_a_missing_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match='does not exist'):
        build_tester(config_with(), str(tmp_path / 'none.pth'))


@pytest.mark.parametrize('name', CONFIGS)
def test_configs_build_their_model(name):
    """It names parts that exist, with arguments they take, and a rate for each part."""
    from mmengine.optim import build_optim_wrapper

    from mmvlr.registry import HOOKS, MODELS

    config = load_config(ROOT / 'configs' / name)
    check_resizing(config)
    resolve_num_classes(config, 3)
    with torch.device('meta'):
        model = MODELS.build(config.model)
    build_optim_wrapper(model, config.optim_wrapper)
    for hook in [*config.custom_hooks, *config.default_hooks.values()]:
        HOOKS.build(hook)


RESIZE = dict(type='ResizeFace', size=(112, 112))


@pytest.mark.parametrize(
    ('change', 'fields'),
    [
        (dict(interpolation='area'), ('interpolation', "'area'", "'bicubic'")),
        (dict(size=(96, 112)), ('size', '(96, 112)', '(112, 112)')),
    ],
)
@pytest.mark.parametrize('loader', ['train_dataloader', 'ui_dataloader'])
@pytest.mark.parametrize('build', [build_trainer, build_tester])
def test_resizing_that_contradicts_the_contract(change, fields, loader, build, tmp_path):
    """In the pipeline, or in the contract; also where a wrapper holds the pipeline."""
    inner = dict(type='SyntheticFaces', pipeline=[dict(type='LoadFace'), {**RESIZE, **change}])
    config = Config(
        dict(
            model=dict(type='FaceRecognizer', backbone=dict(type='MobileFaceNet')),
            **{loader: dict(dataset=dict(type='RepeatDataset', dataset=inner))},
            test_dataloader=dict(dataset=inner),
        )
    )
    field, found, stated = fields
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    with pytest.raises(ValueError) as raised:
        build(config, *[str(tmp_path / 'x.pth')] * (build is build_tester))
    assert all(
        told in str(raised.value)
        for told in (f'ResizeFace.{field}', f'data_preprocessor.{field}', found, stated)
    )
    config.model.data_preprocessor = change
    check_resizing(config)


@pytest.mark.parametrize(
    'pipeline',
    [
        [dict(type='ResizeFace', size=(16, 16), interpolation='area'), RESIZE],
        [dict(RESIZE, type='mmvlr.ResizeFace'), dict(type='PackFace')],
        # What is not known may change the size.
        [dict(type='ResizeFace', size=(128, 128)), dict(type='CropOfMyOwn'), len],
    ],
)
def test_resizing_that_agrees_with_the_contract(pipeline):
    loader = dict(dataset=dict(pipeline=pipeline))
    check_resizing(Config(dict(model=dict(), train_dataloader=loader, val_dataloader=None)))


@pytest.fixture
def aligned(tmp_path):
    """A folder that says it was aligned, and the name of its recipe."""
    recipe = AlignmentRecipe(detector='a detector 1.0')
    folder = tmp_path / 'aligned'
    (folder / 'part').mkdir(parents=True)
    facts = dict(recipe=asdict(recipe), digest=recipe.digest, images=7, fallbacks=2)
    (folder / 'alignment.json').write_text(json.dumps(facts))
    return folder, recipe.name


def test_alignment_of_the_data_enters_the_contract(aligned, tmp_path):
    folder, name = aligned
    for dataset in (
        dict(data_root=str(folder)),
        dict(data_root=str(folder / 'part')),
        dict(type='PeopleSubset', dataset=dict(data_root=str(folder))),
    ):
        config = Config(dict(model=dict(type='FaceRecognizer')))
        state_alignment(config, dataset)
        assert config.model.data_preprocessor == dict(type='FaceDataPreprocessor', alignment=name)


def test_alignment_that_the_config_states_stays(aligned):
    folder, _ = aligned
    config = Config(dict(model=dict(data_preprocessor=dict(alignment='mine'))))
    state_alignment(config, dict(data_root=str(folder)))
    assert config.model.data_preprocessor.alignment == 'mine'


@pytest.mark.parametrize('dataset', [dict(), dict(data_root='gone'), dict(data_root=None)])
def test_data_that_were_not_aligned_change_nothing(dataset):
    config = Config(dict(model=dict(data_preprocessor=dict(size=(32, 32)))))
    state_alignment(config, dataset)
    assert config.model.data_preprocessor == dict(size=(32, 32))
