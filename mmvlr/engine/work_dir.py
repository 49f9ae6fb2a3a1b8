"""The folder of a training: locked while it runs, its other files protected."""

import atexit
import contextlib
import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log

from mmvlr.utils.outputs import OutputFolder

#: Names under which mmengine saves checkpoints.
_CHECKPOINT = re.compile(r'(best_.+_)?(epoch|iter)_\d+\.pth')


@contextlib.contextmanager
def hold_work_dir(
    config: Config,
    tool: str = 'train',
    resume: bool = False,
    fresh: bool = False,
    more: Iterable[str] = (),
) -> Iterator[OutputFolder | None]:
    """Lock ``config.work_dir`` for one training, and protect files of others in it.

    With several ranks only the main one does so.

    Args:
        config: The config, with its launcher.
        tool: Name of the tool that trains.
        resume: Whether checkpoints in the folder may be resumed and replaced, also those of older
            versions of mmvlr, which are not noted.
        fresh: Remove the files that the tool has noted before.
        more: Further files that the tool will write.

    Yields:
        The folder; None on the other ranks.

    Raises:
        LockedError: Another training is running there.
        FileExistsError: It holds a config, a checkpoint or another file that this training would
            overwrite and that the tool is not noted to have written.
    """
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    rank = next((os.environ[name] for name in ranks if name in os.environ), '0')
    if config.get('launcher', 'none') != 'none' and rank != '0':
        yield None
        return
    with OutputFolder(config.work_dir, tool) as folder:
        if fresh:
            folder.remove()
        there = set(os.listdir(folder.folder))
        wanted = {'last_checkpoint', *more, *filter(_CHECKPOINT.fullmatch, there)}
        if resume and not folder.names:
            folder.adopt(wanted & there)
        # A resumed run leaves the config that is there.
        wanted |= {Path(config.filename or '').name} - ({''} | (there if resume else set()))
        folder.claim(wanted)
        try:
            yield folder
        except OSError as error:
            # mmengine's logs do not name the full disk.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and not error.filename:
                error.filename = str(folder.folder)
            raise


def keep_work_dir_writable(config: Config) -> None:
    """Replace a work dir that is not writable by a temporary folder.

    A test writes only its log there.

    Args:
        config: Changed in place.
    """
    folder = Path(config.work_dir).absolute()
    while not folder.exists():
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return
    temporary = tempfile.mkdtemp(prefix='mmvlr-test-')
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    print_log(
        f'no right to write to {folder}: the log of this test is not kept (set --work-dir)',
        logger='current',
        level=logging.WARNING,
    )
    config.work_dir = temporary
