"""Store a data set's folder in one file, ``NAME.pack``: raw pixels, memory-mapped, not decoded.

Format, version 1. Numbers are little-endian; the first 36 bytes keep their layout in all versions.

====== ===== ==============================================================================
offset bytes content
====== ===== ==============================================================================
0      8     magic ``MMVLRPAK``
8      4     version
12     8     offset of the index
20     8     length of the index, which ends the file
28     4     CRC32 of the index
32     4     CRC32 of bytes 0 to 31
36           contents, one after the other: of an image its RGB uint8 pixels (height, width, 3)
             in native size, of any other file its bytes
index        JSON with columns, one entry per image or file:
             ``images``: ``name``, ``height``, ``width``, ``offset``, ``crc32``;
             ``files``: ``name``, ``size``, ``offset``, ``crc32``;
             and ``folders``, a list that holds the empty ones too
====== ===== ==============================================================================

Names are paths relative to the packed folder, with ``/``. Other files are label files, such as
TinyFace's .mat files: a pack holds everything that a data set reads.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import numpy as np
from pydantic import AliasChoices, Field, model_validator

from mmvlr.utils.io import write_atomic
from mmvlr.utils.schema import Count, FileFormatError, FileModel, Texts, check_format, parse_json

from .decoding import MAX_PIXELS, ImageError

SUFFIX = '.pack'
MAGIC = b'MMVLRPAK'
VERSION = 1
_FACTS = struct.Struct('<8sIQQI')
_CRC = struct.Struct('<I')
HEADER_BYTES = _FACTS.size + _CRC.size


_REMEDY = 'copy it or pack the folder again (mmvlr pack)'


class _Contents(FileModel):
    name: Texts
    offset: list[Count]
    crc32: list[Annotated[int, Field(ge=0, lt=2**32)]]

    @model_validator(mode='after')
    def _check_lengths(self) -> '_Contents':
        for key, values in self:
            if len(values) != len(self.name):
                raise ValueError(f'{len(self.name)} names but {len(values)} entries of {key}')
        if len(set(self.name)) < len(self.name):
            raise ValueError('a name occurs twice')
        return self


_Side = Annotated[int, Field(ge=1, le=MAX_PIXELS)]


class _Images(_Contents):
    height: list[_Side]
    width: list[_Side]


class _Files(_Contents):
    size: list[Count]


class _Index(FileModel):
    # Packs of mmvlr 0.1 call them pictures.
    images: Annotated[_Images, Field(validation_alias=AliasChoices('images', 'pictures'))]
    files: _Files
    folders: Texts


def write_pack(
    out: str | Path, items: Iterable[tuple[str, np.ndarray | bytes]], folders: Iterable[str] = ()
) -> 'PackReader':
    """Write a pack item by item; only the index is kept in memory.

    Args:
        out: The file, ``NAME.pack``. It appears only when it is complete.
        items: Name and content: an image, RGB uint8 (h, w, 3), or the bytes of another file.
        folders: Names of folders; only empty ones need to be named.

    Returns:
        PackReader: The pack.

    Raises:
        ValueError: A name occurs twice or is no relative path, or an image has another type or
            shape.
    """
    out = Path(out)
    if out.suffix != SUFFIX:
        raise ValueError(f'{out}: the name of a pack must end in {SUFFIX}')

    def write(temporary: Path) -> None:
        images: dict[str, list] = dict(name=[], height=[], width=[], offset=[], crc32=[])
        files: dict[str, list] = dict(name=[], size=[], offset=[], crc32=[])
        seen: set[str] = set()
        with temporary.open('wb') as file:
            file.write(bytes(HEADER_BYTES))
            for name, content in items:
                _check_name(name, seen)
                if isinstance(content, bytes):
                    column, sizes = files, dict(size=len(content))
                else:
                    content = _checked(name, content)
                    column = images
                    sizes = dict(height=content.shape[0], width=content.shape[1])
                facts = dict(name=name, offset=file.tell(), crc32=zlib.crc32(content), **sizes)
                for key, value in facts.items():
                    column[key].append(value)
                file.write(content)
            names = sorted({str(PurePosixPath(folder)) for folder in folders} - {'.'})
            inside = seen & {*names, *(str(p) for n in seen for p in PurePosixPath(n).parents)}
            if inside:
                raise ValueError(f'{out}: {min(inside)} is both a file and a folder')
            index = json.dumps(
                dict(images=images, files=files, folders=names), separators=(',', ':')
            ).encode('ascii')
            facts = _FACTS.pack(MAGIC, VERSION, file.tell(), len(index), zlib.crc32(index))
            file.write(index)
            file.seek(0)
            file.write(facts + _CRC.pack(zlib.crc32(facts)))

    return PackReader(write_atomic(out, write))


def _check_name(name: str, seen: set[str]) -> None:
    if name in seen:
        raise ValueError(f'{name} occurs twice; names in a pack must be unique')
    path = PurePosixPath(name)
    if str(path) != name or path.is_absolute() or name == '.' or '..' in path.parts:
        raise ValueError(f'{name!r} is no valid name in a pack; expected a path such as 1/a.jpg')
    seen.add(name)


def _checked(name: str, image: Any) -> np.ndarray:
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f'{name}: an image must be RGB uint8 (h, w, 3), not {image.dtype} {image.shape}'
        )
    return np.ascontiguousarray(image)


class PackReader:
    """Read a pack: ``reader[name]`` is an image, RGB uint8 (h, w, 3), read-only, not copied.

    The file is mapped into memory, so all processes share the system's cache of it. The checksum of
    an image is verified when it is first read. A pickled reader opens the file again.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no pack, truncated, damaged outside its images, or of a later
            version.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        index = self._read_index()
        mapped = np.memmap(self.path, mode='r', dtype=np.uint8)
        # A plain array: slicing a memmap costs ten times as much.
        self._bytes = np.asarray(mapped)
        self._fill(parse_json(index, _Index, f'{self.path}: index', _REMEDY))

    def _read_index(self) -> bytes:
        size = self.path.stat().st_size
        with self.path.open('rb') as file:
            header = file.read(HEADER_BYTES)
            if header[: len(MAGIC)] != MAGIC[: len(header)] or not header:
                raise FileFormatError(
                    self.path, f'no pack: it does not start with {MAGIC.decode()}', _REMEDY
                )
            if len(header) < HEADER_BYTES:
                raise FileFormatError(self.path, 'truncated inside its header', _REMEDY)
            facts = header[: _FACTS.size]
            if _CRC.unpack(header[_FACTS.size :])[0] != zlib.crc32(facts):
                raise FileFormatError(self.path, 'the header is damaged (CRC32)', _REMEDY)
            _, version, offset, length, crc = _FACTS.unpack(facts)
            check_format(self.path, SUFFIX, SUFFIX, version, (VERSION,), _REMEDY)
            if size != offset + length:
                kind = 'truncated' if size < offset + length else 'longer than it should be'
                told = f'{kind}: {size:,} bytes of {offset + length:,}'
                raise FileFormatError(self.path, told, _REMEDY)
            file.seek(offset)
            index = file.read(length)
        if zlib.crc32(index) != crc:
            raise FileFormatError(self.path, 'the index is damaged (CRC32)', _REMEDY)
        self._end = offset
        return index

    def _fill(self, index: '_Index') -> None:
        images, files = index.images, index.files
        self._names: list[str] = images.name
        self._shape = [(h, w, 3) for h, w in zip(images.height, images.width, strict=True)]
        self._row = {name: row for row, name in enumerate(self._names)}
        self._file_row = {name: row for row, name in enumerate(files.name)}
        self._folders: list[str] = index.folders
        sizes = [3 * height * width for height, width, _ in self._shape]
        self._span = self._find_spans('images', images.offset, sizes)
        self._file_span = self._find_spans('files', files.offset, files.size)
        self._crc, self._file_crc = images.crc32, files.crc32
        #: Whether the checksum of each image has been verified.
        self._compared = bytearray(len(self._names))

    def _find_spans(
        self, which: str, start: Sequence[int], sizes: Sequence[int]
    ) -> list[tuple[int, int]]:
        """Return the first byte and the end of each content."""
        spans = [(first, first + size) for first, size in zip(start, sizes, strict=True)]
        if any(first < HEADER_BYTES or end > self._end for first, end in spans):
            raise FileFormatError(
                f'{self.path}: index', f'{which}.offset: a content lies outside the file', _REMEDY
            )
        return spans

    def __reduce__(self) -> tuple:
        return type(self), (str(self.path),)

    def __repr__(self) -> str:
        return f'PackReader({str(self.path)!r}, {len(self):,} images)'

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._row

    @property
    def names(self) -> list[str]:
        """Names of the images, in the order in which they were packed."""
        return list(self._names)

    @property
    def files(self) -> list[str]:
        """Names of the other files."""
        return list(self._file_row)

    def __getitem__(self, name: str) -> np.ndarray:
        row = self._row.get(name)
        if row is None:
            raise KeyError(f'{self.path} holds no image {name}')
        start, stop = self._span[row]
        pixels = self._bytes[start:stop]
        if not self._compared[row]:
            if zlib.crc32(pixels) != self._crc[row]:
                raise ImageError(
                    f'{self.path}: image {name} is damaged (CRC32); copy the pack or pack the '
                    'folder again'
                )
            self._compared[row] = True
        return pixels.reshape(self._shape[row])

    #: All readers of stored images have this method.
    image = __getitem__

    def size_key(self, name: str) -> tuple:
        """Return a key that is equal for equal images, without reading them."""
        row = self._row[name]
        return self._shape[row], self._crc[row]

    def content(self, name: str) -> bytes:
        """Return the stored bytes of an image."""
        return self[name].tobytes()

    def read_file(self, name: str) -> bytes:
        """Return the bytes of a file that is no image.

        Raises:
            KeyError: There is no such file.
            ValueError: It is damaged.
        """
        row = self._file_row.get(name)
        if row is None:
            raise KeyError(f'{self.path} holds no file {name}')
        start, stop = self._file_span[row]
        content = self._bytes[start:stop].tobytes()
        if zlib.crc32(content) != self._file_crc[row]:
            raise ValueError(
                f'{self.path}: file {name} is damaged (CRC32); copy the pack or pack the folder '
                'again'
            )
        return content

    def intact(self, name: str) -> bool:
        """Return whether the checksum of an image or file is right, reading it now."""
        if name in self._row:
            row, spans, crc = self._row[name], self._span, self._crc
        else:
            row, spans, crc = self._file_row[name], self._file_span, self._file_crc
        start, stop = spans[row]
        return zlib.crc32(self._bytes[start:stop]) == crc[row]

    def verify(self) -> list[str]:
        """Return the names of all damaged images and files."""
        return [name for name in (*self._names, *self._file_row) if not self.intact(name)]

    def is_file(self, name: str) -> bool:
        """Return whether the pack holds an image or another file of this name."""
        return name in self._row or name in self._file_row

    @cached_property
    def tree(self) -> dict[str, list[str]]:
        """Return each folder's entries; the packed folder itself is ``''``."""
        tree: dict[str, dict[str, None]] = {'': {}}
        for name in (*self._names, *self._file_row, *self._folders):
            while name:
                folder, _, entry = name.rpartition('/')
                inside = tree.setdefault(folder, {})
                if entry in inside:
                    break
                inside[entry] = None
                name = folder
        for name in self._folders:
            tree.setdefault(name, {})
        return {folder: list(inside) for folder, inside in tree.items()}
