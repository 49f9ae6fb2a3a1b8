"""Long work on many files: on several processes, with progress, and it survives a kill."""

import contextlib
import errno
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import torch

from .io import write_atomic
from .schema import load_json


class Journal:
    """Results on disk, one JSON line each: what a killed run had finished is not done again.

    The first line states what the results depend on; the file appears with it. A last line that was
    cut short by a kill or a full disk is dropped.

    Args:
        path: The file.
        header: What the results depend on; plain values.
        key: Name of the entry that identifies a result.

    Raises:
        ValueError: The file holds results of another header, or is damaged.

    Attributes:
        found: Key -> result, of this and earlier runs.
    """

    def __init__(self, path: str | Path, header: Mapping[str, Any], key: str):
        self.path, self.key = Path(path), key
        self.found: dict[str, dict] = {}
        # Through JSON, as the one in the file went: lists and tuples are the same there.
        self.header = json.loads(json.dumps(header))
        if not os.path.lexists(self.path):
            self._write_all()
        content = self.path.read_bytes()
        whole = content[: content.rfind(b'\n') + 1]
        first, *lines = whole.decode(errors='replace').splitlines() or ['']
        self._check(first)
        for number, line in enumerate(lines, start=2):
            try:
                entry = json.loads(line)
                self.found[entry[key]] = entry
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise ValueError(
                    f'{self.path}, line {number} is damaged ({error}); delete the file to start '
                    'again from the beginning'
                ) from error
        self._open()
        self._file.truncate(len(whole))

    def _open(self) -> None:
        self._file = open(self.path, 'ab', buffering=0)  # noqa: SIM115 - closed by close()

    def _write_all(self) -> None:
        lines = [self.header, *self.found.values()]
        text = ''.join(json.dumps(line) + '\n' for line in lines)
        write_atomic(self.path, lambda path: path.write_text(text, encoding='ascii'))

    def _check(self, first: str) -> None:
        try:
            before = dict(load_json(first.encode()))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{self.path}, line 1 is damaged or not by mmvlr; move the file away to start from '
                'the beginning'
            ) from error
        different = [
            f'{name}: {before.get(name)!r} before, {self.header.get(name)!r} now'
            for name in sorted({*before, *self.header})
            if before.get(name) != self.header.get(name)
        ]
        if different:
            raise ValueError(
                f'{self.path.parent} holds results of other settings ({"; ".join(different)}); '
                'choose another output folder, or delete this one'
            )

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
        self.found.update((entry[self.key], entry) for entry in entries)

    def discard(self, keys: Iterable[str]) -> None:
        """Forget results."""
        for key in keys:
            del self.found[key]
        self._file.close()
        self._write_all()
        self._open()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def stamp_of(path: Path) -> list[int]:
    """Return size and time of a file: what tells that it has changed."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


_work: Callable | None = None


def leave_with_parent() -> None:
    """End this process when its parent has ended.

    A parent that was killed cannot stop its workers, and they would wait for ever.
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


def in_order(make: Callable[[], Callable], items: Sequence, jobs: int = 1) -> Iterator:
    """Work on items in processes; yield the results in the order of the items.

    Every process works on one thread: sums depend on the number of threads, and small images
    gain nothing from more.

    Args:
        make: Called once in every process; returns the function that works on an item. It goes to
            other processes, as do items and results, so it must be picklable.
        items: The items.
        jobs: Number of processes; 1 works in this one.

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
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how far a long work is, and how many images it does in a second.

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
