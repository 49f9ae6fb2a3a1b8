"""Small data sets in the official layouts, made on the spot."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image


@pytest.fixture(scope='session')
def write_face():
    """Return a function that writes an image of random pixels, different for every path."""

    def write(path, size=(20, 24)):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(path.name.encode()))
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture(scope='session')
def write_pairs():
    """Return a function that writes an ``*_img_ID_pairs.mat`` file as MATLAB does."""

    def write(path, key, names, ids):
        cells = np.empty((len(names), 1), dtype=object)
        for index, name in enumerate(names):
            cells[index, 0] = name
        scipy.io.savemat(path, {f'{key}_set': cells, f'{key}_ids': np.array(ids, float)[:, None]})

    return write


@pytest.fixture
def tinyface_root(tmp_path, write_face, write_pairs):
    """TinyFace with 3 training people and 2 test people; numbers of people are not consecutive."""
    root = tmp_path / 'tinyface'
    for person, count in ((2, 3), (10, 2), (7, 2)):
        for n in range(1, count + 1):
            write_face(root / 'Training_Set' / str(person) / f'{person}_{n}.jpg')
    test = root / 'Testing_Set'
    gallery, probe = ['11_1.jpg', '12_1.jpg', '12_2.jpg'], ['11_2.jpg', '12_3.jpg']
    for folder, names in (
        ('Gallery_Match', gallery),
        ('Probe', probe),
        ('Gallery_Distractor', ['a.jpg', 'b.jpg', 'c.jpg']),
    ):
        for name in names:
            write_face(test / folder / name)
    write_pairs(test / 'gallery_match_img_ID_pairs.mat', 'gallery', gallery, [11, 12, 12])
    write_pairs(test / 'probe_img_ID_pairs.mat', 'probe', probe, [11, 12])
    return root


@pytest.fixture(scope='session')
def write_name_pairs():
    """Return a function that writes a ``*_pairs_names.mat`` file: an (N, 2) cell of names."""

    def write(path, key, pairs):
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {key: np.array(pairs, dtype=object)})

    return write


@pytest.fixture(scope='session')
def write_scface(write_face):
    """Return a function that writes SCface for some subjects, with one infra-red camera."""

    def write(root, subjects, flat=False, write=write_face):
        for subject in subjects:
            write(root / 'mugshot_frontal_cropped_all' / f'{subject:03d}_frontal.JPG')
            for distance in (1, 2, 3):
                for camera in (1, 2, 3, 4, 5, 6):
                    folder = f'surveillance_cameras_distance_{distance}/cam_{camera}'
                    name = f'{subject:03d}_cam{camera}_{distance}.jpg'
                    write(root / ('surveillance_cameras_all' if flat else folder) / name)
        return root

    return write


@pytest.fixture
def scface_root(tmp_path, write_scface):
    """SCface with subjects 1 to 4."""
    return write_scface(tmp_path / 'scface', range(1, 5))


@pytest.fixture
def survface_root(tmp_path, write_face, write_pairs, write_name_pairs):
    """QMUL-SurvFace with 3 training people, 2 in the gallery, 2 unmated and 3 in pairs.

    As in the official data, the .mat files number people otherwise than the file names.
    """
    root = tmp_path / 'survface'
    for person, count in ((2, 3), (10, 2), (7, 2)):
        for n in range(1, count + 1):
            write_face(root / 'training_set' / str(person) / f'{person}_cam{n}_{n}.jpg')
    test = root / 'Face_Identification_Test_Set'
    gallery = ['11_cam1_1.jpg', '12_cam1_1.jpg', '12_2.jpg']
    mated = ['11_cam2_2.jpg', '12_cam3_3.jpg']
    unmated = ['20_cam1_1.jpg', '20_2.jpg', '3_cam1_1.jpg', 'distractors_1.jpg']
    for folder, names in (('gallery', gallery), ('mated_probe', mated), ('unmated_probe', unmated)):
        for name in names:
            write_face(test / folder / name)
    write_pairs(test / 'gallery_img_ID_pairs.mat', 'gallery', gallery, [5, 9, 9])
    write_pairs(test / 'mated_probe_img_ID_pairs.mat', 'mated_probe', mated, [5, 9])
    test = root / 'Face_Verification_Test_Set'
    positive = [('31_cam1_1.jpg', '31_cam2_2.jpg'), ('32_cam1_1.jpg', '32_2.jpg')]
    negative = [('33_cam1_1.jpg', '31_cam1_1.jpg')]
    for kind, pairs in (('positive', positive), ('negative', negative)):
        write_name_pairs(test / f'{kind}_pairs_names.mat', f'{kind}_pairs_names', pairs)
        for name in {name for pair in pairs for name in pair}:
            write_face(test / 'verification_images' / name)
    return root
