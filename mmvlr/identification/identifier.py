"""Identify people in images by a model, a gallery and, optionally, a decision."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.structures import FaceTable
from mmvlr.utils.vectors import unit_rows

from .answers import Calibration, Comparison, Embedder, Enrollment, Identification
from .calibrating import SearchedFaces, calibrate
from .conformal import describe_shortage
from .decision import Decision
from .gallery import Gallery
from .gallery_file import has_gallery
from .gate import Gate
from .model_check import check_model
from .names import normalize_name
from .operating import describe_operation, find_probability
from .people import (
    describe_names,
    describe_split,
    find_most_people,
    find_named_people,
    find_owner,
    find_people,
    find_strangers,
    is_empty,
)
from .tracks import PROBE_KEY, TrackRule, TrackSource, find_rule, group_owners, name_tracks


class Identifier:
    """Enroll people, identify the people in images, and compare two faces.

    The command ``mmvlr`` and the page in the browser use this class, so all give the same answers.

    Args:
        inferencer: The model; None if people are only removed.
        gallery: The gallery, or its folder, which need not exist before people are enrolled; None
            for a new gallery in memory.
        decision: Thresholds of the gallery, or their file.
        keep_mode: Keep the permissions of existing files, which become private otherwise.

    Raises:
        FileNotFoundError: There is no such decision.
        FileFormatError: A file is damaged.
        ModelMismatchError: A file is of another model.

    Example:
        Enroll the people of a folder, and search::

            identifier = Identifier(FaceInferencer('riface.safetensors'), 'gallery')
            print(identifier.enroll('people').notes)
            found = identifier.identify('crops')
    """

    def __init__(
        self,
        inferencer: Embedder | None,
        gallery: Gallery | str | Path | None = None,
        decision: Decision | str | Path | None = None,
        keep_mode: bool = False,
    ):
        self.inferencer = inferencer
        self.fingerprint = None if inferencer is None else inferencer.fingerprint
        self.keep_mode = keep_mode
        self.folder = Path(gallery) if isinstance(gallery, (str, Path)) else None
        self._gallery = None if self.folder else gallery
        if gallery is None:
            self._gallery = Gallery(self.fingerprint)
        self.decision = decision
        if isinstance(decision, (str, Path)):
            self.decision = Decision.load(decision, self.fingerprint)

    @property
    def gallery(self) -> Gallery:
        """The gallery; one in a folder is read at first use and after :meth:`enroll`."""
        if self._gallery is None:
            self._gallery = Gallery.load(self.folder, self.fingerprint)
        return self._gallery

    def enroll(
        self,
        faces: Any = None,
        person: str | None = None,
        *,
        by_name: bool = False,
        remove: Sequence[str] = (),
        template: Any = None,
        on_error: str = 'collect',
        gate: Gate | None = None,
        force: bool = False,
    ) -> Enrollment:
        """Add people to the gallery, or remove them; with an error, nothing is changed.

        A gallery in a folder is locked meanwhile, and people whom another process has enrolled are
        kept.

        Args:
            faces: Images of ``person``, see :func:`mmvlr.apis.images.read_images`; without a
                person, a folder with a folder for each person. Images that are enrolled already
                are left out.
            person: The person in all images.
            by_name: Take the person from the name of each image in a folder: ``ann_1.jpg`` shows
                ``ann``.
            remove: People to remove first.
            template: The new template rule, see :class:`mmvlr.identification.Gallery`.
            on_error: See :meth:`mmvlr.apis.FaceInferencer.stream`.
            gate: Judges the images; those that it refuses are left out. What it found is kept with
                the images as the qualities ``attracts`` and ``forced``.
            force: Enroll refused images all the same; ``forced`` is 1 for them.

        Raises:
            FileNotFoundError: There is no such folder, or no gallery to remove people from.
            ValueError: A name or an embedding is refused, see
                :meth:`mmvlr.identification.Gallery.enroll`, no image can be used, or somebody to
                remove is not in the gallery.
            BrokenModelError: The embeddings do not differ.
        """
        if self.folder is not None and has_gallery(self.folder):
            # Another model, or a damaged file, is found before the images are embedded.
            self._gallery = Gallery.load(self.folder, self.fingerprint)
        owners, results, notes, empty = [], None, [], []
        if faces is not None:
            owners, results, empty = self._embed_people(faces, person, on_error, by_name)
            check_model(self.inferencer, results, faces, owners)
            notes = describe_names(owners, empty) + (describe_split(owners) if by_name else [])
        qualities, refused = {} if results is None else results.qualities, []
        if gate is not None and results is not None:
            results, owners, qualities, refused = gate.admit(results, owners, force)
        with self._change(template) as gallery:
            missing = [name for name in remove if name not in gallery]
            if missing:
                raise ValueError(f'{missing[0]!r} is not in the gallery of {len(gallery)} people')
            gallery.remove(*remove)
            if results is not None:
                found = gallery.enroll_new(owners, results.embedding, qualities, results.names)
        self._gallery = gallery
        if remove and self.folder is not None:
            # The names alone do not prove that the files are mmvlr's, so they are not deleted.
            endings = ('safetensors', 'json')
            left = [path for end in endings for path in self.folder.glob(f'.gallery.*.{end}')]
            if left:
                notes.append(
                    f'{len(left)} files such as {left[0]} look like what a killed mmvlr 0.1 has '
                    'left; they may hold faces of removed people: delete them'
                )
        if results is None:
            return Enrollment(len(gallery), removed=list(remove), notes=notes)
        owners = [gallery.find(owner) for owner in owners]
        shared = [
            (results.names[row], owners[row], image, other) for row, other, image in found.shared
        ]
        if found.known:
            notes.append(f'{len(found.known)} images are enrolled already')
        if shared:
            told = '; '.join(f'{a} of {p!r} is {b} of {q!r}' for a, p, b, q in shared[:3])
            notes.append(
                f'{len(shared)} images are enrolled as two people: {told}'
                + ('; ...' if len(shared) > 3 else '')
            )
        enrolled = dict(Counter(owners[row] for row in found.rows))
        done = len(gallery), enrolled, list(remove), results, notes, shared, refused
        return Enrollment(*done)

    def remove(self, *people: str) -> Enrollment:
        """Remove people and all their data from the gallery and its folder."""
        return self.enroll(remove=people)

    def calibrate(
        self,
        unmated: Sequence[str | Path],
        mated: str | Path | None = None,
        *,
        target_fpir: float = 0.01,
        target_error: float | None = None,
        quality: str | None = None,
        abstain_by: str = 'distance',
        name: str = '',
        tracks: TrackSource | None = None,
        rule: TrackRule | None = None,
    ) -> Calibration:
        """Make the decision of the gallery from faces whose correct answers are known.

        With ``tracks`` the probes are tracks, and rate and error are those of tracks.

        Args:
            unmated: Images of people who are not enrolled. In a folder, each folder is a person;
                other images each count as a different person.
            mated: Folder with a folder for each enrolled person, named as in the gallery, with
                other images than those enrolled; needed for bins and abstention.
            target_fpir: See :func:`mmvlr.identification.calibrate`.
            target_error: See there; None: every face is answered.
            quality: Quality by which thresholds are binned (default: ``'ri'``, else ``'norm'``).
            abstain_by: Quality that decides on abstention, or ``'distance'``.
            name: Name of the calibration set, for the file.
            tracks: See :meth:`identify`; of mated and unmated faces.
            rule: See :meth:`identify`.

        Raises:
            UnknownOwnerError: The person of an image cannot be determined.
            ValueError: An unmated person is enrolled or a mated one is not, an image is enrolled
                itself, or there are too few people.
            BrokenModelError: The embeddings do not differ.
        """
        gallery, rule = self.gallery, find_rule({}, tracks, rule)
        most = find_most_people(unmated)
        # Before the faces are embedded, which may take long.
        if most is not None and (told := describe_shortage(target_fpir, most)):
            raise ValueError(told)
        strangers = self.inferencer.embed(list(map(str, unmated)))
        owners = find_strangers(strangers.names, unmated)
        check_model(self.inferencer, strangers, unmated, owners)
        both = sorted(owner for owner in {*owners} if owner in gallery)
        both += [strangers.names[row] for row, *_ in gallery.find_same(strangers.embedding)]
        if both:
            raise ValueError(
                f'{len(both)} unmated people or images are in the gallery, such as {both[0]}: '
                'they would make the threshold too high. Take them out of one of the two'
            )
        given, empty = [strangers], []
        parts, people = [], [owners]
        if mated is not None:
            owners, known, empty = self._embed_people(mated, None)
            given.append(known)
            people.append(owners)
            missing = sorted(owner for owner in {*owners} if owner not in gallery)
            if missing:
                raise ValueError(
                    f'{len(missing)} people of {mated} are not in the gallery, such as '
                    f'{missing[0]}: enroll them, or move them to the unmated ones'
                )
            same = [known.names[row] for row, *_ in gallery.find_same(known.embedding)]
            if same:
                raise ValueError(
                    f'{len(same)} images of {mated} are enrolled themselves, such as {same[0]}: '
                    'calibrate with other images of the people'
                )
        parts, left = given, {}
        if rule is not None:
            grouped = [rule(name_tracks(part, tracks)) for part in given]
            people = [group_owners(*pair) for pair in zip(grouped, people, strict=True)]
            parts = [part.probes for part in grouped]
            left = {name: count for part in grouped for name, count in part.empty.items()}
        matches = [gallery.search(part.embedding, k=1) for part in parts]
        found = [np.zeros(len(parts[0]), bool)]
        if mated is not None:
            names = [gallery.find(owner) for owner in people[1]]
            found.append(matches[1].person[:, 0] == np.array(names, object))
        bins = quality or next(name for name in ('ri', 'norm') if name in strangers.qualities)
        searched = SearchedFaces(
            similarity=np.concatenate([part.similarity[:, 0] for part in matches]),
            mated=np.repeat([False, True][: len(parts)], [len(part) for part in parts]),
            correct=np.concatenate(found),
            people=np.array(
                [f'{number} {owner}' for number, own in enumerate(people) for owner in own]
            ),
            qualities={
                name: np.concatenate([part.qualities[name] for part in parts])
                for name in strangers.qualities
            },
        )
        fit = partial(
            calibrate,
            fingerprint=self.fingerprint,
            target_fpir=target_fpir,
            bin_quality=bins if mated is not None else None,
            abstain_by=abstain_by if target_error is not None else None,
            target_error=target_error,
            name=name,
            gallery=dict(
                path=str(self.folder or ''),
                people=len(gallery),
                images=gallery.num_images,
                digest=gallery.digest,
            ),
        )
        decision = fit(searched)
        stated = {**decision.calibrated_on, **describe_operation(searched, decision, fit, bins)}
        if rule is not None:
            stated[PROBE_KEY] = rule.describe()
        self.decision = decision = replace(decision, calibrated_on=stated)
        return Calibration(decision, given, empty, left)

    def identify(
        self,
        faces: Any,
        top: int = 3,
        on_error: str = 'collect',
        *,
        tracks: TrackSource | None = None,
        rule: TrackRule | None = None,
    ) -> Identification:
        """Identify the person in each image, or in each track of images.

        Args:
            faces: Images; see :func:`mmvlr.apis.images.read_images`.
            top: People to list for each.
            on_error: See :meth:`mmvlr.apis.FaceInferencer.stream`.
            tracks: Which images are one probe, see
                :func:`mmvlr.identification.tracks.name_tracks`; None: each image is one.
            rule: How a track becomes a probe (default: as the decision says, else the mean).

        Raises:
            ValueError: No image can be used, the gallery is empty, an image has no track, or the
                decision was calibrated on other probes.
        """
        gallery, decision = self.gallery, self.decision
        rule = find_rule({} if decision is None else decision.calibrated_on, tracks, rule)
        results, grouped = self.inferencer.embed(faces, on_error), None
        if rule is not None:
            grouped = rule(name_tracks(results, tracks))
            results = grouped.probes
        matches = gallery.search(results.embedding, k=top)
        verdicts, note = None, ''
        if decision is not None:
            note = decision.gallery_note(gallery)
            verdicts = decision.decide(
                matches.similarity[:, 0], matches.person[:, 0], results.qualities
            )
        estimate, chances = find_probability(decision), None
        if estimate is not None:
            chances = estimate(decision, matches.similarity[:, 0], results.qualities)
        return Identification(results, matches, verdicts, note, grouped, rule, chances)

    def verify(self, first: Any, second: Any) -> Comparison:
        """Compare two faces.

        Args:
            first: One image.
            second: Another.

        Raises:
            ValueError: One of them is not exactly one image.
            NoFaceError: The inferencer is to align faces, and one of them has none.
            BrokenModelError: The model gives every face the same embedding.
        """
        one, two = self._embed_one(first), self._embed_one(second)
        faces = FaceTable.join([one, two])
        check_model(self.inferencer, faces, first)
        unit = unit_rows(faces.embedding)
        similarity = float(unit[0].astype(np.float64) @ unit[1])
        decision = self.decision
        if decision is None:
            return Comparison(similarity, faces)
        poor: tuple[int, ...] = ()
        if decision.level is not None and decision.abstain_by in faces.qualities:
            low = faces.qualities[decision.abstain_by] < decision.level.level
            poor = tuple(np.flatnonzero(low).tolist())
        threshold = max(found.threshold for found in decision.thresholds.thresholds)
        return Comparison(similarity, faces, threshold, poor)

    def _change(self, template: Any) -> AbstractContextManager[Gallery]:
        if self.folder is not None:
            return Gallery.update(self.folder, self.fingerprint, template, keep_mode=self.keep_mode)
        if template is not None:
            self.gallery.template = template
        return nullcontext(self.gallery)

    def _embed_one(self, image: Any) -> FaceTable:
        parts = list(islice(self.inferencer.stream(image, 'raise'), 2))
        if len(parts) != 1 or len(parts[0]) != 1:
            raise ValueError(f'verify compares two images; {image!r:.80} is not one')
        return parts[0]

    def _embed_people(
        self, faces: Any, person: str | None, on_error: str = 'collect', by_name: bool = False
    ) -> tuple[list[str], FaceTable, list[str]]:
        """Return the person of each face, the faces, and people without an image."""
        if person is not None:
            normalize_name(person)
            results = self.inferencer.embed(faces, on_error)
            return [person] * len(results), results, []
        if by_name:
            named = find_named_people(faces)
            for name in {*named.values()}:
                normalize_name(name)
            results = self.inferencer.embed(list(named), on_error)
            return [named[name] for name in results.names], results, []
        folders = find_people(faces)
        for folder in folders:
            normalize_name(folder.name)
        results = self.inferencer.embed([str(folder) for folder in folders], on_error)
        # A folder without images is no image that cannot be used.
        failed = dict(results.failures)
        empty = {str(f) for f in folders if str(f) in failed and is_empty(f)}
        failures = [failure for failure in results.failures if failure[0] not in empty]
        results = replace(results, meta={**results.meta, 'failures': failures})
        owners = [find_owner(name, [Path(faces)]) for name in results.names]
        return owners, results, [Path(name).name for name in sorted(empty)]
