"""The gallery: known people with the embeddings of their images, searched and kept on disk."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.registry import TEMPLATES, check_registered
from mmvlr.utils.io import sha256_of, write_atomic
from mmvlr.version import __version__

from .search import ExactSearch, FaissSearch, build_search, search_config
from .templates import TemplateRule, as_quality, template_config, unit_rows

_FORMAT, _VERSION = 'mmvlr gallery', 1
_JSON = 'gallery.json'
_QUALITY = 'quality.'


class GalleryFileError(ValueError):
    """A saved gallery is damaged, incomplete, mixed up or of a newer format."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The people who resemble each probe most, best first.

    Attributes:
        person: Their names, text (P, k) of dtype object; where there are fewer than k people, or an
            approximate search found fewer, see :meth:`Gallery.search`.
        similarity: Cosine of the probe and the best template of the person, float32 (P, k).
    """

    person: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.person)


class Gallery:
    """Known people, each with the embeddings and qualities of one or several images.

    The images are kept, as unit vectors, and the templates that are searched are made of them:
    so the rule can be changed, and people can be extended, at any time. Templates and index are
    made at the first search after a change; enroll many people by :meth:`enroll_many`, not with a
    search after each.

    Names of people and images are any text. People keep the order of their enrollment.

    Args:
        identity: Which network makes the embeddings, as ``mmvlr.apis.network.identity_of`` says
            it. It travels with the gallery, whose embeddings mean nothing to another network.
        template: Rule that makes templates of images: a short name (``'mean'``, ``'norm'``,
            ``'ri'``, ``'best'``, ``'images'``), or a config of one of ``TEMPLATES``.
        search: ``'exact'``, ``'faiss'``, or a config such as ``dict(type='faiss', kind='ivf')``.

    Raises:
        ValueError: ``identity`` does not tell the embedding's size, or there is no such rule or
            search.

    Example:
        >>> identity = dict(embedding=dict(dims=2))
        >>> gallery = Gallery(identity, template='best')
        >>> gallery.enroll('Ann', [[1.0, 0.0], [0.8, 0.6]], dict(ri=[0.4, 0.1]))
        >>> gallery.enroll('Bob', [[0.0, 3.0]], dict(ri=[-0.2]))
        >>> matches = gallery.search([[0.0, 1.0]], k=2)
        >>> matches.person[0].tolist(), matches.similarity[0].round(2).tolist()
        (['Bob', 'Ann'], [1.0, 0.3199999928474426])
    """

    def __init__(
        self,
        identity: Mapping[str, Any],
        template: str | Mapping[str, Any] = 'mean',
        search: str | Mapping[str, Any] = 'exact',
    ):
        try:
            self._dims = int(identity['embedding']['dims'])
        except (KeyError, TypeError) as error:
            raise ValueError(
                "identity lacks embedding.dims, the embedding's size; it is made by "
                'mmvlr.apis.network.identity_of(model)'
            ) from error
        self.identity = deepcopy(dict(identity))
        # Numbers of people only grow, so that the order of numbers is that of enrollment.
        self._number: dict[str, int] = {}
        self._next = 0
        self._parts: list[_Images] = []
        self._removed = False
        self._forget()
        self._rule: TemplateRule
        self.template = template
        self.method = search

    @property
    def people(self) -> list[str]:
        """Names of the people, in the order of their enrollment."""
        return list(self._number)

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, person: str) -> bool:
        return person in self._number

    def __repr__(self) -> str:
        return (
            f'Gallery({len(self):,} people, {self.num_images:,} images, template={self._template})'
        )

    @property
    def num_images(self) -> int:
        """Number of images of all people."""
        return len(self._images().names)

    @property
    def template(self) -> dict[str, Any]:
        """Config of the rule that makes templates; setting it keeps the images.

        Raises:
            ValueError: There is no such rule, or an image lacks a quality that it needs.
        """
        return dict(self._template)

    @template.setter
    def template(self, template: str | Mapping[str, Any]) -> None:
        config = template_config(template)
        rule = TEMPLATES.build(dict(config))
        images = self._images()
        lacking = _lacking(rule, images.qualities, len(images.names))
        if lacking:
            row, name = lacking
            person = self.people[self._positions(images.person[row : row + 1])[0]]
            raise ValueError(
                f'{type(rule).__name__} needs the quality {name!r} of every image; '
                f'{_label(person, images.names[row])} was enrolled without it'
            )
        self._template, self._rule = config, rule
        self._forget()

    @property
    def method(self) -> dict[str, Any]:
        """Config of the search."""
        return dict(self._method)

    @method.setter
    def method(self, search: str | Mapping[str, Any]) -> None:
        self._method, self._index = search_config(search), None

    def enroll(
        self,
        person: str,
        embeddings: Any,
        qualities: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add images of a person, who may be there already.

        Args:
            person: Name, any text but the empty one.
            embeddings: Embeddings of the n images, of any length, (n, D).
            qualities: Qualities by name, higher is better, (n,) each.
            names: Names of the images, (n,).

        Raises:
            ValueError: An embedding has no direction or another size, a quality is missing that
                the template rule needs, or the counts differ. The gallery is as it was.
        """
        count = len(embeddings) if hasattr(embeddings, '__len__') else 0
        if not count:
            raise ValueError(f'{person!r} has no image to enroll')
        self.enroll_many([person] * count, embeddings, qualities, names)

    def enroll_many(
        self,
        people: Sequence[str],
        embeddings: Any,
        qualities: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add images of many people at once, in any order.

        Args:
            people: Whom each image shows, (N,).
            embeddings: Embeddings of any length, (N, D).
            qualities: Qualities by name, (N,) each.
            names: Names of the images, (N,).

        Raises:
            ValueError: See :meth:`enroll`. Nobody is enrolled then.
        """
        people = _texts(people, 'people')
        names = [''] * len(people) if names is None else _texts(names, 'images')
        shape = tuple(np.shape(embeddings))
        if len(shape) != 2 or shape[1] != self._dims:
            raise ValueError(
                f'embeddings must be (n, {self._dims}), as the network of this gallery makes '
                f'them, got {shape}'
            )
        if not len(people) == len(names) == shape[0]:
            raise ValueError(
                f'{shape[0]} embeddings, {len(people)} people and {len(names)} names of images '
                'were given: there must be as many of each'
            )
        if '' in people:
            raise ValueError(f'image {people.index("") + 1} is of a person without name')

        def label(row: int) -> str:
            return _label(people[row], names[row] or f'image {people[:row].count(people[row]) + 1}')

        unit = unit_rows(embeddings, label)
        given = {name: as_quality(v, name, len(unit)) for name, v in (qualities or {}).items()}
        for name, values in given.items():
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise ValueError(f'the quality {name!r} of {label(int(bad[0]))} is NaN or infinite')
        lacking = _lacking(self._rule, given, len(unit))
        if lacking:
            row, name = lacking
            there = ', '.join(sorted(given)) or 'none'
            raise ValueError(
                f'{type(self._rule).__name__} needs the quality {name!r} of every image; '
                f'{label(row)} comes with: {there}'
            )
        for person in people:
            if person not in self._number:
                self._number[person] = self._next
                self._next += 1
        numbers = np.fromiter((self._number[person] for person in people), np.int64, len(people))
        self._parts.append(_Images(unit, numbers, names, given))
        self._forget()

    def remove(self, person: str) -> None:
        """Forget a person with all images.

        Raises:
            KeyError: The person is not in the gallery.
        """
        if person not in self._number:
            raise KeyError(f'{person!r} is not in the gallery of {len(self):,} people')
        del self._number[person]
        self._removed = True
        self._forget()

    def images(self, person: str) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
        """Return what is known of a person.

        Returns:
            Names of the n images, their unit embeddings, float32 (n, D), and their qualities,
            (n,) each, NaN where an image was enrolled without.

        Raises:
            KeyError: The person is not in the gallery.
        """
        if person not in self._number:
            raise KeyError(f'{person!r} is not in the gallery of {len(self):,} people')
        images = self._images()
        rows = np.flatnonzero(images.person == self._number[person])
        qualities = {name: values[rows] for name, values in images.qualities.items()}
        return [images.names[row] for row in rows], images.unit[rows], qualities

    def templates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is searched.

        Returns:
            Unit templates, float32 (T, D), and the place of each one's person in ``people``,
            int64 (T,), not falling. Do not write to them.

        Raises:
            ValueError: The images of a person cancel out.
        """
        if self._made is None:
            images = self._sorted()
            starts = self._starts(images)
            self._made = self._rule.many(images.unit, starts, images.qualities, self.people)
        return self._made

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each person, in the order of enrollment."""
        counts = np.diff(self._starts(self._sorted())).tolist()
        return dict(zip(self.people, counts, strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 of people and templates: a decision is calibrated on these and no others."""
        if self._sha256 is None:
            templates, owner = self.templates()
            digest = hashlib.sha256(json.dumps(self.people).encode())
            digest.update(owner.tobytes())
            digest.update(np.ascontiguousarray(templates).tobytes())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def search(self, embeddings: Any, k: int = 5) -> Matches:
        """Find the people who resemble each probe most.

        The best template of a person counts. Equally similar people stand in the order of their
        enrollment.

        Args:
            embeddings: Embeddings of the probes, of any length, (P, D).
            k: People a probe.

        Returns:
            min(k, people in the gallery) people a probe. Where an approximate search finds fewer,
            the last are ``''`` with similarity ``-inf``.

        Raises:
            ValueError: The gallery is empty, an embedding has no direction or another size, or
                k is below 1.
        """
        if k < 1:
            raise ValueError(f'k must be at least 1, got {k}')
        if not len(self):
            raise ValueError('the gallery is empty: enroll somebody before searching')
        probes = unit_rows(embeddings, 'probe {}'.format)
        if probes.shape[1] != self._dims:
            raise ValueError(
                f'probes must be (P, {self._dims}), as the network of this gallery makes them, '
                f'got {probes.shape}'
            )
        if self._index is None:
            self._index = build_search(self._method, *self.templates())
        number, similarity = self._index(probes, k)
        people = np.array([*self.people, ''], object)
        return Matches(people[number], similarity)

    def save(self, folder: str | Path) -> Path:
        """Write ``gallery.json`` and the tensors it names into a folder.

        The tensors' file is named after what it holds, and ``gallery.json``, renamed last, says
        which one belongs to it: whatever happens, the folder holds the old gallery or the new one.
        One process may save to a folder at a time.

        Returns:
            The folder.
        """
        from safetensors.numpy import save_file

        folder = Path(folder)
        images = self._sorted()
        tensors = {_QUALITY + name: values for name, values in images.qualities.items()}
        tensors['embedding'] = images.unit
        written = write_atomic(
            folder / 'gallery.safetensors', lambda path: save_file(tensors, path)
        )
        digest = sha256_of(written)
        own = written.rename(folder / _tensors_name(digest))
        content = dict(
            mmvlr=__version__,
            identity=self.identity,
            template=self._template,
            tensors=digest,
            people=self.people,
            offsets=self._starts(images).tolist(),
            images=images.names,
        )
        text = json.dumps(content)
        head = json.dumps(dict(format=_FORMAT, version=_VERSION, sha256=_digest(text)))
        write_atomic(
            folder / _JSON,
            lambda path: path.write_text(
                f'{head[:-1]}, "content": {text}}}\n', encoding='utf-8', newline='\n'
            ),
        )
        for old in folder.glob('gallery*.safetensors'):
            if old != own:
                old.unlink()
        return folder

    @classmethod
    def load(
        cls,
        folder: str | Path,
        identity: Mapping[str, Any] | None = None,
        search: str | Mapping[str, Any] = 'exact',
    ) -> 'Gallery':
        """Read a saved gallery.

        Args:
            folder: The folder.
            identity: Which network the probes come from; without it nothing is checked.
            search: See :class:`Gallery`.

        Raises:
            FileNotFoundError: There is no gallery in the folder.
            GalleryFileError: A file is damaged, missing, of another gallery or of a newer format.
            ModelMismatchError: Its embeddings are of another network or preprocessing.
        """
        path = Path(folder) / _JSON
        if not path.is_file():
            raise FileNotFoundError(f'{path} does not exist: there is no gallery in {folder}')
        content = _read_json(path)
        if identity is not None:
            from mmvlr.utils.contract import check_identity

            check_identity(identity, content['identity'], str(path))
        images = _read_tensors(path, content)
        check_registered(content['template'], TEMPLATES, str(path))
        try:
            gallery = cls(content['identity'], content['template'], search)
        except (KeyError, TypeError) as error:
            raise GalleryFileError(
                f'{path} needs the template rule {content["template"]}, which cannot be built '
                f'({error}): its options are of another version'
            ) from error
        gallery._number = {person: number for number, person in enumerate(content['people'])}
        gallery._next = len(gallery)
        gallery._parts = [images]
        return gallery

    def _forget(self) -> None:
        """Make templates, index and digest again when they are asked for: something changed."""
        self._index: ExactSearch | FaissSearch | None = None
        self._made: tuple[np.ndarray, np.ndarray] | None = None
        self._sha256: str | None = None

    def _images(self) -> '_Images':
        """All images in one part, without those of removed people."""
        if len(self._parts) != 1:
            self._parts = [_join(self._parts, self._dims)]
        if self._removed:
            (images,) = self._parts
            kept = np.isin(images.person, np.fromiter(self._number.values(), np.int64))
            self._parts, self._removed = [images.take(np.flatnonzero(kept))], False
        return self._parts[0]

    def _sorted(self) -> '_Images':
        """All images, those of a person in a row, people in the order of enrollment."""
        images = self._images()
        if (np.diff(images.person) < 0).any():
            images = images.take(np.argsort(images.person, kind='stable'))
            self._parts = [images]
        return images

    def _positions(self, number: np.ndarray) -> np.ndarray:
        """Places in ``people`` of people by number."""
        return np.searchsorted(np.fromiter(self._number.values(), np.int64), number)

    def _starts(self, images: '_Images') -> np.ndarray:
        """Where each person's images start and the last one's end, int64 (K + 1,)."""
        numbers = np.fromiter(self._number.values(), np.int64)
        return np.append(np.searchsorted(images.person, numbers), len(images.person))


@dataclass(frozen=True, eq=False)
class _Images:
    """N images: unit embeddings (N, D), number of the person (N,), names, qualities (N,)."""

    unit: np.ndarray
    person: np.ndarray
    names: list[str]
    qualities: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> '_Images':
        return _Images(
            self.unit[rows],
            self.person[rows],
            [self.names[row] for row in rows],
            {name: values[rows] for name, values in self.qualities.items()},
        )


def _join(parts: Iterable[_Images], dims: int) -> _Images:
    parts = [part for part in parts if part.names]
    if len(parts) == 1:
        # No copy: the embeddings of a large gallery, enrolled at once, would be there twice.
        return parts[0]
    known = dict.fromkeys(name for part in parts for name in part.qualities)
    empty = np.empty(0, np.float32)
    return _Images(
        np.concatenate([np.empty((0, dims), np.float32), *(part.unit for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.person for part in parts)]),
        [name for part in parts for name in part.names],
        {
            name: np.concatenate(
                [
                    empty,
                    *(
                        part.qualities.get(name, np.full(len(part.unit), np.nan, np.float32))
                        for part in parts
                    ),
                ]
            )
            for name in known
        },
    )


def _texts(values: Iterable[str], kind: str) -> list[str]:
    values = list(values)
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f'names of {kind} must be text, got {value!r}')
    return [str(value) for value in values]


def _label(person: str, image: str) -> str:
    return f'{image or "an image"} of {person!r}'


def _lacking(
    rule: TemplateRule, qualities: Mapping[str, np.ndarray], count: int
) -> tuple[int, str] | None:
    """Row of the first of ``count`` images that lacks a quality the rule needs, and its name."""
    for name in rule.needs:
        bad = np.flatnonzero(~np.isfinite(qualities.get(name, np.full(count, np.nan))))
        if len(bad):
            return int(bad[0]), name
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _tensors_name(digest: str) -> str:
    return f'gallery-{digest[:16]}.safetensors'


def _read_json(path: Path) -> dict[str, Any]:
    advice = 'enroll again, or take it from a backup'
    try:
        whole = json.loads(path.read_text(encoding='utf-8'))
        found = whole['format'], whole['version']
        stated, content = whole.get('sha256'), whole.get('content')
    except (ValueError, KeyError, TypeError) as error:
        raise GalleryFileError(f'{path} is no gallery or is damaged ({error}); {advice}') from error
    if found[0] != _FORMAT:
        raise GalleryFileError(f'{path} is no gallery: its format is {found[0]!r}')
    if found[1] != _VERSION:
        raise GalleryFileError(
            f'{path} has format version {found[1]}, and this mmvlr {__version__} reads version '
            f'{_VERSION}: update mmvlr'
        )
    if stated != _digest(json.dumps(content)):
        raise GalleryFileError(f'{path} is damaged or was edited by hand; {advice}')
    return content


def _read_tensors(path: Path, content: Mapping[str, Any]) -> _Images:
    from safetensors.numpy import load_file

    file = path.parent / _tensors_name(content['tensors'])
    if not file.is_file():
        raise GalleryFileError(
            f'{path} belongs with {file.name}, which is not beside it: copy both files together'
        )
    if sha256_of(file) != content['tensors']:
        raise GalleryFileError(
            f'{file} is damaged, cut short or of another gallery: it is not the file that '
            f'{path} names; enroll again, or take both files from a backup'
        )
    tensors = load_file(file)
    starts = np.array(content['offsets'], np.int64)
    person = np.repeat(np.arange(len(content['people'])), np.diff(starts))
    qualities = {
        name.removeprefix(_QUALITY): values
        for name, values in tensors.items()
        if name.startswith(_QUALITY)
    }
    return _Images(tensors['embedding'], person, content['images'], qualities)
