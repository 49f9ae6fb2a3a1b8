"""The immutable content of a gallery; a change makes a new one, so threads can share it."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mmvlr.evaluation.templates import TemplateRule, as_quality, find_lacking
from mmvlr.utils.vectors import unit_rows

from .gallery_file import StoredGallery
from .names import normalize_name
from .search import ExactSearch, FaissSearch, build_search, find_identical


@dataclass(frozen=True, eq=False)
class Matches:
    """The most similar people for each probe, best first.

    Attributes:
        person: Their names, text (P, k) of dtype object; for fewer than k people, see
            :meth:`mmvlr.identification.Gallery.search`.
        similarity: Cosine of the probe and the best template of the person, float32 (P, k).
    """

    person: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.person)


@dataclass(frozen=True)
class Enrolled:
    """Result of :meth:`mmvlr.identification.Gallery.enroll_new`.

    Attributes:
        rows: Rows of the images that were enrolled.
        known: Rows of the images that the person has already, which were not enrolled.
        shared: (row, person, name of the image) of images that another person has too.
    """

    rows: list[int]
    known: list[int]
    shared: list[tuple[int, str, str]]


@dataclass(frozen=True, eq=False)
class Images:
    """N images: unit embeddings (N, D), number of the person (N,), names, qualities (N,)."""

    unit: np.ndarray
    person: np.ndarray
    names: list[str]
    qualities: dict[str, np.ndarray]

    def take(self, rows: np.ndarray) -> 'Images':
        """Return some images, by row."""
        return Images(
            self.unit[rows],
            self.person[rows],
            [self.names[row] for row in rows],
            {name: values[rows] for name, values in self.qualities.items()},
        )

    def sort(self) -> 'Images':
        """Return the images in the order of their people; not copied if already sorted."""
        if (np.diff(self.person) >= 0).all():
            return self
        return self.take(np.argsort(self.person, kind='stable'))


def join_images(parts: Iterable[Images], dims: int) -> Images:
    """Concatenate images; a quality that a part lacks is NaN there."""
    parts = [part for part in parts if part.names]
    if len(parts) == 1:
        # A copy would double the memory of a large gallery that is enrolled at once.
        return parts[0]
    known = dict.fromkeys(name for part in parts for name in part.qualities)
    missing = [np.full(len(part.unit), np.nan, np.float32) for part in parts]
    empty = np.empty(0, np.float32)
    return Images(
        np.concatenate([np.empty((0, dims), np.float32), *(part.unit for part in parts)]),
        np.concatenate([np.empty(0, np.int64), *(part.person for part in parts)]),
        [name for part in parts for name in part.names],
        {
            name: np.concatenate(
                [empty, *(p.qualities.get(name, m) for p, m in zip(parts, missing, strict=True))]
            )
            for name in known
        },
    )


@dataclass(frozen=True, eq=False)
class GalleryState:
    """People, their images, and the templates and index made of them.

    Attributes:
        dims: Size of the embeddings.
        template: Config of the template rule.
        rule: The rule.
        method: Config of the search.
        number: Number of each person, ascending in the order of enrollment.
        parts: Images, without those of removed people.
        next: Number of the next person.
    """

    dims: int
    template: Mapping[str, Any]
    rule: TemplateRule
    method: Mapping[str, Any]
    number: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Images, ...] = ()
    next: int = 0

    def __len__(self) -> int:
        return len(self.number)

    @cached_property
    def people(self) -> list[str]:
        """Names of the people, in the order of enrollment."""
        return list(self.number)

    @cached_property
    def images(self) -> Images:
        """All images, grouped by person, people in the order of enrollment."""
        images = join_images(self.parts, self.dims).sort()
        # Replaces the equal parts, which would double the memory of a large gallery.
        object.__setattr__(self, 'parts', (images,))
        return images

    @cached_property
    def starts(self) -> np.ndarray:
        """Start of each person's images, and the end of the last, int64 (K + 1,)."""
        numbers = np.fromiter(self.number.values(), np.int64, len(self.number))
        return np.append(np.searchsorted(self.images.person, numbers), len(self.images.person))

    @cached_property
    def templates(self) -> tuple[np.ndarray, np.ndarray]:
        """Unit templates (T, D), and the index of each one's person in ``people``, (T,)."""
        images = self.images
        return self.rule.many(images.unit, self.starts, images.qualities, self.people)

    @cached_property
    def index(self) -> ExactSearch | FaissSearch:
        """The search among the templates."""
        return build_search(self.method, *self.templates)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of people and templates."""
        templates, owner = self.templates
        digest = hashlib.sha256(json.dumps(self.people).encode())
        digest.update(owner.tobytes())
        digest.update(np.ascontiguousarray(templates).tobytes())
        return digest.hexdigest()

    @cached_property
    def _decomposed(self) -> dict[str, str]:
        """Names that old files spell differently from :func:`normalize_name`."""
        names = (name for name in self.number if not unicodedata.is_normalized('NFC', name))
        return {unicodedata.normalize('NFC', name): name for name in names}

    def spell(self, person: str) -> str:
        """Return a person's name as the gallery spells it, or would spell a new one.

        Raises:
            ValueError: See :func:`mmvlr.identification.names.normalize_name`.
        """
        if person in self.number:
            return person
        name = normalize_name(person)
        return self._decomposed.get(name, name)

    def find(self, person: str) -> str:
        """Return a person's name as it is spelled here.

        Raises:
            KeyError: There is no such person.
        """
        with suppress(ValueError):
            if (name := self.spell(person)) in self.number:
                return name
        raise KeyError(f'{person!r} is not in the gallery of {len(self):,} people')

    def owner(self, row: int) -> str:
        """Return the person of a row of ``images``."""
        return self.people[np.searchsorted(self.starts, row, side='right') - 1]

    def select_images(self, person: str) -> Images:
        """Return a copy of the images of a person."""
        number = self.number[self.find(person)]
        return self.images.take(np.flatnonzero(self.images.person == number))

    def find_templates(self, person: str) -> np.ndarray:
        """Return the unit templates of a person, (T, D)."""
        templates, owner = self.templates
        return templates[owner == self.people.index(self.find(person))]

    def search(self, embeddings: Any, k: int) -> Matches:
        """Return the k most similar people for each probe."""
        if k < 1:
            raise ValueError(f'k must be at least 1, got {k}')
        if not len(self):
            raise ValueError('the gallery is empty: enroll people before searching')
        probes = unit_rows(embeddings, 'probe {}'.format)
        if probes.shape[1] != self.dims:
            raise ValueError(
                f'probes must be (P, {self.dims}), as the network of this gallery makes them, '
                f'got {probes.shape}'
            )
        number, similarity = self.index(probes, k)
        return Matches(np.array([*self.people, ''], object)[number], similarity)

    def find_same(self, embeddings: Any) -> list[tuple[int, str, str]]:
        """Return which faces are enrolled themselves: (row, person, name of the image) of each."""
        found: dict[int, tuple[int, str, str]] = {}
        pairs = find_identical(unit_rows(embeddings, 'face {}'.format), self.images.unit)
        for row, column in zip(*pairs, strict=True):
            found.setdefault(row, (row, self.owner(column), self.images.names[column]))
        return [found[row] for row in sorted(found)]

    # Changes: a new state ------------------------------------------------------------------------

    def change_rule(self, template: Mapping[str, Any], rule: TemplateRule) -> 'GalleryState':
        """Return the state with another template rule."""
        images = self.images
        lacking = find_lacking(rule, images.qualities, len(images.names))
        if lacking:
            row, name = lacking
            raise ValueError(
                f'{type(rule).__name__} needs the quality {name!r} of every image; '
                f'{_label(self.owner(row), images.names[row])} was enrolled without it'
            )
        state = replace(self, template=template, rule=rule)
        # Build now, so that images that cancel out are reported here and not at a search.
        _ = state.templates
        return state

    def enroll(self, new: 'Checked') -> 'GalleryState':
        """Return the state with more images."""
        number, following = dict(self.number), self.next
        for person in new.people:
            if number.setdefault(person, following) == following:
                following += 1
        numbers = np.fromiter((number[person] for person in new.people), np.int64, len(new.people))
        images = Images(new.unit, numbers, new.names, new.qualities)
        self._check_templates(images, new.people)
        # Parts of falling size: images that come one by one are copied log N times, not N times.
        parts = [*self.parts, images]
        while len(parts) > 1 and 2 * len(parts[-1].names) >= len(parts[-2].names):
            parts[-2:] = [join_images(parts[-2:], self.dims)]
        return replace(self, number=number, parts=tuple(parts), next=following)

    def enroll_new(self, new: 'Checked') -> tuple['GalleryState', Enrolled]:
        """Return the state with those of the images that their people do not have."""
        images = self.images
        pairs = [
            (row, self.owner(column), images.names[column])
            for row, column in zip(*find_identical(new.unit, images.unit), strict=True)
        ]
        pairs += [
            (row, new.people[column], new.names[column])
            for row, column in zip(*find_identical(new.unit, new.unit), strict=True)
            if column < row
        ]
        known = {row for row, person, _ in pairs if person == new.people[row]}
        shared: dict[int, tuple[int, str, str]] = {}
        for pair in pairs:
            shared.setdefault(pair[0], pair)
        rows = [row for row in range(len(new.people)) if row not in known]
        state = self.enroll(new.take(rows)) if rows else self
        return state, Enrolled(rows, sorted(known), [shared[row] for row in rows if row in shared])

    def check(
        self,
        people: Sequence[str],
        embeddings: Any,
        qualities: Mapping[str, Any] | None,
        names: Sequence[str] | None,
    ) -> 'Checked':
        """Check images and return them ready to be enrolled."""
        people = list(people)
        people = [self.spell(person) for person in people]
        names = [''] * len(people) if names is None else list(names)
        for name in names:
            if not isinstance(name, str):
                raise ValueError(f'names of images must be text, got {name!r}')
        shape = tuple(np.shape(embeddings))
        if len(shape) != 2 or shape[1] != self.dims:
            raise ValueError(
                f'embeddings must be (n, {self.dims}), as the network of this gallery makes '
                f'them, got {shape}'
            )
        if not len(people) == len(names) == shape[0]:
            raise ValueError(
                f'{shape[0]} embeddings, {len(people)} people and {len(names)} names of images '
                'were given: there must be as many of each'
            )

        def label(row: int) -> str:
            name = names[row] or f'image {people[:row].count(people[row]) + 1}'
            return _label(people[row], name)

        unit = unit_rows(embeddings, label)
        given = {name: as_quality(v, name, len(unit)) for name, v in (qualities or {}).items()}
        for name, values in given.items():
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise ValueError(f'the quality {name!r} of {label(int(bad[0]))} is NaN or infinite')
        lacking = find_lacking(self.rule, given, len(unit))
        if lacking:
            row, name = lacking
            there = ', '.join(sorted(given)) or 'none'
            raise ValueError(
                f'{type(self.rule).__name__} needs the quality {name!r} of every image; '
                f'{label(row)} comes with: {there}'
            )
        return Checked(people, unit, given, [str(name) for name in names])

    def _check_templates(self, new: Images, people: Sequence[str]) -> None:
        touched, first = np.unique(new.person, return_index=True)
        known = touched[touched < self.next]
        parts = self.parts if len(known) else ()
        old = [part.take(np.flatnonzero(np.isin(part.person, known))) for part in parts]
        images = join_images([*old, new], self.dims).sort()
        starts = np.append(np.searchsorted(images.person, touched), len(images.unit))
        self.rule.many(images.unit, starts, images.qualities, [people[row] for row in first])

    def remove(self, people: Iterable[str]) -> 'GalleryState':
        """Return the state without some people and their images."""
        number = dict(self.number)
        numbers = [number.pop(name) for name in dict.fromkeys(map(self.find, people))]
        parts = (part.take(np.flatnonzero(~np.isin(part.person, numbers))) for part in self.parts)
        return replace(self, number=number, parts=tuple(part for part in parts if part.names))

    def store(self, fingerprint: Mapping[str, Any]) -> StoredGallery:
        """Return what is written to disk."""
        images = self.images
        return StoredGallery(
            fingerprint,
            self.template,
            self.people,
            self.starts,
            images.names,
            images.unit,
            images.qualities,
        )

    def restore(self, stored: StoredGallery) -> 'GalleryState':
        """Return the state with what was read from disk."""
        person = np.repeat(np.arange(len(stored.people)), np.diff(stored.starts))
        images = Images(stored.unit, person, stored.images, stored.qualities)
        number = {name: place for place, name in enumerate(stored.people)}
        return replace(self, number=number, parts=(images,), next=len(number))


@dataclass(frozen=True, eq=False)
class Checked:
    """N images that can be enrolled: people, unit embeddings, qualities and names."""

    people: list[str]
    unit: np.ndarray
    qualities: dict[str, np.ndarray]
    names: list[str]

    def take(self, rows: Sequence[int]) -> 'Checked':
        """Return some images, by row; not copied if all are selected."""
        if len(rows) == len(self.people):
            return self
        return Checked(
            [self.people[row] for row in rows],
            self.unit[rows],
            {name: values[rows] for name, values in self.qualities.items()},
            [self.names[row] for row in rows],
        )


def _label(person: str, image: str) -> str:
    return f'{image or "an image"} of {person!r}'
