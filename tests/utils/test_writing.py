"""Atomic writing and locks: devices, links, permissions, full disks, killed and other writers."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mmvlr.utils.io import JOURNAL_FILE, write_atomic
from mmvlr.utils.locks import LOCK_FILE, LockedError, locked

WRITE = lambda path: path.write_text('new')  # noqa: E731


def run(code, *args):
    """Start a process that works and says 'ready' when it is in the middle of it."""
    process = subprocess.Popen(
        [sys.executable, '-c', code, *map(str, args)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'ready\n'
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


SLOW = """
import sys, time
from mmvlr.utils.io import write_atomic
def write(path):
    path.write_text('half')
    print('ready', flush=True)
    time.sleep(60)
write_atomic(sys.argv[1], write)
"""
HOLD = """
import os, sys, time
from mmvlr.utils.locks import locked
with locked(sys.argv[1], sys.argv[2]):
    if sys.argv[3] == 'fork' and not os.fork():
        time.sleep(5)
        os._exit(0)
    print('ready', flush=True)
    time.sleep(60)
"""


def test_pipe_is_written_through(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    assert write_atomic(pipe, WRITE) == pipe
    reader.join(10)
    assert got == ['new']
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize('linked', [False, True])
@pytest.mark.parametrize('minor', [3, 7])
def test_device_is_never_replaced(tmp_path, linked, minor):
    """A null device (minor 3) and a full one (minor 7), by themselves or through a link."""
    device = tmp_path / 'device'
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
        device.open('wb').close()
    except PermissionError:
        device = Path({3: '/dev/null', 7: '/dev/full'}[minor])
        if not linked and os.geteuid() == 0:
            pytest.skip('no device can be made here, and the real ones are not risked as root')
    path = tmp_path / 'link.txt' if linked else device
    if linked:
        path.symlink_to(device)
    before = sorted(tmp_path.iterdir())
    if minor == 3:
        write_atomic(path, WRITE)
    else:
        with pytest.raises(OSError, match=str(path)) as raised:
            write_atomic(path, WRITE)
        assert raised.value.errno == errno.ENOSPC
    assert stat.S_ISCHR(os.stat(device).st_mode)
    assert path.is_symlink() == linked
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('there', [False, True])
def test_link_stays(tmp_path, there):
    target, link = tmp_path / 'far' / 'a.txt', tmp_path / 'b.txt'
    if there:
        target.parent.mkdir()
        target.write_text('old')
    link.symlink_to('far/a.txt')
    write_atomic(link, WRITE)
    assert link.is_symlink()
    assert target.read_text() == 'new'
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize('umask', [0o022, 0o077])
@pytest.mark.parametrize(
    ('private', 'keep', 'old', 'wanted'),
    [
        (False, False, None, 0o666),
        (True, False, None, 0o600),
        (False, False, 0o600, 0o600),
        (False, False, 0o644, 0o644),
        (True, False, 0o644, 0o600),
        (True, True, 0o640, 0o640),
        (False, True, 0o664, 0o664),
    ],
)
def test_permissions(tmp_path, umask, private, keep, old, wanted):
    path = tmp_path / 'new' / 'a.txt'
    seen = []

    def write(temporary):
        seen.append(stat.S_IMODE(temporary.stat().st_mode))
        temporary.write_text('x')

    before = os.umask(umask)
    try:
        if old is not None:
            path.parent.mkdir()
            path.write_text('old')
            path.chmod(old)
        write_atomic(path, write, private=private, keep_mode=keep)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == (wanted if keep else wanted & ~umask)
    if private:
        assert seen == [0o600]
        if old is None:
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_folder_is_refused_before_the_work(tmp_path):
    calls = []
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        write_atomic(tmp_path, calls.append)
    assert not calls
    assert not list(tmp_path.iterdir())


def limited(path, kind):
    """Write more than a limit on the size of files allows, as on a full disk."""
    import resource

    import torch
    from safetensors.torch import save_file

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    big = torch.zeros(1 << 20)
    write = dict(
        bytes=lambda p: p.write_bytes(bytes(1 << 22)),
        torch=lambda p: torch.save(big, p),
        safetensors=lambda p: save_file(dict(a=big), p),
    )[kind]
    try:
        write_atomic(path, write)
    except OSError as error:
        os._exit(0 if error.filename == str(path) and error.errno == errno.EFBIG else 2)
    os._exit(1)


@pytest.mark.parametrize('kind', ['bytes', 'torch', 'safetensors'])
def test_full_disk_is_an_error_that_names_the_file(tmp_path, kind):
    path = tmp_path / 'a.bin'
    path.write_text('old')
    process = multiprocessing.get_context('spawn').Process(target=limited, args=(path, kind))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_next_writer_removes_what_a_killed_one_left(tmp_path):
    foreign = {'.mmvlr-0123456789abcdef.txt', '.a.txt.abcdefgh', '.mmvlr-lock', 'a.txt.tmp'}
    for name in foreign:
        (tmp_path / name).write_text('foreign')
    dead, alive = run(SLOW, tmp_path / 'a.txt'), run(SLOW, tmp_path / 'b.txt')
    listed = {path.name for path in tmp_path.iterdir()} - foreign - {JOURNAL_FILE}
    assert len(listed) == 2
    kill(dead)
    write_atomic(tmp_path / 'a.txt', WRITE)
    left = {path.name for path in tmp_path.iterdir()} - foreign - {JOURNAL_FILE, 'a.txt'}
    assert len(left) == 1
    assert left < listed
    kill(alive)
    write_atomic(tmp_path / 'c.txt', WRITE)
    assert {path.name for path in tmp_path.iterdir()} == foreign | {'a.txt', 'c.txt'}
    assert all((tmp_path / name).read_text() == 'foreign' for name in foreign)


@pytest.mark.parametrize(
    'work', ["write_atomic(f'{folder}/a', print)", 'locked(folder).__enter__()']
)
def test_killed_while_its_mark_is_written(tmp_path, work):
    """An empty file would be nobody's, and stay."""
    code = f"""
import os, signal, sys
from mmvlr.utils.io import write_atomic
from mmvlr.utils.locks import locked
folder = sys.argv[1]
os.pwrite = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
{work}
"""
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with locked(tmp_path):
        write_atomic(tmp_path / 'b', WRITE)
    assert os.listdir(tmp_path) == ['b']


@pytest.mark.parametrize('content', ['', 'notes of mine\n'])
def test_foreign_journal_and_lock_stay(tmp_path, content):
    for name in (JOURNAL_FILE, LOCK_FILE):
        (tmp_path / name).write_text(content)
    write_atomic(tmp_path / 'a.txt', WRITE)
    with locked(tmp_path), pytest.raises(LockedError, match='another process'), locked(tmp_path):
        pass
    assert [(tmp_path / name).read_text() for name in (JOURNAL_FILE, LOCK_FILE)] == [content] * 2


def test_what_another_user_left_can_be_locked(tmp_path, monkeypatch):
    dead = run(HOLD, tmp_path, '', 'alone')
    kill(dead)
    before = (tmp_path / LOCK_FILE).read_bytes()
    assert f'process {dead.pid} '.encode() in before
    open_file = os.open

    def denied(path, flags, *mode):
        if flags & os.O_RDWR and str(path) == str(tmp_path / LOCK_FILE) and not mode:
            raise PermissionError(errno.EACCES, 'denied', path)
        return open_file(path, flags, *mode)

    monkeypatch.setattr(os, 'open', denied)
    with locked(tmp_path), pytest.raises(LockedError), locked(tmp_path):
        pass
    assert (tmp_path / LOCK_FILE).read_bytes() == before


@pytest.mark.slow
def test_many_writers_in_one_folder(tmp_path):
    def work(number):
        for turn in range(50):
            write_atomic(tmp_path / f'{number}.txt', lambda p, t=turn: p.write_text(str(t)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f'{number}.txt': '49' for number in range(8)
    }


@pytest.mark.slow
@pytest.mark.parametrize('file', ['', 'a.pack'])
@pytest.mark.parametrize('fork', ['fork', 'alone'])
def test_lock_names_its_holder_and_ends_with_it(tmp_path, file, fork):
    other = run(HOLD, tmp_path, file, fork)
    with (
        pytest.raises(LockedError, match=f'{tmp_path / file} .*process {other.pid} '),
        locked(tmp_path, file),
    ):
        pass
    killer = threading.Timer(0.3, kill, [other])
    killer.start()
    start = time.monotonic()
    with locked(tmp_path, file, wait=20):
        assert time.monotonic() - start < 4
    killer.join()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_only_one_holds_a_lock(tmp_path):
    counter = tmp_path / 'counter'
    counter.write_text('0')

    def work():
        for _ in range(20):
            with locked(tmp_path / 'new', wait=30):
                value = int(counter.read_text())
                time.sleep(0.001)
                counter.write_text(str(value + 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read_text() == '80'
