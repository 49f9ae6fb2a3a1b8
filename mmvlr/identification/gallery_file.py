"""Store a gallery in one file, so that a reader sees either the old or the new gallery.

The file is a safetensors file: the embeddings, the qualities and, as bytes of JSON, the texts.
Its metadata hold format, version and the digest of all the rest. mmvlr 0.1 wrote version 1, a
``gallery.json`` that names a file of tensors; it is read, and replaced at the next save. Files
before version 3 hold the logarithm of RI for most models, and do not say so: it is left out.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydantic import Field

from mmvlr.utils.filetype import GALLERY_FILES
from mmvlr.utils.io import sha256_of, write_atomic
from mmvlr.utils.locks import locked
from mmvlr.utils.schema import (
    Count,
    FileFormatError,
    FileModel,
    Texts,
    check_format,
    parse_json,
    read_sealed,
)

FILE, FILE_VERSION_1 = GALLERY_FILES
#: Seconds that a writer waits for other writers.
WAIT = 600.0
_FORMAT, _VERSION = 'mmvlr gallery', 3
_EMBEDDING, _QUALITY, _CONTENT = 'embedding', 'quality.', 'content'
#: The quality of files before version 3 that is on another scale.
_OLD_INDEX = f'{_QUALITY}ri'
_DTYPES = {'<f4': 'F32', '|u1': 'U8'}
_REMEDY = 'take it from a backup, or enroll again into another folder'


@dataclass(frozen=True, eq=False)
class StoredGallery:
    """Content of a gallery: N images of K people.

    Attributes:
        fingerprint: The network of the embeddings.
        template: Config of the template rule.
        people: Names of the people.
        starts: The images of person i are rows ``starts[i]`` to ``starts[i + 1] - 1``, int64
            (K + 1,).
        images: Names of the images.
        unit: Unit embeddings, float32 (N, D).
        qualities: Qualities by name, float32 (N,), NaN where there is none.
        digest: SHA-256 of what is in the file; empty if it comes from no file.
    """

    fingerprint: Mapping[str, Any]
    template: Mapping[str, Any]
    people: list[str]
    starts: np.ndarray
    images: list[str]
    unit: np.ndarray
    qualities: dict[str, np.ndarray]
    digest: str = ''


class _Content(FileModel):
    identity: dict[str, Any]
    template: dict[str, Any]
    people: Texts
    offsets: list[Count]
    images: Texts


class _ContentVersion1(FileModel):
    mmvlr: str
    identity: dict[str, Any]
    template: dict[str, Any]
    tensors: str = Field(pattern='^[0-9a-f]{64}$')
    people: Texts
    offsets: list[Count]
    pictures: Texts


def has_gallery(folder: str | Path) -> bool:
    """Return whether there is a gallery in a folder, readable or not."""
    if (Path(folder) / FILE).is_file():
        return True
    try:
        with open(Path(folder) / FILE_VERSION_1, 'rb') as file:
            # Another program may use the same file name.
            return _FORMAT.encode() in file.read(64)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False


def read_gallery(folder: str | Path) -> StoredGallery:
    """Read the gallery of a folder.

    Raises:
        FileNotFoundError: There is none.
        FileFormatError: A file is damaged, missing, of another gallery or of a newer format.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        try:
            return _read_version_1(Path(folder))
        except (FileNotFoundError, FileFormatError):
            # Another process may have replaced it by the present version meanwhile.
            if not path.is_file():
                raise
    with _open_tensors(path) as tensors:
        metadata = tensors.metadata() or {}
        version = metadata.get('version', '')
        _check_metadata(path, metadata)
        arrays = _read_arrays(path, tensors)
    data = arrays.pop(_CONTENT, np.empty(0, np.uint8)).tobytes()
    if metadata.get('sha256') != _digest(data, arrays):
        raise FileFormatError(path, f'version {version}, sha256: the file is damaged', _REMEDY)
    content = parse_json(data, _Content, path, _REMEDY)
    if version == '2':
        arrays.pop(_OLD_INDEX, None)
    return _checked(path, content, content.images, arrays, metadata['sha256'])


def read_digest(folder: str | Path) -> str:
    """Return the digest of a folder's gallery, '' if there is none, without reading all of it.

    Raises:
        FileFormatError: A file of that name is no gallery.
    """
    path = Path(folder) / FILE
    if path.is_file():
        with _open_tensors(path) as tensors:
            metadata = tensors.metadata() or {}
        _check_metadata(path, metadata)
        return metadata.get('sha256', '')
    try:
        return _read_json_version_1(Path(folder)).tensors
    except (FileNotFoundError, FileFormatError):
        return ''


@contextmanager
def write_alone(folder: Path) -> Iterator[None]:
    """Lock the gallery in a folder for writing; create the folder if needed.

    Raises:
        LockedError: Another process writes it for more than ten minutes.
    """
    made = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with locked(folder, FILE, wait=WAIT):
            yield
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


def write_gallery(folder: str | Path, stored: StoredGallery, keep_mode: bool = False) -> str:
    """Write a gallery into a folder, which the caller has locked, and return its digest.

    Call :func:`read_digest` first: it refuses a file of that name that is no gallery. The file is
    private. Files of version 1 that its ``gallery.json`` names are removed.
    """
    folder = Path(folder)
    content = dict(
        identity=dict(stored.fingerprint),
        template=dict(stored.template),
        people=stored.people,
        offsets=stored.starts.tolist(),
        images=stored.images,
    )
    data = json.dumps(content, allow_nan=False).encode()
    arrays = {_QUALITY + name: values for name, values in stored.qualities.items()}
    arrays[_EMBEDDING] = stored.unit
    digest = _digest(data, arrays)
    metadata = dict(format=_FORMAT, version=str(_VERSION), sha256=digest)
    arrays[_CONTENT] = np.frombuffer(data, np.uint8)

    def write(path: Path) -> None:
        with open(path, 'wb') as file:
            _write_tensors(file, arrays, metadata)

    write_atomic(folder / FILE, write, private=True, keep_mode=keep_mode)
    try:
        before = _read_json_version_1(folder)
    except (FileNotFoundError, FileFormatError):
        return digest
    # The manifest goes last: as long as it is there, the next save knows what to remove.
    (folder / _tensors_name(before.tensors)).unlink(missing_ok=True)
    (folder / FILE_VERSION_1).unlink(missing_ok=True)
    return digest


def _write_tensors(
    file: BinaryIO, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    # The library's writer would leave a temporary file of unknown name if it were killed.
    header: dict[str, Any] = {'__metadata__': dict(metadata)}
    end = 0
    for name, values in arrays.items():
        dtype, offsets = _DTYPES[values.dtype.str], [end, end := end + values.nbytes]
        header[name] = dict(dtype=dtype, shape=list(values.shape), data_offsets=offsets)
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    file.write(struct.pack('<Q', len(text)) + text)
    for values in arrays.values():
        file.write(np.ascontiguousarray(values).data)


def _digest(data: bytes, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(data)
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f'{name} {values.dtype.str} {values.shape}'.encode())
        digest.update(values.data)
    return digest.hexdigest()


def _check_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    if 'format' not in metadata:
        remedy = 'it is not a gallery: choose another folder, or move it away'
        raise FileFormatError(path, 'format: there is none', remedy)
    version = metadata.get('version', '')
    number = int(version) if version.isascii() and version.isdigit() and len(version) < 9 else -1
    check_format(path, _FORMAT, metadata['format'], number, [2, _VERSION], _REMEDY)


def _open_tensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, 'numpy')
    except SafetensorError as error:
        raise FileFormatError(path, f'damaged or cut short ({error})', _REMEDY) from error


def _read_arrays(path: Path, tensors: Any) -> dict[str, np.ndarray]:
    arrays = {}
    for name in tensors.keys():  # noqa: SIM118 - it is no dict
        kind = tensors.get_slice(name).get_dtype()
        if kind != ('U8' if name == _CONTENT else 'F32'):
            raise FileFormatError(path, f'{name}: its numbers are {kind}', _REMEDY)
        arrays[name] = tensors.get_tensor(name)
    return arrays


def _checked(
    path: Path,
    content: _Content | _ContentVersion1,
    images: list[str],
    arrays: dict[str, np.ndarray],
    digest: str,
) -> StoredGallery:
    """Return the content if its parts are consistent."""

    def check(right: bool, problem: str) -> None:
        if not right:
            raise FileFormatError(path, problem, _REMEDY)

    check(_EMBEDDING in arrays, f'{_EMBEDDING}: it is missing')
    unit = arrays.pop(_EMBEDDING)
    check(unit.ndim == 2, f'{_EMBEDDING}: its shape is {unit.shape}, not (N, D)')
    count = len(unit)
    embedding = content.identity.get('embedding')
    dims = embedding.get('dims') if isinstance(embedding, dict) else None
    check(
        type(dims) is int and dims == unit.shape[1],
        f'identity.embedding.dims: {dims!r}, the embeddings have {unit.shape[1]}',
    )
    with np.errstate(over='ignore', invalid='ignore'):
        length = np.sqrt(np.einsum('nd,nd->n', unit, unit))
    check(bool((np.abs(length - 1) < 1e-3).all()), f'{_EMBEDDING}: a row is not of length one')
    check(len(images) == count, f'images: {len(images)} names of {count} images')
    offsets, people = content.offsets, content.people
    check(len(offsets) == len(people) + 1, f'offsets: {len(offsets)} of {len(people)} people')
    check(
        offsets[0] == 0 and offsets[-1] == count and max(offsets) == count,
        f'offsets: they do not lead from 0 to {count}',
    )
    starts = np.array(offsets, np.int64)
    check(bool((np.diff(starts) > 0).all()), 'offsets: a person without images')
    check(len({*people}) == len(people), 'people: two of one name')
    qualities = {}
    for name, values in arrays.items():
        check(name.startswith(_QUALITY), f'{name}: unknown')
        check(values.shape == (count,), f'{name}: its shape is {values.shape}, not ({count},)')
        check(not np.isinf(values).any(), f'{name}: a value is infinite')
        qualities[name.removeprefix(_QUALITY)] = values
    return StoredGallery(
        content.identity, content.template, people, starts, images, unit, qualities, digest
    )


# Version 1 --------------------------------------------------------------------------------------


def _tensors_name(digest: str) -> str:
    return f'gallery-{digest[:16]}.safetensors'


def _read_json_version_1(folder: Path) -> _ContentVersion1:
    path = folder / FILE_VERSION_1
    if not path.is_file():
        raise FileNotFoundError(f'{path.parent} holds no gallery: {FILE} is not there')
    return read_sealed(path, _FORMAT, {1: _ContentVersion1}, _REMEDY)


def _read_version_1(folder: Path) -> StoredGallery:
    path = folder / FILE_VERSION_1
    content = _read_json_version_1(folder)
    file = folder / _tensors_name(content.tensors)
    if not file.is_file():
        raise FileFormatError(path, f'tensors: {file.name} is not beside it', _REMEDY)
    if sha256_of(file) != content.tensors:
        raise FileFormatError(file, f'it is not the file that {path.name} names', _REMEDY)
    with _open_tensors(file) as tensors:
        arrays = _read_arrays(file, tensors)
    arrays.pop(_OLD_INDEX, None)
    template = dict(content.template)
    if template.get('type') == 'PictureTemplates':
        template['type'] = 'ImageTemplates'
    stored = _checked(path, content, content.pictures, arrays, content.tensors)
    return StoredGallery(**vars(stored) | dict(template=template))
