"""Process many files: in several processes, with progress, and resumable after a kill."""

import contextlib
import errno
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import cv2
import torch
from pydantic import Field, RootModel

from .io import write_atomic
from .schema import FileFormatError, FileModel, parse_json

_REMEDY = 'move the file away to start from the beginning'


class Header(RootModel[dict[str, Any]]):
    """First line of a journal."""


class Entry(FileModel, extra='allow'):
    """A result of any kind."""


class Journal:
    """Results on disk, one JSON line each, so that a resumed run skips finished items.

    The first line states what the results depend on; the file appears with it. A last line that was
    cut short by a kill or a full disk is dropped.

    Args:
        path: The file.
        header: Settings that the results depend on; plain values.
        key: Name of the entry that identifies a result.
        entry: Model of a result.
        keep: Hold the results in memory. Otherwise ``found`` stays empty, and :meth:`entries`
            reads those of earlier runs.

    Raises:
        FileFormatError: The file is damaged, no journal, or holds results of another header.

    Attributes:
        found: Results of this and earlier runs, by key.
    """

    def __init__(
        self,
        path: str | Path,
        header: Mapping[str, Any],
        key: str,
        entry: type[FileModel] = Entry,
        keep: bool = True,
    ):
        self.path, self.key, self.entry, self.keep = Path(path), key, entry, keep
        self.found: dict[str, dict] = {}
        # Converted by JSON like the one in the file, where lists and tuples are the same.
        self.header = json.loads(json.dumps(header))
        if not os.path.lexists(self.path):
            self._write_all()
        with open(self.path, 'rb') as file:
            self._whole = _find_last_line(file)
            file.seek(0)
            first = file.readline() if self._whole else b''
        self._check(parse_json(first.rstrip(b'\n'), Header, f'{self.path}, line 1', _REMEDY).root)
        if keep:
            self.found = {found[key]: found for found in self.entries()}
        self._open()
        self._file.truncate(self._whole)

    def entries(self) -> Iterator[dict]:
        """Read the results that the file held when it was opened, in their order.

        Raises:
            FileFormatError: One is damaged.
        """
        with open(self.path, 'rb') as file:
            place = len(file.readline())
            for number, line in enumerate(file, start=2):
                place += len(line)
                if place > self._whole:
                    return
                source = f'{self.path}, line {number}'
                found = parse_json(line[:-1], self.entry, source, _REMEDY).model_dump()
                if self.keep and type(found.get(self.key)) is not str:
                    raise FileFormatError(source, f'{self.key}: must be text', _REMEDY)
                yield found

    def _open(self) -> None:
        self._file = open(self.path, 'ab', buffering=0)  # noqa: SIM115 - closed by close()

    def _write_all(self) -> None:
        lines = [self.header, *self.found.values()]
        text = ''.join(json.dumps(line) + '\n' for line in lines)
        write_atomic(self.path, lambda path: path.write_text(text, encoding='ascii'))

    def _check(self, before: dict[str, Any]) -> None:
        different = [
            f'{name}: {before.get(name)!r} before, {self.header.get(name)!r} now'
            for name in sorted({*before, *self.header})
            if before.get(name) != self.header.get(name)
        ]
        if different:
            told = f'results of other settings ({"; ".join(different)})'
            remedy = 'choose another output folder, or delete this one'
            raise FileFormatError(self.path, told, remedy)

    def append(self, entry: dict) -> None:
        """Add a result."""
        self.extend([entry])

    def extend(self, entries: Iterable[dict]) -> None:
        """Add results.

        Raises:
            OSError: They cannot be written.
        """
        entries = list(entries)
        data = b''.join(json.dumps(entry).encode() + b'\n' for entry in entries)
        try:
            if self._file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = str(self.path)
            raise
        if self.keep:
            self.found.update((entry[self.key], entry) for entry in entries)

    def discard(self, keys: Iterable[str]) -> None:
        """Remove results."""
        for key in keys:
            del self.found[key]
        self._file.close()
        self._write_all()
        self._open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _find_last_line(file: BinaryIO) -> int:
    """Return the length of a file up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - (1 << 16))
        file.seek(start)
        place = file.read(end - start).rfind(b'\n')
        if place >= 0:
            return start + place + 1
        end = start
    return 0


#: Result of :func:`read_stamp`, in a file.
Stamp = Annotated[list[int], Field(min_length=2, max_length=2)]


def read_stamp(path: Path) -> list[int]:
    """Return size and time of a file, which show whether it has changed."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


_work: Callable | None = None


def leave_with_parent() -> None:
    """End this process when its parent has ended.

    A parent that was killed cannot stop its workers, which would wait forever.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start_worker(make: Callable[[], Callable]) -> None:
    leave_with_parent()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    global _work
    _work = make()


def _run_work(item: Any) -> Any:
    return _work(item)


def in_order(make: Callable[[], Callable], items: Iterable, jobs: int = 1) -> Iterator:
    """Process items in several processes; yield the results in the order of the items.

    Every process uses one thread: sums depend on the number of threads, and small images gain
    nothing from more.

    Args:
        make: Called once in every process; returns the function that processes an item. It must be
            picklable, as must items and results.
        items: The items; a few more than are yielded are drawn, eight for each process.
        jobs: Number of processes; 1 uses this process.

    Raises:
        ValueError: ``jobs`` is below 1.
    """
    if jobs < 1:
        raise ValueError(f'jobs must be at least 1, not {jobs}')
    if jobs == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from map(make(), items)
        finally:
            torch.set_num_threads(threads)
        return
    # Spawned, not forked: torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(jobs, get_context('spawn'), _start_worker, (make,))
    try:
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(_run_work, item))
            if len(waiting) >= 8 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Callable[[], None]]:
    """Show the progress of a long task, with images per second.

    Yields:
        Call it after each image.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f'{task.finished_speed or task.speed or 0:.1f}/s')

    columns = [TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), Rate()]
    columns += [TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
