"""Detection in frames, at their own scale; the detectors beside MTCNN."""

import csv
import importlib.util
import math
import os
import shutil

import cv2
import numpy as np
import pytest

from mmvlr.apis import FaceInferencer
from mmvlr.apis.images import NoFaceError
from mmvlr.datasets.alignment import AlignmentRecipe
from mmvlr.datasets.transforms import read_image
from mmvlr.models.recognizers import FaceRecognizer
from mmvlr.preparation import (
    Aligner,
    Detection,
    FaceDetector,
    MTCNNDetector,
    YuNetDetector,
    align_tree,
    build_detector,
    configure_detector,
    make_recipe,
)
from mmvlr.preparation.detection import (
    dominant_face,
    drop_repeated,
    on_square,
    split_length,
    to_image,
)
from mmvlr.preparation.ui_building import UIFilter, UISearch, build_ui_set

needs_mtcnn = pytest.mark.skipif(
    importlib.util.find_spec('facenet_pytorch') is None,
    reason="facenet-pytorch is missing: pip install 'mmvlr[align]'",
)
STREET, EMPTY = 'c1s1_014776.jpg', 'c1s1_001051.jpg'
#: Middles of four faces of the street, seen by eye.
CENTERS = [(1602, 537), (1254, 404), (1095, 441), (1461, 445)]


@pytest.fixture(scope='session')
def frames(shared):
    """Folder of frames of a street, 1920 x 1080."""
    folder = shared / 'data' / 'frames'
    if not folder.is_dir():
        pytest.skip(f'no frames at {folder}')
    return folder


def face_at(x, y, side, confidence=0.99):
    return Detection((x, y, x + side, y + side), confidence, np.full((5, 2), x + side / 2))


# Tiles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('length', [5, 59, 60, 61, 97, 100, 101, 1000, 1013])
def test_every_face_is_whole_in_the_tile_that_owns_its_center(length):
    tile, overlap = 60, 20
    parts = split_length(length, tile, overlap)
    assert all(end - start <= tile for start, end, *_ in parts)
    for center in np.arange(0, length, 0.5):
        owners = [part for part in parts if part[2] <= center < part[3]]
        assert len(owners) == 1
        start, end, *_ = owners[0]
        assert start <= max(0, center - overlap / 2)
        assert end >= min(length, center + overlap / 2)


class BrightSquares(FaceDetector):
    """Takes bright squares for faces, but only up to 300 pixels, as YuNet does."""

    RELIABLE, SURE, version = 20.0, 0.9, 'bright squares'

    def find(self, image, smallest):
        assert min(image.shape[:2]) >= smallest
        assert max(image.shape[:2]) <= 2048
        _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 127).astype(np.uint8))
        found = []
        for x, y, width, height, _ in stats[1:].tolist():
            if smallest * 0.9 <= min(width, height) and max(width, height) <= 300:
                box = (x - 0.5, y - 0.5, x + width - 0.5, y + height - 0.5)
                points = np.full((5, 2), (x + (width - 1) / 2, y + (height - 1) / 2))
                found.append(Detection(box, 0.99, points))
        return found


@pytest.mark.parametrize('shape', [(1080, 1920), (2900, 4300)])
def test_squares_of_all_sizes_are_found_once_and_where_they_are(shape):
    image = np.zeros((*shape, 3), np.uint8)
    truth, x = [], 7
    for side in (12, 17, 30, 61, 120, 190, 260, 500):
        truth.append((x, 40 + side % 7, side))
        x += side + 20
    # At the borders of tiles, and in the corner.
    truth += [(1200, 700, 20), (shape[1] - 15, shape[0] - 15, 15), (0, 1000, 14)]
    for x, y, side in truth:
        image[y : y + side, x : x + side] = 255
    found = BrightSquares().detect([image])[0]
    assert [face.size for face in found] == sorted((face.size for face in found), reverse=True)
    boxes = sorted(face.box for face in found)
    expected = sorted((x - 0.5, y - 0.5, x + s - 0.5, y + s - 0.5) for x, y, s in truth)
    assert len(boxes) == len(expected)
    for box, other in zip(boxes, expected, strict=True):
        np.testing.assert_allclose(box, other, atol=max(1.0, 0.03 * (other[2] - other[0])))
    for face in found:
        x1, y1, x2, y2 = face.box
        np.testing.assert_allclose(face.landmarks[0], ((x1 + x2) / 2, (y1 + y2) / 2), atol=1e-6)


def test_of_repeated_faces_the_surest_stays():
    sure, part, other = face_at(0, 0, 40, 0.99), face_at(15, 15, 20, 0.9), face_at(39, 0, 44, 0.8)
    assert drop_repeated([part, other, sure]) == [other, sure]


@pytest.mark.parametrize(
    ('sides', 'place'), [([], None), ([30], 0), ([20, 40, 9], 1), ([20, 39], None), ([9, 9], None)]
)
def test_the_face_of_a_frame_is_twice_as_large_as_any_other(sides, place):
    faces = [face_at(100 * index, 0, side) for index, side in enumerate(sides)]
    assert dominant_face(faces) is (None if place is None else faces[place])


# MTCNN --------------------------------------------------------------------------------------------


@needs_mtcnn
def test_crops_are_searched_as_ever(shared):
    """Equal to MTCNN on the gray square, and under the recipe's old name."""
    from facenet_pytorch import MTCNN

    folder = shared / 'data' / 'scface' / 'mugshot_frontal_cropped_all'
    image = read_image(str(min(folder.glob('*'))))
    square, scale, shift = on_square(image, 160, 0.25)
    mtcnn = MTCNN(min_face_size=32, thresholds=[0.6, 0.7, 0.7], keep_all=True).eval()
    boxes, scores, points = mtcnn.detect(square, landmarks=True)
    found = MTCNNDetector().detect([image])[0]
    assert len(found) == len(boxes) > 0
    for face, box, score, marks in zip(found, boxes, scores, points, strict=True):
        box = to_image(np.reshape(box, (2, 2)).astype(float), scale, shift).ravel()
        np.testing.assert_array_equal(face.box, box)
        assert face.confidence == float(score)
        np.testing.assert_array_equal(
            face.landmarks, to_image(np.asarray(marks, float), scale, shift)
        )
    # Of the version before frames were searched.
    old = 'b0ff94a49235976c8b1bed2abc9c074a2640495dcd5f9db608849c9d2dc7e0ba'
    recipe = AlignmentRecipe(detector='facenet-pytorch 1')
    assert recipe.digest == old
    changes = dict(min_size=20), dict(frame_side=320)
    others = {AlignmentRecipe(detector='facenet-pytorch 1', **change).digest for change in changes}
    assert len(others | {old}) == 3


@needs_mtcnn
def test_small_faces_of_a_street_become_a_ui_set(frames, tmp_path):
    (tmp_path / 'street').mkdir()
    shutil.copy(frames / STREET, tmp_path / 'street')
    result = build_ui_set(
        tmp_path / 'street', tmp_path / 'ui', UISearch('folder'), UIFilter(max_size=60)
    )
    rows = list(csv.DictReader((tmp_path / 'ui' / 'manifest.csv').open()))
    centers = sorted(
        ((int(r['x1']) + int(r['x2'])) / 2, (int(r['y1']) + int(r['y2'])) / 2) for r in rows
    )
    assert len(result.faces) == len(centers) >= 4
    for center in CENTERS:
        assert min(math.dist(center, other) for other in centers) < 8


@pytest.fixture(scope='session')
def pasted(frames, shared):
    """An empty street with a mugshot, alone or twice, or once beside a small one."""
    street = read_image(str(frames / EMPTY))[:400, :700]
    folder = shared / 'data' / 'scface' / 'mugshot_frontal_cropped_all'
    mugshots = [read_image(str(path)) for path in sorted(folder.glob('*'))[:2]]

    def paste(*sides):
        image = street.copy()
        for index, side in enumerate(sides):
            face = cv2.resize(mugshots[index], (side, side), interpolation=cv2.INTER_AREA)
            image[100 : 100 + side, 200 + 300 * index :][:, :side] = face
        return image

    return paste


@pytest.mark.slow
@needs_mtcnn
def test_a_frame_with_several_faces_has_no_face(pasted, tmp_path, tiny_backbone):
    """Refused by alignment, embedding and verification, unless one stands out."""
    images = dict(none=pasted(), one=pasted(60), two=pasted(60, 50), large=pasted(112, 40))
    aligner = Aligner()
    faces = {name: aligner(image) for name, image in images.items()}
    assert {name: face.faces for name, face in faces.items()} == dict(none=0, one=1, two=2, large=2)
    assert [name for name, face in faces.items() if face.detection is None] == ['none', 'two']
    # The box of a mugshot's face is a part of it.
    assert 200 < faces['large'].detection.box[0] < faces['large'].detection.box[2] < 312
    for name, image in images.items():
        (tmp_path / 'src').mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / 'src' / f'{name}.png'), image[..., ::-1])
    report = align_tree(tmp_path / 'src', tmp_path / 'out')
    assert [row['file'] for row in report.rows] == ['large.png', 'none.png', 'one.png']
    assert len(report.unreadable) == 1
    assert report.unreadable[0].startswith('two.png: 2 faces in it')
    assert not (tmp_path / 'out' / 'two.png').exists()
    model = FaceRecognizer(
        backbone=tiny_backbone, data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32))
    )
    inferencer = FaceInferencer(model, 'cpu', align='mtcnn')
    table = inferencer.embed([tmp_path / 'src' / f'{name}.png' for name in images])
    assert table.columns['faces'].tolist() == [1, 2]
    assert [name.rsplit('/')[-1] for name in table.unaligned] == ['none.png', 'two.png']
    assert '2 faces in it' in dict(table.failures)[table.unaligned[1]]
    with pytest.raises(NoFaceError, match='2 faces in it'):
        inferencer.verify(images['one'], images['two'])


# YuNet --------------------------------------------------------------------------------------------


def write_yunet(path):
    """Write a network with YuNet's inputs and outputs that takes red blocks for faces.

    A block is one of 16 x 16 pixels with corners at multiples of 16.
    """
    onnx = pytest.importorskip('onnx')
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    # Offsets and logarithms of the sides in strides; eyes, nose and mouth in strides.
    constants = dict(
        bbox=[0.5, 0.5, 0, 0], kps=[0.25, 0.25, 0.75, 0.25, 0.5, 0.5, 0.25, 0.75, 0.75, 0.75]
    )
    nodes, values, outputs = [], [], []
    for stride in (8, 16, 32):
        kernel = np.zeros((1, 3, stride, stride), np.float32)
        if stride == 16:
            # OpenCV gives blue, green, red.
            kernel[0, 2] = 1 / 255 / stride**2
        values.append(array(kernel, f'kernel{stride}'))
        nodes.append(
            node(
                'Conv',
                ['input', f'kernel{stride}'],
                [f'red{stride}'],
                kernel_shape=[stride, stride],
                strides=[stride, stride],
            )
        )
        for kind, width in dict(cls=1, obj=1, bbox=4, kps=10).items():
            name, source = f'{kind}_{stride}', f'red{stride}'
            if kind in constants:
                constant = np.reshape(constants[kind], (1, width, 1, 1)).astype(np.float32)
                values += [array(constant, f'is_{name}'), array(constant * 0, f'no_{name}')]
                nodes.append(node('Mul', [source, f'no_{name}'], [f'zero_{name}']))
                nodes.append(node('Add', [f'zero_{name}', f'is_{name}'], [f'map_{name}']))
                source = f'map_{name}'
            values.append(array(np.array([1, -1, width]), f'shape_{name}'))
            nodes.append(node('Transpose', [source], [f'last_{name}'], perm=[0, 2, 3, 1]))
            nodes.append(node('Reshape', [f'last_{name}', f'shape_{name}'], [name]))
            outputs.append(onnx.helper.make_tensor_value_info(name, 1, [1, None, width]))
    inputs = [onnx.helper.make_tensor_value_info('input', 1, [1, 3, 'H', 'W'])]
    graph = onnx.helper.make_graph(nodes, 'yunet', inputs, outputs, values)
    opset = [onnx.helper.make_opsetid('', 11)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))
    return path


def test_yunet_finds_what_its_network_says(tmp_path):
    """Through OpenCV's own decoding: boxes, landmarks, color order, crops and frames."""
    detector = build_detector(
        dict(type='YuNetDetector', file=write_yunet(tmp_path / 'yunet.onnx')), side=160, padding=0
    )
    assert isinstance(detector, YuNetDetector)
    frame = np.zeros((480, 800, 3), np.uint8)
    frame[320:336, 640:656] = 255, 0, 0
    frame[32:48, 64:80] = 0, 0, 255
    (face,) = detector.detect([frame])[0]
    np.testing.assert_allclose(face.box, (640, 320, 656, 336), atol=0.01)
    points = [(644, 324), (652, 324), (648, 328), (644, 332), (652, 332)]
    np.testing.assert_allclose(face.landmarks, points, atol=0.01)
    assert face.confidence == pytest.approx(1, abs=1e-3)
    # A crop of 80 pixels is doubled: a face of 8 pixels there, below 0.2 of the square.
    crop = np.zeros((80, 80, 3), np.uint8)
    crop[16:24, 32:40] = 255, 0, 0
    assert detector.detect([crop])[0] == []
    detector.min_face = 0.1
    (face,) = detector.detect([crop])[0]
    np.testing.assert_allclose(face.box, (32, 16, 40, 24), atol=0.3)


def test_the_recipe_of_yunet_is_that_of_its_file(tmp_path, tiny_backbone):
    config = configure_detector('yunet', write_yunet(tmp_path / 'yunet.onnx'))
    recipe = make_recipe({**config, 'min_size': 16})
    assert recipe.detector.startswith('YuNet, sha256 ')
    assert recipe.min_size == 16
    assert str(tmp_path) not in recipe.detector
    face = Aligner(recipe, config)(np.zeros((30, 30, 3), np.uint8))
    assert (face.detection, face.faces) == (None, 0)
    model = FaceRecognizer(
        backbone=tiny_backbone, data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32))
    )
    inferencer = FaceInferencer(model, 'cpu', align={**config, 'min_size': 16})
    name = make_recipe({**config, 'min_size': 16}, size=32).name
    frame = np.zeros((480, 800, 3), np.uint8)
    frame[320:336, 640:656, 0] = 255
    table = inferencer.embed([frame])
    assert table.columns['faces'].tolist() == [1]
    assert table.fingerprint['preprocessing']['alignment'] == name
    frame[32:48, 64:80, 0] = 255
    with pytest.raises(NoFaceError, match='2 faces in it'):
        inferencer.embed([frame])
    with pytest.raises(ValueError, match='installed is YuNet'):
        Aligner(AlignmentRecipe(detector='facenet-pytorch 1'), config)


@pytest.mark.parametrize(
    ('name', 'file', 'message'),
    [('yunet', None, 'detector-file'), ('mtcnn', 'a.onnx', 'detector-file')],
)
def test_a_file_goes_with_yunet_alone(name, file, message):
    with pytest.raises(ValueError, match=message):
        configure_detector(name, file)


def test_a_file_that_is_no_yunet_is_named(tmp_path):
    path = tmp_path / 'weights.onnx'
    with pytest.raises(FileNotFoundError, match=r'weights\.onnx'):
        YuNetDetector(path)
    path.write_bytes(b'no network')
    with pytest.raises(ValueError, match=r'weights\.onnx'):
        YuNetDetector(path)


@pytest.mark.parametrize('change', [dict(min_size=5), dict(min_size=math.nan), dict(frame_side=0)])
def test_a_search_out_of_range_is_an_error(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        AlignmentRecipe(detector='x', **change)
    with pytest.raises(ValueError, match=next(iter(change))):
        BrightSquares(**change)


@needs_mtcnn
@pytest.mark.parametrize(('own', 'used'), [(None, '64'), ('1024', '1024')])
def test_a_detector_does_not_keep_code_for_every_size_of_batch(monkeypatch, own, used):
    name = 'ONEDNN_PRIMITIVE_CACHE_CAPACITY'
    # Set first, so that the end of the test restores it.
    monkeypatch.setenv(name, own or '')
    if own is None:
        monkeypatch.delenv(name)
    MTCNNDetector()
    assert os.environ[name] == used
