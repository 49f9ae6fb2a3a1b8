"""Small data sets in the official layouts, made on the spot."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image


@pytest.fixture(scope='session')
def write_face():
    """Return a function that writes a picture of random pixels, different for every path."""

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
