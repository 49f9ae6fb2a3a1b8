"""Commands that are programs of their own: found by name, errors in one line."""

import json
import os
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


MISTAKES = [
    ('trian', 2, 'train'),
    ('quality nowhere/ --model model.pth', 1, 'nowhere'),
    ('quality . --model nowhere.pth', 1, 'nowhere.pth'),
    ('quality . --model sface', 1, 'mmvlr models get sface'),
    ('quality .', 2, 'mmvlr models'),
    ('train riface/r50_tinyfac', 1, 'riface/r50_tinyface'),
    ('train riface/sface_tinyface --no-such-option', 2, '--no-such-option'),
    ('train riface/sface_tinyface --max-iter-s 5', 2, 'did you mean --max-iters?'),
    ('quality . --modle model.pth', 2, 'did you mean --model?'),
    ('quality . --model sfase', 1, 'did you mean sface?'),
    ('quality . --model notes.txt', 1, 'not a readable checkpoint'),
    ('train riface/sface_tinyface --show-dir out', 2, 'mmvlr report'),
    ('train riface/sface_tinyface --cfg-options load_from', 2, 'KEY=VALUE'),
    ('train riface/sface_tinyface --cfg-options train_dataloader.batchsize=8', 1, 'batch_size'),
    ('train riface/sface_tinyface --cfg-options load_from=nowhere.pth', 1, 'nowhere.pth'),
    ('test nowhere.pth', 1, 'nowhere.pth'),
    ('test model.pth', 1, 'mmvlr test CONFIG CHECKPOINT'),
    ('report nowhere', 1, 'nowhere'),
    ('evaluate nowhere.npz', 1, 'nowhere.npz'),
    ('config riface/r50_tinyface --write model.pth', 1, 'model.pth'),
]


def test_mistakes_of_a_first_hour_are_one_line_and_need_no_pytorch(tmp_path, root):
    """Each in turn in one process: code, what the line names, and nothing heavy was imported."""
    (tmp_path / 'model.pth').write_bytes(b'PK')
    (tmp_path / 'a.png').touch()
    (tmp_path / 'notes.txt').write_text('faces of May')
    code = (
        'import contextlib, io, json, sys\n'
        'from mmvlr.cli import main\n'
        'found = []\n'
        'for argv in json.loads(sys.argv[1]):\n'
        '    told = io.StringIO()\n'
        '    with contextlib.redirect_stderr(told):\n'
        '        try:\n            code = main(argv)\n'
        '        except SystemExit as left:\n            code = left.code\n'
        '    found.append([code, told.getvalue(), "torch" in sys.modules])\n'
        'print(json.dumps(found))\n'
    )
    commands = json.dumps([line.split() for line, _, _ in MISTAKES])
    environment = {**os.environ, 'MMVLR_HOME': str(tmp_path), 'PYTHONPATH': str(root)}
    for name in ('MMVLR_MODEL', 'PRETRAINED', 'MMVLR_DEBUG'):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, '-c', code, commands],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=True,
    )
    for (line, code, told), found in zip(MISTAKES, json.loads(done.stdout), strict=True):
        assert found[0] == code and told in found[1], (line, found)
        assert found[1].count('\n') == 1 and not found[2], (line, found)


def test_commands_of_a_page_are_timed(root, tmp_path):
    """The script that measures the table of the page reads and runs what is printed there."""
    import importlib.util

    script = root / 'projects/benchmarks/first_words.py'
    spec = importlib.util.spec_from_file_location('first_words', script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    commands = module.read_commands((root / 'docs/get_started.md').read_text(), 'The first hour')
    assert commands[0].startswith('mmvlr models get') and len(commands) > 8
    environment = {**os.environ, 'ENV_FILE': str(tmp_path / 'env')}
    (first, end, used), code, text = module.run(
        'sleep 0.3; echo word; sleep 0.3; exit 3', environment
    )
    assert (code, text.strip()) == (3, 'word') and 0.2 < first < end - 0.2 and 0 < used < end
