"""Data sets of synthetic faces."""

from typing import Any

from mmvlr.registry import DATASETS

from .base import NO_IDENTITY, FaceDataset
from .synthesis import synthesize_face

#: First person numbers of distractors, of the UI set and of UI faces in a test set: far apart, so
#: that no two sets share a person.
DISTRACTOR_PERSON, UI_PERSON, TEST_UI_PERSON = 1_000_000, 2_000_000, 3_000_000


@DATASETS.register_module()
class SyntheticFaces(FaceDataset):
    """Synthetic faces of synthetic people; see :mod:`mmvlr.datasets.synthesis`.

    An image depends on (population, person, image) only: sets of different sizes share their
    common images. To give training and test different people, set ``first_person``.

    Args:
        num_people: Number of people.
        images_per_person: Images of each person.
        split: ``'train'`` (role ``train`` with labels) or ``'test'`` (gallery and probes).
        first_person: Number of the first person.
        gallery_per_person: Number of gallery images of each person in the test split; the others
            are probes.
        num_distractors: Number of other people in the gallery of the test split, an image each.
        num_ui: Number of unrecognizable faces of other people in the test split, role ``ui``.
        population: Seed of all people and images.
        **kwargs: See :class:`FaceDataset`.
    """

    METAINFO = dict(dataset_type='SyntheticFaces', note='These faces are synthetic.')

    def __init__(
        self,
        num_people: int = 120,
        images_per_person: int = 16,
        split: str = 'train',
        first_person: int = 0,
        gallery_per_person: int = 2,
        num_distractors: int = 0,
        num_ui: int = 0,
        population: int = 0,
        **kwargs: Any,
    ):
        if split not in ('train', 'test'):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        if split == 'test' and not 0 < gallery_per_person < images_per_person:
            raise ValueError(
                f'gallery_per_person ({gallery_per_person}) must leave images_per_person '
                f'({images_per_person}) a gallery image and a probe'
            )
        self.num_people, self.images_per_person = num_people, images_per_person
        self.split, self.first_person = split, first_person
        self.gallery_per_person = gallery_per_person
        self.num_distractors, self.num_ui = num_distractors, num_ui
        self.population = population
        kwargs.setdefault('test_mode', split == 'test')
        super().__init__(data_root='synthetic', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Generate all images; they are small enough to be kept in the records."""
        records = []
        for label in range(self.num_people):
            person = self.first_person + label
            for image in range(self.images_per_person):
                record = synthetic_record(person, image, self.population)
                if self.split == 'train':
                    record.update(role='train', gt_label=label)
                else:
                    in_gallery = image < self.gallery_per_person
                    record.update(role='gallery' if in_gallery else 'probe')
                records.append(record)
        if self.split == 'test':
            for index in range(self.num_distractors):
                person = DISTRACTOR_PERSON + index
                record = synthetic_record(person, 0, self.population)
                records.append({**record, 'role': 'distractor', 'identity': NO_IDENTITY})
            records += ui_records(self.num_ui, self.population, first=TEST_UI_PERSON)
        return records


@DATASETS.register_module()
class SyntheticUIFaces(FaceDataset):
    """Synthetic unrecognizable faces, the UI set that goes with :class:`SyntheticFaces`.

    Args:
        num_images: Number of faces, each of a different person.
        population: Seed.
        **kwargs: See :class:`FaceDataset`.
    """

    METAINFO = dict(dataset_type='SyntheticUIFaces', note='These faces are synthetic.')

    def __init__(self, num_images: int = 200, population: int = 0, **kwargs: Any):
        self.num_images = num_images
        self.population = population
        kwargs.setdefault('test_mode', True)
        super().__init__(data_root='synthetic', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Generate all faces."""
        return ui_records(self.num_images, self.population, first=UI_PERSON)


def synthetic_record(person: int, image: int, population: int, ui: bool = False) -> dict:
    """Return the record of one synthetic face."""
    face = synthesize_face(person, image, seed=population, unrecognizable=ui)
    name = f'synthetic:{population}/{person}/{image}'
    return dict(img=face.image, img_path=name, identity=person, person=f'{population}/{person}')


def ui_records(count: int, population: int, first: int) -> list[dict]:
    """Return records of ``count`` unrecognizable faces of people from number ``first`` on."""
    faces = (synthetic_record(first + index, 0, population, ui=True) for index in range(count))
    return [{**face, 'role': 'ui', 'identity': NO_IDENTITY} for face in faces]
