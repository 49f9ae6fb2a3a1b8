"""Write files atomically."""

import contextlib
import csv
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .locks import held_file

#: Names the temporary files of a folder while they are written.
JOURNAL_FILE = '.mmvlr-journal'
_MARK = b'mmvlr journal of temporary files\n'
_TEMPORARY = re.compile(r'\.mmvlr-[0-9a-f]{16}(\.[^/]*)?', re.DOTALL)


def write_atomic(
    path: str | Path,
    write: Callable[[Path], object],
    *,
    private: bool = False,
    keep_mode: bool = False,
) -> Path:
    """Call ``write`` with a temporary file beside ``path``, then rename it to ``path``.

    At any time ``path`` is either the old file or the complete new one. A symbolic link is kept and
    its target is replaced. A device, a pipe or a socket is never replaced: the bytes are written to
    it.

    The temporary file is locked, and its name is listed in ``.mmvlr-journal`` in the same folder
    from before it is created until it is removed; the last writer removes the journal. The next
    writer in that folder removes leftovers of killed ones: files that the journal lists and no
    process holds, never files with a similar name only. If there can be no journal (no locks, or
    another user's), leftovers of a killed writer stay.

    Args:
        path: The file to write; its folder is created if needed.
        write: Function that writes the temporary path, which has the suffix of ``path``.
        private: Only the user may read it: 0600, and 0700 for a folder that is created. Otherwise a
            new file has default permissions, and an existing one does not become more readable.
        keep_mode: Keep the permissions of the old file, even if they are wider.

    Raises:
        IsADirectoryError: ``path`` is a folder.
        OSError: It cannot be written; ``filename`` is ``path``.
    """
    path = Path(path)
    temporary = None
    try:
        try:
            old = path.stat().st_mode
        except FileNotFoundError:
            old = None
        if old is not None and stat.S_ISDIR(old):
            raise IsADirectoryError(errno.EISDIR, 'Is a folder, not a file', str(path))
        if is_written_through(path):
            with tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder, f'output{path.suffix}')
                _call(write, temporary)
                handle = os.open(path, os.O_WRONLY | os.O_APPEND)
                with open(temporary, 'rb') as source, open(handle, 'wb') as target:
                    shutil.copyfileobj(source, target)
            return path
        real = Path(os.path.realpath(path))
        real.parent.mkdir(mode=0o700 if private else 0o777, parents=True, exist_ok=True)
        with _temporary_file(real, 0o600 if private else 0o666) as temporary:
            _call(write, temporary)
            if old is not None:
                new = stat.S_IMODE(temporary.stat().st_mode)
                temporary.chmod(old & 0o777 if keep_mode else new & old)
            os.replace(temporary, real)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path


def is_written_through(path: Path) -> bool:
    """Return whether a path is a device or pipe, which is written to instead of replaced."""
    # A redirected output is a regular file that other processes have open.
    if str(path.absolute()).startswith(('/dev/std', '/dev/fd/', '/proc/')):
        return True
    return path.exists() and not path.is_file()


def _call(write: Callable[[Path], object], temporary: Path) -> None:
    """Call ``write``; if it fails because of the disk, raise the error of the disk."""
    try:
        write(temporary)
    except OSError:
        raise
    except Exception as error:
        # Libraries raise their own errors for a full disk; writing more shows whether it is full.
        try:
            with open(temporary, 'ab') as file:
                file.write(bytes(1 << 16))
        except OSError as reason:
            raise reason from error
        raise


@contextlib.contextmanager
def _temporary_file(target: Path, mode: int) -> Iterator[Path]:
    suffix = target.suffix if len(os.fsencode(target.suffix)) < 64 else ''
    path = target.with_name(f'.mmvlr-{secrets.token_hex(8)}{suffix}')
    with _journal(path.parent) as (names, store):
        store([*names, path.name])
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        _try_lock(handle)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        # A child that was forked meanwhile keeps the file open and so would keep the lock.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)
        with _journal(path.parent) as (names, store):
            store([name for name in names if name != path.name])


def remove_leftovers(folder: str | Path) -> None:
    """Remove the temporary files of killed writers that a folder's journal lists."""
    if (Path(folder) / JOURNAL_FILE).exists():
        with _journal(Path(folder)):
            pass


@contextlib.contextmanager
def _journal(folder: Path) -> Iterator[tuple[list[str], Callable[[list[str]], None]]]:
    """Lock a folder's journal; yield its names and a function that replaces them.

    Leftovers of dead writers are removed first. Without a journal there are no names, and none are
    stored.
    """
    with contextlib.ExitStack() as stack:
        try:
            handle, own = stack.enter_context(held_file(folder / JOURNAL_FILE, _MARK))
        except OSError:
            own = False
        if not own:
            yield [], lambda names: None
            return

        def store(names: list[str]) -> None:
            content = _MARK + b''.join(json.dumps(name).encode() + b'\n' for name in names)
            with contextlib.suppress(OSError):
                # In this order, a kill in between only leaves names of files that do not exist.
                os.pwrite(handle, content, 0)
                os.ftruncate(handle, len(content))

        names = []
        for line in os.pread(handle, 1 << 20, len(_MARK)).splitlines():
            with contextlib.suppress(ValueError, TypeError):
                name = json.loads(line)
                if _TEMPORARY.fullmatch(name) and not _remove_dead(folder / name):
                    names.append(name)
        store(names)
        yield names, store


def _remove_dead(path: Path) -> bool:
    """Remove a temporary file that no process writes any more; return whether it is removed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode) or not _try_lock(handle):
            return False
        path.unlink(missing_ok=True)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for chunk in iter(lambda: file.read(1 << 20), b''):
            digest.update(chunk)
    return digest.hexdigest()


def write_csv(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    private: bool = False,
) -> None:
    """Write a table, atomically; ``private`` as in :func:`write_atomic`."""

    def write(temporary: Path) -> None:
        # Names of old archives may hold bytes that are no UTF-8.
        how = dict(encoding='utf-8', errors='backslashreplace', newline='')
        with open(temporary, 'w', **how) as file:
            writer = csv.DictWriter(file, columns, lineterminator='\n')
            writer.writeheader()
            writer.writerows(rows)

    write_atomic(path, write, private=private)
