"""Read lists of names and numbers from MATLAB files, in pure Python.

``scipy.io.loadmat`` crashes the process (SIGSEGV) on some damaged files. The data sets need only
cells of text and arrays of numbers in MATLAB's format 5 (versions 6 and 7 of the program, the
latter compressed). This reader never reads beyond the bounds of the file, and compares every size
with the bytes that are present before it relies on it.

The format is that of *MAT-File Format* (MathWorks): a header of 128 bytes, then data elements, each
with a tag of type and length; an array is an element of elements: flags, dimensions, name, content.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

#: Limit of the size of a file, packed and unpacked: no list of names needs more.
MAX_BYTES = 64 << 20
#: Limit of the number of entries of a cell.
MAX_ENTRIES = 1 << 21
#: Limit of the depth of nested cells.
MAX_DEPTH = 4
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
#: Types of data elements.
_NUMBERS = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 12, 13),
        ['i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'f4', 'f8', 'i8', 'u8'],
        strict=True,
    )
)
_UTF = {16: 'utf-8', 17: 'utf-16', 18: 'utf-32'}
#: Classes of arrays.
_CELL, _CHAR = 1, 4
_NUMERIC = dict(
    zip(range(6, 16), ['f8', 'f4', 'i1', 'u1', 'i2', 'u2', 'i4', 'u4', 'i8', 'u8'], strict=True)
)
_COMPLEX = 0x0800


def read_variables(content: bytes, *names: str) -> dict[str, Any]:
    """Read variables from a MATLAB file of format 5.

    Args:
        content: The file.
        names: The variables to read; others are skipped.

    Returns:
        Name -> content: an array of numbers, an array of objects for a cell (the same kinds, in its
        shape), text, or an array of lines for text of several rows. Variables that the file lacks
        are missing; variables that were not requested are None.

    Raises:
        ValueError: The file is damaged, too large, of another format, or a wanted variable has
            another type.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(
            f'it has {len(content):,} bytes; a list of names has at most {MAX_BYTES:,}'
        )
    order, version = _check_header(content)
    if version != 0x0100:
        raise ValueError(f'it has version {version:#06x} of the format; save it with -v7')
    found: dict[str, Any] = {}
    budget = MAX_BYTES
    for kind, data in _elements(content[_HEADER:], order):
        if kind == _COMPRESSED:
            data = _unpack(data, budget)
            budget -= len(data)
            kind, data = next(_elements(data, order), (0, b''))
        if kind != _MATRIX:
            raise ValueError(f'a data element of type {kind} is found where a variable is expected')
        parts = _elements(data, order)
        group, complex_, shape, name = _head(parts, order)
        wanted = name in names
        found[name] = _content(parts, group, complex_, shape, order) if wanted else None
    return found


def _check_header(content: bytes) -> tuple[str, int]:
    if content.startswith(b'\x89HDF') or content[_HEADER * 4 :].startswith(b'\x89HDF'):
        raise ValueError('it has version 7.3 of the format (HDF5); save it with -v7')
    marks = {b'IM': '<', b'MI': '>'}
    if len(content) < _HEADER or content[126:128] not in marks:
        raise ValueError('it has no header of format 5')
    order = marks[content[126:128]]
    return order, struct.unpack(f'{order}H', content[124:126])[0]


def _unpack(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(found) > limit:
        raise ValueError(f'it unpacks to more than {MAX_BYTES:,} bytes')
    if not unpacker.eof:
        raise ValueError('it ends inside compressed data')
    return found


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Iterate over data elements: type and content."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError('it ends inside the tag of a data element')
        kind, length = struct.unpack_from(f'{order}II', data, place)
        if kind >> 16:
            # Content of up to 4 bytes is stored in the tag.
            kind, length, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if length > 4:
                raise ValueError(f'a small data element has {length} bytes')
        else:
            start = place + 8
            end = start + length
            # Compressed elements are not padded.
            end += 0 if kind == _COMPRESSED else -length % 8
            if start + length > len(data):
                raise ValueError(f'a data element of {length:,} bytes extends beyond the end')
        yield kind, data[start : start + length]
        place = end


def _next(parts: Iterator[tuple[int, bytes]], what: str) -> tuple[int, bytes]:
    part = next(parts, None)
    if part is None:
        raise ValueError(f'an array ends before its {what}')
    return part


def _numbers(part: tuple[int, bytes], order: str) -> np.ndarray:
    kind, data = part
    if kind not in _NUMBERS:
        raise ValueError(f'a data element of type {kind} is found where numbers are expected')
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(data) % dtype.itemsize:
        raise ValueError(f'{len(data)} bytes are not a multiple of {dtype.itemsize} bytes')
    return np.frombuffer(data, dtype)


def _head(parts: Iterator[tuple[int, bytes]], order: str) -> tuple[int, bool, tuple, str]:
    """Return class, whether it is complex, shape and name of an array."""
    flags = _numbers(_next(parts, 'flags'), order)
    if not len(flags):
        raise ValueError('an array has no flags')
    group = int(flags[0]) & 0xFF
    if group == 17:
        # An object of MATLAB, such as a string: its name comes first, and dimensions do not.
        return group, False, (), _next(parts, 'name')[1].decode('latin1')
    shape = tuple(_numbers(_next(parts, 'dimensions'), order).tolist())
    name = _next(parts, 'name')[1].decode('latin1')
    if len(shape) < 2 or any(not isinstance(side, int) or side < 0 for side in shape):
        raise ValueError(f'an array has the dimensions {shape}')
    return group, bool(int(flags[0]) & _COMPLEX), shape, name


def _content(
    parts: Iterator[tuple[int, bytes]],
    group: int,
    complex_: bool,
    shape: tuple[int, ...],
    order: str,
    depth: int = 0,
) -> Any:
    count = 1
    for side in shape:
        count *= side
    if group == _CELL:
        return _cell(parts, shape, count, order, depth)
    if group == _CHAR:
        return _text(_next(parts, 'text') if count else (16, b''), shape, count, order)
    if group in _NUMERIC and not complex_:
        values = _numbers(_next(parts, 'numbers'), order) if count else np.empty(0)
        if len(values) != count:
            raise ValueError(f'an array of {count:,} numbers has {len(values):,}')
        return values.astype(_NUMERIC[group]).reshape(shape, order='F')
    raise ValueError('a variable is neither a cell, text nor real numbers')


def _cell(
    parts: Iterator[tuple[int, bytes]], shape: tuple[int, ...], count: int, order: str, depth: int
) -> np.ndarray:
    if depth == MAX_DEPTH:
        raise ValueError(f'cells are nested more than {MAX_DEPTH} deep')
    if count > MAX_ENTRIES:
        raise ValueError(f'a cell claims {count:,} entries; a list has at most {MAX_ENTRIES:,}')
    items: list[Any] = []
    for kind, data in parts:
        if kind != _MATRIX:
            raise ValueError(f'a data element of type {kind} is found where an array is expected')
        if len(items) == count:
            raise ValueError(f'a cell of {count:,} entries has more')
        inner = _elements(data, order)
        # An empty entry may have no content at all.
        items.append(_content(inner, *_head(inner, order)[:3], order, depth + 1) if data else '')
    if len(items) != count:
        raise ValueError(f'a cell of {count:,} entries has {len(items):,}')
    cells = np.empty(count, object)
    for index, item in enumerate(items):
        cells[index] = item
    return cells.reshape(shape, order='F')


def _text(
    part: tuple[int, bytes], shape: tuple[int, ...], count: int, order: str
) -> str | np.ndarray:
    kind, data = part
    if kind in _UTF:
        text = data.decode(_UTF[kind] + ('' if kind == 16 else {'<': '-le', '>': '-be'}[order]))
    else:
        codes = _numbers(part, order)
        if codes.dtype.kind == 'f' or (
            len(codes) and not 0 <= codes.min() <= codes.max() < 1 << 16
        ):
            raise ValueError('text holds a value that is no character')
        text = codes.astype('<u2').tobytes().decode('utf-16-le')
    # MATLAB counts the halves of characters beyond 16 bits.
    if count not in (len(text), len(text.encode('utf-16-le')) // 2):
        raise ValueError(f'text of {count:,} characters has {len(text):,}')
    if (len(shape) == 2 and shape[0] == 1) or not count:
        return text
    return np.array([text[row :: shape[0]] for row in range(shape[0])], object)
