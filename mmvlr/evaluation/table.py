"""The embeddings of a test set with what is known of each face: what metrics compute on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmvlr.utils.io import write_atomic
from mmvlr.utils.vectors import unit_rows

#: Identity of faces that belong to nobody in the gallery.
NO_IDENTITY = -100
#: Quality measures, higher is better: name of the column -> name for a reader.
MEASURES = dict(
    ri='RI',
    ers='ERS',
    norm='norm',
    crfiqa='CR-FIQA',
    serfiq='SER-FIQ',
    size='size',
    sharpness='sharpness',
)


@dataclass(frozen=True, eq=False)
class FaceTable:
    """Embeddings and records of N faces, one row each.

    Attributes:
        embedding: (N, D) float, raw; metrics normalize.
        role: (N,) text: ``gallery``, ``distractor``, ``probe``, ``unmated``, ``pair``, ``ui``.
        identity: (N,) int64; -100 where nobody knows.
        columns: Further values by name, (N,) each: the quality measures ``ri``, ``ers``,
            ``norm``, ``crfiqa``, ``serfiq``, ``size`` and ``sharpness``, and what the data set
            tells, such as ``distance``, ``camera`` and ``name``.
        pairs: (P, 2) rows that are compared in verification, or None.
        same: (P,) bool, whether a pair shows one person, or None.
        meta: Plain values: where the embeddings come from.

    Raises:
        ValueError: Lengths differ, values are objects, or pairs name rows that are not there.

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
        for name, value in {**arrays, **self.columns}.items():
            if name != 'columns' and len(value) != len(self.embedding):
                raise ValueError(
                    f'{name} must have {len(self.embedding)} entries like embedding, '
                    f'got {len(value)}'
                )
            # Numpy would pickle them into the file, and nobody may read that.
            if name != 'columns' and value.dtype.hasobject:
                raise ValueError(f'{name} must hold plain values, got {value.dtype}')
        if (self.pairs is None) != (self.same is None):
            raise ValueError('pairs and same go together: one of them is missing')
        if self.pairs is not None:
            pairs, same = np.asarray(self.pairs), np.asarray(self.same)
            if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) != len(same):
                raise ValueError(
                    f'pairs must be (P, 2) and same (P,), got {pairs.shape} and {same.shape}'
                )
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
        """The quality measures that are there, (N,) each."""
        return {name: self.columns[name] for name in MEASURES if name in self.columns}

    @cached_property
    def groups(self) -> np.ndarray:
        """Number of the person of every face for the bootstrap; faces of nobody stand alone."""
        groups = self.identity.astype(np.int64)
        alone = groups == NO_IDENTITY
        groups[alone] = groups.max(initial=0) + 1 + np.arange(alone.sum())
        return groups

    def has(self, *roles: str) -> bool:
        """Say whether there is a face of each of the roles."""
        return all((self.role == role).any() for role in roles)

    def only(self, *roles: str) -> 'FaceTable':
        """Return the faces of some roles, in order; pairs go along if they are among them."""
        return self.take(np.flatnonzero(np.isin(self.role, roles)))

    def take(self, rows: np.ndarray) -> 'FaceTable':
        """Return some rows; pairs whose faces are among them go along, renumbered."""
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

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` file, atomically; read it with :meth:`load` or ``numpy.load``.

        Embeddings are biometric data: only the user may read the file.
        """
        arrays = dict(self.columns, embedding=self.embedding, role=self.role)
        arrays.update(identity=self.identity, meta=np.array(json.dumps(dict(self.meta))))
        if self.pairs is not None:
            arrays.update(pairs=self.pairs, same=self.same)

        def write(temporary: Path) -> None:
            with open(temporary, 'wb') as file:
                np.savez(file, **arrays)

        return write_atomic(path, write, private=True)

    @classmethod
    def load(cls, path: str | Path) -> 'FaceTable':
        """Read an ``.npz`` file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such file, a field is missing, or fields contradict each other.
        """
        fields = read_fields(path)
        missing = [name for name in ('embedding', 'role', 'identity') if name not in fields]
        if missing:
            raise ValueError(
                f'{path} lacks {", ".join(missing)}; it has {", ".join(sorted(fields))}'
            )
        return cls.from_fields(fields, path)

    @classmethod
    def from_fields(cls, fields: Mapping[str, np.ndarray], source: str | Path) -> 'FaceTable':
        """Make a table of the fields of an ``.npz`` file.

        Raises:
            ValueError: Fields contradict each other; the message names ``source``.
        """
        known = {name: fields.get(name) for name in ('embedding', 'role', 'identity')}
        own = {*known, 'pairs', 'same', 'meta'}
        try:
            meta = json.loads(str(fields['meta'])) if 'meta' in fields else {}
            return cls(
                **known,
                columns={name: value for name, value in fields.items() if name not in own},
                pairs=fields.get('pairs'),
                same=fields.get('same'),
                meta=meta,
            )
        except ValueError as error:
            raise ValueError(f'{source}: {error}') from error


def read_fields(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of an ``.npz`` file, without unpickling.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not readable, or holds objects.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist')
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise half a dozen types for damaged files
        raise ValueError(f'{path} is not a readable .npz file ({error})') from error
