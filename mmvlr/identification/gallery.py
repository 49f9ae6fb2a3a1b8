"""The gallery: enroll known people, search them, and store them on disk."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.evaluation.templates import build_stored_rule, template_config
from mmvlr.registry import TEMPLATES
from mmvlr.utils.contract import check_fingerprint

from .gallery_file import FILE, has_gallery, read_digest, read_gallery, write_alone, write_gallery
from .gallery_state import Enrolled, GalleryState, Matches
from .search import search_config


class GalleryChangedError(ValueError):
    """A saved gallery was changed by another process since it was loaded."""


class Gallery:
    """Known people, each with the embeddings and qualities of one or several images.

    Images are stored as unit vectors, and the templates for the search are made of them, so the
    rule can be changed and images can be added at any time. Templates and index are built at the
    first search after a change: enroll many people by :meth:`enroll_many`, not one by one with
    searches in between.

    Names of people are text without control characters, in Unicode's composed form; those of images
    are any text. People keep the order of their enrollment.

    Threads may share a gallery: each search sees the gallery before or after a change, and changes
    are serialized. Processes may share a folder, see :meth:`update`.

    Args:
        fingerprint: Fingerprint of the network, from ``mmvlr.apis.network.fingerprint_model``,
            stored with the gallery: embeddings of different networks cannot be compared.
        template: Rule that makes templates of images: a short name (``'mean'``, ``'norm'``,
            ``'ri'``, ``'best'``, ``'images'``), or a config of one of ``TEMPLATES``.
        search: ``'exact'``, ``'faiss'``, or a config such as ``dict(type='faiss', kind='ivf')``.

    Raises:
        ValueError: ``fingerprint`` lacks the embedding's size, or there is no such rule or search.

    Example:
        >>> fingerprint = dict(embedding=dict(dims=2))
        >>> gallery = Gallery(fingerprint, template='best')
        >>> gallery.enroll('Ann', [[1.0, 0.0], [0.8, 0.6]], dict(ri=[0.4, 0.1]))
        >>> gallery.enroll('Bob', [[0.0, 3.0]], dict(ri=[0.2]))
        >>> matches = gallery.search([[0.0, 1.0]], k=2)
        >>> matches.person[0].tolist(), matches.similarity[0].round(2).tolist()
        (['Bob', 'Ann'], [1.0, 0.3199999928474426])
    """

    def __init__(
        self,
        fingerprint: Mapping[str, Any],
        template: str | Mapping[str, Any] = 'mean',
        search: str | Mapping[str, Any] = 'exact',
    ):
        try:
            dims = int(fingerprint['embedding']['dims'])
        except (KeyError, TypeError) as error:
            raise ValueError(
                "fingerprint lacks embedding.dims, the embedding's size; it is made by "
                'mmvlr.apis.network.fingerprint_model(model)'
            ) from error
        self.fingerprint = deepcopy(dict(fingerprint))
        self._lock = threading.RLock()
        config = template_config(template)
        # Immutable; every change replaces it.
        self._state = GalleryState(dims, config, TEMPLATES.build(config), search_config(search))
        self._source: tuple[Path, str] | None = None

    @property
    def people(self) -> list[str]:
        """Names of the people, in the order of their enrollment."""
        return list(self._state.number)

    def __len__(self) -> int:
        return len(self._state)

    def __contains__(self, person: str) -> bool:
        try:
            self._state.find(person)
        except KeyError:
            return False
        return True

    def find(self, person: str) -> str:
        """Return a person's name as the gallery spells it.

        Raises:
            KeyError: The person is not in the gallery.
        """
        return self._state.find(person)

    def __repr__(self) -> str:
        state = self._state
        return (
            f'Gallery({len(state):,} people, {len(state.images.names):,} images, '
            f'template={state.template})'
        )

    @property
    def num_images(self) -> int:
        """Number of images of all people."""
        return len(self._state.images.names)

    @property
    def template(self) -> dict[str, Any]:
        """Config of the rule that makes templates; setting it keeps the images.

        Raises:
            ValueError: There is no such rule, an image lacks a quality that it needs, or the images
                of a person cancel out.
        """
        return dict(self._state.template)

    @template.setter
    def template(self, template: str | Mapping[str, Any]) -> None:
        config = template_config(template)
        rule = TEMPLATES.build(dict(config))
        with self._lock:
            self._state = self._state.change_rule(config, rule)

    @property
    def method(self) -> dict[str, Any]:
        """Config of the search."""
        return dict(self._state.method)

    @method.setter
    def method(self, search: str | Mapping[str, Any]) -> None:
        with self._lock:
            self._state = replace(self._state, method=search_config(search))

    def enroll(
        self,
        person: str,
        embeddings: Any,
        qualities: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Add images of a new or an enrolled person.

        Args:
            person: Name; see :class:`Gallery`.
            embeddings: Embeddings of the n images, of any length, (n, D).
            qualities: Qualities by name, higher is better, (n,) each.
            names: Names of the images, (n,).

        Raises:
            ValueError: The name is blank or holds control characters, an embedding has no direction
                or another size, the images of the person cancel out, a quality is missing that the
                template rule needs, or the counts differ. The gallery is unchanged then.
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
            people: Person in each image, (N,).
            embeddings: Embeddings of any length, (N, D).
            qualities: Qualities by name, (N,) each.
            names: Names of the images, (N,).

        Raises:
            ValueError: See :meth:`enroll`. The gallery is unchanged then.
        """
        with self._lock:
            state = self._state
            self._state = state.enroll(state.check(people, embeddings, qualities, names))

    def enroll_new(
        self,
        people: Sequence[str],
        embeddings: Any,
        qualities: Mapping[str, Any] | None = None,
        names: Sequence[str] | None = None,
    ) -> Enrolled:
        """Add the images that are not enrolled yet for their person; see :meth:`enroll_many`.

        Every image is compared with every other one. Two are the same if their embeddings are equal
        up to rounding.

        Returns:
            The images that were enrolled, and those that are enrolled as other people too.
        """
        with self._lock:
            state = self._state
            new = state.check(people, embeddings, qualities, names)
            self._state, enrolled = state.enroll_new(new)
        return enrolled

    def remove(self, *people: str) -> None:
        """Remove people with all their images.

        Raises:
            KeyError: One of them is not in the gallery, which is unchanged then.
        """
        with self._lock:
            self._state = self._state.remove(people)

    def images(self, person: str) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
        """Return names, embeddings and qualities of a person's images.

        Returns:
            Names of the n images, their unit embeddings, float32 (n, D), and their qualities, (n,)
            each, NaN where an image was enrolled without them.

        Raises:
            KeyError: The person is not in the gallery.
        """
        images = self._state.select_images(person)
        return images.names, images.unit, images.qualities

    def templates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the templates that are searched.

        Returns:
            Unit templates, float32 (T, D), and the index of each one's person in ``people``,
            int64 (T,), not decreasing. Do not write to them.
        """
        return self._state.templates

    def find_templates(self, person: str) -> np.ndarray:
        """Return the unit templates of a person, float32 (T, D).

        Raises:
            KeyError: The person is not in the gallery.
        """
        return self._state.find_templates(person)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each person, in the order of enrollment."""
        state = self._state
        return dict(zip(state.people, np.diff(state.starts).tolist(), strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 of people and templates, which identifies the gallery of a decision."""
        return self._state.digest

    def search(self, embeddings: Any, k: int = 5) -> Matches:
        """Find the most similar people for each probe.

        The best template of a person counts. Equally similar people are in the order of their
        enrollment.

        Args:
            embeddings: Embeddings of the probes, of any length, (P, D).
            k: People per probe.

        Returns:
            min(k, people in the gallery) people per probe. If an approximate search finds fewer,
            the last are ``''`` with similarity ``-inf``.

        Raises:
            ValueError: The gallery is empty, an embedding has no direction or another size, or
                k is below 1.
        """
        return self._state.search(embeddings, k)

    def find_same(self, embeddings: Any) -> list[tuple[int, str, str]]:
        """Return the faces that are enrolled themselves, as (row, person, name of the image)."""
        return self._state.find_same(embeddings)

    # On disk ------------------------------------------------------------------------------------

    def save(self, folder: str | Path, keep_mode: bool = False) -> Path:
        """Write the gallery into a folder, atomically.

        Faces are biometric data: only the owner can read the file, and a folder that is created for
        it.

        Args:
            folder: The folder; other files in it are not changed.
            keep_mode: Keep the permissions of an existing gallery.

        Returns:
            The folder.

        Raises:
            GalleryChangedError: Another process has changed the gallery since it was loaded from
                this folder: use :meth:`update`.
            FileFormatError: The folder holds a file of that name that is no gallery.
        """
        folder = Path(folder)
        with write_alone(folder):
            self._write(folder, keep_mode)
        return folder

    def _write(self, folder: Path, keep_mode: bool) -> None:
        place = folder.resolve()
        # The state is read under the folder's lock: an older state must not overwrite a newer one.
        with self._lock:
            source, found = self._source, read_digest(folder)
            if source is not None and source[0] == place and source[1] != found:
                raise GalleryChangedError(
                    f'{folder} was changed by another process since it was loaded: nothing was '
                    'saved; change it with Gallery.update(folder)'
                )
            digest = write_gallery(folder, self._state.store(self.fingerprint), keep_mode)
            self._source = place, digest

    @classmethod
    @contextmanager
    def update(
        cls,
        folder: str | Path,
        fingerprint: Mapping[str, Any] | None = None,
        template: str | Mapping[str, Any] | None = None,
        search: str | Mapping[str, Any] = 'exact',
        keep_mode: bool = False,
    ) -> Iterator['Gallery']:
        """Load a gallery, change it and save it, while no other process writes it.

        It is saved at the end of the ``with`` block if it was changed; if the block ends with an
        error, the file is not changed. Other writers wait; readers see the old gallery until then.

        Args:
            folder: The folder. If it holds no gallery, one is created, which requires
                ``fingerprint``.
            fingerprint: See :meth:`load`.
            template: The rule of a new gallery (default: ``'mean'``), or the new rule of an
                existing one.
            search: See :class:`Gallery`.
            keep_mode: See :meth:`save`.

        Raises:
            FileNotFoundError: There is no gallery in the folder, and no ``fingerprint`` for one.
            LockedError: Another process writes for more than ten minutes.

        Example:
            Two processes can do this at the same time without losing people::

                with Gallery.update('gallery', inferencer.fingerprint) as gallery:
                    gallery.enroll('Ann', faces.embedding, faces.qualities, faces.names)
        """
        folder = Path(folder)
        if fingerprint is None and not has_gallery(folder):
            raise FileNotFoundError(f'{folder} holds no gallery: {FILE} is not there')
        with write_alone(folder):
            before = None
            if fingerprint is None or has_gallery(folder):
                gallery = cls.load(folder, fingerprint, search)
                before = gallery._state
                if template is not None and template_config(template) != gallery.template:
                    gallery.template = template
            else:
                gallery = cls(fingerprint, template or 'mean', search)
            yield gallery
            if gallery._state is not before:
                gallery._write(folder, keep_mode)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        fingerprint: Mapping[str, Any] | None = None,
        search: str | Mapping[str, Any] = 'exact',
    ) -> 'Gallery':
        """Read a saved gallery, also while another process saves it.

        Args:
            folder: The folder.
            fingerprint: Fingerprint of the network of the probes; without it nothing is checked.
            search: See :class:`Gallery`.

        Raises:
            FileNotFoundError: There is no gallery in the folder.
            FileFormatError: A file is damaged, missing, of another gallery or of a newer format.
            ModelMismatchError: Its embeddings are of another network or preprocessing.
        """
        stored = read_gallery(folder)
        path = str(Path(folder) / FILE)
        if fingerprint is not None:
            check_fingerprint(fingerprint, stored.fingerprint, path)
        build_stored_rule(stored.template, stored.qualities, len(stored.images), path)
        gallery = cls(stored.fingerprint, stored.template, search)
        gallery._state = gallery._state.restore(stored)
        gallery._source = Path(folder).resolve(), stored.digest
        return gallery
