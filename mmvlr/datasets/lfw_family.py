"""LFW and its relatives, verification sets given by lists of pairs in their own formats."""

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.registry import DATASETS
from mmvlr.utils.schema import FileFormatError

from .base import FaceDataset
from .finding import IMAGE_SUFFIXES

Pair = tuple[str, str, bool]
_REMEDY = "get the set's own list of pairs again"


def read_lfw_pairs(file: Path) -> list[Pair]:
    """Read LFW's ``pairs.txt``, also XQLFW's: ``name 1 4`` or ``name 1 other 3`` a line.

    Raises:
        FileFormatError: A line is none of these.
    """
    pairs: list[Pair] = []
    for number, fields in _lines(file):
        if number == 1 and len(fields) <= 2:
            continue  # number of folds and of pairs in each
        if len(fields) == 3:
            fields.insert(2, fields[0])
        if len(fields) != 4 or not (fields[1].isdecimal() and fields[3].isdecimal()):
            raise _bad_line(file, number, 'NAME N M or NAME N OTHER M')
        first, second = (
            f'{name}/{name}_{int(count):04}.jpg' for name, count in (fields[:2], fields[2:])
        )
        pairs.append((first, second, fields[0] == fields[2]))
    return pairs


def read_two_line_pairs(file: Path) -> list[Pair]:
    """Read the pairs of CALFW and CPLFW: ``image K`` on two lines, K is 0 for two people.

    For one person K is the fold. Pairs of two people, which have no fold in the list, are divided
    into as many folds in their order; pairs are returned fold by fold.

    Raises:
        FileFormatError: A line has another form, or its partner another K.
    """
    entries = list(_lines(file))
    folds: dict[int, list[Pair]] = {}
    for number, fields in entries:
        if len(fields) != 2 or not fields[1].isdecimal():
            raise _bad_line(file, number, 'IMAGE FOLD, 0 for two people')
    if len(entries) % 2:
        raise FileFormatError(file, f'{len(entries)} lines; expected two a pair', _REMEDY)
    for (_, first), (number, second) in zip(entries[::2], entries[1::2], strict=True):
        if first[1] != second[1]:
            raise _bad_line(file, number, f'{first[1]} as the line above')
        fold = int(first[1])
        folds.setdefault(fold, []).append((first[0], second[0], fold > 0))
    other = folds.pop(0, [])
    ordered: list[Pair] = []
    parts = np.array_split(np.arange(len(other)), max(1, len(folds)))
    for fold, part in zip(sorted(folds) or [0], parts, strict=True):
        ordered += folds.get(fold, []) + [other[place] for place in part]
    return ordered


def read_cfp_pairs(protocol: Path, kind: str) -> list[Pair]:
    """Read CFP's folder ``Protocol``: lists of images, and numbers of pairs in each fold.

    Args:
        protocol: The folder.
        kind: ``'FF'`` or ``'FP'``: the second image is of the list of frontal or profile images.

    Raises:
        FileNotFoundError: A list or the folds are missing.
        FileFormatError: A line has another form, or a number is in no list.
    """
    lists: dict[str, dict[str, str]] = {}
    for letter in {'F', kind[1]}:
        file = protocol / f'Pair_list_{letter}.txt'
        lists[letter] = {}
        for number, fields in _lines(file):
            if len(fields) != 2:
                raise _bad_line(file, number, 'NUMBER PATH')
            # Paths start at the folder Protocol.
            lists[letter][fields[0]] = posixpath.normpath(f'Protocol/{fields[1]}')
    folds = sorted(p for p in (protocol / 'Split' / kind).iterdir() if p.is_dir())
    pairs: list[Pair] = []
    for file in (fold / name for fold in folds for name in ('same.txt', 'diff.txt')):
        for number, fields in _lines(file, ','):
            if len(fields) != 2 or fields[0] not in lists['F'] or fields[1] not in lists[kind[1]]:
                raise _bad_line(file, number, 'two numbers of Pair_list_*.txt')
            names = lists['F'][fields[0]], lists[kind[1]][fields[1]]
            pairs.append((*names, file.name == 'same.txt'))
    return pairs


def read_labeled_pairs(file: Path) -> list[Pair]:
    """Read ``image image 1`` or ``1 image image`` a line; 0 for two people.

    Raises:
        FileFormatError: A line has another form.
    """
    pairs: list[Pair] = []
    for number, fields in _lines(file):
        if len(fields) == 3 and fields[0] in ('0', '1') and fields[2] not in ('0', '1'):
            fields = [*fields[1:], fields[0]]
        if len(fields) != 3 or fields[2] not in ('0', '1'):
            raise _bad_line(file, number, 'IMAGE IMAGE LABEL or LABEL IMAGE IMAGE, label 0 or 1')
        pairs.append((fields[0], fields[1], fields[2] == '1'))
    return pairs


def _lines(file: Path, separator: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of every line that is not empty."""
    try:
        text = file.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise FileFormatError(file, f'no text: {error}', _REMEDY) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, [field.strip() for field in line.split(separator)]


def _bad_line(file: Path, number: int, expected: str) -> FileFormatError:
    return FileFormatError(file, f'line {number}: expected {expected}', _REMEDY)


@dataclass(frozen=True)
class PairProtocol:
    """Layout of a verification set.

    Attributes:
        read: Reads the file of pairs.
        files: Usual names of the file, below the data set's folder.
        folders: Usual folders of the images, below it.
        pairs: Official number of pairs, half of them of one person; None if there is none.
    """

    read: Callable[[Path], list[Pair]]
    files: tuple[str, ...]
    folders: tuple[str, ...] = ('',)
    pairs: int | None = 6000


_ALIGNED = ('aligned images', 'aligned_images', 'images')
#: The sets: name -> layout.
PROTOCOLS = dict(
    lfw=PairProtocol(
        read_lfw_pairs, ('pairs.txt',), ('', 'lfw', 'lfw-deepfunneled', 'lfw_funneled')
    ),
    xqlfw=PairProtocol(
        read_lfw_pairs, ('xqlfw_pairs.txt', 'pairs.txt'), ('', 'xqlfw_aligned_112', 'xqlfw')
    ),
    calfw=PairProtocol(read_two_line_pairs, ('pairs_CALFW.txt', 'pairs.txt'), (*_ALIGNED, '')),
    cplfw=PairProtocol(read_two_line_pairs, ('pairs_CPLFW.txt', 'pairs.txt'), (*_ALIGNED, '')),
    cfp_ff=PairProtocol(lambda folder: read_cfp_pairs(folder, 'FF'), ('Protocol',), pairs=7000),
    cfp_fp=PairProtocol(lambda folder: read_cfp_pairs(folder, 'FP'), ('Protocol',), pairs=7000),
    agedb_30=PairProtocol(
        read_labeled_pairs, ('agedb_30_pair.txt', 'pair_list.txt', 'pairs.txt'), ('', *_ALIGNED)
    ),
    pairs=PairProtocol(read_labeled_pairs, ('pairs.txt',), ('', *_ALIGNED), pairs=None),
)


@DATASETS.register_module()
class LFWFamily(FaceDataset):
    """LFW, XQLFW, CALFW, CPLFW, CFP-FF, CFP-FP, AgeDB-30 by their own lists: role ``pair``.

    The pairs are in ``metainfo``, fold by fold: ``pairs``, (P, 2) sample indices, and ``same``,
    (P,) bool. People are the folders of the images, or what stands before the last ``_`` of their
    names where all lie in one folder.

    Args:
        data_root: Folder of the set; insightface's .bin files are read by :class:`LFWBin`.
        protocol: Name of the set, a key of :data:`PROTOCOLS`.
        pairs: File of the pairs (CFP: the folder ``Protocol``), below ``data_root`` unless
            absolute; the set's usual name by default.
        images: Folder of the images, such as an aligned copy of it; the usual one by default.
            Extensions of images may differ from those in the list.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: The list or an image is missing.
        FileFormatError: The list is damaged.
        ValueError: There is no such set, or the list holds no pair.
    """

    METAINFO = dict(dataset_type='LFWFamily')

    def __init__(
        self,
        data_root: str = '',
        protocol: str = 'lfw',
        pairs: str | None = None,
        images: str | None = None,
        **kwargs: Any,
    ):
        if protocol not in PROTOCOLS:
            raise ValueError(f'protocol must be one of {", ".join(PROTOCOLS)}, got {protocol!r}')
        self.protocol, self.pairs_file, self.images = protocol, pairs, images
        self.LAYOUT = f'{" or ".join(PROTOCOLS[protocol].files)} and the images that it names'
        kwargs.setdefault('test_mode', True)
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return one record per image; store the pairs in ``metainfo``."""
        root, layout = Path(self.find_root()), PROTOCOLS[self.protocol]
        files = [root / name for name in ([self.pairs_file] if self.pairs_file else layout.files)]
        file = next((file for file in files if file.exists()), None)
        if file is None:
            raise FileNotFoundError(f'LFWFamily: {files[0]} does not exist; expected {self.LAYOUT}')
        pairs = layout.read(file)
        if not pairs:
            raise ValueError(f'LFWFamily: {file} holds no pair')
        same = np.array([pair[2] for pair in pairs])
        if layout.pairs:
            self.compare_counts(
                {'pairs': layout.pairs, 'pairs of one person': layout.pairs // 2},
                {'pairs': len(same), 'pairs of one person': int(same.sum())},
            )
        names = list(dict.fromkeys(name for pair in pairs for name in pair[:2]))
        paths = self._find_images(root, file, names)
        flat = len({posixpath.dirname(name) for name in names}) == 1
        people = [_name_person(name, flat) for name in names]
        number = {person: place for place, person in enumerate(dict.fromkeys(people))}
        index = {name: place for place, name in enumerate(names)}
        self._metainfo['pairs'] = np.array([[index[a], index[b]] for a, b, _ in pairs])
        self._metainfo['same'] = same
        self.noticed['pairs that the names of the images contradict'].extend(
            f'{a} and {b}'
            for a, b, alike in pairs
            if (people[index[a]] == people[index[b]]) != alike
        )
        return [
            dict(img_path=str(path), identity=number[person], person=person, role='pair')
            for path, person in zip(paths, people, strict=True)
        ]

    def _find_images(self, root: Path, file: Path, names: list[str]) -> list[Path]:
        """Return the file of every image."""
        folders = [self.images] if self.images else PROTOCOLS[self.protocol].folders
        shorter = [name.removeprefix('Data/Images/') if self.images else name for name in names]
        where = next((root / f for f in folders if _find(root / f, shorter[0])), root / folders[0])
        found = [_find(where, name) for name in shorter]
        missing = [name for name, path in zip(shorter, found, strict=True) if path is None]
        if missing:
            raise FileNotFoundError(
                f'LFWFamily: {file} names {len(missing)} images that are not in {where}, such as '
                f"{missing[0]}; unpack the archive again, or say where they are: images='FOLDER'"
            )
        return [path for path in found if path]


def _find(folder: Path, name: str) -> Path | None:
    """Return an image, also where it has another extension, or None."""
    path = folder / name
    candidates = (path, *(path.with_suffix(suffix) for suffix in sorted(IMAGE_SUFFIXES)))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _name_person(name: str, flat: bool) -> str:
    """Return the person of an image: its folder, without that of a pose, or its name's start."""
    path = Path(name)
    if flat:
        return path.stem.rpartition('_')[0] or path.stem
    folder = path.parent
    return (folder.parent if folder.name in ('frontal', 'profile') else folder).name
