"""Lock files and folders for one writer at a time; a lock ends with its process."""

import contextlib
import errno
import fcntl
import os
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = '.mmvlr-lock'
_MARK = b'mmvlr lock, held by '
# Lustre, some FUSE and some network file systems have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()


class LockedError(OSError):
    """Another process writes to the same folder or file."""


def _drop_inherited() -> None:
    """Close inherited locks in a forked child: a worker must not hold them after its parent."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited)


def _make(path: Path, mark: bytes) -> int:
    """Make a file that holds its mark from the first moment, where the file system can.

    Who is killed between making and marking it would leave an empty file, which is nobody's.

    Raises:
        FileExistsError: There is one.
    """
    try:
        handle = os.open(path.parent, os.O_RDWR | os.O_TMPFILE, 0o666)
        try:
            os.pwrite(handle, mark, 0)
            # With src_dir_fd Python follows the link, to the file that has no name yet.
            os.link(f'/proc/self/fd/{handle}', path, src_dir_fd=handle)
        except OSError:
            os.close(handle)
            raise
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL, 0o666)
    return handle


def _take(path: Path, mark: bytes, wait: float | None) -> int:
    end = None if wait is None else time.monotonic() + wait
    flags = os.O_RDWR | os.O_NOFOLLOW
    while True:
        made = False
        try:
            handle, made = _make(path, mark), True
        except FileExistsError:
            try:
                handle = os.open(path, flags)
            except PermissionError:
                # A file of another user can still be locked.
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | (0 if end is None else fcntl.LOCK_NB))
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        raise
                    time.sleep(0.02)
            # The previous holder of the lock may have removed the file.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False)):
                    if made and os.pwrite(handle, mark, 0) < len(mark):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    _held.add(handle)
                    return handle
        except BaseException as error:
            if made and not isinstance(error, BlockingIOError):
                path.unlink(missing_ok=True)
            os.close(handle)
            if isinstance(error, OSError) and error.filename is None:
                error.filename = str(path)
            raise
        os.close(handle)


@contextlib.contextmanager
def held_file(path: Path, mark: bytes, wait: float | None = None) -> Iterator[tuple[int, bool]]:
    """Hold the lock of a small file that starts with a mark.

    The file is made if need be, and removed at the end if nothing follows the mark. A file of that
    name without the mark is not mmvlr's, and one of another user may not be written: such a file is
    locked, but never changed or removed.

    Args:
        path: The file.
        mark: Its first bytes.
        wait: Seconds to wait for another holder; None to wait forever.

    Yields:
        The open file, and whether it may be changed.

    Raises:
        BlockingIOError: Another process still holds it.
        OSError: The file cannot be opened, or its file system has no locks.
    """
    handle, own = _take(path, mark, wait), False
    try:
        own = os.pread(handle, len(mark), 0) == mark
        own = own and fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
        yield handle, own
    finally:
        # In a forked child it is closed already, and its number may belong to another file.
        if handle in _held:
            if own and os.pread(handle, len(mark) + 1, 0) == mark:
                path.unlink(missing_ok=True)
            _held.discard(handle)
            os.close(handle)


@contextlib.contextmanager
def locked(folder: str | Path, file: str = '', wait: float = 0.0) -> Iterator[None]:
    """Lock a folder, or one file in it, for a single writer.

    The lock is the system's (``flock``), on a small file in the folder: it ends with the process
    that holds it, even if that is killed, and forked workers do not hold it. On a file system
    without locks there is a warning. The lock also works between threads of one process.

    Args:
        folder: The folder, created if needed.
        file: Name of the file; empty for the whole folder. The two do not exclude each other.
        wait: Seconds to wait for another writer.

    Raises:
        LockedError: Another process still writes there; the message names it.
        OSError: Nothing can be written to the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f'.{file}{LOCK_FILE}' if file else LOCK_FILE)
    with contextlib.ExitStack() as stack:
        try:
            handle, own = stack.enter_context(held_file(path, _MARK, wait))
        except BlockingIOError:
            raise LockedError(
                f'{folder / file} is being written by {_holder(path)}; wait until it has finished, '
                'or choose another output'
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            warnings.warn(
                f'{folder} cannot be locked ({error.strerror}): start one writer at a time',
                stacklevel=3,
            )
        else:
            if own:
                stack.callback(os.ftruncate, handle, len(_MARK))
                # On a full disk the lock works, only without the name of its holder.
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, len(_MARK))
                    holder = f'process {os.getpid()} on {socket.gethostname()}'
                    os.pwrite(handle, holder.encode(), len(_MARK))
        yield


def _holder(path: Path) -> str:
    try:
        content = path.read_bytes()[:200]
    except OSError:
        content = b''
    name = content.removeprefix(_MARK).decode(errors='replace')
    return name if content.startswith(_MARK) and name else 'another process'
