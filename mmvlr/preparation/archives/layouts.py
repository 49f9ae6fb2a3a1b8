"""Archives of TinyFace, QMUL-SurvFace and SCface."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from mmvlr.datasets import SCface, SurvFace, TinyFace
from mmvlr.datasets.pairs_files import read_name_pairs
from mmvlr.datasets.scface import BY_DISTANCE, FLAT, MUGSHOT, MUGSHOTS, SURVEILLANCE

from .archive import Archive, alike, find_identity

INFRA_RED = (6, 7)


class TinyFaceArchive(Archive):
    """The layout of :class:`TinyFace`."""

    KEY = 'tinyface'
    TOP = (TinyFace.TRAIN, TinyFace.TEST)

    def check(self) -> None:
        """See :class:`Archive`."""
        self.people(self.find(self.base, TinyFace.TRAIN))
        test = self.find(self.base, TinyFace.TEST)
        self.matched(test, TinyFace(lazy_init=True))
        self.mated('probe')
        distractors = self.find(test, TinyFace.DISTRACTORS)
        self.images(distractors, 'distractor', lambda name: None)
        self.rest(test)
        train = dict(people=len(self.persons('train')), images=self.counts('train'))
        self.official(TinyFace.OFFICIAL['train'], train, 'training {}')
        test_counts = {role: self.counts(role) for role in TinyFace.OFFICIAL['test']}
        self.official(TinyFace.OFFICIAL['test'], test_counts, '{} images')


class SurvFaceArchive(Archive):
    """The layout of :class:`SurvFace`."""

    KEY = 'survface'
    TOP = (SurvFace.TRAIN, SurvFace.IDENTIFICATION, SurvFace.VERIFICATION)
    WRAPPER = SurvFace.WRAPPER

    def check(self) -> None:
        """See :class:`Archive`."""
        self.people(self.find(self.base, SurvFace.TRAIN))
        test = self.find(self.base, SurvFace.IDENTIFICATION)
        self.matched(test, SurvFace(lazy_init=True))
        self.images(self.find(test, SurvFace.UNMATED), 'unmated_probe', find_identity)
        self.rest(test)
        self.mated('mated_probe')
        self._verification()
        train = dict(people=len(self.persons('train')), images=self.counts('train'))
        self.official(SurvFace.OFFICIAL['train'], train, 'training {}')
        found = {
            'people in the gallery': len(self.persons('gallery')),
            'mated probes': self.counts('mated_probe'),
        }
        self.official(SurvFace.OFFICIAL['identification'], found)

    def _verification(self) -> None:
        test = self.find(self.base, SurvFace.VERIFICATION)
        folder = self.find(test, SurvFace.IMAGES)
        images = self.images(folder, 'verification', find_identity)
        elsewhere = self.find(self.base, SurvFace.EVALUATION, required=False)
        unnamed, listed_all = set(images or ()), True
        for kind in ('positive', 'negative'):
            key = f'{kind}_pairs_names'
            name = f'{key}.mat'
            # Some copies have the files there; only if they are nowhere, the first place is named.
            there = elsewhere is not None and name in self.entries(elsewhere)
            at = elsewhere if there and not (test and name in self.entries(test)) else test
            path = self.find(at, name, is_file=True)
            pairs = self.labels(path, lambda p, key=key: read_name_pairs(p, key), None)
            if pairs is None:
                listed_all = False
                continue
            names = [name for pair in pairs for name in pair]
            where = (test or self.base / SurvFace.VERIFICATION) / SurvFace.IMAGES
            unnamed &= self.compare(names, images, where, path)
            for first, second in pairs:
                numbers = find_identity(first), find_identity(second)
                if None not in numbers and (numbers[0] == numbers[1]) != (kind == 'positive'):
                    text = f'{first} and {second}'
                    self.problem(f'{kind} pairs that the file names contradict', path, text)
        if listed_all:
            for name in sorted(unnamed):
                self.note('verification images that are in no pair', images[name])
        self.rest(test)


class SCfaceArchive(Archive):
    """The layout of :class:`SCface`, by distance or flat."""

    KEY = 'scface'
    BY_DISTANCE = tuple(map(BY_DISTANCE.format, (1, 2, 3)))
    TOP = (MUGSHOTS, FLAT, *BY_DISTANCE)
    WRAPPER = SCface.WRAPPER

    def check(self) -> None:
        """See :class:`Archive`."""
        #: (subject, distance, camera) of the surveillance images, subject of the mugshots.
        self._seen: dict[tuple[int, ...], Path] = {}
        official = SCface(lazy_init=True)
        mugshots = self.find(self.base, MUGSHOTS)
        self._take(mugshots, 'mugshot', MUGSHOT, 'NNN_frontal', lambda found: (int(found[1]),))
        folders = self._surveillance(official.distances, official.cameras)
        subjects = {key[0] for key in self._seen}
        for subject in sorted(subjects):
            if mugshots and (subject,) not in self._seen:
                self.problem('missing images', mugshots / f'{subject:03d}_frontal.JPG')
            for (distance, camera), folder in folders.items():
                if (subject, distance, camera) not in self._seen:
                    name = f'{subject:03d}_cam{camera}_{distance}.jpg'
                    self.problem('missing images', folder / name)
        count = len(official.gallery_subjects)
        each = len(official.distances) * len(official.cameras)
        visible = [k for k in self._seen if len(k) == 3 and k[2] in official.cameras]
        names = ('subjects', 'mugshots', 'surveillance images by visible cameras')
        found = (len(subjects), self.counts('mugshot'), len(visible))
        self.official(
            dict(zip(names, (count, count, count * each), strict=True)),
            dict(zip(names, found, strict=True)),
        )

    def is_extra(self, path: Path) -> bool:
        """Other views, cameras and sizes of the database."""
        kinds = r'(mugshot|surveillance_cameras)_.*'
        return super().is_extra(path) or re.fullmatch(kinds, path.name) is not None

    def _surveillance(
        self, distances: Sequence[int], cameras: Sequence[int]
    ) -> dict[tuple[int, int], Path]:
        """Take the surveillance images.

        Returns:
            (distance, camera) -> the folder that is there for them; without infra-red cameras.
        """
        names = {alike(name) for name in self.entries(self.base)}
        by_distance = any(alike(name) in names for name in self.BY_DISTANCE)
        if not by_distance and alike(FLAT) in names:
            flat = self.find(self.base, FLAT)
            self._take(flat, 'surveillance', SURVEILLANCE, 'NNN_camK_D', _surveillance_key)
            return {(d, c): flat for d in distances for c in cameras if flat}
        folders = {}
        for distance, name in zip(distances, self.BY_DISTANCE, strict=True):
            outer = self.find(self.base, name)
            for camera in (*cameras, *INFRA_RED):
                inner = self.find(outer, f'cam_{camera}', required=camera in cameras)
                self._take(
                    inner,
                    f'distance_{distance}',
                    SURVEILLANCE,
                    'NNN_camK_D',
                    _surveillance_key,
                    (distance, camera),
                )
                if inner and camera in cameras:
                    folders[distance, camera] = inner
            self.rest(outer)
        return folders

    def _take(
        self,
        folder: Path | None,
        part: str,
        pattern: re.Pattern,
        form: str,
        find_key: Callable[[re.Match], tuple[int, ...]],
        place: tuple[int, int] | None = None,
    ) -> None:
        """Take the images of a folder whose names have a form.

        Args:
            folder: The folder; None if it is missing.
            part: Name of the part.
            pattern: The form.
            form: The form as text.
            find_key: Gives what is to be there once: (subject,) or (subject, distance, camera).
            place: (distance, camera) of the folder.
        """

        def subject(name: str) -> int | None:
            found = pattern.match(name)
            return None if found is None else int(found[1])

        for name, path in (self.images(folder, part, subject) or {}).items():
            found = pattern.match(name)
            if found is None:
                self.problem(f'images whose name is not {form}', path)
                continue
            key = find_key(found)
            if place is not None and key[1:] != place:
                self.problem('images whose name contradicts their folder', path)
            elif self._seen.setdefault(key, path) != path:
                text = f'beside {self._name(self._seen[key])}'
                self.problem('second images of the same', path, text)


def _surveillance_key(found: re.Match) -> tuple[int, int, int]:
    subject, camera, distance = (int(number) for number in found.groups())
    return subject, distance, camera


ARCHIVES = {kind.KEY: kind for kind in (TinyFaceArchive, SCfaceArchive, SurvFaceArchive)}
