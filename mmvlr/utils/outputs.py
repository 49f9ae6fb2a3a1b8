"""Manage output folders: files that mmvlr wrote are noted, all other files are never changed."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from .io import JOURNAL_FILE, remove_leftovers
from .locks import LOCK_FILE, locked
from .schema import FileModel, Text
from .work import Journal

NOTES_FILE = '.mmvlr-files'


def _check_inside(name: str) -> str:
    outside = os.path.isabs(name) or '..' in name.split('/')
    parts = os.fsencode(name).split(b'/')
    if outside or parts[-1] in (b'', b'.') or '\0' in name or max(map(len, parts)) > 255:
        raise ValueError('must be the name of a file in this folder')
    return name


class _Note(FileModel):
    # Noted files may be overwritten and removed, so they must be inside the folder.
    file: Annotated[Text, AfterValidator(_check_inside)]
    tool: str


_HEADER = dict(mmvlr='files that mmvlr wrote into this folder')
_active: dict[str, 'OutputFolder'] = {}
_written: set[str] = set()


class OutputFolder:
    """Output folder of a tool, with one writer at a time, which protects other files in it.

    The names of its files are noted in ``.mmvlr-files`` before they are written. Only noted files
    are overwritten or removed, in this and in later runs. Unfinished files of killed runs are
    removed when the next one starts.

    Args:
        folder: The folder; created if needed.
        tool: Name of the tool; files that another tool has noted are not changed either.
        empty: Refuse a folder that holds other files when the tool has noted nothing yet.
        wait: Seconds to wait for another writer.

    Raises:
        LockedError: Another process writes to it.
        ValueError: It holds other files, or ``.mmvlr-files`` is not mmvlr's.

    Example::

        with OutputFolder(out, 'align') as output:
            output.claim(['a.png'])
            write_atomic(out / 'a.png', write)
            output.remove(output.names - {'a.png'})
    """

    def __init__(self, folder: str | Path, tool: str, empty: bool = False, wait: float = 0.0):
        self.folder, self.tool = Path(folder), tool
        self.empty, self.wait = empty, wait
        self._journal: Journal | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> 'OutputFolder':
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(self.folder, wait=self.wait))
            if (self.folder / NOTES_FILE).exists():
                self._notes()
                for inner in {os.path.dirname(name) for name in self.names}:
                    remove_leftovers(self.folder / inner)
            own = {LOCK_FILE, JOURNAL_FILE, NOTES_FILE}
            if self.empty and not self.names and {*os.listdir(self.folder)} - own:
                raise ValueError(f'{self.folder} holds other files; choose an empty folder')
            _active[os.path.abspath(self.folder)] = self
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        _active.pop(os.path.abspath(self.folder), None)
        if self._journal is not None:
            self._journal.close()
        self._stack.close()

    def _notes(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self.folder / NOTES_FILE, _HEADER, 'file', _Note)
        return self._journal

    @property
    def names(self) -> set[str]:
        """Names of files that the tool has written or will write, relative to the folder."""
        noted = {} if self._journal is None else self._journal.found
        return {name for name, entry in noted.items() if entry.get('tool') == self.tool}

    def claim(self, names: Iterable[str]) -> None:
        """Note files that are about to be written.

        Raises:
            FileExistsError: There is a file of that name which the tool did not write.
        """
        new = sorted({*names} - self.names)
        for name in new:
            if os.path.lexists(self.folder / name):
                raise FileExistsError(
                    f'{self.folder / name} would be overwritten, but {NOTES_FILE} does not name it '
                    f'as written by {self.tool}; move it away, or choose another folder'
                )
        self.adopt(new)

    def adopt(self, names: Iterable[str]) -> None:
        """Note files without checking whether they exist."""
        new = sorted({*names} - self.names)
        if new:
            self._notes().extend(dict(file=name, tool=self.tool) for name in new)

    def remove(self, names: Iterable[str] | None = None) -> None:
        """Remove noted files, all by default; folders are kept, even if empty."""
        gone = self.names if names is None else self.names & {*names}
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
        if gone:
            self._notes().discard(gone)


def note_written(path: str | Path) -> None:
    """Record that this process wrote a file, also in the notes of an open folder."""
    path = os.path.abspath(path)
    _written.add(path)
    folder, name = os.path.split(path)
    if folder in _active:
        _active[folder].adopt([name])


def is_own(path: str | Path) -> bool:
    """Return whether this process wrote a file, or the notes of an open folder list it."""
    path = os.path.abspath(path)
    folder, name = os.path.split(path)
    return path in _written or (folder in _active and name in _active[folder].names)
