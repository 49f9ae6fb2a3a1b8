"""Labeled faces in one folder per person."""

from pathlib import Path
from typing import Any

from mmvlr.registry import DATASETS

from .base import FaceDataset, person_key


@DATASETS.register_module()
class FaceFolder(FaceDataset):
    """Faces in one folder per person, for training or closed-set evaluation.

    With ``split='test'`` the first ``gallery_per_person`` images of every person, in name order,
    are the gallery and the others probes. People with too few images for a probe are gallery
    only, and counted.

    Args:
        data_root: Folder that holds the folders of the people, or a pack of it.
        split: ``'train'`` or ``'test'``.
        gallery_per_person: Gallery images per person in the test split.
        **kwargs: See :class:`FaceDataset`.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: It holds no person with an image.
    """

    METAINFO = dict(dataset_type='FaceFolder')
    LAYOUT = 'one folder per person with images in it'

    def __init__(
        self,
        data_root: str = '',
        split: str = 'train',
        gallery_per_person: int = 1,
        **kwargs: Any,
    ):
        if split not in ('train', 'test'):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        self.split = split
        self.gallery_per_person = gallery_per_person
        kwargs.setdefault('test_mode', split == 'test')
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Return the records of all images."""
        records = self.scan_people(self.find_root())
        return records if self.split == 'train' else self.split_gallery(records)

    def split_gallery(self, records: list[dict]) -> list[dict]:
        """Turn training records into gallery and probes."""
        seen: dict[int, int] = {}
        names: dict[int, str] = {}
        split = []
        for record in records:
            label = record.pop('gt_label')
            seen[label] = seen.get(label, 0) + 1
            names[label] = Path(record['img_path']).parent.name
            role = 'gallery' if seen[label] <= self.gallery_per_person else 'probe'
            split.append({**record, 'role': role})
        few = {label for label, count in seen.items() if count <= self.gallery_per_person}
        self.noticed['people in the gallery without a probe'].extend(
            sorted((names[label] for label in few), key=person_key)
        )
        return split
