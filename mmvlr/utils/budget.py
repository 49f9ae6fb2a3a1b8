"""Limit the memory and time that reading a file may take, relative to its size.

A few bytes can stand for any amount of data: compressed zeros, a list that holds the same value a
thousand times, a large number as a size. Each check raises :class:`BudgetError` before the memory
or time is spent.
"""

import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

#: Limit of the depth of nested lists and dicts.
MAX_DEPTH = 64
#: Number of plain values that even a small file may hold, by references to the same values.
_LEAST = 2**20
#: Operations of a small pickle, and objects that it may make.
_OPERATIONS, _OBJECTS = 2**19, 2**17
_MAKING = frozenset({'EMPTY_LIST', 'EMPTY_DICT', 'EMPTY_SET', 'REDUCE', 'NEWOBJ', 'OBJ', 'INST'})


class BudgetError(ValueError):
    """A file would take more than its size justifies; the message does not name the file."""


def check_zip(path: str | Path, allowed: int = 0, entries: int = 100_000) -> list[str]:
    """Check the sizes that the entries of a zip archive declare.

    Args:
        path: The archive.
        allowed: Bytes that compressed entries may hold beyond the archive's own size.
        entries: Largest number of entries.

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
    """Check the next pickle of a file without loading it; the file is left positioned after it.

    Python hashes a tuple recursively, and a nesting of 60 pairs, each of which holds the next
    twice, would take a thousand years: tuples are counted with all values in them.

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
    """Check values that were read from a file of ``size`` bytes.

    Shared values are counted as often as they are referenced, as code that traverses them visits
    them as often.

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
