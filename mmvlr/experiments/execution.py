"""Execute an experiment: several runs in parallel, each in its own processes."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmvlr.utils.io import write_atomic
from mmvlr.utils.locks import LOCK_FILE, held_file
from mmvlr.utils.threads import CHOSEN, count_cores

from .plan import Run, Training

_LOCK_MARK = b'mmvlr run\n'


@dataclass(frozen=True, eq=False)
class Failure:
    """A run that could not be finished.

    Attributes:
        run: The run.
        message: The error, with the end of the log.
    """

    run: Run
    message: str


def estimate_seconds(runs: Iterable[Run], jobs: int) -> tuple[float, list[str]]:
    """Estimate the time of the trainings that are not finished.

    The estimate for a training is the mean of the finished ones of the same data set.

    Args:
        runs: A plan.
        jobs: Runs at once.

    Returns:
        Seconds, and the data sets without a finished training, whose time is not included.
    """
    trainings = {run.training.folder: run for run in runs if run.training}
    known: dict[str, list[float]] = {}
    left: dict[str, int] = {}
    for run in trainings.values():
        if not run.training.finished:
            left[run.data] = left.get(run.data, 0) + 1
        elif not run.training.facts()['resumed']:
            known.setdefault(run.data, []).append(run.training.facts()['seconds'])
    unknown = [data for data in left if data not in known]
    total = sum(
        count * sum(known[data]) / len(known[data]) for data, count in left.items() if data in known
    )
    return total / jobs, unknown


def _find_lock(run: Run) -> Path:
    return run.scores.parent / f'.run{LOCK_FILE}'


class Executor:
    """Execute runs, several at once, each in its own processes.

    A run that fails is reported and the others continue. A process that survives a killed executor
    keeps the lock of its folder; the run then waits for it instead of training twice.

    Args:
        jobs: Runs at once.
        report: Called, from several threads, with a run and its state: ``'waits'``, ``'trains'``,
            ``'scores'``, ``'finished'`` or ``'failed'``.
        program: Command that starts mmvlr, to which ``train`` or ``score`` is added.
    """

    def __init__(
        self,
        jobs: int = 1,
        report: Callable[[Run, str], None] | None = None,
        program: Sequence[str] = (sys.executable, '-m', 'mmvlr'),
    ):
        self.program = tuple(program)
        self.jobs = jobs
        self.report = report or (lambda run, state: None)
        self._children: set[subprocess.Popen] = set()
        self._stopping = False

    def execute(self, runs: Iterable[Run]) -> list[Failure]:
        """Carry out what is not finished, tidy up behind what is; return what failed.

        An interrupt stops the processes and is raised again.
        """
        # Runs that share a training go one after another.
        groups: dict[Path, list[Run]] = {}
        for run in runs:
            if not run.finished:
                groups.setdefault(run.scores.parent, []).append(run)
            elif (lock := _find_lock(run)).exists():
                # Left by an executor that was killed while its last process finished the run; that
                # process may hold the lock still, until it has ended.
                with contextlib.suppress(BlockingIOError), held_file(lock, _LOCK_MARK, wait=60):
                    pass
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        for group in groups.values():
            waiting.put(group)
        failures: list[Failure] = []

        def work() -> None:
            while not self._stopping:
                try:
                    group = waiting.get_nowait()
                except queue.Empty:
                    return
                cause: Exception | None = None
                for run in group:
                    try:
                        # Runs that share a training fail with it: it is not repeated for each.
                        if cause is not None and not (run.training and run.training.finished):
                            raise cause
                        self._carry_out(run)
                    except Exception as error:
                        if self._stopping:
                            return
                        if run.training and not run.training.finished:
                            cause = error
                        failures.append(Failure(run, str(error)))
                        self.report(run, 'failed')

        workers = [threading.Thread(target=work, daemon=True) for _ in range(self.jobs)]
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers):
                time.sleep(0.2)
        except BaseException:
            self._stopping = True
            for child in list(self._children):
                child.terminate()
            raise
        return failures

    def _carry_out(self, run: Run) -> None:
        folder = run.scores.parent
        folder.mkdir(parents=True, exist_ok=True)
        # The processes inherit the lock: it outlives an executor that is killed.
        path = _find_lock(run)
        with contextlib.ExitStack() as stack:
            try:
                lock, _ = stack.enter_context(held_file(path, _LOCK_MARK, wait=0))
            except BlockingIOError:
                self.report(run, 'waits')
                lock, _ = stack.enter_context(held_file(path, _LOCK_MARK))
            if run.training and not run.training.finished:
                self.report(run, 'trains')
                self._train(run.training, lock)
            if not run.finished:
                self.report(run, 'scores')
                config = write_config(run.config, run.scores.with_suffix('.py'))
                command = ['score', config, run.checkpoint(), '--out', run.scores]
                command += ['--work-dir', folder / 'test']
                self._call(command, folder / 'score.log', lock)
        self.report(run, 'finished')

    def _train(self, training: Training, lock: int) -> None:
        config = write_config(training.config, training.folder / 'config' / 'run.py')
        begun = time.time()
        command = ['train', config, '--work-dir', training.folder]
        command += ['--seed', training.seed]
        if training.begun:
            command.append('--resume')
        self._call(command, training.folder / 'train.log', lock)
        checkpoint = f'epoch_{training.config.train_cfg.max_epochs}.pth'
        if not (training.folder / checkpoint).is_file():
            raise RuntimeError(f'{training.folder} has no {checkpoint} after its training')
        facts = dict(
            checkpoint=checkpoint,
            seed=training.seed,
            seconds=round(time.time() - begun, 1),
            resumed='--resume' in command,
            finished=time.strftime('%Y-%m-%d %H:%M:%S'),
        )
        text = json.dumps(facts, indent=2) + '\n'
        write_atomic(training.record, lambda path: path.write_text(text, encoding='utf-8'))

    def _call(self, command: Sequence[Any], log: Path, lock: int) -> None:
        name, *arguments = map(str, command)
        command = [*self.program, name, *arguments]
        with open(log, 'a', encoding='utf-8') as file:
            child = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._choose_threads(),
                pass_fds=(lock,),
            )
            self._children.add(child)
            try:
                code = child.wait()
            finally:
                self._children.discard(child)
        self._check(code, name, log)

    def _choose_threads(self) -> dict[str, str]:
        """Return the environment of a process, in which runs at once share the cores."""
        threads = max(count_cores()[1] // self.jobs, 1)
        stated = {name: value for name, value in os.environ.items() if name not in CHOSEN}
        return {'OMP_NUM_THREADS': str(threads), **stated}

    @staticmethod
    def _check(code: int, name: str, log: Path) -> None:
        if code:
            lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
            raise RuntimeError(
                f'mmvlr {name} ended with code {code}; {log} ends with:\n  '
                + '\n  '.join(lines[-5:])
            )


def write_config(config: Config, path: Path) -> Path:
    """Write a config with everything it inherits, as a self-contained file."""
    return write_atomic(path, lambda file: file.write_text(config.pretty_text, encoding='utf-8'))
