"""Long work on many files: on several processes, with progress, and it survives a kill."""

import contextlib
import json
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import torch

LEFTOVER = re.compile(r'\..+\.[a-z0-9_]{8}(\.\w+)?')


class Journal:
    """Results on disk, one JSON line each: what a killed run had finished is not done again.

    The first line states what the results depend on. A last line that was cut short by a kill or
    a full disk is dropped.

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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = self.path.read_bytes() if self.path.exists() else b''
        whole = content[: content.rfind(b'\n') + 1]
        first, *lines = whole.decode(errors='replace').splitlines() or ['']
        # Through JSON, as the one in the file went: lists and tuples are the same there.
        header = json.loads(json.dumps(header))
        if first:
            self._check(first, header)
        for number, line in enumerate(lines, start=2):
            try:
                entry = json.loads(line)
                self.found[entry[key]] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'{self.path}, line {number} is damaged ({error}); delete the file to start '
                    'again from the beginning'
                ) from error
        self._file = open(self.path, 'ab')  # noqa: SIM115 - closed by close()
        self._file.truncate(len(whole))
        if not first:
            self._write(header)

    def _check(self, first: str, header: dict) -> None:
        try:
            before = dict(json.loads(first))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{self.path}, line 1 is damaged; delete the file to start from the beginning'
            ) from error
        different = [
            f'{name}: {before.get(name)!r} before, {header.get(name)!r} now'
            for name in sorted({*before, *header})
            if before.get(name) != header.get(name)
        ]
        if different:
            raise ValueError(
                f'{self.path.parent} holds results of other settings ({"; ".join(different)}); '
                'choose another output folder, or delete this one'
            )

    def _write(self, entry: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(entry).encode() + b'\n')
        self._file.flush()

    def append(self, entry: dict) -> None:
        """Add a result."""
        self._write(entry)
        self.found[entry[self.key]] = entry

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def stamp_of(path: Path) -> list[int]:
    """Return size and time of a file: what tells that it has changed."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def remove_leftovers(folder: Path) -> None:
    """Delete what :func:`write_atomic` had not renamed yet when a run was killed."""
    for path in folder.rglob('.*'):
        if LEFTOVER.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


_work: Callable | None = None


def _start_worker(make: Callable[[], Callable]) -> None:
    parent = os.getppid()

    def leave_with_parent() -> None:
        # A parent that was killed cannot stop its workers, and they would wait for ever.
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
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
