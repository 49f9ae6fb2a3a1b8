"""The table of faces, embeddings with a record of each face, on which metrics are computed."""

import json
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import AliasChoices, ConfigDict, Field

from mmvlr.utils.budget import BudgetError, check_zip
from mmvlr.utils.filetype import describe_content
from mmvlr.utils.io import write_atomic, write_csv
from mmvlr.utils.schema import FileFormatError, FileModel, parse_json, validate
from mmvlr.utils.vectors import unit_rows

#: Environment variable with the number of bytes that a compressed table may hold.
LIMIT_VARIABLE = 'MMVLR_TABLE_BYTES'
_LIMIT, _MOST_FIELDS = 2**28, 1000
_REPLACED = ('identity', 'table_version')
_REMEDY = 'make the table again'
#: Version of a table's file. Since 2, ``ri`` is xi itself, no longer what a model regresses.
VERSION = 2
#: Identity of faces whose person is not in the gallery.
NO_IDENTITY = -100
#: Quality measures, higher is better: name of the column -> name for a reader. A measure of one's
#: own is added where its class is defined; columns under other names are no qualities.
MEASURES = dict(
    ri='RI',
    ers='ERS',
    norm='norm',
    crfiqa='CR-FIQA',
    serfiq='SER-FIQ',
    prefiqs='PreFIQs',
    ccs='CCS',
    ccas='CCAS',
    grafiqs='GraFIQs',
    froq='FROQ',
    size='size',
    sharpness='sharpness',
)
#: Measures that a model predicts: name of the column -> attribute of a data sample.
PREDICTED = dict(ri='recognizability', ers='ers', norm='embedding_norm', crfiqa='crfiqa')


class _Meta(FileModel):
    """Known fields of a table's ``meta``, which may hold any other plain values."""

    model_config = ConfigDict(extra='ignore')
    # Tables of mmvlr 0.1 say ``identity``.
    fingerprint: Annotated[
        dict[str, Any], Field(validation_alias=AliasChoices('fingerprint', 'identity'))
    ] = {}
    failures: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []
    unaligned: list[str] = []
    table_version: Annotated[int, Field(ge=1, le=VERSION)] = 1


def number_people(ids: np.ndarray) -> np.ndarray:
    """Number the people of faces by identity; each face of identity -100 gets a unique number."""
    numbers = ids.astype(np.int64)
    alone = numbers == NO_IDENTITY
    numbers[alone] = numbers.max(initial=0) + 1 + np.arange(alone.sum())
    return numbers


@dataclass(frozen=True, eq=False)
class FaceTable:
    """Embeddings and records of N faces, one row each.

    Attributes:
        embedding: (N, D) float, raw; metrics normalize.
        role: (N,) text: ``gallery``, ``distractor``, ``probe``, ``unmated``, ``pair``, ``ui``.
        identity: (N,) int64; -100 if unknown.
        columns: Further values by name, (N,) each: the quality measures of :data:`MEASURES`, and
            fields of the data set, such as ``distance``, ``camera`` and ``name``.
        pairs: (P, 2) rows that are compared in verification, or None.
        same: (P,) bool, whether a pair shows one person, or None.
        meta: Plain values: the origin of the embeddings. See :attr:`fingerprint`,
            :attr:`failures` and :attr:`unaligned`.

    Raises:
        ValueError: Lengths differ, values are objects, or pairs name missing rows.

    Example:
        >>> import numpy as np
        >>> faces = FaceTable(np.eye(2), ['gallery', 'probe'], [1, 1], dict(norm=[3.0, 4.0]))
        >>> faces.only('probe').columns['norm']
        array([4.])
    """

    embedding: np.ndarray
    role: np.ndarray
    identity: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    pairs: np.ndarray | None = None
    same: np.ndarray | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        arrays = dict(embedding=self.embedding, role=self.role, identity=self.identity)
        arrays = {name: np.asarray(value) for name, value in arrays.items()}
        arrays['columns'] = {name: np.asarray(value) for name, value in self.columns.items()}
        for name, value in arrays.items():
            object.__setattr__(self, name, value)
        if self.embedding.ndim != 2 or self.embedding.dtype.kind != 'f':
            raise ValueError(
                'embedding must be a real matrix (N, D), '
                f'got {self.embedding.dtype} {self.embedding.shape}'
            )
        if self.identity.dtype.kind not in 'iu':
            raise ValueError(f'identity must be integers, got {self.identity.dtype}')
        if self.identity.size and self.identity.max() > np.iinfo(np.int64).max:
            raise ValueError('identity must be below 2**63')
        if self.role.dtype.kind != 'U':
            raise ValueError(f'role must be text, got {self.role.dtype}')
        arrays.pop('columns')
        for name, value in {**arrays, **self.columns}.items():
            if value.ndim != 1 and name != 'embedding':
                raise ValueError(f'{name} must be (N,), got {value.shape}')
            if len(value) != len(self.embedding):
                raise ValueError(
                    f'{name} must have {len(self.embedding)} entries like embedding, '
                    f'got {len(value)}'
                )
            # NumPy would pickle objects into the file, and reading pickles is not allowed.
            if value.dtype.kind not in ('biuf' if name in MEASURES else 'biufUS'):
                kind = 'numbers' if name in MEASURES else 'plain values'
                raise ValueError(f'{name} must hold {kind}, got {value.dtype}')
        if (self.pairs is None) != (self.same is None):
            raise ValueError('pairs and same go together: one of them is missing')
        if self.pairs is not None:
            pairs, same = np.asarray(self.pairs), np.asarray(self.same)
            if pairs.ndim != 2 or pairs.shape[1] != 2 or same.shape != (len(pairs),):
                raise ValueError(
                    f'pairs must be (P, 2) and same (P,), got {pairs.shape} and {same.shape}'
                )
            if pairs.size and pairs.dtype.kind not in 'iu':
                raise ValueError(f'pairs must be integers, got {pairs.dtype}')
            if same.size and (same.dtype.kind not in 'biu' or not np.isin(same, (0, 1)).all()):
                raise ValueError(f'same must be bool, or 0 and 1, got {same.dtype}')
            same = same.astype(bool)
            if len(pairs) and not 0 <= pairs.min() <= pairs.max() < len(self.embedding):
                raise ValueError(
                    f'pairs name rows {pairs.min()} to {pairs.max()} '
                    f'of {len(self.embedding)} embeddings'
                )
            object.__setattr__(self, 'pairs', pairs)
            object.__setattr__(self, 'same', same)

    def __len__(self) -> int:
        return len(self.embedding)

    @cached_property
    def unit(self) -> torch.Tensor:
        """The embeddings as unit vectors, float32 (N, D).

        Raises:
            ValueError: An embedding holds NaN or infinity, or has no direction.
        """
        names = self.columns.get('name')
        label = 'row {}'.format if names is None else names.__getitem__
        wide = self.embedding.dtype.itemsize > 4
        rows = np.ascontiguousarray(self.embedding, np.float64 if wide else np.float32)
        return unit_rows(torch.from_numpy(rows), lambda row: f'the embedding of {label(row)}')

    @property
    def qualities(self) -> dict[str, np.ndarray]:
        """The available quality measures, (N,) each."""
        return {name: self.columns[name] for name in MEASURES if name in self.columns}

    @property
    def names(self) -> list[str]:
        """Name of each image: its path, below the data set's folder if it has one."""
        return [str(name) for name in self.columns.get('name', ())]

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Fingerprint of the model and preprocessing of the embeddings; empty if unknown.

        See :func:`mmvlr.apis.network.fingerprint_model`.
        """
        return self.meta.get('fingerprint', {})

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(name, reason) of the images that could not be used; they are not among the N."""
        return [(name, reason) for name, reason in self.meta.get('failures', ())]

    @property
    def unaligned(self) -> list[str]:
        """Names of those of the failures in which no face could be aligned."""
        return list(self.meta.get('unaligned', ()))

    @cached_property
    def groups(self) -> np.ndarray:
        """Number of the person of every face for the bootstrap; see :func:`number_people`."""
        return number_people(self.identity)

    def has(self, *roles: str) -> bool:
        """Return whether there is a face of each of the roles."""
        return all((self.role == role).any() for role in roles)

    def only(self, *roles: str) -> 'FaceTable':
        """Return the faces of some roles, in order, with the pairs among them."""
        return self.take(np.flatnonzero(np.isin(self.role, roles)))

    def take(self, rows: np.ndarray) -> 'FaceTable':
        """Return some rows, with the pairs among them, renumbered."""
        pairs, same = self.pairs, self.same
        if pairs is not None:
            place = np.full(len(self), -1)
            place[rows] = np.arange(len(rows))
            kept = (place[pairs] >= 0).all(axis=1)
            pairs, same = place[pairs[kept]], same[kept]
        return replace(
            self,
            embedding=self.embedding[rows],
            role=self.role[rows],
            identity=self.identity[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            pairs=pairs,
            same=same,
        )

    @classmethod
    def join(cls, parts: Sequence['FaceTable']) -> 'FaceTable':
        """Concatenate tables.

        Quality measures that not all of them have are left out; other columns are filled with 0 or
        empty text. Pairs and ``meta`` are those of the first table, except the failures, which are
        those of all tables.
        """
        full = [part for part in parts if len(part)] or list(parts[:1])
        first = full[0]
        meta = dict(first.meta)
        for name in ('failures', 'unaligned'):
            if found := [item for part in parts for item in getattr(part, name)]:
                meta[name] = found
        columns = {}
        for name, values in first.columns.items():
            if name not in MEASURES or all(name in part.columns for part in full):
                none = values.dtype.type()
                columns[name] = np.concatenate(
                    [p.columns.get(name, np.full(len(p), none)) for p in full]
                )
        return cls(
            embedding=np.concatenate([part.embedding for part in full]),
            role=np.concatenate([part.role for part in full]),
            identity=np.concatenate([part.identity for part in full]),
            columns=columns,
            pairs=first.pairs,
            same=first.same,
            meta=meta,
        )

    def rows(self, embedding: bool = False) -> list[dict[str, Any]]:
        """Return name, qualities and, with ``embedding``, the embedding of each face."""
        names = self.names or [f'row {index}' for index in range(len(self))]
        rows = [dict(name=name) for name in names]
        for index, row in enumerate(rows):
            row |= {key: float(values[index]) for key, values in self.qualities.items()}
            if embedding:
                row['embedding'] = [float(value) for value in self.embedding[index]]
        return rows

    def to_csv(self, path: str | Path, embedding: bool = False) -> Path:
        """Write names, qualities and, with ``embedding``, the dimensions as a private CSV file."""
        columns, rows = ['name', *self.qualities], self.rows()
        if embedding:
            dims = [f'e{index}' for index in range(self.embedding.shape[1])]
            columns += dims
            for row, values in zip(rows, self.embedding.tolist(), strict=True):
                row.update(zip(dims, values, strict=True))
        path = Path(path).expanduser()
        write_csv(path, columns, rows, private=True)
        return path

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` file, atomically; read it with :meth:`load` or ``numpy.load``.

        Embeddings are biometric data: only the user may read the file.
        """
        arrays = dict(self.columns, embedding=self.embedding, role=self.role)
        meta = json.dumps({**self.meta, 'table_version': VERSION})
        arrays.update(identity=self.identity, meta=np.array(meta))
        if self.pairs is not None:
            arrays.update(pairs=self.pairs, same=self.same)

        def write(temporary: Path) -> None:
            with open(temporary, 'wb') as file:
                np.savez(file, **arrays)

        return write_atomic(Path(path).expanduser(), write, private=True)

    @classmethod
    def load(cls, path: str | Path) -> 'FaceTable':
        """Read an ``.npz`` file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no table, a field is missing, or fields contradict each other.
        """
        path = Path(path).expanduser()
        fields = read_fields(path)
        if missing := ', '.join(n for n in ('embedding', 'role', 'identity') if n not in fields):
            raise ValueError(f'{path} lacks {missing}; it has {", ".join(sorted(fields))}')
        return cls.from_fields(fields, path)

    @classmethod
    def from_fields(cls, fields: Mapping[str, np.ndarray], source: str | Path) -> 'FaceTable':
        """Make a table of the fields of an ``.npz`` file; errors name ``source``."""
        known = {name: fields.get(name) for name in ('embedding', 'role', 'identity')}
        own = {*known, 'pairs', 'same', 'meta'}
        meta = read_meta(fields, source)
        try:
            return cls(
                **known,
                columns={name: value for name, value in fields.items() if name not in own},
                pairs=fields.get('pairs'),
                same=fields.get('same'),
                meta=meta,
            )
        except ValueError as error:
            raise ValueError(f'{source}: {error}') from error


def read_meta(fields: Mapping[str, np.ndarray], source: str | Path) -> dict[str, Any]:
    """Return the ``meta`` of the fields of an ``.npz`` file.

    Raises:
        FileFormatError: It is no JSON object, a field is invalid, or the scale of RI is unknown.
    """
    text = str(fields.get('meta', '{}')).encode(errors='replace')
    meta = parse_json(text, dict, f'{source}: meta', _REMEDY)
    known = validate(meta, _Meta, f'{source}: meta', _REMEDY).model_dump(exclude_defaults=True)
    version = known.pop('table_version', 1)
    if 'ri' in fields and version < 2:
        raise FileFormatError(
            f'{source}: ri',
            'the table does not say that it is xi itself, and mmvlr 0.2 wrote its logarithm',
            f'{_REMEDY}; in one of another program, give meta the text {{"table_version": 2}}',
        )
    return {name: value for name, value in meta.items() if name not in _REPLACED} | known


def read_fields(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of an ``.npz`` file, without unpickling.

    A compressed file may hold ten times its own size plus 256 MB; the environment variable
    ``MMVLR_TABLE_BYTES`` sets another limit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not readable, holds objects, or would take too much memory.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist')
    try:
        allowed = int(os.environ.get(LIMIT_VARIABLE) or _LIMIT)
        check_zip(path, 9 * path.stat().st_size + allowed, _MOST_FIELDS)
        _check_headers(path)
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except BudgetError as error:
        raise ValueError(
            f'{path} is not read: {error}; if it is right, set {LIMIT_VARIABLE} to more bytes'
        ) from error
    except Exception as error:  # numpy and zipfile raise half a dozen types for damaged files
        with open(path, 'rb') as file:
            kind = describe_content(file.read(512))
        # The library quotes what it finds instead of a name, up to 64 KiB of it.
        told = str(error)[:300] if kind is None or 'zip' in kind else f'it is {kind}'
        raise ValueError(f'{path} is not a readable .npz file ({told})') from error


def _check_headers(path: Path) -> None:
    """Raise ValueError if the size in the header of an array differs from its actual size."""
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                if version not in read:  # of names outside of latin1, which no table has
                    raise ValueError(f"{info.filename} is of version {version} of NumPy's format")
                shape, _, dtype = read[version](member)
                size = member.tell() + math.prod(shape) * dtype.itemsize
            if not dtype.hasobject and size != info.file_size:
                raise ValueError(f'{info.filename} holds {info.file_size:,} bytes, says {size:,}')
