"""Misspelled keys are found without running the config, and nothing else is."""

import inspect
import subprocess
import sys

import pytest
from mmengine.runner import Runner

from mmvlr.apis import load_config
from mmvlr.utils.config_keys import KNOWN_KEYS
from mmvlr.utils.config_outline import check_early, find_weights, read_outline
from mmvlr.utils.shipped import find_config, list_configs


def test_known_keys_are_the_runners():
    assert set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} <= KNOWN_KEYS


def agrees(outline, config):
    """Whether all keys of an outline are those of the config, as far as it says."""
    if isinstance(outline, dict):
        return set(outline) == set(config) and all(agrees(v, config[k]) for k, v in outline.items())
    if isinstance(outline, list):
        return len(outline) == len(config) and all(map(agrees, outline, config))
    return outline in (None, config)


@pytest.mark.parametrize('name', [*list_configs()][::15])
def test_outline_is_that_of_the_config(name):
    path = find_config(name)
    outline, config = read_outline(path, []), load_config(path)
    assert {'model', 'train_dataloader', 'default_hooks'} <= set(outline)
    # What a variable was made of is changed with it in mmengine.
    outline = {key: value for key, value in outline.items() if key in KNOWN_KEYS}
    assert agrees(outline, {key: config.to_dict()[key] for key in outline})
    check_early(path, ['model.backbone.with_cp=True', 'custom_hooks.1.diversion_begin=0'])


def test_weights_are_those_of_the_config(monkeypatch, tmp_path):
    for name in ('riface/sface_tinyface', 'riface/r50_tinyface'):
        path = find_config(name)
        for value in ('', 'my weights.pth'):
            monkeypatch.setenv('PRETRAINED', value)
            assert find_weights(path) == load_config(path).load_from
        assert find_weights(path, ['load_from=None']) is None
        assert find_weights(path, ['model.type=RIFace', 'load_from=a.pth']) == 'a.pth'
    (tmp_path / 'a.py').write_text('load_from = 3 * chr(65)\n')
    assert find_weights(tmp_path / 'a.py') is None


def test_options_may_name_another_class():
    path = find_config('riface/r50_tinyface')
    loss = 'model.head.loss'
    check_early(path, [f'{loss}.type=CurricularFaceLoss', f'{loss}.momentum=0.9'])
    with pytest.raises(ValueError, match=f'{loss}.momentum: ArcFaceLoss has no'):
        check_early(path, [f'{loss}.momentum=0.9'])


@pytest.mark.parametrize(
    'text',
    [
        "_base_ = 'gone.py'\ntrain_dataloder = 1",
        'import os\ntrain_dataloder = 1',
        'for train_dataloder in (): pass',
        'train_dataloder = (',
        "_base_ = 'other::a.py'\ntrain_dataloder = 1",
        "a = dict(b=dict(**{'c': f()}))",
    ],
)
def test_what_cannot_be_read_is_left_to_the_config(text, tmp_path):
    (tmp_path / 'a.py').write_text(text)
    check_early(tmp_path / 'a.py', ['a.b.d=1'] if 'a = ' in text else [])


@pytest.mark.parametrize(
    ('text', 'option', 'told'),
    [
        ('train_dataloder = dict()', None, "'train_dataloader'"),
        ('model = dict(head=dict(margin=1))', 'model.head.margn=2', "'margin'"),
        ("_base_ = 'mmvlr::riface/r50_tinyface.py'", 'train_dataloader.batchsize=2', 'batch_size'),
        ("_base_ = 'mmvlr::riface/r50_tinyface.py'", 'entirely_unknown=2', 'entirely_unknown'),
        ("_base_ = 'mmvlr::riface/r50_tinyface.py'", 'load_from=nowhere.pth', 'nowhere.pth'),
    ],
)
def test_misspelled_before_pytorch_is_imported(text, option, told, tmp_path):
    file = tmp_path / 'a.py'
    file.write_text(text + '\n')
    code = (
        'import sys; from mmvlr.cli import main\n'
        'code = main(sys.argv[1:]); assert not {"torch", "mmengine"} & set(sys.modules)\n'
        'sys.exit(code)'
    )
    command = [sys.executable, '-c', code, 'train', str(file)]
    command += ['--cfg-options', option] if option else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and told in done.stderr and done.stderr.count('\n') == 1
