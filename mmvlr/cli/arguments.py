"""What options and arguments of commands may be: each function is a ``type=`` of argparse.

A file or folder that does not do raises OSError, which argparse lets through: exit code 1. Wrong
usage is ArgumentTypeError: exit code 2.
"""

import argparse
import difflib
import glob
import math
import os
import tempfile
from pathlib import Path

from mmvlr.utils.filetype import GALLERY_FILES, IMAGE_SUFFIXES, describe_content
from mmvlr.utils.io import is_written_through
from mmvlr.utils.zoo import ZOO, find_model


def existing_path(text: str) -> Path:
    """Return the path of a file or folder to read, also of one inside a pack."""
    path = Path(os.path.expanduser(text))
    if os.path.lexists(path) or any(parent.is_file() for parent in path.parents):
        return path
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    # A folder of many thousand images would take seconds.
    near = difflib.get_close_matches(path.name, siblings[:1000], 1, 0.75)
    told = f'; did you mean {path.with_name(near[0])}?' if near else ''
    raise FileNotFoundError(f'{path} does not exist{told}')


def existing_file(text: str) -> Path:
    """Return the path of a file to read."""
    path = existing_path(text)
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; name a file')
    if not path.exists():
        raise FileNotFoundError(f'{path} is not a file, or a link that leads nowhere')
    if not os.access(path, os.R_OK):
        raise PermissionError(f'there is no right to read {path}')
    return path


def existing_model(text: str) -> Path:
    """Return the file of a model: a path, or a name of the zoo (``mmvlr models``)."""
    path = find_model(text)
    try:
        path = existing_file(str(path))
        with open(path, 'rb') as file:
            head = file.read(512)
        # A checkpoint, by whatever name, is a zip archive or a pickle.
        other = path.suffix in ('.safetensors', '.onnx')
        if not other and not head.startswith((b'PK', b'\x80')):
            kind = describe_content(head) or 'of no known kind'
            raise OSError(f'{path} is not a readable checkpoint: it is {kind}')
        return path
    except FileNotFoundError as error:
        if path.suffix or len(path.parts) > 1:
            raise
        near = difflib.get_close_matches(path.name, ZOO, 1)
        told = f'did you mean {near[0]}? ' if near and 'did you mean' not in str(error) else ''
        raise FileNotFoundError(f'{error}; {told}mmvlr models lists public ones by name') from error


def existing_folder(text: str) -> Path:
    """Return the path of a folder to read."""
    path = existing_path(text)
    if path.is_file():
        raise NotADirectoryError(f'{path} is a file; name a folder')
    return path


def existing_gallery(text: str) -> Path:
    """Return the folder of a gallery that was enrolled."""
    folder = existing_folder(text)
    if not any((folder / name).is_file() for name in GALLERY_FILES):
        raise FileNotFoundError(f'{folder} holds no gallery: {GALLERY_FILES[0]} is not there')
    return folder


def face_source(text: str) -> str:
    """Return what names images: a file, a folder, or a pattern that something matches."""
    pattern = os.path.expanduser(text)
    # What an address needs is told by who reads images.
    if os.path.lexists(pattern) or '://' in text:
        if os.path.isdir(pattern) and is_without_images(pattern):
            suffixes = ', '.join(sorted(IMAGE_SUFFIXES))
            raise FileNotFoundError(f'folder {text} holds no image ({suffixes})')
        return text
    if not glob.has_magic(pattern):
        return str(existing_path(text))
    # Patterns with ** may run through loops of links.
    if '**' not in pattern and not glob.glob(pattern):
        raise FileNotFoundError(f'no file matches {text}')
    return text


def is_without_images(folder: str) -> bool:
    """Return whether a folder surely holds no image; links and what is unreadable may be some."""
    failures: list[OSError] = []
    for place, folders, files in os.walk(folder, onerror=failures.append):
        named = any(os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in files)
        if named or failures or any(os.path.islink(os.path.join(place, f)) for f in folders):
            return False
    return not failures


def output_file(text: str) -> Path:
    """Return the path of a file that is to be written."""
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; name a file to write')
    # What is renamed needs the right to its folder.
    _check_writable(path if is_written_through(path) else Path(os.path.realpath(path)).parent)
    return path


def output_folder(text: str) -> Path:
    """Return the path of a folder that is to be filled."""
    path = Path(os.path.expanduser(text))
    _check_writable(path / 'file' if path.is_file() else path)
    return path


def _check_writable(place: Path) -> None:
    while not os.path.lexists(place):
        place = place.parent
    if place.is_file():
        raise NotADirectoryError(f'{place} is a file, not a folder to write to')
    if not os.access(place, os.W_OK):
        raise PermissionError(f'there is no right to write to {place}')
    if place.is_dir():
        try:
            # Some file systems say no only now, such as /proc.
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            raise OSError(f'{place} cannot be written to: {error.strerror}') from error


def preset(text: str) -> str:
    """Return the name of a preset, or the .json file of one."""
    return str(existing_file(text)) if text.lower().endswith('.json') else text


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'expected a whole number above 0, not {text!r}')
    return int(text)


def natural(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'expected 0 or a whole number above it, not {text!r}')
    return int(text)


def key_value(text: str) -> str:
    """Return a text of the form KEY=VALUE."""
    if '=' not in text[1:]:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, not {text!r}')
    return text


def quality_level(text: str) -> tuple[str, float]:
    """Return name and value of QUALITY=VALUE."""
    name, _, value = text.partition('=')
    try:
        level = float(value)
    except ValueError:
        level = math.nan
    if not name or not math.isfinite(level):
        raise argparse.ArgumentTypeError(f'expected QUALITY=VALUE such as ri=0.4, not {text!r}')
    return name, level
