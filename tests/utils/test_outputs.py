"""Folders that tools fill, options that name outputs, and errors of writing."""

import json
import subprocess
import sys

import pytest
from mmengine.config import Config

from mmvlr.engine.work_dir import hold_work_dir
from mmvlr.utils.compat import AtomicLocalBackend
from mmvlr.utils.locks import LockedError, locked
from mmvlr.utils.outputs import NOTES_FILE, OutputFolder
from mmvlr.utils.schema import FileFormatError


def write(folder, *names):
    for name in names:
        (folder / name).write_text(name)


def listed(folder):
    return {path.name for path in folder.iterdir()}


def test_only_what_is_noted_is_removed(tmp_path):
    write(tmp_path, 'mine')
    with OutputFolder(tmp_path, 'a') as output:
        output.claim(['one', 'two', 'three'])
        write(tmp_path, 'one', 'two', 'four')
    with OutputFolder(tmp_path, 'b') as other:
        assert other.names == set()
        with pytest.raises(FileExistsError, match=str(tmp_path / 'one')):
            other.claim(['five', 'one'])
        assert other.names == set()
        other.remove()
    with OutputFolder(tmp_path, 'a') as output:
        assert output.names == {'one', 'two', 'three'}
        output.remove(['one', 'four', 'three'])
        assert listed(tmp_path) - {NOTES_FILE, '.mmvlr-lock'} == {'mine', 'two', 'four'}
        output.remove()
        assert output.names == set()
    # What was removed is not known any more.
    write(tmp_path, 'two')
    with OutputFolder(tmp_path, 'a') as output, pytest.raises(FileExistsError, match='two'):
        output.claim(['two'])
    assert listed(tmp_path) == {'mine', 'two', 'four', NOTES_FILE}


@pytest.mark.parametrize('kind', ['folder', 'dangling link'])
def test_whatever_has_the_name_is_in_the_way(tmp_path, kind):
    (tmp_path / 'a').mkdir() if kind == 'folder' else (tmp_path / 'a').symlink_to('nowhere')
    with OutputFolder(tmp_path, 'a') as output, pytest.raises(FileExistsError, match='a'):
        output.claim(['a'])
    assert listed(tmp_path) == {'a'}


def test_an_empty_folder_is_asked_for(tmp_path):
    write(tmp_path, 'mine')
    with pytest.raises(ValueError, match='holds other files'), OutputFolder(tmp_path, 'a', True):
        pass
    assert listed(tmp_path) == {'mine'}


@pytest.mark.parametrize('content', ['', 'notes', 'notes\n', '{"x": 1}\n'])
def test_foreign_notes_stay(tmp_path, content):
    (tmp_path / NOTES_FILE).write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)), OutputFolder(tmp_path, 'a'):
        pass
    assert (tmp_path / NOTES_FILE).read_text() == content
    assert listed(tmp_path) == {NOTES_FILE}


@pytest.mark.parametrize('name', ['../mine', '/mine', 'a/../../mine', '', '.', 'a/', 'a\0b', 7])
def test_notes_of_files_elsewhere_are_refused(tmp_path, name):
    """What is noted is removed: it must lie in the folder."""
    write(tmp_path, 'mine')
    out = tmp_path / 'out'
    with OutputFolder(out, 'a') as output:
        output.claim(['one'])
    with (out / NOTES_FILE).open('a') as file:
        file.write(json.dumps(dict(file=name, tool='a')) + '\n')
    with pytest.raises(FileFormatError) as raised, OutputFolder(out, 'a') as output:
        output.remove()
    assert str(raised.value).startswith(f'{out / NOTES_FILE}, line 3: file: ')
    assert (tmp_path / 'mine').exists()


def work_dir(folder, **more):
    return Config(dict(work_dir=str(folder), **more))


@pytest.mark.slow
def test_checkpoints_of_another_run_stay(tmp_path):
    """mmengine removes the best checkpoint that a resumed one names, wherever it lies."""
    backend, other, own = AtomicLocalBackend(), tmp_path / 'other', tmp_path / 'own'
    other.mkdir()
    write(other, 'best_epoch_1.pth')
    with hold_work_dir(work_dir(own)):
        backend.put(b'1', own / 'epoch_1.pth')
    for path in (own / 'epoch_1.pth', own / 'epoch_2.pth'):
        code = (
            'import sys; from mmengine.config import Config\n'
            'from mmvlr.engine.work_dir import hold_work_dir\n'
            'from mmvlr.utils.compat import AtomicLocalBackend\n'
            'backend = AtomicLocalBackend()\n'
            'with hold_work_dir(Config(dict(work_dir=sys.argv[1])), resume=True):\n'
            '    [backend.remove(path) for path in sys.argv[2:]]\n'
        )
        # Put there after the run, or by it: another process knows.
        path.exists() or path.write_text('foreign')
        command = [sys.executable, '-c', code, own, other / 'best_epoch_1.pth', path]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if path.name == 'epoch_1.pth':
            assert done.returncode == 0, done.stderr
            assert not path.exists()
        else:
            assert str(path) in done.stderr
            assert path.read_text() == 'foreign'
    assert listed(other) == {'best_epoch_1.pth'}


def test_a_work_dir_without_notes_is_gone_on_with(tmp_path):
    write(tmp_path, 'epoch_1.pth', 'last_checkpoint', 'mine.pth')
    with pytest.raises(FileExistsError, match='epoch_1'), hold_work_dir(work_dir(tmp_path)):
        pass
    with hold_work_dir(work_dir(tmp_path), resume=True) as folder:
        assert folder.names == {'epoch_1.pth', 'last_checkpoint'}


def test_only_the_main_rank_holds_the_work_dir(tmp_path, monkeypatch):
    config = work_dir(tmp_path, launcher='pytorch')
    monkeypatch.setenv('RANK', '1')
    with locked(tmp_path), hold_work_dir(config) as folder:
        assert folder is None
    monkeypatch.setenv('RANK', '0')
    with locked(tmp_path), pytest.raises(LockedError), hold_work_dir(config):
        pass
