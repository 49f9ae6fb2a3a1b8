"""Commands that are programs of their own: found by name, errors in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmvlr.apis import load_config
from mmvlr.cli import main
from mmvlr.cli.main import PROGRAMS
from mmvlr.utils.shipped import find_config, find_configs, list_configs


@pytest.mark.parametrize('name', PROGRAMS)
def test_every_program_has_help_and_refuses_unknown_options(name, capsys):
    with pytest.raises(SystemExit) as left:
        main([name, '--help'])
    assert left.value.code == 0
    assert f'usage: mmvlr {name}' in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        main([name, '--no-such-option'])
    assert left.value.code == 2


def test_overview_and_nearest_name(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ('train', 'build-ui-set', 'quality', 'doctor'))
    with pytest.raises(SystemExit) as left:
        main(['trian'])
    assert left.value.code == 2
    assert "'trian'" in (text := capsys.readouterr().err) and 'train' in text


def test_errors_are_one_line(tmp_path, capsys, monkeypatch):
    assert main(['test', str(tmp_path / 'absent.py'), 'a.pth']) == 1
    text = capsys.readouterr().err
    assert text.startswith('mmvlr test: ') and 'absent.py' in text and 'Traceback' not in text
    monkeypatch.setenv('MMVLR_DEBUG', '1')
    with pytest.raises(FileNotFoundError, match='absent'):
        main(['test', str(tmp_path / 'absent.py'), 'a.pth'])


def test_missing_weights_are_told_before_the_data_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PRETRAINED', 'gone.pth')
    monkeypatch.setenv('TINYFACE_ROOT', 'nowhere')
    assert main(['train', 'riface/mobilefacenet_tinyface']) == 1
    text = capsys.readouterr().err
    assert 'gone.pth' in text and 'nowhere' not in text
    assert not list(tmp_path.iterdir())
    assert main(['train', 'riface/mobilefacenet_tinyface', '--cfg-options', 'load_from=None']) == 1
    assert 'nowhere' in capsys.readouterr().err


@pytest.mark.parametrize('library', [False, True])
def test_interrupt(library, monkeypatch, capsys):
    from mmvlr.cli.programs import train

    def interrupted(args):
        try:
            raise KeyboardInterrupt
        except BaseException:
            if not library:
                raise
            raise SyntaxError('the config') from None

    monkeypatch.setattr(train, 'run', interrupted)
    assert main(['train', 'demo/riface_synthetic']) == 130
    assert '--resume' in capsys.readouterr().err


def test_configs_are_found_by_name(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = root / 'configs' / 'riface' / 'r50_tinyface.py'
    for name in ('riface/r50_tinyface', 'configs/riface/r50_tinyface.py', str(wanted)):
        assert find_config(name).samefile(wanted)
    with pytest.raises(FileNotFoundError, match=r'r50_tinyfase.*riface/r50_tinyface'):
        find_config('riface/r50_tinyfase')


def test_a_config_is_listed_printed_and_copied(tmp_path, capsys):
    """The copy inherits nothing and says the same; a file that is there stays."""
    name, copy = 'riface/mobilefacenet_tinyface', tmp_path / 'new' / 'my.py'
    assert main(['config']) == 0
    assert capsys.readouterr().out.splitlines() == sorted(list_configs())
    assert name in list_configs()
    options = ['--cfg-options', 'train_dataloader.batch_size=7']
    assert main(['config', name, *options]) == 0
    printed = capsys.readouterr().out
    assert main(['config', name, '--write', str(copy), *options]) == 0
    assert printed.strip() in copy.read_text() and '_base_' not in printed
    found, expected = load_config(copy), load_config(name)
    assert found.train_dataloader.pop('batch_size') == 7
    expected.train_dataloader.pop('batch_size')
    assert found.pop('work_dir') == str(Path('work_dirs/new/my'))
    expected.pop('work_dir')
    assert found.to_dict() == expected.to_dict()
    before = copy.read_bytes()
    assert main(['config', name, '--write', str(copy)]) == 1
    assert copy.read_bytes() == before


def test_a_base_that_mmengine_cannot_find_is_told_with_the_remedy(tmp_path, capsys):
    config = tmp_path / 'my.py'
    config.write_text("_base_ = 'other::riface/r50_tinyface.py'\n")
    assert main(['config', str(config)]) == 1
    text = capsys.readouterr().err
    assert text.startswith(f'mmvlr config: {config}') and text.count('\n') == 1
    assert 'inherit by path' in text and str(find_configs()) in text


def test_without_docstrings():
    command = [sys.executable, '-OO', '-m', 'mmvlr', 'train', '--help']
    assert '--resume' in subprocess.run(command, capture_output=True, text=True, check=True).stdout
