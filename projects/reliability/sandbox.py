"""Processes, small file systems and files, as the fault tests need them."""

import ctypes
import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mmvlr  # noqa: F401  # isort: skip

import torch

from mmvlr.utils.io import JOURNAL_FILE
from mmvlr.utils.locks import LOCK_FILE

# Processes ----------------------------------------------------------------------------------------


def fork(work: Callable[[], int], log: Path, patch: Callable[[], Any] | None = None) -> int:
    """Call a function in a child whose outputs go to a file; return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with open(log, 'wb') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if patch is not None:
            patch()
        code = work()
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def wait(pid: int, seconds: float = 900) -> int:
    """Wait for a process; return its exit code, of a killed one minus the signal.

    Raises:
        TimeoutError: It has not ended after ``seconds``; it is killed.
    """
    end = time.monotonic() + seconds
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError('a command hangs')
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(found[1])


def isolate(work: Callable[[], Any], folder: Path) -> Any:
    """Return what a function says that is called in a process of its own.

    The caller stays without threads and without mounts, which its later forks would not survive.
    """
    answer = folder / 'answer.json'
    answer.unlink(missing_ok=True)

    def write_answer() -> int:
        answer.write_text(json.dumps(work()))
        return 0

    # All tries of a fault, each of which waits for its own processes.
    if code := wait(fork(write_answer, folder / 'isolated.log'), math.inf):
        raise RuntimeError(f'code {code}: {(folder / "isolated.log").read_text()[-2000:]}')
    return json.loads(answer.read_text())


def mount(place: Path, options: str) -> Path:
    """Mount an empty file system in memory, which this process and its children alone see."""
    # CLONE_NEWNS
    if ctypes.CDLL(None, use_errno=True).unshare(0x20000):
        raise OSError(ctypes.get_errno(), 'no mount namespace')
    subprocess.run(['mount', '--make-rprivate', '/'], check=True)
    place.mkdir(exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', place], check=True)
    return place


def resident() -> float:
    """Return the memory of this process, MiB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


# Files --------------------------------------------------------------------------------------------


def digest(path: Path) -> str:
    """Return a digest of a file; of a checkpoint that of what does not tell the time."""
    if path.suffix != '.pth':
        return hashlib.sha256(path.read_bytes()).hexdigest()
    content = torch.load(path, weights_only=False)
    text = hashlib.sha256()
    for key, value in flatten({k: content.get(k) for k in ('state_dict', 'optimizer')}):
        data = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
        text.update(key.encode() + b'\0' + data)
    return text.hexdigest()


def flatten(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yield name and value of everything in nested containers."""
    if isinstance(value, (dict, list, tuple)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from flatten(inner, f'{name}.{key}')
    else:
        yield name, value


def snapshot(folder: Path) -> dict[str, str]:
    """Return name -> digest of all files below a folder."""
    paths = [path for path in folder.rglob('*') if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def differences(first: dict, second: dict) -> list[str]:
    """Return the names that are not the same in both."""
    return sorted(k for k in {*first, *second} if first.get(k) != second.get(k))


def find_leftovers(out: Path) -> list[str]:
    """Return temporary files, locks and journals."""
    temporary = re.compile(r'\.mmvlr-[0-9a-f]{16}\b.*', re.DOTALL)
    names = (path.relative_to(out) for path in out.rglob('*'))
    ends = (JOURNAL_FILE, LOCK_FILE)
    return [str(n) for n in names if temporary.fullmatch(n.name) or n.name.endswith(ends)]
