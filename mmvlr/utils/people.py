"""Record the people a checkpoint was trained on, in the order of the classes.

Class j of a head is the j-th of the training set's people. A checkpoint carries, under
``meta.people``, their number, a digest of their names and, unless there are very many, the names:
weights of one person must not be used for another.
"""

import base64
import hashlib
import json
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from .checkpoint import CheckpointMismatchError

PEOPLE_KEY = 'people'
#: Limit of the bytes of the names in a checkpoint; those of millions of people are left out.
MAX_NAMES = 1 << 20


class PeopleMismatchError(CheckpointMismatchError):
    """A checkpoint was trained on other people than those of the training set."""


@dataclass(frozen=True)
class People:
    """The people of a training set, in the order of their classes.

    Attributes:
        count: Number of people.
        digest: SHA-256 of their names; None if unknown.
        names: The names; None if they are not stored.
    """

    count: int
    digest: str | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def from_names(cls, names: Sequence[str]) -> 'People':
        """Return the people of these names, in Unicode's composed form."""
        names = tuple(unicodedata.normalize('NFC', name) for name in names)
        return cls(len(names), hashlib.sha256(_text(names)).hexdigest(), names)

    def is_same(self, other: 'People') -> bool:
        """Return whether these are the same people; if names are unknown, compare the numbers."""
        if self.digest is None or other.digest is None:
            return self.count == other.count
        return self.digest == other.digest

    def facts(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        names = base64.b64encode(zlib.compress(_text(self.names))).decode()
        facts = dict(count=self.count, digest=self.digest)
        return facts | ({} if len(names) > MAX_NAMES else dict(names=names))

    @classmethod
    def read(cls, checkpoint: Mapping[str, Any], source: str) -> 'People | None':
        """Return the people that a checkpoint carries, None if it carries none.

        Raises:
            ValueError: What it carries is damaged.
        """
        meta = checkpoint.get('meta')
        facts = meta.get(PEOPLE_KEY) if isinstance(meta, Mapping) else None
        if facts is None:
            return None
        try:
            count, digest = facts['count'], facts['digest']
            if 'names' not in facts:
                return cls(int(count), str(digest))
            # Unpack at most 64 MiB.
            text = zlib.decompressobj().decompress(base64.b64decode(facts['names']), 1 << 26)
            people = cls.from_names(json.loads(text))
            if (people.count, people.digest) != (count, digest):
                raise ValueError('the names do not fit their digest')
        except Exception as error:  # a damaged text raises half a dozen types
            raise ValueError(
                f'{source}: meta.{PEOPLE_KEY} is damaged ({error}); use another checkpoint'
            ) from error
        return people

    def tell_difference(self, here: 'People') -> str:
        """Describe how these people of a checkpoint differ from those of a training set."""
        told = f'{self.count:,} people there, {here.count:,} here'
        if self.names is None or here.names is None:
            return told
        for label, (one, other) in enumerate(zip_longest(self.names, here.names)):
            if one != other:
                shown = ['nobody' if name is None else repr(name) for name in (one, other)]
                return (
                    f'{told}; the first difference is class {label}: {" there, ".join(shown)} here'
                )
        return told


def _text(names: Sequence[str]) -> bytes:
    # ASCII: file names may hold bytes that are no UTF-8.
    return json.dumps(names, separators=(',', ':')).encode('ascii')
