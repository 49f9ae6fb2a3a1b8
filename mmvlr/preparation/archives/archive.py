"""What is in an archive, compared with a layout."""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from mmvlr.datasets.alignment import RECIPE_FILE, TABLE_FILE
from mmvlr.datasets.base import alike_people, person_key
from mmvlr.datasets.finding import IMAGE_SUFFIXES
from mmvlr.datasets.inspection import Entry, inspect_images, name_copies
from mmvlr.datasets.pairs_files import PairsFileDataset, prefix_identity, read_pairs
from mmvlr.utils.work import in_order, progress_bar

from .findings import MANIFEST, ArchiveReport, shown
from .image_checks import SUFFIXES, make_inspector

#: What an operating system leaves in folders.
LITTER = frozenset({'thumbs.db', 'ehthumbs.db', 'desktop.ini', 'icon\r'})
#: What archives hold beside the data: readme files and evaluation code.
TEXT_SUFFIXES = frozenset({'.txt', '.md', '.pdf', '.doc', '.docx', '.html', '.m'})


def alike(name: str) -> str:
    """Return what is equal for names that differ only in case or in the form of Unicode."""
    return unicodedata.normalize('NFC', name).casefold()


def find_identity(name: str) -> int | None:
    """Return the person in a file name such as ``12_3.jpg``, or None if there is none."""
    try:
        return prefix_identity(name)
    except ValueError:
        return None


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
        """Take the training images, one folder per person."""
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
            results = in_order(make_inspector, files, jobs)
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
