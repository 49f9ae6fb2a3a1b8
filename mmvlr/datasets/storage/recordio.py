"""Read insightface's ``train.rec`` and ``train.idx`` without MXNet.

A .rec file is MXNet's RecordIO, as dmlc-core's ``src/recordio.cc`` writes it. A record is one or
more parts, each of: the magic 0xced7230a, a word with a flag in its upper 3 bits and the length in
its lower 29, the content, and zeros up to a multiple of 4 bytes. Where a record's content holds the
magic at a multiple of 4, the writer cuts it there and leaves the magic out; the flag tells whether
a part is a whole record (0), the first part (1), a middle part (2) or the last part (3).

Content begins with an ``IRHeader``: flag, label (float32), two numbers. A flag above 0 is the
number of float32 labels that follow and replace the single label. The encoded image comes last.

An .idx file has one line per record: number, tab, offset in the .rec file.

In insightface's files record 0 is a header of two labels, a and b: records 1 to a - 1 hold the
images, and records a to b - 1 describe the people, without an image.
"""

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmvlr.utils.schema import FileFormatError
from mmvlr.utils.text import is_number

from .decoding import ImageError, decode_image

SUFFIX = '.rec'
#: Name of the file in insightface's folders.
RECORDS = 'train.rec'
MAGIC = 0xCED7230A
_PART = struct.Struct('<II')
_HEADER = struct.Struct('<IfQQ')
_LENGTH = (1 << 29) - 1
_MAGIC_BYTES = struct.pack('<I', MAGIC)
#: Records whose labels are read at once.
_CHUNK = 1 << 16
_REMEDY = 'get both files again'


class Record(NamedTuple):
    """One record.

    Args:
        labels: float32 (L,).
        id: First number of the header; mostly 0.
        id2: Second number of the header.
        content: Remaining bytes, in most records an encoded image.
    """

    labels: np.ndarray
    id: int
    id2: int
    content: bytes


class RecordIOReader:
    """Read records of a .rec file in any order: ``reader[number]`` is a :class:`Record`.

    A pickled reader opens the files again.

    Args:
        rec: The .rec file, or the folder with ``train.rec``.
        idx: Its index; by default the file of the same name that ends in ``.idx``.

    Raises:
        FileNotFoundError: One of the files is missing.
        FileFormatError: The index is damaged, empty, or points outside the .rec file.
    """

    def __init__(self, rec: str | Path, idx: str | Path | None = None):
        self.path = Path(rec) / RECORDS if Path(rec).is_dir() else Path(rec)
        self.idx = self.path.with_suffix('.idx') if idx is None else Path(idx)
        if not self.idx.is_file():
            raise FileNotFoundError(
                f'{self.idx} is missing; {self.path} cannot be read without its index'
            )
        self._size = self.path.stat().st_size
        if not self._size:
            raise FileFormatError(self.path, 'empty', _REMEDY)
        with self.path.open('rb') as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        keys, offsets = self._read_index()
        order = np.argsort(keys, kind='stable')
        #: Numbers of the records, ascending.
        self.keys = keys[order]
        self._offsets = offsets[order]
        twice = np.flatnonzero(np.diff(self.keys) == 0)
        if len(twice):
            told = f'record {self.keys[twice[0]]} is listed twice'
            raise FileFormatError(self.idx, told, _REMEDY)
        if self.keys[0] < 0:
            raise FileFormatError(self.idx, f'record {self.keys[0]}: below 0', _REMEDY)
        outside = (self._offsets < 0) | (self._offsets > self._size - _PART.size)
        if outside.any():
            worst = np.flatnonzero(outside)[0]
            told = (
                f'record {self.keys[worst]} at {self._offsets[worst]:,} lies outside {self.path} '
                f'with its {self._size:,} bytes: truncated, or of another file'
            )
            raise FileFormatError(self.idx, told, _REMEDY)

    def _read_index(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.idx.stat().st_size:
            raise FileFormatError(self.idx, 'empty', _REMEDY)
        expected = 'expected the number and offset of a record in a line'
        try:
            table = np.loadtxt(self.idx, dtype=np.int64, ndmin=2, comments=None)
        except ValueError as error:
            raise FileFormatError(self.idx, f'{expected} ({error})', _REMEDY) from error
        if table.shape[1] != 2 or not len(table):
            told = f'{expected}, found {table.shape[1]} numbers'
            raise FileFormatError(self.idx, told, _REMEDY)
        return table[:, 0], table[:, 1]

    def __reduce__(self) -> tuple:
        return type(self), (str(self.path), str(self.idx))

    def __len__(self) -> int:
        return len(self.keys)

    def _place(self, key: int) -> int | None:
        place = int(np.searchsorted(self.keys, key))
        return place if place < len(self.keys) and self.keys[place] == key else None

    def raw(self, key: int) -> bytes:
        """Return the content of a record, its parts joined.

        Raises:
            KeyError: There is no such record.
            ImageError: It is damaged or truncated.
        """
        place = self._place(key)
        if place is None:
            raise KeyError(f'{self.path} has no record {key}')
        position = int(self._offsets[place])
        parts: list[bytes] = []
        while True:
            if position + _PART.size > self._size:
                raise self._damaged(key, 'the file ends inside it')
            magic, word = _PART.unpack_from(self._map, position)
            flag, length = word >> 29, word & _LENGTH
            if magic != MAGIC:
                raise self._damaged(key, f'magic {magic:#x} at {position:,} instead of {MAGIC:#x}')
            if flag not in ((2, 3) if parts else (0, 1)):
                raise self._damaged(key, f'part {len(parts)} has the flag {flag}')
            start = position + _PART.size
            if start + length > self._size:
                raise self._damaged(key, 'the file ends inside it')
            parts.append(self._map[start : start + length])
            if flag in (0, 3):
                return _MAGIC_BYTES.join(parts)
            position = start + length + -length % 4

    def __getitem__(self, key: int) -> Record:
        data = self.raw(key)
        if len(data) < _HEADER.size:
            raise self._damaged(key, f'{len(data)} bytes are no header')
        flag, label, first, second = _HEADER.unpack_from(data)
        start = _HEADER.size + 4 * flag
        if len(data) < start:
            raise self._damaged(key, f'{len(data)} bytes do not hold {flag} labels')
        labels = np.frombuffer(data, '<f4', flag, _HEADER.size) if flag else [label]
        return Record(np.array(labels, np.float32), first, second, data[start:])

    def _damaged(self, key: int, how: str) -> ImageError:
        return ImageError(f'{self.path}: record {key} is damaged ({how}); get the file again')

    def image(self, name: str) -> np.ndarray:
        """Return the image of the record with number ``name``, RGB uint8 (h, w, 3).

        Raises:
            KeyError: There is no such record.
            ImageError: The record or its image is damaged.
        """
        if not is_number(name):
            raise KeyError(f'{self.path} has no record {name}')
        return decode_image(self[int(name)].content, f'{self.path}: record {name}')

    def content(self, name: str) -> bytes:
        """Return the encoded image of a record."""
        return self[int(name)].content

    def size_key(self, name: str) -> int:
        """Return a key that is equal for equal images."""
        return len(self.content(name))

    def image_keys(self) -> np.ndarray:
        """Return the numbers of the records that hold images, ascending.

        Raises:
            FileFormatError: Record 0 is a header, and the index lacks records that it declares.
        """
        if self.keys[0] != 0 or not self._is_header(0):
            return self.keys
        labels = self[0].labels
        if len(labels) < 2 or not 1 < labels[0] <= labels[1] < np.inf:
            raise FileFormatError(
                self.path,
                f'record 0 is a header with {labels.tolist()[:3]}; expected the first record '
                'behind the images and the first behind the people',
                _REMEDY,
            )
        count = int(labels[0]) - 1
        found = self.keys[1 : count + 1]
        if len(found) < count or found[-1] != count:
            # Keys are ascending and unique, so the first mismatch is the first missing record.
            wrong = np.flatnonzero(found != np.arange(1, len(found) + 1))
            first = wrong[0] + 1 if len(wrong) else len(found) + 1
            told = (
                f'not all of the {count:,} images that record 0 of {self.path} declares: record '
                f'{first} is missing'
            )
            raise FileFormatError(self.idx, told, _REMEDY)
        return found

    def _is_header(self, key: int) -> bool:
        """Return whether a record has an array of labels and no image."""
        data = self.raw(key)
        if len(data) < _HEADER.size:
            return False
        count = _HEADER.unpack_from(data)[0]
        return count > 0 and len(data) == _HEADER.size + 4 * count

    def first_labels(self, keys: np.ndarray) -> np.ndarray:
        """Return the first label of records, float32 (N,), without reading their images.

        Args:
            keys: Numbers of the records, (N,).

        Raises:
            KeyError: There is no such record.
            ImageError: A record is damaged.
        """
        content = np.frombuffer(self._map, np.uint8)
        labels = np.empty(len(keys), np.float32)
        # A part's head, the header, the first label of an array: 9 words.
        head = np.arange(_PART.size + _HEADER.size + 4)
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            places = np.minimum(np.searchsorted(self.keys, chunk), len(self.keys) - 1)
            offsets = self._offsets[places]
            words = content[np.minimum(offsets[:, None] + head, self._size - 1)].view('<u4')
            length = (words[:, 1] & _LENGTH).astype(np.int64)
            flag = words[:, 2].astype(np.int64)
            plain = (
                (self.keys[places] == chunk)
                & (words[:, 0] == MAGIC)
                & (words[:, 1] >> 29 == 0)
                & (length >= _HEADER.size + 4 * flag)
                & (offsets + _PART.size + length <= self._size)
            )
            found = labels[start : start + _CHUNK]
            found[:] = np.where(flag > 0, words[:, 8], words[:, 3]).view('<f4')
            # Records in several parts, and damaged ones, which raise an error.
            for row in np.flatnonzero(~plain):
                found[row] = self[int(chunk[row])].labels[0]
        return labels
