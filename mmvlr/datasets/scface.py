"""SCface: surveillance images of 130 subjects at three distances (Grgic et al., MTAP 2011)."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmvlr.registry import DATASETS

from .base import FaceDataset
from .finding import find_images

WRAPPER = 'SCface_database'
MUGSHOTS = 'mugshot_frontal_cropped_all'
BY_DISTANCE = 'surveillance_cameras_distance_{}'
FLAT = 'surveillance_cameras_all'
LAYOUT = (
    f'{MUGSHOTS}/NNN_frontal.JPG and {BY_DISTANCE.format("{1,2,3}")}/cam_{{1..7}}/'
    f'NNN_camK_D.jpg (or {FLAT}/NNN_camK_D.jpg)'
)
#: Required folders; of several in a tuple, one is enough.
FOLDERS = ((MUGSHOTS,), (BY_DISTANCE.format(1), FLAT))
MUGSHOT = re.compile(r'^(\d+)_frontal\.\w+$', re.IGNORECASE | re.ASCII)
SURVEILLANCE = re.compile(r'^(\d+)_cam(\d)_(\d)\.\w+$', re.IGNORECASE | re.ASCII)
VARIABLES = {
    'train_subjects': 'SCFACE_TRAIN_SUBJECTS',
    'test_subjects': 'SCFACE_TEST_SUBJECTS',
    'gallery_subjects': 'SCFACE_GALLERY_SUBJECTS',
}


def parse_subjects(subjects: str | int | Sequence[int]) -> tuple[int, ...]:
    """Parse subject numbers, given as numbers or as text like ``'1-50'`` or ``'1-12, 20'``.

    Raises:
        ValueError: The text has another form, a range runs backwards, or no subject is named.

    Example:
        >>> parse_subjects('1-3, 7')
        (1, 2, 3, 7)
    """
    numbers: set[int] = set()
    parts = str(subjects).split(',') if isinstance(subjects, str | int) else subjects
    for part in parts:
        found = re.fullmatch(r'\s*(\d+)(?:\s*-\s*(\d+))?\s*', str(part), re.ASCII)
        if found is None:
            raise ValueError(
                f"subjects {subjects!r}: expected numbers such as '1-50' or '1-12, 20'"
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f'subjects {subjects!r}: the range {part} runs backwards')
        numbers.update(range(first, last + 1))
    if not numbers:
        raise ValueError(f'subjects {subjects!r}: no subject is named')
    return tuple(sorted(numbers))


@DATASETS.register_module()
class SCface(FaceDataset):
    """SCface in its official layout.

    - ``split='train'``: surveillance images of the training subjects with class labels, without
      mugshots.
    - ``split='test'``: role ``gallery``, one mugshot of each gallery subject, and role ``probe``,
      the surveillance images of the test subjects.

    Every surveillance image carries ``distance`` (1: 4.20 m, 2: 2.60 m, 3: 1.00 m) and
    ``camera``. The defaults are the split of the RI-Face paper: 50 subjects train, 80 are probed
    against all 130 mugshots. ``gallery_subjects='51-130'`` is the other split in use, with 80
    mugshots; the two are not comparable.

    Args:
        data_root: Folder of the database, or the one that holds ``SCface_database``; or a
            pack of it.
        split: ``'train'`` or ``'test'``.
        train_subjects: Numbers of the training subjects, as text (``'1-50'``) or as numbers.
        test_subjects: Numbers of the probed subjects.
        gallery_subjects: Numbers of the subjects whose mugshot is in the gallery.
        distances: Distances used.
        cameras: Cameras used; 6 and 7 are infrared and belong to neither split.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: There is no image of the subjects, a probed subject has no mugshot or is not
            in the gallery, or training and test share subjects.
    """

    METAINFO = dict(dataset_type='SCface')
    LAYOUT, WRAPPER, FOLDERS = LAYOUT, WRAPPER, FOLDERS

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        train_subjects: str | int | Sequence[int] = '1-50',
        test_subjects: str | int | Sequence[int] = '51-130',
        gallery_subjects: str | int | Sequence[int] = '1-130',
        distances: Sequence[int] = (1, 2, 3),
        cameras: Sequence[int] = (1, 2, 3, 4, 5),
        **kwargs: Any,
    ):
        if split not in ('train', 'test'):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        self.split = split
        self.train_subjects = parse_subjects(train_subjects)
        self.test_subjects = parse_subjects(test_subjects)
        self.gallery_subjects = parse_subjects(gallery_subjects)
        both = sorted(set(self.train_subjects) & set(self.test_subjects))
        if both:
            raise ValueError(
                f'SCface: subjects {_shown(both)} are both in train_subjects and in test_subjects'
            )
        outside = sorted(set(self.test_subjects) - set(self.gallery_subjects))
        if outside:
            raise ValueError(
                f'SCface: subjects {_shown(outside)} are probed but not in gallery_subjects'
            )
        self.distances, self.cameras = tuple(distances), tuple(cameras)
        kwargs.setdefault('test_mode', split == 'test')
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the records of the split."""
        root = self.find_root()
        if self.split == 'train':
            records = self._surveillance(root, 'train_subjects', 'train')
            labels = {subject: i for i, subject in enumerate(_subjects(records))}
            for record in records:
                record['gt_label'] = labels[record['identity']]
            return records
        probes = self._surveillance(root, 'test_subjects', 'probe')
        mugshots = self._mugshots(root)
        without = sorted(set(_subjects(probes)) - set(_subjects(mugshots)))
        if without:
            raise ValueError(
                f'SCface: {len(without)} probed subjects have no mugshot in '
                f'{root / MUGSHOTS}: {_shown(without)}. Restore '
                f'{without[0]:03d}_frontal.JPG, or leave the subjects out of test_subjects'
            )
        self.compare_counts(
            dict(mugshots=len(self.gallery_subjects), probes=self._expected(self.test_subjects)),
            dict(mugshots=len(mugshots), probes=len(probes)),
        )
        return mugshots + probes

    def training_images(self) -> list[str]:
        """See :class:`FaceDataset`."""
        subjects = set(self.train_subjects)
        named = (
            (path, SURVEILLANCE.match(path.name)) for path in find_images(self.find_root()).images
        )
        return [str(path) for path, name in named if name and int(name[1]) in subjects]

    def _expected(self, subjects: Sequence[int]) -> int:
        return len(subjects) * len(self.distances) * len(self.cameras)

    def _mugshots(self, root: Path) -> list[dict]:
        folder = self.require(root / MUGSHOTS)
        found: dict[int, Path] = {}
        for path in self.list_images(folder):
            name = MUGSHOT.match(path.name)
            if name is None:
                self.left_out['images whose name is not NNN_frontal'].append(path.name)
            elif int(name[1]) in found:
                self.left_out['second mugshots of a subject'].append(path.name)
            else:
                found[int(name[1])] = path
        self.left_out['mugshots of other subjects than gallery_subjects'].extend(
            found[s].name for s in sorted(set(found) - set(self.gallery_subjects))
        )
        self.noticed['subjects of the gallery without a mugshot'].extend(
            f'{s:03d}' for s in self.gallery_subjects if s not in found
        )
        return [
            dict(img_path=str(found[subject]), identity=subject, role='gallery', template=subject)
            for subject in self.gallery_subjects
            if subject in found
        ]

    def _surveillance(self, root: Path, which: str, role: str) -> list[dict]:
        """Return the records of the subjects in attribute ``which``."""
        subjects = getattr(self, which)
        wanted, found, others = set(subjects), {}, set()
        for path in self._surveillance_files(root):
            name = SURVEILLANCE.match(path.name)
            if name is None:
                self.left_out['images whose name is not NNN_camK_D'].append(path.name)
                continue
            subject, camera, distance = (int(number) for number in name.groups())
            if camera not in self.cameras or distance not in self.distances:
                continue
            if subject not in wanted:
                others.add(subject)
            elif (subject, distance, camera) in found:
                self.left_out['second images of a subject, camera and distance'].append(path.name)
            else:
                found[subject, distance, camera] = path
        records = [
            dict(
                img_path=str(found[key]),
                identity=key[0],
                distance=key[1],
                camera=key[2],
                role=role,
            )
            for key in sorted(found)
        ]
        present = _subjects(records)
        if not records:
            raise ValueError(
                f'SCface: {root} has no image of {which} {_shown(subjects)} at distances '
                f'{self.distances} by cameras {self.cameras}; it has subjects '
                f'{_shown(sorted(others))}. Set {which} (in the configs: {VARIABLES[which]})'
            )
        self.noticed[f'{which} without an image'].extend(
            f'{subject:03d}' for subject in subjects if subject not in present
        )
        each = self._expected((0,))
        counts = {s: sum(record['identity'] == s for record in records) for s in present}
        self.noticed[f'subjects with fewer than {each} images'].extend(
            f'{subject:03d}' for subject, count in counts.items() if count < each
        )
        return records

    def _surveillance_files(self, root: Path) -> list[Path]:
        """Return all surveillance images, from the folders by distance or the flat folder."""
        by_distance = [root / BY_DISTANCE.format(distance) for distance in self.distances]
        flat = root / FLAT
        if flat.is_dir() and not any(folder.is_dir() for folder in by_distance):
            return self.list_images(flat)
        files = []
        for distance, folder in zip(self.distances, by_distance, strict=True):
            self.require(folder)
            for camera in self.cameras:
                inner = self.require(folder / f'cam_{camera}')
                for path in self.list_images(inner):
                    name = SURVEILLANCE.match(path.name)
                    if name and (int(name[2]), int(name[3])) != (camera, distance):
                        reason = 'images whose name contradicts their folder'
                        self.left_out[reason].append(f'{folder.name}/{inner.name}/{path.name}')
                    else:
                        files.append(path)
        return files


def _subjects(records: list[dict]) -> list[int]:
    return sorted({record['identity'] for record in records})


def _shown(subjects: Sequence[int]) -> str:
    """Format subject numbers as text, consecutive ones as ``first-last``."""
    runs: list[list[int]] = []
    for subject in subjects:
        if runs and subject == runs[-1][1] + 1:
            runs[-1][1] = subject
        else:
            runs.append([subject, subject])
    return ', '.join(f'{a}' if a == b else f'{a}-{b}' for a, b in runs) or 'none'
