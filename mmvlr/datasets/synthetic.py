"""The embedded synthetic faces as data sets."""

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

    A picture depends on (population, person, picture) only: sets of different sizes share their
    common pictures. For training and test to have different people, give them different
    ``first_person``.

    Args:
        num_people: Number of people.
        pictures_per_person: Pictures of each.
        split: ``'train'`` (role ``train`` with labels) or ``'test'`` (gallery and probes).
        first_person: Number of the first person.
        gallery_per_person: In the test split, so many pictures of each are gallery, the rest
            probes.
        num_distractors: In the test split, pictures of so many other people in the gallery.
        num_ui: In the test split, unrecognizable faces of other people, role ``ui``.
        population: Seed of all people and pictures.
        **kwargs: See :class:`FaceDataset`.
    """

    METAINFO = dict(dataset_type='SyntheticFaces', note='These faces are synthetic.')

    def __init__(
        self,
        num_people: int = 120,
        pictures_per_person: int = 16,
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
        if split == 'test' and not 0 < gallery_per_person < pictures_per_person:
            raise ValueError(
                f'gallery_per_person ({gallery_per_person}) must leave pictures_per_person '
                f'({pictures_per_person}) a gallery picture and a probe'
            )
        self.num_people, self.pictures_per_person = num_people, pictures_per_person
        self.split, self.first_person = split, first_person
        self.gallery_per_person = gallery_per_person
        self.num_distractors, self.num_ui = num_distractors, num_ui
        self.population = population
        kwargs.setdefault('test_mode', split == 'test')
        super().__init__(data_root='synthetic', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw all pictures; they are small enough to be kept in the records."""
        records = []
        for label in range(self.num_people):
            person = self.first_person + label
            for picture in range(self.pictures_per_person):
                record = synthetic_record(person, picture, self.population)
                if self.split == 'train':
                    record.update(role='train', gt_label=label)
                else:
                    in_gallery = picture < self.gallery_per_person
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
        num_pictures: Number of faces, each of another person.
        population: Seed.
        **kwargs: See :class:`FaceDataset`.
    """

    METAINFO = dict(dataset_type='SyntheticUIFaces', note='These faces are synthetic.')

    def __init__(self, num_pictures: int = 200, population: int = 0, **kwargs: Any):
        self.num_pictures = num_pictures
        self.population = population
        kwargs.setdefault('test_mode', True)
        super().__init__(data_root='synthetic', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw all faces."""
        return ui_records(self.num_pictures, self.population, first=UI_PERSON)


def synthetic_record(person: int, picture: int, population: int, ui: bool = False) -> dict:
    """Return the record of one synthetic face."""
    face = synthesize_face(person, picture, seed=population, unrecognizable=ui)
    name = f'synthetic:{population}/{person}/{picture}'
    return dict(img=face.image, img_path=name, identity=person, person=f'{population}/{person}')


def ui_records(count: int, population: int, first: int) -> list[dict]:
    """Return records of ``count`` unrecognizable faces of people from number ``first`` on."""
    faces = (synthetic_record(first + index, 0, population, ui=True) for index in range(count))
    return [{**face, 'role': 'ui', 'identity': NO_IDENTITY} for face in faces]
