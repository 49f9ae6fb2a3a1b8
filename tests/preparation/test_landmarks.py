"""Alignment by the landmarks of a list: SCface's four points, and five."""

import csv
import pickle

import cv2
import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets import find_alignment
from mmvlr.datasets.alignment import FOUR_POINTS, TEMPLATE
from mmvlr.preparation import align_tree
from mmvlr.preparation.alignment import align_face
from mmvlr.preparation.landmarks import LandmarkRecipe, read_landmarks

from ..tools.conftest import tool  # noqa: F401 - a fixture

EYES, NOSE, MOUTH = [(30, 40), (60, 38)], [(45, 60)], [(46, 80)]


def write(path, *lines):
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


@pytest.mark.parametrize(
    'line',
    [
        '001_frontal 30 40 60 38 45 60 46 80',
        '001_frontal\t60\t38\t30\t40\t45\t60\t46\t80',
        '001_FRONTAL.JPG, 30.0, 40, 60, 38, 45, 60, 46, 80',
        'Mugshots\\001_frontal.jpg;30;40;60;38;45;60;46;80',
    ],
)
@pytest.mark.parametrize('head', ['', '\ufeff# eyes, nose, mouth', 'name lx ly rx ry nx ny mx my'])
def test_forms_of_a_list(tmp_path, line, head):
    """The eye on the left of the image comes first, whichever the list calls left."""
    path = write(tmp_path / 'all.txt', head, line, '', '002_cam1_1 1 2 3 4 5 6 7 8')
    found = read_landmarks(path)
    name = 'mugshots/001_frontal' if 'Mug' in line else '001_frontal'
    assert list(found) == [name, '002_cam1_1']
    np.testing.assert_array_equal(found[name], EYES + NOSE + MOUTH)


def test_corners_of_the_mouth_are_ordered_too(tmp_path):
    path = write(tmp_path / 'all.txt', 'a 60 38 30 40 45 60 55 81 35 80')
    expected = [*EYES, *NOSE, (35, 80), (55, 81)]
    np.testing.assert_array_equal(read_landmarks(path)['a'], expected)


@pytest.mark.parametrize(
    ('lines', 'told'),
    [
        (['a 1 2 3 4 5 6 7 8', 'b 1 2 3'], 'line 2'),
        (['a 1 2 3 4 5 6 7 8', 'b 1 2 3 4 5 6 7 x'], 'line 2'),
        (['a 1 2 3 4 5 6 7 nan'], 'line 1'),
        (['a 1 2 3 4 5 6 7 8', 'A.jpg 1 2 3 4 5 6 7 9'], r'line 2: A\.jpg'),
        (['a 1 2 3 4 5 6 7 8', '/ 1 2 3 4 5 6 7 9'], 'line 2'),
        (['# nothing'], 'names no image'),
    ],
)
def test_errors_name_the_line(tmp_path, lines, told):
    with pytest.raises(ValueError, match=rf'all\.txt.*{told}'):
        read_landmarks(write(tmp_path / 'all.txt', *lines))


def test_four_points_move_to_the_template():
    """Against OpenCV: a face that was turned, scaled and shifted comes back."""
    np.testing.assert_allclose(FOUR_POINTS[3], (TEMPLATE[3] + TEMPLATE[4]) / 2)
    rng = np.random.default_rng(0)
    face = cv2.GaussianBlur(rng.integers(0, 256, (112, 112, 3), np.uint8), (0, 0), 4)
    matrix = cv2.getRotationMatrix2D((56, 56), 20, 0.9)
    matrix[:, 2] += (40, 30)
    scene = cv2.warpAffine(face, matrix, (200, 180), flags=cv2.INTER_CUBIC)
    points = FOUR_POINTS @ matrix[:, :2].T + matrix[:, 2]
    back = align_face(scene, points)
    inner = np.s_[20:92, 20:92]
    difference = np.abs(back[inner].astype(int) - face[inner].astype(int))
    assert difference.mean() < 2
    # The mouth's center is not taken for a corner.
    assert (
        np.abs(align_face(scene, np.add(points, (9, 0)))[inner].astype(int) - face[inner]).mean()
        > 5
    )


@pytest.fixture
def archive(tmp_path):
    """A small SCface: one mugshot and one probe with landmarks, and one image without."""
    root = tmp_path / 'scface'
    rng = np.random.default_rng(1)
    for name, size in (
        ('mugshot_frontal_cropped_all/001_frontal.JPG', (120, 90)),
        ('surveillance_cameras_all/001_cam1_1.jpg', (100, 75)),
        ('surveillance_cameras_all/002_cam1_1.jpg', (100, 75)),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(root / name)
    (root / 'Thumbs.db').write_bytes(b'junk')
    lines = ['001_frontal 30 40 60 38 45 60 46 80', '001_cam1_1 25 40 50 41 38 55 38 70']
    return root, write(tmp_path / 'all.txt', *lines)


def test_tree(archive, tmp_path, monkeypatch):
    """No detector is needed; what is not listed is taken as a whole, and told apart."""

    def missing():
        raise ImportError('MTCNN')

    monkeypatch.setattr('mmvlr.datasets.alignment.detector_version', missing)
    root, path = archive
    out = tmp_path / 'out'
    recipe = LandmarkRecipe.read(path)
    assert pickle.loads(pickle.dumps(recipe)).path == str(path)
    report = align_tree(root, out, recipe)
    assert [row['fallback'] for row in report.rows] == [0, 0, 1]
    assert report.copied == ['Thumbs.db'] and not report.unreadable
    name = 'mugshot_frontal_cropped_all/001_frontal.JPG'
    with Image.open(root / name) as image:
        expected = align_face(np.asarray(image), np.array(EYES + NOSE + MOUTH, float))
    with Image.open(out / name) as image:
        np.testing.assert_array_equal(np.asarray(image), expected)
    rows = list(csv.DictReader((out / 'alignment.csv').open()))
    assert [rows[0][f'{axis}4'] for axis in 'xy'] == ['46.000', '80.000'] and rows[0]['x5'] == ''
    found = find_alignment(out)
    assert found.recipe.name == recipe.name and 'landmarks' in found.describe()
    # Another list is another recipe, and its results are not taken for those of this one.
    write(path, '001_frontal 30 40 60 38 45 60 46 81')
    other = LandmarkRecipe.read(path)
    assert other.name != recipe.name
    with pytest.raises(ValueError, match='other settings'):
        align_tree(root, out, other)


def test_points_of_another_version_of_an_image(archive, tmp_path, tool, capsys):  # noqa: F811
    root, path = archive
    write(path, '001_frontal 300 400 600 380 450 600 460 800', '001_cam1_1 25 40 50 41 38 55 38 70')
    main = tool('dataset_converters/align.py').main
    out = tmp_path / 'out'
    assert main([str(root), str(out), '--landmarks', str(path)]) == 3
    error = capsys.readouterr().err
    assert '001_frontal.JPG' in error and 'outside' in error
    assert not (out / 'mugshot_frontal_cropped_all/001_frontal.JPG').exists()


def test_list_of_other_images(archive, tmp_path, tool, capsys):  # noqa: F811
    root, path = archive
    main = tool('dataset_converters/align.py').main
    write(path, '001_frontal 30 40 60 38 45 60 46 80', '009_cam1_1 25 40 50 41 38 55 38 70')
    assert main([str(root), str(tmp_path / 'some'), '--landmarks', str(path)]) == 0
    out = capsys.readouterr().out
    assert '2 without landmarks' in out and '1 entries' in out and '009_cam1_1' in out
    write(path, '009_cam1_1 25 40 50 41 38 55 38 70')
    assert main([str(root), str(tmp_path / 'none'), '--landmarks', str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / 'none').exists()
    assert main([str(root), str(tmp_path / 'none'), '--landmarks', str(tmp_path / 'absent')]) == 1
