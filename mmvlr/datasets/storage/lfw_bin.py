"""Read insightface's verification sets: ``lfw.bin``, ``agedb_30.bin``, ``cfp_fp.bin`` and others.

Such a file is a pickle of two lists: encoded images, and whether images 2i and 2i + 1 show the
same person. A pickle can run any code when it is read. This reader accepts lists, bytes, numbers
and NumPy arrays of these only; the error names anything else that the pickle requests.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.utils.schema import FileFormatError
from mmvlr.utils.text import is_number

from .decoding import ImageError, decode_image

SUFFIX = '.bin'
_REMEDY = 'get the file again'


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Encode text as bytes, as pickles of protocol 2 and below do; Latin-1 only."""
    if encoding not in ('latin1', b'latin1'):
        raise _RefusedError(
            f'it requests the encoding {encoding!r}, which no pickle of bytes needs'
        )
    return text.encode('latin1')


# The module of these functions depends on the version of NumPy that wrote the file.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_FROM_BUFFER = np.empty(0).__reduce_ex__(5)[0]
_SCALAR = np.bool_(True).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ('numpy', 'dtype'): np.dtype,
    ('numpy', 'ndarray'): np.ndarray,
    ('_codecs', 'encode'): _encode_latin1,
    **{(home, 'bytes'): bytes for home in ('builtins', '__builtin__')},
    **{(home, 'bytearray'): bytearray for home in ('builtins', '__builtin__')},
    **{(f'numpy.{c}.multiarray', '_reconstruct'): _RECONSTRUCT for c in ('core', '_core')},
    **{(f'numpy.{c}.multiarray', 'scalar'): _SCALAR for c in ('core', '_core')},
    **{(f'numpy.{c}.numeric', '_frombuffer'): _FROM_BUFFER for c in ('core', '_core')},
}


class _RefusedError(pickle.UnpicklingError):
    """The pickle requests an object that is not allowed."""


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(f'it requests {module}.{name}, which no verification file needs')
        return _ALLOWED[module, name]


class BinReader:
    """Read the images and pairs of a verification file. A pickled reader reads the file again.

    Args:
        path: The file.

    Attributes:
        encoded: The 2P encoded images.
        same: (P,) bool, whether images 2i and 2i + 1 show the same person.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is damaged, would run code, or holds something else.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self.path.open('rb') as file:
            try:
                # Files written by Python 2 store images as text.
                content = _RestrictedUnpickler(file, encoding='bytes').load()
            except _RefusedError as error:
                raise FileFormatError(self.path, f'refused: {error}', 'do not trust it') from error
            except Exception as error:  # a damaged pickle raises a dozen types
                kind = 'truncated' if isinstance(error, EOFError) else 'cannot be read'
                raise FileFormatError(self.path, f'{kind}: {error}', _REMEDY) from error
        if not isinstance(content, tuple | list) or len(content) != 2:
            told = f'holds {type(content).__name__}; expected (images, same)'
            raise FileFormatError(self.path, told, _REMEDY)
        images, same = (list(part) if np.iterable(part) else [part] for part in content)
        same = [
            flag.item() if np.size(flag) == 1 and hasattr(flag, 'item') else flag for flag in same
        ]
        for number, flag in enumerate(same):
            if not isinstance(flag, bool | np.bool_ | int | np.integer) or flag not in (0, 1):
                told = f'same[{number}] is {flag!r:.99}, not true or false'
                raise FileFormatError(self.path, told, _REMEDY)
        if not same or len(images) != 2 * len(same):
            told = f'{len(images):,} images for {len(same):,} pairs; expected two per pair'
            raise FileFormatError(self.path, told, _REMEDY)
        self.encoded = [self._bytes(number, item) for number, item in enumerate(images)]
        self.same = np.array(same, bool)

    def _bytes(self, number: int, item: Any) -> bytes:
        # insightface's own files hold columns (N, 1); cv2.imdecode takes rows (1, N) too.
        is_bytes = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim
        if is_bytes and item.size == max(item.shape):
            return item.tobytes()
        if isinstance(item, bytes | bytearray):
            return bytes(item)
        kind = (
            f'an array {item.dtype} {item.shape}'
            if isinstance(item, np.ndarray)
            else type(item).__name__
        )
        raise ImageError(
            f'{self.path}: image {number} is {kind}; expected the bytes of an encoded image'
        )

    def __reduce__(self) -> tuple:
        return type(self), (str(self.path),)

    def __len__(self) -> int:
        return len(self.encoded)

    def content(self, name: str) -> bytes:
        """Return an encoded image."""
        return self.encoded[int(name)]

    def size_key(self, name: str) -> int:
        """Return a key that is equal for equal images."""
        return len(self.content(name))

    def image(self, name: str) -> np.ndarray:
        """Return image number ``name``, RGB uint8 (h, w, 3).

        Raises:
            KeyError: There is no such image.
            ImageError: It is damaged.
        """
        if not (is_number(name) and int(name) < len(self)):
            raise KeyError(f'{self.path} has no image {name}')
        return decode_image(self.encoded[int(name)], f'{self.path}: image {name}')
