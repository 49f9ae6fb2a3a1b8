import csv
import importlib.util
import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize
from skimage.transform import SimilarityTransform

from mmvlr.datasets.alignment import COLUMNS, TEMPLATE, AlignmentRecipe, find_alignment
from mmvlr.datasets.transforms import read_image
from mmvlr.preparation import Aligner, Detection, MTCNNDetector, align_face, align_tree
from mmvlr.preparation.alignment import fallback_face, similarity_transform
from mmvlr.preparation.detection import main_face, on_square, to_image
from mmvlr.utils.schema import FileFormatError, FileModel, Text
from mmvlr.utils.work import Journal, in_order

needs_mtcnn = pytest.mark.skipif(
    importlib.util.find_spec('facenet_pytorch') is None,
    reason="facenet-pytorch is missing: pip install 'mmvlr[align]'",
)


def mugshots(shared, count):
    folder = shared / 'data' / 'scface' / 'mugshot_frontal_cropped_all'
    return [read_image(str(path)) for path in sorted(folder.glob('*'))[:count]]


# The transform ------------------------------------------------------------------------------------


def test_a_known_transform_is_found_again():
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle, scale, shift = rng.uniform(-3, 3), rng.uniform(0.1, 9), rng.uniform(-50, 50, 2)
        turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
        expected = np.hstack([scale * turn, shift[:, None]])
        target = TEMPLATE @ expected[:, :2].T + shift
        np.testing.assert_allclose(similarity_transform(TEMPLATE, target), expected, atol=1e-9)


def test_noisy_landmarks_agree_with_skimage_and_with_a_minimizer():
    rng = np.random.default_rng(1)
    source = TEMPLATE / 7 + rng.normal(0, 0.6, TEMPLATE.shape)
    found = similarity_transform(source, TEMPLATE)
    reference = SimilarityTransform.from_estimate(source, TEMPLATE).params[:2]
    np.testing.assert_allclose(found, reference, atol=1e-9)

    def error(p):
        matrix = np.array([(p[0], -p[1]), (p[1], p[0])])
        return ((source @ matrix.T + p[2:] - TEMPLATE) ** 2).sum()

    best = minimize(error, np.array([1.0, 0, 0, 0]), tol=1e-12).x
    np.testing.assert_allclose(found[:, 0], best[:2], atol=1e-4)
    np.testing.assert_allclose(found[:, 2], best[2:], atol=1e-3)


def test_mirrored_landmarks_are_not_met_by_a_reflection():
    mirrored = TEMPLATE * (-1, 1)
    found = similarity_transform(mirrored, TEMPLATE)
    assert np.linalg.det(found[:, :2]) > 0
    reference = SimilarityTransform.from_estimate(mirrored, TEMPLATE).params[:2]
    np.testing.assert_allclose(found, reference, atol=1e-9)


@pytest.mark.parametrize('points', [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_landmarks_without_a_transform_are_an_error(points):
    with pytest.raises(ValueError, match='no similarity transform'):
        similarity_transform(points, TEMPLATE)


# Alignment ----------------------------------------------------------------------------------------


def dots(points, shape, radius):
    """An image with a bright disc of its own color at each landmark."""
    image = np.zeros((*shape, 3), np.uint8)
    for index, (x, y) in enumerate(points):
        color = [0, 0, 0]
        color[index % 3] = 255 - 60 * (index // 3)
        center = round(x * 16), round(y * 16)
        cv2.circle(image, center, round(radius * 16), color, -1, cv2.LINE_AA, shift=4)
    return image


@pytest.mark.parametrize(('scale', 'size'), [(0.5, 112), (2.2, 112), (9.0, 112), (1.0, 56)])
def test_landmarks_arrive_at_the_template(scale, size):
    angle = np.radians(15)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    points = (TEMPLATE - 56) @ turn.T * scale + (90 * scale, 80 * scale)
    side = round(190 * scale)
    face = align_face(dots(points, (side, side), 4 * scale), points, size)
    assert face.shape == (size, size, 3)
    reach = 7 * size // 112
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for index, point in enumerate((TEMPLATE + 0.5) * size / 112 - 0.5):
        x, y = np.round(point).astype(int)
        window = slice(y - reach, y + reach + 1), slice(x - reach, x + reach + 1)
        near = face[(*window, index % 3)].astype(float)
        middle = (near * columns).sum() / near.sum(), (near * rows).sum() / near.sum()
        # A disc is drawn to a sixteenth of a pixel of the source at best.
        np.testing.assert_allclose(middle, point - (x, y), atol=0.15 / min(scale, 1))


def test_the_template_itself_changes_nothing():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8), (0, 0), 2)
    np.testing.assert_array_equal(align_face(image, TEMPLATE), image)


def test_the_fallback_keeps_the_aspect_ratio_and_the_middle():
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 8:12] = 255
    face = fallback_face(image, 112)
    assert face.shape == (112, 112, 3)
    # A fifth of the width, all the way down: the rows above and below repeat the edge.
    np.testing.assert_allclose((face[:, :, 0] > 127).sum(1), 22, atol=2)
    assert face[56, 55].min() == 255


def test_the_main_face_is_large_and_near_the_middle():
    def face(x, y, side):
        return Detection((x, y, x + side, y + side), 0.9, TEMPLATE)

    middle, corner, small = face(30, 30, 40), face(0, 60, 42), face(45, 45, 10)
    assert main_face([corner, small, middle], (100, 100, 3)) is middle
    assert main_face([], (100, 100, 3)) is None


@pytest.mark.parametrize('shape', [(12, 15), (300, 40), (1, 1), (1, 400)])
def test_points_go_to_the_square_and_back(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    square, scale, shift = on_square(image, 160, 0.25)
    assert square.shape == (160, 160, 3)
    ends = np.array([(-0.5, -0.5), (shape[1] - 0.5, shape[0] - 0.5)])
    inside = np.argwhere((square != 127).all(2))[:, ::-1]
    corners = np.array([inside.min(0) - 0.5, inside.max(0) + 0.5])
    np.testing.assert_allclose(to_image(corners, scale, shift), ends, atol=1e-9)


# The detector -------------------------------------------------------------------------------------


@needs_mtcnn
def test_landmarks_follow_the_image(shared):
    """Turned, shrunk and shifted faces: MTCNN's landmarks go where the pixels went."""
    detector = MTCNNDetector()
    errors = []
    for index, face in enumerate(mugshots(shared, 8)):
        matrix = cv2.getRotationMatrix2D((56, 56), (-12, 8)[index % 2], 0.25)
        matrix[:, 2] += (-30, -33)
        small = cv2.warpAffine(
            cv2.GaussianBlur(face, (0, 0), 1.5), matrix, (52, 46), borderMode=cv2.BORDER_REPLICATE
        )
        large = main_face(detector.detect([face])[0], face.shape)
        found = main_face(detector.detect([small])[0], small.shape)
        expected = large.landmarks @ matrix[:, :2].T + matrix[:, 2]
        errors.append(np.linalg.norm(found.landmarks - expected, axis=1).mean())
        assert found.size == pytest.approx(large.size / 4, rel=0.25)
    # In pixels of a face 28 pixels wide.
    assert np.median(errors) < 1


@needs_mtcnn
def test_an_image_does_not_depend_on_its_neighbors(shared):
    faces = mugshots(shared, 3)
    detector = MTCNNDetector()
    alone = [detector.detect([face])[0] for face in faces]
    for first, second in zip(alone, detector.detect(faces[::-1])[::-1], strict=True):
        assert [f.box for f in first] == [f.box for f in second]
        assert [f.confidence for f in first] == [f.confidence for f in second]
        for a, b in zip(first, second, strict=True):
            assert a.landmarks.dtype == np.float64
            np.testing.assert_array_equal(a.landmarks, b.landmarks)


@needs_mtcnn
@pytest.mark.parametrize('shape', [(1, 1), (3, 200), (40, 40), (3, 9000), (700, 20)])
def test_without_a_face_the_image_is_cropped(shape):
    image = np.full((*shape, 3), 90, np.uint8)
    aligned = Aligner()(image)
    assert aligned.detection is None
    np.testing.assert_array_equal(aligned.image, fallback_face(image))


@needs_mtcnn
def test_a_turned_face_is_set_upright(shared):
    aligner = Aligner()
    for face in mugshots(shared, 4):
        matrix = cv2.getRotationMatrix2D((56, 56), 20, 0.6)
        turned = cv2.warpAffine(face, matrix, (112, 112), borderMode=cv2.BORDER_REPLICATE)
        before, after = (
            similarity_transform(main_face(faces, (112, 112)).landmarks, TEMPLATE)
            for faces in aligner.detector.detect([turned, aligner(turned).image])
        )
        assert abs(turn_of(before)) == pytest.approx(20, abs=6)
        assert abs(turn_of(after)) < 4
        assert np.hypot(*after[:, 0]) == pytest.approx(1, abs=0.1)


def turn_of(matrix):
    return np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(size=4), 'size'),
        (dict(detection_side=8), 'side'),
        (dict(padding=-0.1), 'padding'),
        (dict(min_face=0.01), 'min_face'),
        (dict(thresholds=(0.5, 0.5)), 'thresholds'),
    ],
)
def test_a_recipe_out_of_range_is_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        AlignmentRecipe(detector='x', **change)


def test_the_digest_tells_recipes_apart():
    recipe = AlignmentRecipe(detector='facenet-pytorch 1')
    others = [
        AlignmentRecipe(detector='facenet-pytorch 1', **change)
        for change in (
            dict(size=160),
            dict(detection_side=200),
            dict(padding=0.5),
            dict(min_face=0.3),
            dict(thresholds=(0.5, 0.7, 0.7)),
            dict(version=2),
        )
    ] + [AlignmentRecipe(detector='facenet-pytorch 2')]
    assert len({recipe.digest, *(other.digest for other in others)}) == 8
    # Lists, as JSON gives them, are the same recipe.
    again = AlignmentRecipe(detector='facenet-pytorch 1', thresholds=[0.6, 0.7, 0.7])
    assert again.digest == recipe.digest
    assert recipe.name == f'arcface112-{recipe.digest[:12]}'


@needs_mtcnn
def test_another_detector_than_the_installed_one_is_refused():
    with pytest.raises(ValueError, match='installed is facenet-pytorch'):
        Aligner(AlignmentRecipe(detector='facenet-pytorch 0.1'))


def test_without_the_package_the_command_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'facenet_pytorch', None)
    with pytest.raises(ImportError, match=r"pip install 'mmvlr\[align\]'"):
        MTCNNDetector()


# Folders ------------------------------------------------------------------------------------------


@needs_mtcnn
def test_find_alignment_tells_the_recipe_and_counts(shared, tmp_path):
    source, out = tmp_path / 'faces', tmp_path / 'aligned'
    for index, face in enumerate([*mugshots(shared, 2), np.zeros((20, 20, 3), np.uint8)]):
        (source / 'a').mkdir(parents=True, exist_ok=True)
        Image.fromarray(face).save(source / 'a' / f'{index}.jpg')
    assert find_alignment(source) is None
    report = align_tree(source, out)
    found = find_alignment(out / 'a')
    assert (found.root, found.recipe, found.images, found.fallbacks) == (
        out,
        report.recipe,
        3,
        1,
    )
    assert '1 of 3 faces not detected' in found.describe()
    assert find_alignment(out / 'synthetic') is None
    two = [out / 'a' / '1.jpg', out / 'a' / '2.jpg']
    assert '1 of 2 faces not detected, cropped instead (50.0%)' in found.describe(two)
    assert '1 are not in alignment.csv' in found.describe([out / 'a' / 'new.jpg'])
    row = list(csv.DictReader((out / 'alignment.csv').open()))[1]
    points = np.array([(float(row[f'x{i}']), float(row[f'y{i}'])) for i in range(1, 6)])
    face = align_face(read_image(str(source / 'a' / '1.jpg')), points)
    written = read_image(str(out / 'a' / '1.jpg'))
    assert np.abs(face.astype(int) - written).max() <= 2


RECIPE = AlignmentRecipe(detector='a detector 1.0')


@pytest.fixture
def facts(tmp_path):
    """What ``alignment.json`` holds; call it to write that, with changes."""
    found = dict(recipe=asdict(RECIPE), digest=RECIPE.digest, name=RECIPE.name)
    found |= dict(images=2, fallbacks=1, unreadable=0)

    def write(**changes):
        content = {k: v for k, v in (found | changes).items() if v is not ...}
        (tmp_path / 'alignment.json').write_text(json.dumps(content))

    write()
    return write


@pytest.mark.parametrize(
    ('changes', 'field'),
    [
        (dict(recipe=asdict(RECIPE) | dict(padding=0.5)), 'digest'),
        (dict(recipe=asdict(RECIPE) | dict(padding=5)), 'recipe'),
        (dict(recipe=asdict(RECIPE) | dict(padding='0.25')), 'recipe.padding'),
        (dict(recipe=asdict(RECIPE) | dict(side=3)), 'recipe.side'),
        (dict(recipe=[]), 'recipe'),
        (dict(digest=...), 'digest'),
        (dict(images=...), 'images'),
        (dict(images=-1), 'images'),
        (dict(fallbacks='1'), 'fallbacks'),
        (dict(more=1), 'more'),
    ],
)
def test_a_damaged_recipe_is_named(facts, tmp_path, changes, field):
    facts(**changes)
    with pytest.raises(FileFormatError) as raised:
        find_alignment(tmp_path)
    assert str(raised.value).startswith(f'{tmp_path / "alignment.json"}: {field}: ')


@pytest.mark.parametrize('key', ['images', 'pictures'])
def test_recipes_of_mmvlr_0_1_are_read(facts, tmp_path, key):
    facts(**{'images': ..., key: 7}, name=..., unreadable=...)
    found = find_alignment(tmp_path)
    assert (found.images, found.fallbacks, found.recipe) == (7, 1, RECIPE)


HEADER = ','.join(COLUMNS)
POINTS = ',1.5' * 8 + ',,'


@pytest.mark.parametrize(
    ('text', 'place'),
    [
        ('', ': columns'),
        (HEADER.replace('fallback', 'fallen') + '\n', ': columns'),
        (f'{HEADER}\na.png,0\n', ', line 2: '),
        (f'{HEADER}\na.png,0,0.9{POINTS},12\nb.png,2,0.9{POINTS},12\n', ', line 3: fallback'),
        (f'{HEADER}\na.png,0,nan{POINTS},12\n', ', line 2: confidence'),
        (f'{HEADER}\na.png,0,0.9{POINTS.replace("1.5", "x", 1)},12\n', ', line 2: x1'),
        (f'{HEADER}\n"a.png,0', ': '),
        (f'{HEADER}\n\udcff', ': '),
    ],
)
def test_a_damaged_table_is_named(facts, tmp_path, text, place):
    (tmp_path / 'alignment.csv').write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(FileFormatError) as raised:
        find_alignment(tmp_path).describe([tmp_path / 'a.png'])
    assert str(raised.value).startswith(f'{tmp_path / "alignment.csv"}{place}')


def test_a_missing_table_is_named(facts, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'alignment\.csv'):
        find_alignment(tmp_path).describe([tmp_path / 'a.png'])


# Journal and processes ----------------------------------------------------------------------------


def test_a_journal_drops_a_torn_line_and_goes_on(tmp_path):
    path = tmp_path / 'journal'
    journal = Journal(path, dict(size=(1, 2)), 'name')
    for name in 'abc':
        journal.append(dict(name=name, value=1))
    journal.close()
    whole = path.read_bytes()
    for cut in range(whole.rfind(b'\n', 0, -1) + 1, len(whole)):
        path.write_bytes(whole[:cut])
        journal = Journal(path, dict(size=(1, 2)), 'name')
        assert list(journal.found) == ['a', 'b']
        journal.append(dict(name='c', value=1))
        journal.close()
        assert path.read_bytes() == whole


def test_a_journal_of_other_settings_or_damaged_is_an_error(tmp_path):
    path = tmp_path / 'journal'
    Journal(path, dict(side=1), 'name').close()
    with pytest.raises(ValueError, match='side: 1 before, 2 now'):
        Journal(path, dict(side=2), 'name')


class Scored(FileModel):
    name: Text
    score: float


@pytest.mark.parametrize(
    ('text', 'place'),
    [
        ('what\n', 'line 1: '),
        ('[]\n', 'line 1: content: '),
        ('{"side": 1}\nnot json\n{"name": "a"}\n', 'line 2: '),
        ('{"side": 1}\n{"name": "a", "score": "1"}\n', 'line 2: score: '),
        ('{"side": 1}\n{"name": "a", "score": 1}\n{"score": 1}\n', 'line 3: name: '),
        ('{"side": 1}\n{"name": [], "score": 1}\n', 'line 2: name: '),
        ('{"side": 1}\n' + '[' * 9999 + '\n', 'line 2: '),
    ],
)
@pytest.mark.parametrize('model', [dict(entry=Scored), {}])
def test_a_damaged_journal_is_named(tmp_path, text, place, model):
    path = tmp_path / 'journal'
    path.write_text(text)
    if not model and 'score:' in place:
        Journal(path, dict(side=1), 'name').close()
        return
    with pytest.raises(FileFormatError) as raised:
        Journal(path, dict(side=1), 'name', **model)
    assert str(raised.value).startswith(f'{path}, {place}')
    assert path.read_text() == text


def test_results_come_in_order_and_on_one_thread():
    threads = []

    def make():
        return lambda number: threads.append(torch.get_num_threads()) or number * number

    torch.set_num_threads(2)
    try:
        assert list(in_order(make, range(5))) == [0, 1, 4, 9, 16]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert set(threads) == {1}
    with pytest.raises(ValueError, match='jobs'):
        list(in_order(make, range(2), 0))


@pytest.mark.parametrize('shape', [(320, 320), (333, 640), (257, 96)])
def test_only_what_is_read_is_averaged_down(shape):
    """Results equal those of averaging the whole image down, also at and beyond its edges."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 255, (*shape, 3), np.uint8), (5, 5), 0)
    target = (TEMPLATE + 0.5) * 32 / 112 - 0.5
    for _ in range(30):
        angle, scale = rng.uniform(-3, 3), rng.uniform(0.6, 3)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = (TEMPLATE - 56) @ turn * scale + rng.uniform(-0.1, 1.1, 2) * shape[::-1]
        shrink = int(1 / np.hypot(*similarity_transform(points, target)[:, 0]))
        small, scaled = image, points
        if shrink > 1:
            size = max(1, shape[1] // shrink), max(1, shape[0] // shrink)
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            scaled = (points + 0.5) * (np.array(size) / shape[::-1]) - 0.5
        matrix = similarity_transform(scaled, target)
        options = dict(flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        expected = cv2.warpAffine(small, matrix, (32, 32), **options)
        np.testing.assert_array_equal(align_face(image, points, 32), expected)


def test_norm_crop_of_insightface():
    """Bilinear, black beyond the image, and no averaging: scikit-image's transform and OpenCV."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (200, 180, 3), np.uint8)
    points = (TEMPLATE - 56) * 1.4 + (60, 90) + rng.standard_normal((5, 2))
    for size in (112, 224):
        known = SimilarityTransform.from_estimate(points, TEMPLATE * size / 112)
        expected = cv2.warpAffine(image, known.params[:2], (size, size), borderValue=0.0)
        found = align_face(image, points, size, as_in='insightface')
        np.testing.assert_array_equal(found, expected)
        assert (found == 0).all(axis=2).any()
    for options in (dict(as_in='nobody'), dict(as_in='insightface', size=100)):
        with pytest.raises(ValueError, match='as_in'):
            align_face(image, points, **options)
