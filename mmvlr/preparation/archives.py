"""Checks of an unpacked archive against the layout that its data set reads.

:func:`check_archive` looks at every name and decodes every image of TinyFace, SCface or
QMUL-SurvFace. Problems are collected, never the first only: what is missing, unexpected,
unreadable or contradicts something else. Notes are what is odd and does no harm.
"""

import hashlib
import io
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mmvlr.datasets.alignment import RECIPE_FILE, TABLE_FILE
from mmvlr.datasets.base import alike_people, person_key
from mmvlr.datasets.finding import IMAGE_SUFFIXES
from mmvlr.datasets.inspection import Entry, inspect_images, name_copies
from mmvlr.datasets.pairs_files import (
    PairsFileDataset,
    prefix_identity,
    read_name_pairs,
    read_pairs,
)
from mmvlr.datasets.scface import (
    BY_DISTANCE,
    FLAT,
    MUGSHOT,
    MUGSHOTS,
    SURVEILLANCE,
    WRAPPER,
    SCface,
)
from mmvlr.datasets.survface import SurvFace
from mmvlr.datasets.tinyface import TinyFace
from mmvlr.datasets.transforms import ImageError, read_image
from mmvlr.utils.io import write_csv
from mmvlr.utils.work import in_order, progress_bar

MANIFEST = 'manifest.csv'
COLUMNS = ['file', 'part', 'person', 'width', 'height', 'bytes', 'sha256']
#: What an operating system leaves in folders.
LITTER = frozenset({'thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r'})
#: What archives hold beside the data: readme files and evaluation code.
TEXT_SUFFIXES = frozenset({'.txt', '.md', '.pdf', '.doc', '.docx', '.html', '.m'})
SUFFIXES = dict(
    JPEG=('.jpg', '.jpeg'),
    MPO=('.jpg', '.jpeg'),
    PNG=('.png',),
    BMP=('.bmp',),
    TIFF=('.tif', '.tiff'),
    WEBP=('.webp',),
)
JPEG_END = b'\xff\xd9'
END_MARKERS = dict(JPEG=JPEG_END, MPO=JPEG_END, PNG=b'IEND')
#: Upper ends of the bins of the histogram, in pixels; they are in the next bin.
SIDES = (8, 12, 16, 20, 24, 32, 48, 64, 112)
INFRA_RED = (6, 7)
#: So many notes of a kind are printed; problems are printed all.
SHOWN_NOTES = 10


@dataclass
class ArchiveReport:
    """What :func:`check_archive` found.

    Attributes:
        dataset: ``'tinyface'``, ``'scface'`` or ``'survface'``.
        root: The folder that was given.
        base: The folder that holds the archive: ``root``, or a folder in it.
        problems: Kind -> lines, each with the name of a file or folder relative to ``root``.
        notes: The same, for what does no harm.
        rows: One dict a readable image, by :data:`COLUMNS`, in the order of the names.
        found: Part -> number of its images, readable or not.
    """

    dataset: str
    root: Path
    base: Path
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rows: list[dict] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)

    @property
    def num_problems(self) -> int:
        """Number of problems of all kinds."""
        return sum(map(len, self.problems.values()))

    def describe(self) -> str:
        """Return people, images and native sizes by part, notes, and every problem."""
        lines = [f'{self.dataset} in {shown(self.base)}', *self._statistics()]
        for title, findings in (('notes', self.notes), ('problems', self.problems)):
            lines += ['', f'{title}: {sum(map(len, findings.values())):,}']
            for kind, found in findings.items():
                listed = found[:SHOWN_NOTES] if findings is self.notes else found
                lines += [f'  {kind} ({len(found):,})', *(f'    {line}' for line in listed)]
                if len(listed) < len(found):
                    lines.append(f'    and {len(found) - len(listed):,} more')
        return '\n'.join(lines)

    def _statistics(self) -> list[str]:
        rows = {part: [row for row in self.rows if row['part'] == part] for part in self.found}
        sides = {
            part: np.array([min(row['width'], row['height']) for row in of_part])
            for part, of_part in rows.items()
        }
        width = max([len(part) for part in self.found], default=0) + 2
        lines = [f'  {"":{width}}{"people":>9}{"images":>10}{"readable":>10}   shorter side (px)']
        for part, count in self.found.items():
            people = len({row['person'] for row in rows[part]} - {''})
            line = f'  {part:{width}}{people or "-":>9}{count:>10,}{len(rows[part]):>10,}'
            if len(sides[part]):
                low, middle, high = np.quantile(sides[part], (0, 0.5, 1))
                line += f'   {low:.0f} to {high:.0f}, median {middle:g}'
            lines.append(line)
        lines += ['', f'  {"shorter side":{width + 6}}' + ''.join(f'{p:>14}' for p in self.found)]
        for low, high in zip((0, *SIDES), (*SIDES, np.inf), strict=True):
            counts = [int(((s >= low) & (s < high)).sum()) for s in sides.values()]
            if any(counts):
                name = f'{low} to {high - 1}' if high < np.inf else f'{low} and more'
                lines.append(f'  {name:{width + 6}}' + ''.join(f'{c:>14,}' for c in counts))
        return lines

    def write_manifest(self, path: str | Path) -> None:
        """Write the readable images as a table, atomically."""
        write_csv(Path(path), COLUMNS, self.rows)


def shown(text: object) -> str:
    r"""Return text that can be printed: bytes of names that are no UTF-8 become ``\udcNN``."""
    return str(text).encode('utf-8', 'backslashreplace').decode()


def alike(name: str) -> str:
    """Return what is equal for names that differ only in case or in the form of Unicode."""
    return unicodedata.normalize('NFC', name).casefold()


def find_identity(name: str) -> int | None:
    """Return the person in a file name such as ``12_3.jpg``, or None if there is none."""
    try:
        return prefix_identity(name)
    except ValueError:
        return None


def inspect_image(path: str) -> dict[str, Any]:
    """Decode an image fully.

    Returns:
        dict: ``width``, ``height`` (pixels), ``bytes``, ``sha256`` and ``format`` (Pillow's name);
        or ``problem``, what is wrong with it.
    """
    try:
        content = Path(path).read_bytes()
        if not content:
            return dict(problem='zero bytes')
        height, width = read_image(path).shape[:2]
        with Image.open(io.BytesIO(content)) as image:
            kind = image.format
    except ImageError as error:
        cause = error.__cause__
        unknown = isinstance(cause, UnidentifiedImageError)
        return dict(problem='no image' if unknown else str(cause))
    except Exception as error:  # decoders raise a dozen types for damaged files
        return dict(problem=f'{type(error).__name__}: {error}')
    # Pillow is content without it if all pixels are there; the file is cut short all the same.
    if END_MARKERS.get(kind, b'') not in content:
        return dict(problem='truncated: no end marker')
    digest = hashlib.sha256(content).hexdigest()
    return dict(width=width, height=height, bytes=len(content), sha256=digest, format=kind)


def _inspector() -> Callable[[str], dict[str, Any]]:
    return inspect_image


class Archive:
    """Collects what is in an archive, and what is wrong with it.

    A subclass describes one layout.

    Args:
        root: The folder that was given.
        manifest: The file that is to be written: not unexpected.
    """

    #: Name of the data set in the tool.
    KEY = ''
    #: Folders at the top; one of them is enough to recognize the archive.
    TOP: tuple[str, ...] = ()
    #: Folder of the archive in which the data set looks by itself.
    WRAPPER = ''

    def __init__(self, root: Path, manifest: Path | None = None):
        self._listed: dict[Path, dict[str, Path]] = {}
        self._taken: set[Path] = set()
        #: What is to be decoded: file, part, person.
        self.todo: list[tuple[Path, str, int | None]] = []
        self.root = root
        self.report = ArchiveReport(self.KEY, root, root)
        self.report.base = self.base = self._find_base()
        self._ignored = {self.base / name for name in (MANIFEST, RECIPE_FILE, TABLE_FILE)}
        self._ignored |= {manifest} if manifest else set()

    def check(self) -> None:
        """Look at all names and label files; fill :attr:`todo`."""
        raise NotImplementedError

    def run(self, jobs: int) -> ArchiveReport:
        """Check names, label files and images."""
        self.check()
        self.rest(self.base)
        for _, part, _ in self.todo:
            self.report.found[part] = self.report.found.get(part, 0) + 1
        self._compare_people()
        self._decode(jobs)
        return self.report

    def problem(self, kind: str, path: Path, detail: object = '') -> None:
        """Note a problem with a file or folder."""
        self.report.problems[kind].append(self._line(path, detail))

    def note(self, kind: str, path: Path, detail: object = '') -> None:
        """Note what does no harm."""
        self.report.notes[kind].append(self._line(path, detail))

    def _name(self, path: Path) -> str:
        return shown(path.relative_to(self.root).as_posix())

    def _line(self, path: Path, detail: object) -> str:
        return self._name(path) + (f': {shown(detail)}' if detail else '')

    def _find_base(self) -> Path:
        """Return the folder that holds the archive; say so if it lies deeper than it should."""
        if self.WRAPPER and (self.root / self.WRAPPER).is_dir():
            return self.root / self.WRAPPER
        tops = {alike(name) for name in self.TOP}
        level = [self.root]
        for depth in range(3):
            holders = [f for f in level if any(alike(e) in tops for e in self._folders(f))]
            if holders and depth == 0:
                return self.root
            for holder in holders:
                self.problem(
                    'archives unpacked too deep', holder, f'give {shown(holder)} as the root'
                )
            if holders:
                return holders[0]
            level = [path for folder in level for path in self._folders(folder).values()]
        return self.root

    @staticmethod
    def _folders(folder: Path) -> dict[str, Path]:
        try:
            return {p.name: p for p in sorted(folder.iterdir()) if p.is_dir()}
        except OSError:
            return {}

    def entries(self, folder: Path) -> dict[str, Path]:
        """Return what lies in a folder, but for hidden files, which no data set reads."""
        if folder in self._listed:
            return self._listed[folder]
        found: dict[str, Path] = {}
        self._listed[folder] = found
        try:
            content = sorted(folder.iterdir())
        except OSError as error:
            self.problem('folders that cannot be read', folder, error.strerror)
            return found
        for path in content:
            if path.name.startswith('.'):
                self.note('hidden files and folders, which are not read', path)
                continue
            if not path.name.isascii():
                self.problem('names with other characters than ASCII', path, ascii(path.name))
            found[path.name] = path
        return found

    def find(
        self, folder: Path | None, name: str, is_file: bool = False, required: bool = True
    ) -> Path | None:
        """Return an entry of a folder, also if its name differs only in case; None if missing.

        Args:
            folder: The folder; None, one that is missing itself, has no entries.
            name: Name of the entry.
            is_file: Whether it must be a file, or a folder.
            required: Whether it is a problem if it is missing.
        """
        if folder is None:
            return None
        entries = self.entries(folder)
        path = entries.get(name)
        if path is None:
            path = next((p for n, p in entries.items() if alike(n) == alike(name)), None)
            if path is not None:
                self._misspelt(path, f'{name} is expected')
        if path is None:
            if required:
                self.problem(f'missing {"files" if is_file else "folders"}', folder / name)
            return None
        self._taken.add(path)
        if is_file != path.is_file() or is_file == path.is_dir():
            self.problem(f'entries that should be {"files" if is_file else "folders"}', path)
            return None
        return path

    def _misspelt(self, path: Path, expected: str) -> None:
        kind = 'names that differ only in case or in the form of Unicode; rename them'
        self.problem(kind, path, expected)

    def unexpected(self, path: Path) -> None:
        """Note an entry that the layout does not have."""
        if path.name.lower() in LITTER and path.is_file():
            self.note('files of the operating system, which are not read', path)
            return
        self.problem(f'unexpected {"folders" if path.is_dir() else "files"}', path)

    def is_extra(self, path: Path) -> bool:
        """Say whether a folder belongs to the archive although no data set reads it."""
        return 'evaluation' in path.name.lower()

    def rest(self, folder: Path | None) -> None:
        """Note what lies in a folder beside what :meth:`find` was asked for."""
        for path in self.entries(folder).values() if folder else ():
            if path in self._taken or path in self._ignored:
                continue
            is_folder = path.is_dir()
            if (is_folder and self.is_extra(path)) or (
                not is_folder and path.suffix.lower() in TEXT_SUFFIXES
            ):
                self.note('files and folders that are not read', path)
            else:
                self.unexpected(path)

    def images(
        self, folder: Path | None, part: str, person: Callable[[str], int | None]
    ) -> dict[str, Path] | None:
        """Take the images of a folder; note what else is in it.

        Args:
            folder: The folder; None if it is missing.
            part: Name of the part of the archive.
            person: Gives the person for a file's name.

        Returns:
            File name -> path; None if the folder is missing.
        """
        if folder is None:
            return None
        found = {}
        for name, path in self.entries(folder).items():
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                self.unexpected(path)
            elif path.is_file():
                found[name] = path
                self.todo.append((path, part, person(name)))
            elif path.is_dir():
                self.problem('folders named like an image', path)
            else:
                self.problem('links that lead nowhere', path)
        if not found:
            self.problem('folders without an image', folder)
        return found

    def people(self, folder: Path | None) -> None:
        """Take the training images, one folder a person."""
        entries = self.entries(folder) if folder else {}
        folders = sorted((n for n in entries if entries[n].is_dir()), key=person_key)
        for names in alike_people(folders):
            self.problem('folders of people with the same number', folder, names)
        for name in sorted(entries, key=person_key):
            path = entries[name]
            if not path.is_dir() or person_key(name)[0]:
                self.unexpected(path)
                continue
            person = int(name)
            for file, image in self.images(path, 'train', lambda _, p=person: p).items():
                if find_identity(file) != person:
                    kind = 'images named for another person than their folder'
                    self.problem(kind, image, f'{person}_... is expected')

    def numbered(self, folder: Path | None, part: str) -> dict[str, Path] | None:
        """Take the images of a folder whose names must start with the person's number."""
        found = self.images(folder, part, find_identity)
        for name, path in (found or {}).items():
            if find_identity(name) is None:
                self.problem('names without a person; <person>_<n>.jpg is expected', path)
        return found

    def labels(self, path: Path | None, read: Callable[[Path], Any], empty: Any) -> Any:
        """Return the content of a label file, or ``empty`` with a problem."""
        if path is None:
            return empty
        try:
            return read(path)
        except (OSError, TypeError, ValueError) as error:
            text = str(error).removeprefix(f'{path}').strip(' :')
            self.problem('label files that cannot be used', path, text)
            return empty

    def compare(
        self, names: Iterable[str], images: Mapping[str, Path] | None, folder: Path, file: Path
    ) -> set[str]:
        """Compare a label file with the images; return those that it does not name.

        Args:
            names: File names in the label file.
            images: Images of the folder; None if it is missing.
            folder: Where the images lie or should lie.
            file: The label file.
        """
        names = dict.fromkeys(names)
        if images is None:
            text = f'all {len(names):,} in {file.name}'
            self.problem('entries of label files without an image', folder, text)
            return set()
        unnamed = {name for name in images if name not in names}
        others = {alike(name): name for name in unnamed}
        for name in names:
            if name in images:
                continue
            other = others.get(alike(name))
            if other in unnamed:
                unnamed.discard(other)
                self._misspelt(images[other], f'{file.name} names {name}')
            else:
                kind = 'entries of label files without an image'
                self.problem(kind, folder / name, f'in {file.name}')
        return unnamed

    def matched(
        self,
        test: Path | None,
        dataset: PairsFileDataset,
    ) -> None:
        """Take folders whose people stand in .mat files, and compare them with each other.

        Args:
            test: Folder that holds folders and files.
            dataset: States the sources, see :meth:`PairsFileDataset.matched`; the stems of their
                variables name the parts. Compares the .mat files with the file names.
        """
        named: list[tuple[str, int]] = []
        for folder, file, stem in dataset.SOURCES.values():
            images = self.numbered(self.find(test, folder), stem)
            path = self.find(test, file, is_file=True)
            pairs = self.labels(
                path, lambda p, stem=stem: read_pairs(p, f'{stem}_set', f'{stem}_ids'), None
            )
            if pairs is None:
                continue
            named += [pair for pair in pairs.items() if find_identity(pair[0]) is not None]
            for name in sorted(self.compare(pairs, images, test / folder, path)):
                self.problem('images that no label file names', images[name], f'not in {file}')
        dataset.cross_check(named)
        for reason, groups in dataset.noticed.items():
            for group in groups:
                self.problem(reason, test, f'(number in the names, in the file): {group}')

    def mated(self, probes: str) -> None:
        """Note probes whose person is not in the gallery.

        Args:
            probes: Part of the probes.
        """
        gallery = self.persons('gallery')
        for path, part, person in self.todo if gallery else ():
            if part == probes and person is not None and person not in gallery:
                self.problem('probes without their person in the gallery', path)

    def official(
        self, expected: Mapping[str, int], found: Mapping[str, int], form: str = '{}'
    ) -> None:
        """Note counts other than the official ones.

        Args:
            expected: What is counted -> official count.
            found: What is counted -> count.
            form: Says what the names mean.
        """
        for key, count in expected.items():
            if found[key] != count:
                kind = 'counts other than the official ones: not the official data set'
                line = f'{form.format(key)}: {found[key]:,} (official {count:,})'
                self.report.notes[kind].append(line)

    def counts(self, part: str) -> int:
        """Return the number of images of a part."""
        return sum(of == part for _, of, _ in self.todo)

    def persons(self, part: str) -> set[int]:
        """Return the people of a part."""
        return {person for _, of, person in self.todo if of == part and person is not None}

    def _compare_people(self) -> None:
        """Note people that are in training and test alike."""
        train = self.persons('train')
        both: dict[int, list[Path]] = defaultdict(list)
        for path, part, person in self.todo:
            if part != 'train' and person in train:
                both[person].append(path)
        folders = {p: path.parent for path, part, p in self.todo if part == 'train'}
        for person, paths in sorted(both.items()):
            more = f' and {len(paths) - 1:,} others' if len(paths) > 1 else ''
            text = f'also in the test, {self._name(paths[0])}{more}'
            self.problem('people in training and test alike', folders[person], text)

    def _decode(self, jobs: int) -> None:
        """Decode all images; fill the rows of the report."""
        files = [str(path) for path, _, _ in self.todo]
        with progress_bar('decode', len(files)) as advance:
            results = in_order(_inspector, files, jobs)
            for (path, part, person), facts in zip(self.todo, results, strict=True):
                advance()
                if 'problem' in facts:
                    self.problem('images that cannot be read', path, facts['problem'])
                    continue
                kind = facts.pop('format')
                if path.suffix.lower() not in SUFFIXES.get(kind, ()):
                    self.note('images of another format than their name says', path, kind)
                who = '' if person is None else person
                self.report.rows.append(dict(file=self._name(path), part=part, person=who, **facts))
        self.report.rows.sort(key=lambda row: row['file'])
        order = list(self.report.found)
        entries = [
            Entry(row['sha256'], row['part'], row['person'], row['file'])
            for row in sorted(self.report.rows, key=lambda row: order.index(row['part']))
        ]
        harm, harmless = name_copies(entries)
        self.report.problems.update(harm)
        records = [dict(img_path=str(path), role=part) for path, part, _ in self.todo]
        self.report.notes.update(harmless | inspect_images(records, root=str(self.root)))


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
    WRAPPER = WRAPPER

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
        key_of: Callable[[re.Match], tuple[int, ...]],
        place: tuple[int, int] | None = None,
    ) -> None:
        """Take the images of a folder whose names have a form.

        Args:
            folder: The folder; None if it is missing.
            part: Name of the part.
            pattern: The form.
            form: The form as text.
            key_of: Gives what is to be there once: (subject,) or (subject, distance, camera).
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
            key = key_of(found)
            if place is not None and key[1:] != place:
                self.problem('images whose name contradicts their folder', path)
            elif self._seen.setdefault(key, path) != path:
                text = f'beside {self._name(self._seen[key])}'
                self.problem('second images of the same', path, text)


def _surveillance_key(found: re.Match) -> tuple[int, int, int]:
    subject, camera, distance = (int(number) for number in found.groups())
    return subject, distance, camera


ARCHIVES = {kind.KEY: kind for kind in (TinyFaceArchive, SCfaceArchive, SurvFaceArchive)}


def check_manifest_path(path: Path, root: Path) -> None:
    """Raise ValueError for a manifest that could be taken for data, or would replace other work.

    Args:
        path: The file to be written.
        root: Root of the archive.
    """
    path, root = path.resolve(), root.resolve()
    if path.suffix != '.csv':
        raise ValueError(f'{path}: the name of a manifest ends in .csv')
    if root in path.parents and path.parent != root:
        raise ValueError(f'{path} lies among the data; choose a file in {root} or outside it')
    if path.is_dir():
        raise ValueError(f'{path} is a folder; choose another name for the manifest')
    if path.exists():
        with open(path, encoding='utf-8', errors='replace') as file:
            if file.readline().strip() != ','.join(COLUMNS):
                raise ValueError(f'{path} is no manifest; choose another name, or delete it')
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ValueError(f'{parent} cannot be written to; choose another place: --manifest FILE')


def check_archive(
    dataset: str, root: str | Path, jobs: int = 1, manifest: str | Path | None = None
) -> ArchiveReport:
    """Compare an unpacked archive with the layout of its data set and decode every image.

    Args:
        dataset: ``'tinyface'``, ``'scface'`` or ``'survface'``.
        root: Folder of the archive.
        jobs: Number of processes that decode.
        manifest: File in ``root`` that is no part of the archive, beside ``manifest.csv``.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: There is no such data set, or ``jobs`` is below 1.
    """
    if dataset not in ARCHIVES:
        raise ValueError(f'dataset must be one of {sorted(ARCHIVES)}, not {dataset!r}')
    if jobs < 1:
        raise ValueError(f'jobs must be at least 1, not {jobs}')
    root = Path(root).resolve()
    if not root.is_dir():
        what = 'is a file' if root.is_file() else 'does not exist'
        raise FileNotFoundError(f'{root} {what}; give the folder of the unpacked archive')
    return ARCHIVES[dataset](root, Path(manifest).resolve() if manifest else None).run(jobs)
