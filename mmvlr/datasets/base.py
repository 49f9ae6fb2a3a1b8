"""Base class of all face data sets: labels, counts, and reproducible randomness."""

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.dist import is_main_process
from mmengine.logging import print_log

from mmvlr.registry import TRANSFORMS
from mmvlr.structures import NO_IDENTITY
from mmvlr.utils.loading import prepare_worker
from mmvlr.utils.text import is_number

from .alignment import find_alignment
from .finding import IMAGE_SUFFIXES, list_folder
from .inspection import find_copies, inspect_images
from .storage import PackPath, data_path
from .transforms.geometric import ResizeFace

#: Reason why an unreadable entry is left out.
UNREAD = 'entries that cannot be read'


class SharedNumber:
    """An integer in shared memory, so that persistent workers see what the main process sets.

    A deep copy has its own shared memory; a deep copy of a shared tensor would not be shared.
    """

    def __init__(self, value: int):
        self._memory = torch.tensor([value], dtype=torch.int64).share_memory_()

    @property
    def value(self) -> int:
        """The number."""
        return int(self._memory.item())

    @value.setter
    def value(self, value: int) -> None:
        self._memory.fill_(value)

    def __deepcopy__(self, memo: dict) -> 'SharedNumber':
        return SharedNumber(self.value)


class FaceDataset(BaseDataset):
    """Base of all face data sets.

    A subclass implements ``load_data_list``, which returns one dict per image: ``img_path`` (or
    ``img``, a uint8 RGB array), ``role``, ``identity`` and, for training, ``gt_label``; and
    ``person``, a name, where the identity alone does not identify the person.

    The randomness of an image's augmentation is a function of (seed, epoch, index) alone. It does
    not depend on the number of workers or ranks, nor on what ran before, so a resumed run equals
    an uninterrupted one.

    A subclass declares its layout; it is the only place that does.

    Attributes:
        LAYOUT: The layout as text, for error messages.
        WRAPPER: Top folder of the archive; ``data_root`` may be this folder or its parent.
        FOLDERS: Required folders; of several in a tuple, one is enough.

    Args:
        data_root: Folder of the data set, or a pack of it (:mod:`mmvlr.datasets.storage.pack`).
        pipeline: Transforms, as configs or callables.
        seed: Seed of the augmentation; a training run sets its own (``EpochSeedHook``).
        test_mode: See :class:`mmengine.dataset.BaseDataset`.
        **kwargs: Passed on to :class:`mmengine.dataset.BaseDataset`.
    """

    METAINFO: dict = dict(dataset_type='face')
    LAYOUT = ''
    WRAPPER = ''
    FOLDERS: tuple[tuple[str, ...], ...] = ()
    #: Whether the images are inspected while loading; False where another set has done so.
    inspects = True

    def __init__(
        self,
        data_root: str = '',
        pipeline: Sequence[Any] = (),
        seed: int = 0,
        test_mode: bool = False,
        **kwargs: Any,
    ):
        self._seed = SharedNumber(seed)
        #: Entries that are not used: reason -> names. Filled while loading, printed at its end.
        self.left_out: dict[str, list[str]] = defaultdict(list)
        #: Entries that are used although they look suspicious, in the same form.
        self.noticed: dict[str, list[str]] = defaultdict(list)
        self._epoch = SharedNumber(0)
        # Built here: mmengine's Compose knows mmvlr's transforms only inside a Runner.
        transforms = [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline]
        super().__init__(data_root=data_root, pipeline=transforms, test_mode=test_mode, **kwargs)

    def full_init(self) -> None:
        """Load the list of images and print what was found and what was left out."""
        if not self._fully_initialized:
            super().full_init()
            findings = self.findings()
            if findings and self.test_mode:
                # Metrics read it from the meta information; tools/test.py writes it to the results.
                self._metainfo['warnings'] = findings
            level = logging.WARNING if findings else logging.INFO
            print_log(self.describe(), logger='current', level=level)

    def filter_data(self) -> list[dict]:
        """Inspect the records and a sample of their images, and note suspicious ones.

        Images that are byte for byte the same are searched for in test sets only.
        """
        records = super().filter_data()
        identities = {record.get('identity', NO_IDENTITY) for record in records}
        if any(abs(identity) >= 2**63 for identity in identities):
            # Arrays and tensors hold 64 bits.
            known = sorted(identities - {NO_IDENTITY})
            number = {identity: index for index, identity in enumerate(known)}
            for record in records:
                record['identity'] = number.get(record['identity'], NO_IDENTITY)
        if self.inspects and is_main_process():
            steps = self.pipeline.transforms
            sizes = [step.size for step in steps if isinstance(step, ResizeFace)]
            odd = inspect_images(records, *(sizes[:1] or [(112, 112)]), self.data_root)
            if self.test_mode:
                odd |= find_copies(records, self.training_images(), self.data_root)
            self.noticed.update(odd)
        return records

    def require(self, folder: Path) -> Path:
        """Return ``folder`` if it exists, else raise an error that states the expected layout."""
        return require_folder(folder, self.METAINFO['dataset_type'], self.LAYOUT)

    def find_root(self) -> Path | PackPath:
        """Return the folder that holds the data set.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        return unwrap(self.require(data_path(self.data_root)), self.WRAPPER)

    def training_images(self) -> Iterable[str]:
        """Return the images of the training set that a test set belongs to."""
        return ()

    @property
    def seed(self) -> int:
        """Seed of the augmentation."""
        return self._seed.value

    def set_epoch(self, epoch: int, seed: int | None = None) -> None:
        """Set the epoch and, if given, the seed: both decide the augmentation of every image."""
        self._epoch.value = epoch
        if seed is not None:
            self._seed.value = seed

    def rng(self, idx: int) -> np.random.Generator:
        """Return the random generator of image ``idx`` in the current epoch."""
        return np.random.default_rng((self.seed, self._epoch.value, idx))

    def __getitem__(self, idx: int) -> Any:
        """Return image ``idx`` after the pipeline."""
        prepare_worker()
        return super().__getitem__(idx)

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on image ``idx`` with the random generator of that image."""
        info = self.get_data_info(idx)
        info['rng'] = self.rng(idx)
        return self.pipeline(info)

    def infos(self) -> Iterator[dict]:
        """Iterate over the records of all images, without loading an image."""
        self.full_init()
        return (self.get_data_info(index) for index in range(len(self)))

    @property
    def class_names(self) -> list[str]:
        """Names of the people, in the order of the class labels: ``person``, or the identity."""
        names: dict[int, str] = {}
        for info in self.infos():
            label = info.get('gt_label')
            if label is not None and label not in names:
                names[label] = str(info.get('person', info.get('identity', label)))
        return [names[label] for label in sorted(names)]

    @property
    def num_classes(self) -> int:
        """Number of people with a class label."""
        return len(self.class_names)

    def scan_people(self, root: Path) -> list[dict]:
        """Read folders, one per person, into training records; count what is left out.

        Class labels follow the order of the folder names, numbers in numeric order.

        Args:
            root: Folder that holds a folder for each person.

        Raises:
            ValueError: No person with an image was found.
        """
        listing = list_folder(root)
        outside = [entry.name for entry in (*listing.images, *listing.others)]
        self.left_out['files outside the folder of a person'].extend(sorted(outside))
        self.left_out[UNREAD].extend(f'{e.path.name} ({e.reason})' for e in listing.unread)
        folders = sorted(listing.folders, key=lambda entry: person_key(entry.name))
        names = [folder.name for folder in folders]
        self.noticed['folders that some tools read as one person, two here'].extend(
            alike_people(names)
        )
        # With folders 1 and 01, two people would share a number.
        numbered = all(map(is_number, names)) and len({*map(int, names)}) == len(names)
        records: list[dict] = []
        label = 0
        for folder in folders:
            try:
                images = self.list_images(folder)
            except OSError as error:
                self.left_out[UNREAD].append(f'{folder.name} ({error.strerror})')
                continue
            if not images:
                self.left_out['people without an image'].append(folder.name)
                continue
            if len(images) == 1:
                self.noticed['people with one image'].append(folder.name)
            identity = int(folder.name) if numbered else label
            person = dict(person=folder.name, identity=identity, gt_label=label, role='train')
            records.extend(dict(img_path=str(path), **person) for path in images)
            label += 1
        if not records:
            raise ValueError(
                f'{type(self).__name__}: no person with an image under {root}; expected one '
                f'folder per person with images ({", ".join(sorted(IMAGE_SUFFIXES))}) in it'
            )
        return records

    def list_images(self, folder: Path) -> list[Path]:
        """Return the images of a folder in name order; count the other entries.

        Raises:
            OSError: The folder cannot be read.
        """
        listing = list_folder(folder)
        others = sorted(entry.name for entry in (*listing.others, *listing.folders))
        self.left_out['entries that are no images'].extend(
            f'{folder.name}/{name}' for name in others
        )
        self.left_out[UNREAD].extend(
            f'{folder.name}/{entry.path.name} ({entry.reason})' for entry in listing.unread
        )
        return listing.images

    def compare_counts(self, official: dict[str, int], found: dict[str, int]) -> None:
        """Warn, without an error, where the counts differ from the official ones."""
        different = [
            f'{found[key]:,} {key} (official {official[key]:,})'
            for key in official
            if found[key] != official[key]
        ]
        if different:
            print_log(
                f'{type(self).__name__} ({self.data_root}): {", ".join(different)}: not the '
                'official data set; figures are not comparable with published ones',
                logger='current',
                level=logging.WARNING,
            )

    def findings(self) -> list[str]:
        """Return one line for each kind of entry that was left out or looks suspicious."""
        return [
            f'{verb} ({len(names):,}): {reason} ({", ".join(names[:3])}'
            + (', ...)' if len(names) > 3 else ')')
            for verb, counts in (('left out', self.left_out), ('note', self.noticed))
            for reason, names in counts.items()
            if names
        ]

    def describe(self) -> str:
        """Return a summary: images and people of each role, and what was left out."""
        images: Counter[str] = Counter()
        people: dict[str, set] = defaultdict(set)
        for info in self.infos():
            images[info['role']] += 1
            if info.get('identity', NO_IDENTITY) != NO_IDENTITY:
                people[info['role']].add(info['identity'])
        summary = '; '.join(
            f'{role}: {images[role]:,} images'
            + (f' of {len(people[role]):,} people' if people[role] else '')
            for role in images
        )
        lines = [f'{type(self).__name__} ({self.data_root or "no folder"}): {summary}']
        lines += [f'  {finding}' for finding in self.findings()]
        alignment = find_alignment(self.data_root) if self.data_root else None
        if alignment is not None:
            paths = [info['img_path'] for info in self.infos() if 'img_path' in info]
            lines.append(f'  {alignment.describe(paths)}')
        return '\n'.join(lines)


def set_epoch(dataset: Any, epoch: int, seed: int | None = None) -> None:
    """Set epoch and seed of a face data set, also inside mmengine's wrappers."""
    if isinstance(dataset, FaceDataset):
        dataset.set_epoch(epoch, seed)
    for inner in getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)]):
        if inner is not None:
            set_epoch(inner, epoch, seed)


def find_class_names(dataset: Any) -> list[str] | None:
    """Return ``class_names`` of a data set, also inside mmengine's wrappers; None if absent."""
    names = getattr(dataset, 'class_names', None)
    if names is None and hasattr(dataset, 'dataset'):
        return find_class_names(dataset.dataset)
    return names


def require_folder(folder: Path, dataset: str, layout: str) -> Path:
    """Return ``folder`` if it exists, else raise an error that states the expected layout."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{dataset}: folder {folder} does not exist; expected {layout}')
    return folder


def unwrap(root: Path, wrapper: str) -> Path:
    """Return the top folder of an archive in ``root`` if it exists, else ``root``."""
    return root / wrapper if wrapper and (root / wrapper).is_dir() else root


def person_key(name: str) -> tuple[int, int, str]:
    """Return a sort key that puts numbered people in numeric order, named ones after them."""
    return (0, int(name), name) if is_number(name) else (1, 0, name)


def alike_people(names: Sequence[str]) -> list[str]:
    """Return groups of names that differ only in zeros, digits or Unicode normalization."""
    groups: dict[Any, list[str]] = defaultdict(list)
    for name in names:
        is_short = name.isdecimal() and len(name) < 1000
        key = int(name) if is_short else unicodedata.normalize('NFC', name)
        groups[key].append(name)
    return [' and '.join(group) for group in groups.values() if len(group) > 1]
