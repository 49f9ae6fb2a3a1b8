"""Read malformed files until something fails: ``python -m tests.fuzz --cases N --seconds S``.

A failure is an exception that is not a clear error naming the file, the end of the process, more
than ten seconds, or more memory than the reader deserves. Failing files are kept in ``--out``.
"""

import argparse
import importlib
import multiprocessing
import os
import resource
import tempfile
import time
from collections import Counter, defaultdict
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

#: Seconds of the processor that reading a file may take, and of the clock until it is killed.
LONGEST, KILLED = 10.0, 60.0
_MB = 2**20


class Outcome(NamedTuple):
    """What became of one file.

    Args:
        reader: Name of the reader.
        seed: What the file was made of.
        problem: What is wrong, or None.
        refused: Whether the file was refused, rightly.
        seconds: Of the processor.
        memory: Peak in bytes above what the process had before.
    """

    reader: str
    seed: int
    problem: str | None
    refused: bool = False
    seconds: float = 0
    memory: int = 0


def _status(name: str) -> int:
    text = Path('/proc/self/status').read_text()
    return int(text.split(f'{name}:')[1].split()[0]) * 1024


def judge(error: Exception, path: Path) -> str | None:
    """Return what is wrong with an error about a file, None if nothing."""
    from mmvlr.utils.compat import UntrustedCheckpointError

    text = f'{type(error).__name__}: {error}'
    if not isinstance(error, (ValueError, OSError, UntrustedCheckpointError)):
        return f'bare {text[:200]}'
    if path.name not in text:
        return f'file not named: {text[:200]}'
    return f'message of {len(text):,} characters' if len(text) > 3000 else None


def make(reader: Any, name: str, seed: int) -> bytes:
    """Return a malformed file; what is drawn and cannot be written is drawn again."""
    rng = Random(f'{name} {seed}')
    for _ in range(20):
        try:
            return reader.make(rng)
        except (ValueError, TypeError, OverflowError, RecursionError):
            continue
    raise ValueError(f'no malformed file of {name}, seed {seed}, can be made')


def run_case(readers: dict[str, Any], name: str, seed: int, path: Path) -> Outcome:
    """Make a file and read it, in this process."""
    reader = readers[name]
    path.write_bytes(make(reader, name, seed))
    Path('/proc/self/clear_refs').write_text('5')
    before, start = _status('VmRSS'), time.process_time()
    # Far above what is allowed: for the machine's sake.
    limit = _status('VmSize') + 4 * reader.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    problem, refused = None, False
    try:
        reader.read(path)
    except Exception as error:
        problem, refused = judge(error, path), True
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    seconds, memory = time.process_time() - start, max(_status('VmHWM') - before, 0)
    if problem is None and seconds > LONGEST:
        problem = f'{seconds:.0f} seconds'
    if problem is None and memory > reader.memory:
        problem = f'{memory / _MB:,.0f} MB'
    return Outcome(name, seed, problem, refused and problem is None, seconds, memory)


def _work(pipe: Connection, module: str, folder: str) -> None:
    # Decoders print to standard error what they think of a file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    readers = _readers(module)
    importlib.import_module('mmvlr.apis')
    pipe.send('ready')
    for name, seed in iter(pipe.recv, None):
        path = Path(folder) / f'{name}-{seed}{readers[name].suffix}'
        pipe.send(run_case(readers, name, seed, path))
        path.unlink()


def _readers(module: str) -> dict[str, Any]:
    return importlib.import_module(module).READERS


class _Worker:
    """A process that can be killed, and the case it is at."""

    def __init__(self, module: str, folder: str):
        context = multiprocessing.get_context('spawn')
        self.pipe, end = context.Pipe()
        self.process = context.Process(target=_work, args=(end, module, folder), daemon=True)
        self.process.start()
        end.close()
        self.pipe.recv()

    def give(self, case: tuple[str, int] | None) -> None:
        self.case, self.deadline = case, time.monotonic() + KILLED
        self.pipe.send(case)

    def take(self) -> Outcome:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            return Outcome(*self.case, f'the process ended ({self.process.exitcode})')


def fuzz(
    names: list[str], cases: int, seconds: float, jobs: int, first: int, module: str, out: Path
) -> list[Outcome]:
    """Read ``cases`` files of each reader, or as many as there is time for."""
    todo = ((name, first + number) for number in range(cases) for name in names)
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        workers = [_Worker(module, folder) for _ in range(jobs)]
        end = time.monotonic() + seconds
        for worker in workers:
            worker.give(next(todo, None))
        while busy := [worker for worker in workers if worker.case is not None]:
            wait([worker.pipe for worker in busy], timeout=0.2)
            for worker in busy:
                if worker.pipe.poll():
                    outcome = worker.take()
                elif time.monotonic() > worker.deadline:
                    outcome = Outcome(*worker.case, f'killed after {KILLED:.0f} seconds')
                    worker.process.kill()
                else:
                    continue
                outcomes.append(outcome)
                if outcome.problem:
                    out.mkdir(parents=True, exist_ok=True)
                    reader = _readers(module)[outcome.reader]
                    content = make(reader, outcome.reader, outcome.seed)
                    (out / f'{outcome.reader}-{outcome.seed}{reader.suffix}').write_bytes(content)
                if outcome.problem and ('ended' in outcome.problem or 'killed' in outcome.problem):
                    workers.remove(worker)
                    worker = _Worker(module, folder)
                    workers.append(worker)
                worker.give(next(todo, None) if time.monotonic() < end else None)
    return outcomes


def main(argv: list[str] | None = None) -> int:
    """Run the fuzzer; return 1 if anything failed."""
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz', description=__doc__)
    parser.add_argument('--cases', type=int, default=10**9, help='files of each reader')
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--readers', help='names, separated by commas; all by default')
    parser.add_argument('--jobs', type=int, default=os.cpu_count())
    parser.add_argument('--seed', type=int, default=0, help='number of the first file')
    parser.add_argument('--module', default='tests.fuzz.readers', help='where READERS are')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/fuzz'))
    args = parser.parse_args(argv)
    names = args.readers.split(',') if args.readers else list(_readers(args.module))
    outcomes = fuzz(names, args.cases, args.seconds, args.jobs, args.seed, args.module, args.out)
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.reader].append(outcome)
    print(f'{"reader":14}{"files":>8}{"refused":>9}{"failed":>8}{"slowest":>10}{"memory":>10}')
    for name, found in groups.items():
        refused, failed = sum(o.refused for o in found), sum(bool(o.problem) for o in found)
        slowest, memory = max(o.seconds for o in found), max(o.memory for o in found)
        print(
            f'{name:14}{len(found):8,}{refused:9,}{failed:8,}{slowest:8.1f} s'
            f'{memory / _MB:7,.0f} MB'
        )
    problems = Counter((o.reader, o.problem) for o in outcomes if o.problem)
    for (name, problem), count in problems.most_common(50):
        seed = next(o.seed for o in outcomes if (o.reader, o.problem) == (name, problem))
        print(f'{count} x {name} (seed {seed}): {problem}')
    return int(bool(problems))
