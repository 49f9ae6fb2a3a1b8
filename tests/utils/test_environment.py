"""Values of the environment are data, never code: in configs, whoever reads them."""

import os
import subprocess
import sys

import pytest
from mmengine.config import Config

from mmvlr.apis import load_config
from mmvlr.utils import compat, threads

ODD = {
    'apostrophe': "/faces/o'brien",
    'quote': '/faces/"x"',
    'three quotes': '"""',
    'backslashes': '\\data\\new\\1\\g<0>\\',
    'line break': 'a\nb',
    'braces': '{{ fileDirname }}',
    'placeholder': '{{$HOME:x}}',
    'base': "x'{{_base_.root}}",
    'accent': '/faces/Zoë/été',
    'code': "' + __import__('os').mkdir('ran') + '",
}
OWN = """
root = '{{$MY_ROOT:data/mine}}'
below = dict(x=[('{{ $MY_ROOT:data/mine }}/lfw.bin', "{{$MY_OTHER:other}}")])
number = {{'$MY_NUMBER:80'}}
plain, group = 'x', {1, 2}
"""


@pytest.fixture(params=ODD.values(), ids=ODD)
def odd(request, tmp_path, monkeypatch):
    """A value that was not meant for a config's source; whatever runs leaves a folder behind."""
    monkeypatch.chdir(tmp_path)
    for name in ('MY_ROOT', 'TINYFACE_ROOT', 'UI_ROOT', 'PRETRAINED', 'SCFACE_TRAIN_SUBJECTS'):
        monkeypatch.setenv(name, request.param)
    yield request.param
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('read', [load_config, Config.fromfile])
def test_shipped_configs(root, odd, read, monkeypatch):
    # Tools of the family read them without mmvlr's workarounds.
    monkeypatch.setattr(Config, '_substitute_env_variables', compat._paste_environment)
    config = read(root / 'configs' / 'riface' / 'mobilefacenet_tinyface.py')
    for entry in ('train_dataloader', 'prototype_dataloader', 'test_dataloader'):
        assert config[entry].dataset.data_root == odd
    assert config.ui_dataloader.dataset.data_root == config.load_from == odd
    other = read(root / 'configs' / 'arcface' / 'r50_scface.py')
    assert other.train_dataloader.dataset.train_subjects == odd


def test_configs_of_ones_own(tmp_path, odd):
    (tmp_path / 'own.py').write_text(OWN)
    (tmp_path / 'child.py').write_text(
        "_base_ = './own.py'\nother = _base_.root + '/x'\nagain = {{_base_.below}}\n"
        "name = '{{ fileBasenameNoExtension }}'\n"
    )
    config = load_config(tmp_path / 'child.py')
    assert config.root == odd and config.other == f'{odd}/x' and config.name == 'child'
    assert config.below == config.again == dict(x=[(f'{odd}/lfw.bin', 'other')])
    assert (config.number, config.plain, config.group) == (80, 'x', {1, 2})


def test_literals(tmp_path, monkeypatch):
    path = tmp_path / 'own.py'
    path.write_text(OWN)
    monkeypatch.setenv('MY_NUMBER', '[1, None]')
    assert load_config(path).number == [1, None]
    monkeypatch.setenv('MY_NUMBER', f'__import__("os").mkdir({str(tmp_path / "ran")!r})')
    with pytest.raises(ValueError):
        load_config(path)
    assert not (tmp_path / 'ran').exists()


def test_neither_value_nor_default(tmp_path, monkeypatch):
    monkeypatch.setenv('MY_EMPTY', '')
    path = tmp_path / 'own.py'
    path.write_text("a = '{{$MY_EMPTY:}}'\n")
    with pytest.raises(KeyError, match='MY_EMPTY'):
        load_config(path)


def test_other_kinds_of_configs(tmp_path, monkeypatch):
    path = tmp_path / 'own.yml'
    path.write_text('a: {{$MY_ROOT:data/mine}}\n')
    assert load_config(path).a == 'data/mine'
    monkeypatch.setenv('MY_ROOT', '!!python/object/apply:os.mkdir [ran]')
    with pytest.raises(ValueError, match='MY_ROOT'):
        load_config(path)


# Threads ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ('stated', 'policy'),
    [({}, 'PASSIVE'), (dict(OMP_WAIT_POLICY='ACTIVE'), 'ACTIVE'), (dict(GOMP_SPINCOUNT='9'), None)],
)
def test_threads_wait_asleep(root, stated, policy):
    """As torch's OpenMP itself tells; what the environment states comes first."""
    clean = {k: v for k, v in os.environ.items() if k not in threads._WAITING}
    code = "import mmvlr, os, torch; print(os.environ.get('OMP_WAIT_POLICY'))"
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**clean, 'PYTHONPATH': str(root), 'OMP_DISPLAY_ENV': 'true', **stated},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(policy)
    assert f"OMP_WAIT_POLICY = '{policy or 'PASSIVE'}'" in done.stderr


@pytest.mark.parametrize(
    ('quota', 'stated', 'expected'),
    [
        (None, None, None),
        ('max 100000', None, None),
        ('100000 100000', None, '1'),
        ('100000 100000', '3', '3'),
        ('10000 100000', None, '1'),
        ('6400000 100000', None, None),
    ],
)
def test_no_more_threads_than_the_quota(tmp_path, monkeypatch, quota, stated, expected):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)))
    monkeypatch.setattr(threads, '_QUOTA', tmp_path / 'cpu.max')
    if quota:
        (tmp_path / 'cpu.max').write_text(quota + '\n')
    # Set first, so that what share_cores sets is taken back.
    for name in ('OMP_NUM_THREADS', *threads._WAITING):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    monkeypatch.setattr(threads, 'CHOSEN', {})
    if stated:
        monkeypatch.setenv('OMP_NUM_THREADS', stated)
    threads.share_cores()
    assert os.environ.get('OMP_NUM_THREADS') == expected
    # Programs that this one starts choose for themselves.
    assert threads.CHOSEN.get('OMP_NUM_THREADS') == (None if stated else expected)


def test_tools_import_mmvlr_before_torch(root):
    """OpenMP reads the environment when torch, or what imports it, is imported."""
    for tool in sorted([*(root / 'tools').rglob('*.py'), *(root / 'projects').rglob('*.py')]):
        source = tool.read_text()
        imported = source.find('\nimport mmvlr  #')
        for package in ('torch', 'mmengine', 'sklearn', 'scipy', 'mmcv'):
            for start in (f'\nimport {package}', f'\nfrom {package}'):
                place = source.find(start)
                assert place == -1 or -1 < imported < place, f'{tool} imports {package} first'
