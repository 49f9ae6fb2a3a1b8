"""What a file may ask for, in memory and time: held against the size of the file itself.

A few bytes can stand for any amount: compressed zeros, a list that holds itself a thousand times,
a size that is a number. Each check raises :class:`BudgetError` before the amount is paid.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

#: Lists and dicts in each other.
MAX_DEPTH = 64
#: Plain values that a small file may hold too, by reference to the same ones.
_LEAST = 2**20
#: Operations of a small pickle, and objects that it may make.
_OPERATIONS, _OBJECTS = 2**19, 2**17
_MAKING = frozenset({'EMPTY_LIST', 'EMPTY_DICT', 'EMPTY_SET', 'REDUCE', 'NEWOBJ', 'OBJ', 'INST'})


class BudgetError(ValueError):
    """A file asks for more than its size deserves; the message does not name it."""


def check_zip(path: str | Path, allowed: int = 0, entries: int = 100_000) -> list[str]:
    """Check what the entries of a zip archive say of their sizes.

    Args:
        path: The archive.
        allowed: Bytes that they may hold beyond the archive's own size, for compressed ones.
        entries: Most entries.

    Returns:
        list[str]: Names of the entries.

    Raises:
        BudgetError: They would unpack to more.
        ValueError: It is damaged.
    """
    size = Path(path).stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except Exception as error:  # zipfile raises half a dozen types
        raise ValueError(f'its table of contents is damaged or cut off ({error})') from error
    claimed = sum(info.file_size for info in infos)
    if claimed > size + allowed:
        raise BudgetError(
            f'its {size:,} bytes would unpack to {claimed:,}; {size + allowed:,} are allowed'
        )
    if len(infos) > entries:
        raise BudgetError(f'it holds {len(infos):,} entries; {entries:,} are allowed')
    return [info.filename for info in infos]


def check_pickle(file: BinaryIO, size: int) -> None:
    """Check the next pickle of a file without making anything of it; the file stands behind it.

    Python hashes a tuple that is a key by walking through it, and one of 60 pairs that hold each
    other twice would take a thousand years: tuples are counted with all that is in them.

    Args:
        file: Open at the pickle.
        size: Of the whole file.

    Raises:
        BudgetError: It would take too long, or too much memory.
        ValueError: It is damaged.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    operations, objects = max(_OPERATIONS, size // 32), max(_OBJECTS, size // 128)
    try:
        for operation, argument, _ in pickletools.genops(file):
            name, taken = operation.name, operation.stack_before
            operations -= 1
            objects -= name in _MAKING
            if name == 'GLOBAL' and argument.endswith(' bytearray'):
                raise BudgetError('it makes a bytearray, of any size')
            if name == 'MARK':
                marks.append(len(stack))
            elif 'GET' in name:
                stack.append(memo[argument])
            elif 'PUT' in name or name == 'MEMOIZE':
                memo[len(memo) if argument is None else argument] = stack[-1]
            else:
                start = len(stack) - len(taken)
                if pickletools.markobject in taken:
                    start = marks.pop() - taken.index(pickletools.markobject)
                if start < 0:
                    raise IndexError('the stack is empty')
                held = stack[start:]
                del stack[start:]
                cost = sum(held) + 1 if 'TUPLE' in name else max(held) if name == 'DUP' else 1
                stack += [cost] * len(operation.stack_after)
                if cost > _LEAST:
                    raise BudgetError('a tuple in it holds the same values again and again')
            if operations < 0 or objects < 0:
                raise BudgetError(f'there are too many values in it for its {size:,} bytes')
    except BudgetError:
        raise
    except Exception as error:  # pickletools raises half a dozen types
        raise ValueError(f'it is damaged or cut off ({error})') from error


def check_plain(value: Any, size: int) -> None:
    """Check values that came out of a file of ``size`` bytes.

    All that they hold is counted as often as it stands there, as everybody would meet it who walks
    through them.

    Raises:
        BudgetError: They nest too deep, or are more than the file has bytes; or a tensor is larger
            than the file.
    """
    left = max(_LEAST, size)
    level = [value]
    for _ in range(MAX_DEPTH):
        inner: list = []
        for item in level:
            if isinstance(item, dict):
                left -= 2 * len(item)
            elif isinstance(item, (list, tuple, set, frozenset)):
                left -= len(item)
            elif isinstance(item, (str, bytes)):
                left -= len(item)
                continue
            elif isinstance(item, int):
                left -= item.bit_length() // 8
                continue
            elif isinstance(item, torch.Tensor):
                if item.layout != torch.strided or item.is_meta or item.is_quantized:
                    raise BudgetError('a tensor in it is sparse, quantized or without values')
                if item.numel() * item.element_size() > size:
                    raise BudgetError(
                        f'a tensor {tuple(item.shape)} is larger than the file of {size:,} bytes'
                    )
                continue
            else:
                continue
            if left < 0:
                break
            inner += item
            if isinstance(item, dict):
                inner += item.values()
        if left < 0:
            raise BudgetError('its metadata are larger than the file: they repeat themselves')
        if not inner:
            return
        level = inner
    raise BudgetError(f'its metadata are nested more than {MAX_DEPTH} deep')
