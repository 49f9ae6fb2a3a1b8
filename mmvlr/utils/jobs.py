"""The command that a job of a cluster runs.

A module of its own that imports little, since every job imports it.
"""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar


class Command:
    """What a job runs: one command of mmvlr, which resumes a training that was begun.

    Args:
        words: The command line.
        log: File to which its output is appended.
        folder: Work dir of a training; None for other commands.
        environment: Environment of the process; None for that of the job.
    """

    _child: ClassVar[subprocess.Popen | None] = None

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        folder: Path | None,
        environment: Mapping[str, str] | None = None,
    ):
        self.words, self.log, self.folder = list(words), log, folder
        self.environment = environment

    def __call__(self) -> int:
        """Run; return the exit code, of a killed process minus its signal."""
        words = self.words
        if self.folder and (self.folder / 'last_checkpoint').is_file() and '--resume' not in words:
            words = [*words, '--resume']
        with open(self.log, 'a', encoding='utf-8') as file:
            Command._child = subprocess.Popen(
                words, stdout=file, stderr=subprocess.STDOUT, env=self.environment
            )
            return Command._child.wait()

    def checkpoint(self) -> Any:
        """Stop before the cluster takes the machine away; return what it shall queue again."""
        from submitit.helpers import DelayedSubmission

        if Command._child is not None:
            Command._child.terminate()
            Command._child.wait()
        return DelayedSubmission(self)
