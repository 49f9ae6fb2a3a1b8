"""What is wrong with the arguments of any command is told in one line, before torch is imported."""

import argparse
import errno
import json
import os
import re
import subprocess
import sys

import pytest

from mmvlr.cli import arguments, common, main
from mmvlr.cli.common import tell_errors
from mmvlr.cli.main import PROGRAMS, build_parser
from mmvlr.cli.programs import build_ui_set, degrade, prepare, reproduce
from mmvlr.utils.locks import LockedError

CONFIG = 'riface/r50_tinyface'
#: Arguments, exit code, what the message names. The last of each is the one that is wrong.
MISTAKES = [
    ('embed gone --model m.pth --out a.npz', 1, 'gone'),
    ('embed crops --out /proc/x/a.npz', 1, '/proc'),
    ('embed crops --model m.pth --out a.txt', 2, 'a.txt'),
    ('embed crops --out a.npz --model m.pht', 1, 'did you mean m.pth?'),
    ('quality crops', 2, 'MMVLR_MODEL'),
    ('quality gone*.png --model m.pth', 1, 'gone*.png'),
    ('quality crops --model m.pth --batch-size 0', 2, '--batch-size'),
    ('verify m.pth gone.png', 1, 'gone.png'),
    ('enroll gallery gone --model m.pth', 1, 'gone'),
    ('enroll m.pth crops', 1, 'm.pth'),
    ('enroll gallery crops --model gone.pth', 1, 'gone.pth'),
    ('people crops', 1, 'gallery.safetensors'),
    ('identify crops crops --model m.pth', 1, 'gallery.safetensors'),
    ('calibrate crops d.json --unmated crops', 1, 'gallery.safetensors'),
    ('audit-gallery crops --out a.html', 1, 'gallery.safetensors'),
    ('quality empty --model m.pth', 1, 'empty holds no image'),
    ('quality crops --model text.pth', 1, 'text.pth'),
    (f'train {CONFIG} --cfg-options model.typo=1 load_from=None', 1, "RIFace has no 'typo'"),
    (f'train {CONFIG} --cfg-options load_from=None', 1, 'TINYFACE_ROOT'),
    (f'test {CONFIG} m.pth', 1, 'TINYFACE_ROOT'),
    (f'score {CONFIG} m.pth --out a.npz', 1, 'TINYFACE_ROOT'),
    ('people gone', 1, 'gone'),
    ('audit-gallery gone --out a.html', 1, 'gone'),
    ('calibrate gallery d.json --unmated gone', 1, 'gone'),
    ('calibrate gallery crops --unmated crops', 1, 'crops'),
    ('identify gallery crops --model m.pth --decision gone.json', 1, 'gone.json'),
    ('export gone.pth a.onnx --license MIT', 1, 'gone.pth'),
    ('export m.pth a.txt --license MIT', 2, 'a.txt'),
    ('train riface/r50_tinyfase', 1, f'did you mean {CONFIG}'),
    (f'train {CONFIG} --work-dir m.pth', 1, 'm.pth'),
    (f'train {CONFIG} --resume gone.pth', 1, 'gone.pth'),
    (f'train {CONFIG} --cfg-options x', 2, 'KEY=VALUE'),
    (f'train {CONFIG} --no-such', 2, '--no-such'),
    ('config riface/r50_tinyfase', 1, CONFIG),
    (f'config {CONFIG} --write m.pth', 1, 'm.pth'),
    (f'config {CONFIG} --write a.txt', 2, 'a.txt'),
    ('config --write a.py', 2, 'name the config'),
    ('models get', 2, 'sface'),
    ('models get sface --from gone.whl', 1, 'gone.whl'),
    ('quality crops --model sface', 1, 'mmvlr models get sface'),
    ('enroll /proc/x crops --model m.pth', 1, '/proc'),
    ('export m.pth /proc/x/a.onnx --license MIT', 1, '/proc'),
    ('align crops /proc/x', 1, '/proc'),
    (f'train {CONFIG} --work-dir /proc/x', 1, '/proc'),
    (f'test {CONFIG} gone.pth', 1, 'gone.pth'),
    (f'test {CONFIG} m.pth --out crops', 1, 'crops'),
    (f'score {CONFIG} m.pth --out /proc/x/a.npz', 1, '/proc'),
    ('report gone', 1, 'gone'),
    ('evaluate gone.npz', 1, 'gone.npz'),
    ('evaluate m.pth --config riface/r50_tinyfase', 1, CONFIG),
    ('summarize ours=gone.json', 1, 'gone.json'),
    ('demo --work-dir m.pth', 1, 'm.pth'),
    ('reproduce --out m.pth', 1, 'm.pth'),
    ('reproduce --out new --seeds a', 2, '--seeds'),
    ('prepare tinyface gone', 1, 'gone'),
    ('align gone new', 1, 'gone'),
    ('align crops new --landmarks gone.txt', 1, 'gone.txt'),
    ('track gone.mp4 new', 1, 'gone.mp4'),
    ('track crops new --model gone.pth', 1, 'gone.pth'),
    ('track m.pth new --fps 10', 2, '--fps'),
    ('pack gone a.pack', 1, 'gone'),
    ('pack crops /proc/x/a.pack', 1, '/proc'),
    ('degrade crops new --preset gone.json', 1, 'gone.json'),
    ('fit-degradation crops --out a.json --fit b.json', 2, '--source'),
    ('build-ui-set gone new --layout folder', 1, 'gone'),
    (f'build-ui-set crops new --layout folder --config {CONFIG}', 2, '--checkpoint'),
    ('browse riface/r50_tinyfase', 1, CONFIG),
    ('convert adaface gone.ckpt a.pth', 1, 'gone.ckpt'),
    ('convert arcface m.pth a.pth', 2, 'insightface-iresnet'),
    ('convert-sface gone.onnx a.pth', 1, 'gone.onnx'),
    ('convert-mobilefacenet gone.json a.pth', 1, 'gone.json'),
]

RUN = """
import contextlib, io, json, sys
from mmvlr.cli import main
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            code = main(line.split())
        except SystemExit as left:
            code = left.code
    heavy = [m for m in ('torch', 'mmengine') if m in sys.modules]
    print(json.dumps([code, told.getvalue(), heavy]))
"""


@pytest.fixture(scope='module')
def told(root, tmp_path_factory):
    """Line -> exit code, what was said, heavy packages that were imported by then."""
    folder = tmp_path_factory.mktemp('cwd')
    for name in ('crops', 'empty', 'gallery'):
        (folder / name).mkdir()
    (folder / 'm.pth').write_bytes(b'PK')
    for name in ('text.pth', 'crops/a.png', 'gallery/gallery.safetensors'):
        (folder / name).write_bytes(b'text')
    hidden = ('MMVLR_', 'TINYFACE', 'PRETRAINED')
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    lines = [line for line, _, _ in MISTAKES]
    done = subprocess.run(
        [sys.executable, '-c', RUN, json.dumps(lines)],
        env={**environment, 'PYTHONPATH': str(root), 'XDG_CACHE_HOME': str(folder)},
        **dict(cwd=folder, capture_output=True, text=True, check=True),
    )
    left = ['crops', 'empty', 'gallery', 'm.pth', 'text.pth']
    assert sorted(path.name for path in folder.iterdir()) == left
    return dict(zip(lines, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize(('line', 'code', 'named'), MISTAKES)
def test_mistakes_are_told_at_once_in_one_line(told, line, code, named):
    found, text, imported = told[line]
    assert (found, imported) == (code, [])
    assert text.startswith(f'mmvlr {line.split()[0]}: ') and text.count('\n') == 1
    assert named in text


def test_every_verb_is_among_them():
    (verbs,) = (a.choices for a in build_parser()._actions if a.dest == 'command')
    # A doctor examines what is wrong, and a page has its own tests.
    assert {line.split()[0] for line, _, _ in MISTAKES} == {*verbs} - {'doctor', 'page'}


def test_what_is_stated_beside_the_library_is_what_the_library_says():
    """Choices and defaults that are known before torch is imported."""
    from mmvlr.experiments import PRETRAINED
    from mmvlr.preparation.archives import ARCHIVES, MANIFEST
    from mmvlr.preparation.degrading import FORMATS
    from mmvlr.preparation.people_layouts import LAYOUTS
    from mmvlr.preparation.ui_building import UIFilter, UISearch

    assert reproduce.PRETRAINED == PRETRAINED
    assert (sorted(prepare.ARCHIVES), prepare.MANIFEST) == (sorted(ARCHIVES), MANIFEST)
    assert sorted(degrade.SUFFIXES) == sorted(FORMATS)
    assert {name: layout for name, (_, layout) in LAYOUTS.items()} == build_ui_set.LAYOUTS
    parser = argparse.ArgumentParser()
    build_ui_set.add_arguments(parser)
    args = parser.parse_args(['.', '.', '--layout', 'lpw'])
    for kind, names in ((UISearch('lpw'), build_ui_set.SEARCH), (UIFilter(), build_ui_set.FILTER)):
        for name in names:
            assert getattr(args, name) == getattr(kind, name), name


def test_defaults_are_in_the_help(capsys):
    for verb in PROGRAMS:
        with pytest.raises(SystemExit):
            main([verb, '--help'])
        assert 'None)' not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(['build-ui-set', '--help'])
    assert '(default: 0.05)' in capsys.readouterr().out


def test_values_of_options():
    options = common.read_options(['a.b=1', 'c=[1,2]', "d='x'", 'e=None'])
    assert options == {'a.b': 1, 'c': [1, 2], 'd': 'x', 'e': None}
    with pytest.raises(common.UsageError, match=r'c=\(1,2'):
        common.read_options(['c=(1,2'])


def test_what_names_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a[1].png').touch()
    # An address is left as it is: who reads images says what to do with it.
    for text in ('rtsp://cam.local/a?b=1', 'a[1].png', '*.png', 'none/**/*.png', '.'):
        assert arguments.face_source(text) == text
    for text in ('gone.png', '*.jpg', 'a[2].png'):
        with pytest.raises(FileNotFoundError, match=re.escape(text)):
            arguments.face_source(text)


def test_outputs_are_checked_when_options_are_read(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to('deep/er/file')
    for good in ('new/a.json', 'file', 'link'):
        assert arguments.output_file(str(tmp_path / good)) == tmp_path / good
    assert str(arguments.output_file('/dev/null')) == '/dev/null'
    assert arguments.output_folder(str(tmp_path / 'new')) == tmp_path / 'new'
    for check, bad in (
        (arguments.output_file, tmp_path),
        (arguments.output_file, tmp_path / 'file' / 'a.json'),
        (arguments.output_folder, tmp_path / 'file'),
    ):
        with pytest.raises(OSError, match=str(bad.parent)):
            check(str(bad))
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'link'}
    monkeypatch.setattr(os, 'access', lambda path, mode: str(path) != str(tmp_path))
    for check in (arguments.output_file, arguments.output_folder):
        with pytest.raises(PermissionError, match=str(tmp_path)):
            check(str(tmp_path / 'new' / 'a'))


def test_bugs_show_where_they_are():
    with pytest.raises(TypeError):
        tell_errors('test', lambda: len(3))


@pytest.mark.parametrize(
    'error',
    [
        OSError(errno.ENOSPC, 'full', 'a.json'),
        PermissionError(errno.EACCES, 'no', 'a.json'),
        LockedError('a.json is being written'),
        FileNotFoundError('no checkpoint a.json'),
        ValueError('a.json'),
        TypeError("a.json got an unexpected keyword argument 'b'"),
    ],
)
def test_errors_are_one_line_unless_they_are_looked_for(error, capsys, monkeypatch):
    def work():
        raise error

    assert tell_errors('test', work) == 1
    text = capsys.readouterr().err
    assert 'a.json' in text and text.count('\n') == 1
    monkeypatch.setenv('MMVLR_DEBUG', '1')
    with pytest.raises(type(error)):
        tell_errors('test', work)
