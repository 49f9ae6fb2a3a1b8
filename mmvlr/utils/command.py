"""What commands share: outputs that are checked first, and errors of writing in one line."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

from .io import is_written_through
from .locks import LockedError


def tell_write_errors(main: Callable[..., int]) -> Callable[..., int]:
    """Wrap a command's ``main``: an error of a file is one line and exit code 1, no traceback.

    That is a full disk, no right to write, another writer, and files of others in the way. Errors
    of connections, as of a worker that died, are raised as they are.
    """

    @functools.wraps(main)
    def wrapped(argv: list[str] | None = None) -> int:
        try:
            return main(argv)
        except OSError as error:
            told = isinstance(error, (LockedError, FileExistsError)) or error.errno is not None
            if not told or isinstance(error, ConnectionError):
                raise
            verb = Path(main.__code__.co_filename).stem.replace('_', '-')
            print(f'mmvlr {verb}: {error}', file=sys.stderr)
            return 1

    return wrapped


def describe(doc: str | None, whole: bool = False) -> str:
    """Return what a command's help says, of its module's docstring.

    Args:
        doc: ``__doc__``; None under ``python -OO``.
        whole: All of it instead of its first paragraph.
    """
    doc = doc or ''
    return doc if whole else doc.split('\n\n')[0].split(': ``')[0]


def output_file(text: str) -> Path:
    """Return the path of a file that is to be written; ``type=`` of an option of argparse.

    Raises:
        argparse.ArgumentTypeError: It is a folder, or nothing can be written there.
    """
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        raise argparse.ArgumentTypeError(f'{path} is a folder; name a file')
    # What is renamed needs the right to its folder.
    _check_writable(path if is_written_through(path) else Path(os.path.realpath(path)).parent)
    return path


def output_folder(text: str) -> Path:
    """Return the path of a folder that is to be filled; ``type=`` of an option of argparse.

    Raises:
        argparse.ArgumentTypeError: It is a file, or nothing can be written there.
    """
    path = Path(os.path.expanduser(text))
    _check_writable(path / 'file' if path.is_file() else path)
    return path


def _check_writable(place: Path) -> None:
    while not os.path.lexists(place):
        place = place.parent
    if place.is_file():
        raise argparse.ArgumentTypeError(f'{place} is a file, not a folder')
    if not os.access(place, os.W_OK):
        raise argparse.ArgumentTypeError(f'there is no right to write to {place}')
