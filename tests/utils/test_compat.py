"""The workarounds of the stack, each against what it works around."""

import io
import os
import pickle
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint, save_checkpoint

from mmvlr.utils import compat
from mmvlr.utils.compat import AtomicLocalBackend, UntrustedCheckpointError, load_checkpoint_file


class Malicious:
    """Its unpickling leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Reaching:
    """Its unpickling reaches, by getattr, for something it has no business with."""

    def __init__(self, owner, name):
        self.arguments = owner, name

    def __reduce__(self):
        return getattr, self.arguments


class Foreign:
    """Harmless, but no weight."""


def test_weights(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict=dict(w=torch.arange(3.0)), meta=dict(a=[1, 'b', None])), path)
    found = load_checkpoint_file(str(path))
    assert torch.equal(found['state_dict']['w'], torch.arange(3.0))
    assert found['meta'] == dict(a=[1, 'b', None])


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    torch.save(dict(w=torch.ones(1)), tmp_path / 'a.pth')
    assert load_checkpoint_file('~/a.pth')['w'] == 1


def test_what_mmengine_stores(tmp_path):
    """HistoryBuffers of the message hub and numpy values: torch's safe loading refuses them."""
    buffer = HistoryBuffer()
    buffer.update(0.5)
    buffer.update(1.5, 2)
    message_hub = dict(
        log_scalars=dict(loss=buffer),
        runtime_info=dict(
            epoch=np.int64(3),
            best=np.float64(0.5),
            single=np.float32(0.25),
            flag=np.bool_(True),
            array=np.arange(3),
        ),
    )
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={}, message_hub=message_hub), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    allowed = set(map(str, torch.serialization.get_safe_globals()))
    found = load_checkpoint_file(str(path))['message_hub']
    assert found['log_scalars']['loss'].data[0].tolist() == [0.5, 1.5]
    assert found['log_scalars']['loss'].mean() == pytest.approx(2 / 3)
    assert found['runtime_info']['epoch'] == 3
    assert found['runtime_info']['array'].tolist() == [0, 1, 2]
    # Nothing is let through behind this call.
    assert set(map(str, torch.serialization.get_safe_globals())) == allowed


@pytest.mark.parametrize('zipped', [True, False])
def test_malicious_file_is_refused_and_not_run(tmp_path, zipped):
    path, trace = tmp_path / 'evil.pth', tmp_path / 'trace'
    torch.save(dict(w=Malicious(trace)), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UntrustedCheckpointError) as error:
        load_checkpoint_file(str(path))
    assert not trace.exists()
    # Which file, what it wanted, and the way out.
    assert 'evil.pth holds more than weights' in str(error.value)
    assert 'posix.mkdir' in str(error.value)
    assert f'MMVLR_TRUSTED={tmp_path}' in str(error.value)
    # The file is what it claims to be: full unpickling would have run it.
    torch.load(path, weights_only=False)
    assert trace.is_dir()


@pytest.mark.parametrize(
    'reaching', [Reaching(HistoryBuffer, '__init__'), Reaching(torch.Tensor, 'numpy')]
)
def test_getattr_of_anything_else_is_refused(tmp_path, reaching):
    """Pickled HistoryBuffers use getattr; that must not open the door to the rest."""
    path = tmp_path / 'a.pth'
    torch.save(dict(x=reaching), path)
    with pytest.raises(UntrustedCheckpointError, match='getattr'):
        load_checkpoint_file(str(path))


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_plain_pickle_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / 'evil.pkl', tmp_path / 'trace'
    path.write_bytes(pickle.dumps(Malicious(trace)))
    with pytest.raises(UntrustedCheckpointError):
        load_checkpoint_file(str(path))
    assert not trace.exists()


def test_trusted_folder(tmp_path, monkeypatch):
    inside, outside = tmp_path / 'mine' / 'run' / 'a.pth', tmp_path / 'other' / 'a.pth'
    for path in (inside, outside):
        path.parent.mkdir(parents=True)
        torch.save(dict(x=Foreign()), path)
    folders = [str(tmp_path / 'nothing'), str(tmp_path / 'mine')]
    monkeypatch.setenv('MMVLR_TRUSTED', os.pathsep.join(folders))
    assert isinstance(load_checkpoint_file(str(inside))['x'], Foreign)
    with pytest.raises(UntrustedCheckpointError):
        load_checkpoint_file(str(outside))
    # A folder whose name only begins alike is another folder.
    lookalike = tmp_path / 'mine2' / 'a.pth'
    lookalike.parent.mkdir()
    torch.save(dict(x=Foreign()), lookalike)
    with pytest.raises(UntrustedCheckpointError):
        load_checkpoint_file(str(lookalike))
    with pytest.raises(UntrustedCheckpointError):
        load_checkpoint_file(str(tmp_path / 'mine' / '..' / 'other' / 'a.pth'))


@pytest.mark.parametrize('variable', ['', os.pathsep, None])
def test_nothing_is_trusted_by_default(tmp_path, monkeypatch, variable):
    monkeypatch.delenv('MMVLR_TRUSTED', raising=False)
    if variable is not None:
        monkeypatch.setenv('MMVLR_TRUSTED', variable)
    # An empty entry must not mean the current folder.
    monkeypatch.chdir(tmp_path)
    assert not compat.is_trusted(tmp_path / 'a.pth')


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('kept', [0, 2, 10, 200, 0.5, -4])
def test_truncated_file(tmp_path, zipped, kept):
    path = tmp_path / 'cut.pth'
    torch.save(dict(w=torch.zeros(1000)), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(ValueError, match=r'cut\.pth is not a readable.*(truncated|cut off)'):
        load_checkpoint_file(str(path))


@pytest.mark.parametrize(
    'content',
    [
        b'<html>404</html>',
        b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n',
        b'hello world\n',
        b'import os\n',
    ],
)
def test_file_of_another_kind(tmp_path, content):
    """A web page saved in its place must not be reported as one to be trusted."""
    path = tmp_path / 'page.pth'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='not a readable checkpoint'):
        load_checkpoint_file(str(path))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth does not exist.*load_from'):
        load_checkpoint_file(str(tmp_path / 'nothing.pth'))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        load_checkpoint_file(str(tmp_path))


def test_mmengine_uses_the_loader(tmp_path):
    compat.apply()
    compat.apply()
    path, trace = tmp_path / 'a.pth', tmp_path / 'trace'
    save_checkpoint(dict(state_dict=dict(weight=torch.ones(1, 1))), str(path))
    model = torch.nn.Linear(1, 1, bias=False)
    load_checkpoint(model, str(path), map_location='cpu')
    assert model.weight.item() == 1
    torch.save(dict(w=Malicious(trace)), path)
    with pytest.raises(UntrustedCheckpointError):
        CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    assert not trace.exists()


@pytest.mark.parametrize('wrap', [bytes, io.BytesIO], ids=['bytes', 'stream'])
def test_atomic_backend(tmp_path, wrap):
    path = tmp_path / 'inner' / 'a.bin'
    AtomicLocalBackend().put(wrap(b'content'), path)
    assert path.read_bytes() == b'content'
    assert [entry.name for entry in path.parent.iterdir()] == ['a.bin']


def test_atomic_backend_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.bin'
    path.write_bytes(b'old')

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        AtomicLocalBackend().put(b'new', path)
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoints_go_through_the_atomic_backend(tmp_path, monkeypatch):
    compat.apply()
    backend = get_file_backend(backend_args=dict(backend='atomic_local'))
    assert type(backend) is AtomicLocalBackend
    put = []
    monkeypatch.setattr(
        AtomicLocalBackend, 'put', lambda self, obj, filepath: put.append(str(filepath))
    )
    save_checkpoint(
        dict(w=torch.ones(1)),
        str(tmp_path / 'a.pth'),
        backend_args=dict(backend='atomic_local'),
    )
    assert put == [str(tmp_path / 'a.pth')]


def test_process_group_needs_torchrun(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    compat.use_cpu_process_group()
    assert not torch.distributed.is_initialized()


def test_process_group_of_one(monkeypatch):
    # Port 0 would be picked anew by every rank; one rank takes what the system gives.
    for name, value in dict(
        RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0'
    ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    try:
        compat.use_cpu_process_group()
        compat.use_cpu_process_group()
        assert torch.distributed.get_backend() == 'gloo'
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='a setting of glibc')
@pytest.mark.parametrize('environment', [{}, {'MALLOC_ARENA_MAX': '2'}, {'LD_PRELOAD': ' '}])
def test_freed_memory_is_kept(root, environment):
    """20 tensors of 64 MiB, one after the other, take their pages from the system once."""
    code = """
import resource, torch
from mmvlr.utils.compat import keep_freed_memory

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, done = faults(20), keep_freed_memory()
# The heap grows until a freed block fits the next request with its alignment.
faults(20)
print(int(done), before, faults(20))
"""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(('MALLOC_', 'LD_PRELOAD'))}
    child = subprocess.run(
        [sys.executable, '-c', code],
        env={**clean, 'PYTHONPATH': str(root), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    done, before, after = map(int, child.stdout.split())
    # Pages may be large; there are at least a few faults for each tensor.
    assert before > 20
    if environment:
        assert not done
    else:
        assert done
        assert after < before / 10
