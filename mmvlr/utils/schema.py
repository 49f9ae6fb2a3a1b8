"""Validate the content of files that are read back; all failures raise one kind of error.

A reader declares the content as a :class:`FileModel` and calls :func:`read_json`,
:func:`read_csv`, or :func:`validate` for values from elsewhere, such as the metadata of a
checkpoint.
"""

import contextlib
import csv
import functools
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .io import write_atomic

#: Limit of the depth of nested objects and lists.
MAX_DEPTH = 64
_LONGEST = 300

Model = TypeVar('Model', bound=BaseModel)


class FileFormatError(ValueError):
    """A file is damaged, of another kind, or of a version that this mmvlr does not read."""

    def __init__(self, source: str | Path, problem: str, remedy: str):
        problem = problem if len(problem) <= _LONGEST else f'{problem[:_LONGEST]}...'
        super().__init__(f'{source}: {problem}; {remedy}')


class FileModel(BaseModel):
    """Base of file contents: every field is checked; unknown fields and infinity are refused."""

    model_config = ConfigDict(strict=True, extra='forbid', allow_inf_nan=False, frozen=True)


def _check_text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError('must be text')
    return value


def _check_texts(values: list) -> list:
    if not all(type(value) is str for value in values):
        raise ValueError('every entry must be text')
    return values


#: Any text, including invalid Unicode.
Text = Annotated[Any, AfterValidator(_check_text)]
#: Any texts, including invalid Unicode, such as file names of old archives.
Texts = Annotated[list, AfterValidator(_check_texts)]
#: A count; float64 cannot represent all larger integers.
Count = Annotated[int, Field(ge=0, le=2**53)]


def read_json(path: str | Path, model: type[Model], remedy: str) -> Model:
    """Read a JSON file.

    Args:
        path: The file, UTF-8, with or without a byte order mark.
        model: Model of the content.
        remedy: Remedy for a file that cannot be read, for the error message.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is no JSON, or a field is invalid.
    """
    return parse_json(Path(path).read_bytes(), model, path, remedy)


def parse_json(data: bytes, model: type[Model], source: str | Path, remedy: str) -> Model:
    """Parse JSON; see :func:`read_json`. ``source`` is the file's name, for the message."""
    try:
        value = load_json(data)
    except ValueError as error:
        raise FileFormatError(source, str(error), remedy) from error
    return validate(value, model, source, remedy)


def load_json(data: bytes) -> Any:
    """Return the plain values of JSON, for readers that check them themselves.

    A byte order mark is accepted; numbers must fit into float64, and the nesting is limited.

    Raises:
        ValueError: It is no such JSON.
    """
    try:
        value = json.loads(
            data.decode('utf-8-sig'),
            parse_float=_parse_float,
            parse_int=_parse_int,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f'not a readable JSON file ({error})') from error
    _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f'nested more than {MAX_DEPTH} deep')
        inner = [v.values() if isinstance(v, dict) else v for v in level if _is_nested(v)]
        level = [v for values in inner for v in values if _is_nested(v)]


def validate(value: Any, model: type[Model], source: str | Path, remedy: str) -> Model:
    """Check plain values that come from a file; see :func:`read_json`."""
    try:
        _check_depth(value)
    except ValueError as error:
        raise FileFormatError(source, str(error), remedy) from error
    with _explained(source, remedy):
        return _adapter(model).validate_python(value)


_adapter = functools.cache(TypeAdapter)


@contextlib.contextmanager
def _explained(source: str | Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = '.'.join(map(str, first['loc'])) or 'content'
        raise FileFormatError(source, f'{field}: {first["msg"]}', remedy) from error
    except OverflowError as error:
        raise FileFormatError(source, f'a number is out of range ({error})', remedy) from error


def read_csv(path: str | Path, model: type[Model], remedy: str) -> Iterator[Model]:
    """Iterate over the rows of a table of comma-separated values.

    Args:
        path: The file, UTF-8, with a header.
        model: Model of a row; its fields are the columns, in their order.
        remedy: See :func:`read_json`.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It has other columns, or a field is invalid.
    """
    columns = list(model.model_fields)
    try:
        with open(path, encoding='utf-8', newline='') as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            if header != columns:
                problem = f'columns: {",".join(header)[:100]!r}, not {",".join(columns)!r}'
                raise FileFormatError(path, problem, remedy)
            for row in rows:
                source = f'{path}, line {rows.line_num}'
                if len(row) != len(columns):
                    problem = f'{len(row)} fields for {len(columns)} columns'
                    raise FileFormatError(source, problem, remedy)
                with _explained(source, remedy):
                    found = _adapter(model).validate_strings(dict(zip(columns, row, strict=True)))
                yield found
    except (UnicodeError, csv.Error) as error:
        raise FileFormatError(path, f'not a readable table ({error})', remedy) from error


def _is_nested(value: Any) -> bool:
    return isinstance(value, (dict, list))


def _parse_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f'{text[:40]} is out of range')
    return value


def _parse_int(text: str) -> int:
    _parse_float(text)
    return int(text)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f'{text} is not JSON')


class _Sealed(FileModel):
    format: str
    version: int
    sha256: str
    content: dict


def read_sealed(
    path: str | Path, kind: str, readers: Mapping[int, type[Model]], remedy: str
) -> Model:
    """Read a file of :func:`write_sealed`.

    Args:
        path: The file.
        kind: Name of its format.
        readers: Model of the content, by version.
        remedy: See :func:`read_json`.

    Raises:
        FileNotFoundError: There is no such file.
        FileFormatError: It is of another format or version, was changed, or a field is invalid.
    """
    found = read_json(path, _Sealed, remedy)
    check_format(path, kind, found.format, found.version, readers, remedy)
    digests = [_digest(found.content, sort_keys) for sort_keys in (True, False)]
    if found.sha256 not in digests:
        raise FileFormatError(path, 'content: damaged, or edited by hand', remedy)
    return validate(found.content, readers[found.version], path, remedy)


def check_format(
    source: str | Path, kind: str, found: str, version: int, readers: Any, remedy: str
) -> None:
    """Raise :class:`FileFormatError` unless format and version are supported."""
    if found != kind:
        raise FileFormatError(source, f'format: {found!r}, not {kind!r}', remedy)
    if version not in readers:
        known = ', '.join(map(str, readers))
        remedy = f'update mmvlr, or {remedy}'
        raise FileFormatError(source, f'version: {version}, this mmvlr reads {known}', remedy)


def write_sealed(
    path: str | Path, kind: str, version: int, content: Mapping[str, Any], **options: Any
) -> Path:
    """Write a JSON file with its format, version and the digest of its content, atomically.

    Args:
        path: The file.
        kind: Name of the format.
        version: Its version.
        content: Plain values, no infinity.
        **options: See :func:`mmvlr.utils.io.write_atomic`.
    """
    whole = dict(format=kind, version=version, sha256=_digest(content, True), content=content)
    text = json.dumps(whole, allow_nan=False, indent=1, ensure_ascii=False) + '\n'
    # Invalid Unicode, such as names of old files, is written as JSON escapes.
    data = text.encode(errors='backslashreplace')
    return write_atomic(path, lambda file: file.write_bytes(data), **options)


def _digest(content: Mapping[str, Any], sort_keys: bool) -> str:
    text = json.dumps(content, sort_keys=sort_keys, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
