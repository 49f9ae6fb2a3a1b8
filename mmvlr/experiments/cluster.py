"""Execute the runs of an experiment as jobs of a cluster, by submitit."""

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmvlr.utils.io import write_atomic
from mmvlr.utils.jobs import Command
from mmvlr.utils.schema import FileModel, read_json

from .execution import Executor

#: How long a job may take unless the options say otherwise.
_MINUTES = 24 * 60


class JobNote(FileModel):
    """The job that carries out a command, so that a later call waits for it."""

    job: str
    command: list[str]


class ClusterExecutor(Executor):
    """Execute runs as jobs of SLURM, or of this machine, several at once.

    A job whose process was killed or whose machine was taken away is queued again. An executor that
    ends leaves its jobs running; the next one of the same folder waits for them.

    Args:
        folder: Folder of the jobs' own files; all machines must see it.
        cluster: ``'slurm'`` or ``'local'``.
        options: Parameters of ``submitit.AutoExecutor``, such as ``slurm_partition``,
            ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``, ``timeout_min``.
        requeues: How often a job that was killed is queued again.
        **kwargs: See :class:`Executor`; ``jobs`` are in the queue at once.

    Raises:
        ImportError: submitit is not installed.
        ValueError: The cluster or an option is not known.
    """

    def __init__(
        self,
        folder: str | Path,
        cluster: str = 'slurm',
        options: Mapping[str, Any] | None = None,
        requeues: int = 3,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        try:
            import submitit
        except ImportError as error:
            raise ImportError(
                "jobs of a cluster need submitit: pip install 'mmvlr[cluster]'"
            ) from error
        try:
            self.queue = submitit.AutoExecutor(folder=Path(folder).resolve(), cluster=cluster)
            self.queue.update_parameters(**dict(timeout_min=_MINUTES) | dict(options or {}))
        except (RuntimeError, NameError, ValueError, TypeError) as error:
            raise ValueError(f'cluster {cluster!r} with {dict(options or {})}: {error}') from error
        self.requeues = requeues
        self.local = cluster == 'local'
        self._submitting = threading.Lock()

    def _call(self, command: Sequence[Any], log: Path, lock: int) -> None:
        words = [*self.program, *map(str, command)]
        note, code = log.with_suffix('.job'), None
        for _ in range(self.requeues + 1):
            job = self._find(note, words) or self._submit(words, log, note)
            while self._runs(job):
                if self._stopping:
                    raise RuntimeError('stopped; the job goes on')
                time.sleep(0.1 if self.local else 2.0)
            code = self._read_result(job)
            note.unlink(missing_ok=True)
            if code is not None and code >= 0:
                break
        if code is None:
            raise RuntimeError(
                f'mmvlr {command[0]} was killed {self.requeues + 1} times; see {log}'
            )
        self._check(code, str(command[0]), log)

    def _find(self, note: Path, words: Sequence[str]) -> Any:
        """Return the job that carries out a command already, or None."""
        if not note.is_file():
            return None
        known = read_json(note, JobNote, 'delete it if no job of this comparison is running')
        # An unfinished training is the same training, whether it was to resume or not.
        if [w for w in known.command if w != '--resume'] != [w for w in words if w != '--resume']:
            return None
        return self.queue._executor.job_class(self.queue.folder, known.job)

    def _submit(self, words: Sequence[str], log: Path, note: Path) -> Any:
        folder = None
        if '--work-dir' in words and words[len(self.program)] == 'train':
            folder = Path(words[words.index('--work-dir') + 1])
        with self._submitting:
            threads = self._choose_threads() if self.local else None
            job = self.queue.submit(Command(words, log.resolve(), folder, threads))
        text = json.dumps(dict(job=job.job_id, command=list(words)))
        write_atomic(note, lambda path: path.write_text(text, encoding='utf-8'))
        return job

    def _runs(self, job: Any) -> bool:
        if job.paths.result_pickle.exists():
            return False
        if not self.local:
            return not job.done()
        # A job of an executor that is gone is no child of this process.
        if job._process is not None:
            return job._process.poll() is None
        try:
            os.kill(int(job.job_id), 0)
        except ProcessLookupError:
            return False
        return True

    @staticmethod
    def _read_result(job: Any) -> int | None:
        """Return the exit code of a job's command, None if the job was killed."""
        from submitit.core.utils import UncompletedJobError

        try:
            return job.result()
        except UncompletedJobError:
            return None
