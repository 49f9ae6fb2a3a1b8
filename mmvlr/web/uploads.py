"""Where a page keeps what is dropped on it: a private folder that ends with the page."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from mmvlr.utils.locks import held_file, locked
from mmvlr.utils.work import Journal

NOTES_FILE = '.mmvlr-pages'
_HEADER = dict(mmvlr='folders of pages that are running')
_MARK = b'mmvlr page\n'
_NAME = re.compile('[0-9a-f]{16}')


def find_cache() -> Path:
    """Return the user's folder for the folders of pages; it may not be there yet."""
    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    return Path(os.path.realpath(os.path.expanduser(cache)), 'mmvlr', 'pages')


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Hold a new folder that only the user can read; it is removed at the end.

    Its name is noted in ``.mmvlr-pages`` beside it from before it is made until it is gone, and a
    lock is held meanwhile. So the next page removes what a killed one has left: folders that are
    noted and that no process holds, and nothing by the look of its name.

    Raises:
        OSError: The user's cache folder cannot be written or has no locks.
        ValueError: ``.mmvlr-pages`` is damaged.
    """
    root, name = find_cache(), secrets.token_hex(8)
    folder = root / name
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _notes(root) as notes:
                _remove_dead(root, notes)
                notes.append(dict(folder=name))
                stack.enter_context(held_file(_lock(folder), _MARK))
                folder.mkdir(mode=0o700)
        except OSError as error:
            raise OSError(
                error.errno,
                'The page cannot keep its uploads in the cache folder; set XDG_CACHE_HOME to a '
                f'folder that can be written ({error.strerror or error})',
                str(root),
            ) from error
        try:
            yield folder
        finally:
            _remove(folder)
            with _notes(root) as notes:
                notes.discard([name])


def measure_folder(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _lock(folder: Path) -> Path:
    return folder.with_name(f'{folder.name}.lock')


@contextlib.contextmanager
def _notes(root: Path) -> Iterator[Journal]:
    with (
        locked(root, wait=10),
        contextlib.closing(Journal(root / NOTES_FILE, _HEADER, 'folder')) as n,
    ):
        yield n


def _remove_dead(root: Path, notes: Journal) -> None:
    for name in [name for name in notes.found if _NAME.fullmatch(name)]:
        # Another page may be running.
        with contextlib.suppress(BlockingIOError), held_file(_lock(root / name), _MARK, wait=0):
            _remove(root / name)
            notes.discard([name])


def _remove(folder: Path) -> None:
    """Remove a folder, also while a thread of the page that is still at work writes once more."""
    for left in (3, 2, 1, 0):
        if os.path.lexists(folder):
            shutil.rmtree(folder, ignore_errors=left > 0)
