"""What every face data set shares: labels, counts, and randomness that can be repeated."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmvlr.registry import TRANSFORMS

#: Identity of images that belong to nobody in the gallery (TinyFace's convention).
NO_IDENTITY = -100

IMAGE_SUFFIXES = frozenset({'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'})


class SharedNumber:
    """An integer in shared memory: persistent workers see what the main process sets.

    A deep copy has shared memory of its own; that of a plain shared tensor would not be shared.
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

    A subclass implements ``load_data_list`` and returns one dict an image: ``img_path`` (or
    ``img``, a uint8 RGB array), ``role``, ``identity`` and, for training, ``gt_label``.

    The randomness of an image's augmentation is a function of (seed, epoch, index) alone. It
    depends neither on the number of workers nor of ranks, nor on what ran before, which makes a
    resumed run equal to an unbroken one.

    Args:
        data_root: Folder of the data set, or a pack of it (:mod:`mmvlr.datasets.storage.pack`).
        pipeline: Transforms, as configs or callables.
        seed: Seed of the augmentation; a training run puts its own there (``EpochSeedHook``).
        test_mode: See :class:`mmengine.dataset.BaseDataset`.
        **kwargs: Passed on to :class:`mmengine.dataset.BaseDataset`.
    """

    METAINFO: dict = dict(dataset_type='face')

    def __init__(
        self,
        data_root: str = '',
        pipeline: Sequence[Any] = (),
        seed: int = 0,
        test_mode: bool = False,
        **kwargs: Any,
    ):
        self._seed = SharedNumber(seed)
        #: What was not used and why: reason -> names. Filled while loading, printed at its end.
        self.left_out: dict[str, list[str]] = defaultdict(list)
        #: What was used although something is odd about it, in the same form.
        self.noticed: dict[str, list[str]] = defaultdict(list)
        self._epoch = SharedNumber(0)
        # Built here: mmengine's Compose knows mmvlr's transforms only inside a Runner.
        transforms = [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline]
        super().__init__(data_root=data_root, pipeline=transforms, test_mode=test_mode, **kwargs)

    def full_init(self) -> None:
        """Load the list of images and print what was found and what was left out."""
        if not self._fully_initialized:
            super().full_init()
            odd = any(self.left_out.values()) or any(self.noticed.values())
            level = logging.WARNING if odd else logging.INFO
            print_log(self.describe(), logger='current', level=level)

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

    def prepare_data(self, idx: int) -> Any:
        """Run the pipeline on image ``idx`` with its own random generator."""
        info = self.get_data_info(idx)
        info['rng'] = self.rng(idx)
        return self.pipeline(info)

    def infos(self) -> Iterator[dict]:
        """Iterate over the records of all images, without loading an image."""
        self.full_init()
        return (self.get_data_info(index) for index in range(len(self)))

    @property
    def num_classes(self) -> int:
        """Number of people with a class label."""
        return len({info['gt_label'] for info in self.infos() if 'gt_label' in info})

    def scan_people(self, root: Path) -> list[dict]:
        """Read one folder a person into training records; count what is left out.

        Class labels follow the folders' names, numbers in numeric order.

        Args:
            root: Folder that holds a folder for each person.

        Raises:
            ValueError: No person with an image was found.
        """
        records: list[dict] = []
        folders = sorted(
            (entry for entry in root.iterdir() if not entry.name.startswith('.')),
            key=lambda entry: person_key(entry.name),
        )
        numbered = all(entry.name.isdecimal() for entry in folders if entry.is_dir())
        label = 0
        for folder in folders:
            if not folder.is_dir():
                self.left_out['files outside the folder of a person'].append(folder.name)
                continue
            images, others = list_images(folder)
            names = [f'{folder.name}/{entry.name}' for entry in others]
            self.left_out['entries that are no images'].extend(names)
            if not images:
                self.left_out['people without an image'].append(folder.name)
                continue
            if len(images) == 1:
                self.noticed['people with one image'].append(folder.name)
            identity = int(folder.name) if numbered else label
            records.extend(
                dict(img_path=str(path), identity=identity, gt_label=label, role='train')
                for path in images
            )
            label += 1
        if not records:
            raise ValueError(
                f'{type(self).__name__}: no person with an image under {root}; expected one '
                f'folder a person with images ({", ".join(sorted(IMAGE_SUFFIXES))}) in it'
            )
        return records

    def compare_counts(self, official: dict[str, int], found: dict[str, int]) -> None:
        """Warn where the counts differ from the official ones; never an error."""
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

    def describe(self) -> str:
        """Return one line a role with people and images, and what was left out."""
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
        for verb, counts in (('left out', self.left_out), ('noticed', self.noticed)):
            for reason, names in counts.items():
                if names:
                    shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
                    lines.append(f'  {verb}: {len(names):,} {reason} ({shown})')
        # Here, not above: alignment needs this module.
        from .alignment import alignment_of

        alignment = alignment_of(self.data_root) if self.data_root else None
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


def require_folder(folder: Path, dataset: str, layout: str) -> Path:
    """Return ``folder`` if it is one, else raise an error that states the expected layout."""
    if not folder.is_dir():
        raise FileNotFoundError(f'{dataset}: folder {folder} does not exist; expected {layout}')
    return folder


def list_images(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the images of a folder in name order, and what else lies in it.

    Hidden files are neither: archives made on a Mac hold a ``._1.jpg`` beside every image.
    """
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith('.'))
    images = [e for e in entries if e.suffix.lower() in IMAGE_SUFFIXES and e.is_file()]
    return images, sorted(set(entries) - set(images))


def person_key(name: str) -> tuple[int, int | str]:
    """Return a sort key that puts numbered people in numeric order, named ones after them."""
    return (0, int(name)) if name.isdecimal() else (1, name)
