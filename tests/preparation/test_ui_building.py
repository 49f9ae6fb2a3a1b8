import csv
import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets import UIFaces
from mmvlr.preparation.people_layouts import natural_key, scan_people
from mmvlr.preparation.ui_building import UIFilter, UISearch, build_ui_set
from mmvlr.preparation.ui_filtering import (
    crop_box,
    find_near_duplicates,
    find_unrecognizable,
    make_thumbnail,
)

needs_mtcnn = pytest.mark.skipif(
    importlib.util.find_spec('facenet_pytorch') is None,
    reason="facenet-pytorch is missing: pip install 'mmvlr[align]'",
)


def person_image(rng, face=None, top=20, left=45):
    """A generated person of 256 x 128, with a face at (left, top) or seen from behind."""
    rows, columns = np.mgrid[:256, :128]
    shade = rng.uniform(60, 190, 3) + np.sin(rows / 40)[..., None] * 15
    image = shade + (columns[..., None] - 64) * rng.uniform(-0.3, 0.3, 3)
    image[75:240, 30:98] = rng.uniform(20, 230, 3)
    head = ((rows - 45) / 30) ** 2 + ((columns - 64) / 22) ** 2 < 1
    image[head] = rng.uniform(20, 80, 3)
    image += rng.normal(0, 4, image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    if face is not None:
        height, width = face.shape[:2]
        image[top : top + height, left : left + width] = face
    return image


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)


def compose_people(root, faces, layout, tracks=6, frames=3, seed=0):
    """Write a person set in a layout: every third track shows a back.

    The last frame of a track shows its face again where it was, with other noise in the image:
    a near duplicate of the frame before. Returns image -> (x1, y1, x2, y2) of its face.
    """
    rng = np.random.default_rng(seed)
    truth = {}
    for track in range(tracks):
        for frame in range(frames):
            name = (
                f'scen{track % 3 + 1}/view{track % 2 + 1}/{track:04d}/{frame:05d}.jpg'
                if layout == 'lpw'
                else f'bbox_train/{track:04d}/{track:04d}C{track % 6 + 1}T0001F{frame:03d}.jpg'
            )
            if track % 3 == 2:
                write_image(root / name, person_image(rng))
                continue
            if frame < frames - 1:
                face = faces[(track * frames + frame) % len(faces)]
                top, left = int(rng.integers(10, 60)), int(rng.integers(20, 80))
            write_image(root / name, person_image(rng, face, top, left))
            truth[name] = (left, top, left + face.shape[1], top + face.shape[0])
    return truth


def overlap(first, second):
    """Intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return shared / (sum(areas) - shared)


def real_faces(shared, count, side):
    """Real low-resolution faces, enlarged to a longer side of ``side`` pixels if it is given."""
    folder = shared / 'data' / 'tinyface' / 'Testing_Set' / 'Probe'
    faces = []
    for path in sorted(folder.glob('*.jpg'))[:count]:
        with Image.open(path) as image:
            scale = side / max(image.size)
            size = [round(length * scale) for length in image.size]
            faces.append(np.asarray(image.convert('RGB').resize(size, Image.BICUBIC)))
    return faces


def contents(folder):
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def read_manifest(out):
    return list(csv.DictReader(io.StringIO((out / 'manifest.csv').read_text())))


# Layouts ------------------------------------------------------------------------------------------


def test_lpw_and_mars_are_read_in_the_order_of_frames(tmp_path, write_face):
    lpw, mars = tmp_path / 'lpw', tmp_path / 'mars'
    for name in ('scen1/view2/7/10.jpg', 'scen1/view2/7/9.jpg', 'scen2/view1/7/1.jpg'):
        write_face(lpw / name)
    write_face(lpw / 'scen1' / 'cover.jpg')
    (lpw / 'readme.txt').write_text('')
    tracks, left_out = scan_people(lpw, 'lpw')
    assert tracks == {
        'scen1/view2/7/9.jpg': 'scen1/view2/7',
        'scen1/view2/7/10.jpg': 'scen1/view2/7',
        'scen2/view1/7/1.jpg': 'scen2/view1/7',
    }
    assert next(iter(tracks)).endswith('/9.jpg')
    assert sorted(len(names) for names in left_out.values()) == [1, 1]
    for name in ('0001C1T0002F002', '0001C1T0002F001', '0001C2T0002F001', '00-1C1T0001F001'):
        write_face(mars / 'bbox_train' / name[:4] / f'{name}.jpg')
    write_face(mars / 'bbox_test' / '0002' / '0002C1T0001F001.jpg')
    tracks, left_out = scan_people(mars, 'mars')
    assert sorted(tracks.values()) == [
        '00-1C1T0001',
        '0001C1T0002',
        '0001C1T0002',
        '0001C2T0002',
    ]
    assert [len(names) for names in left_out.values()] == [1]


def test_a_wrong_layout_is_an_error_that_states_it(tmp_path, write_face):
    write_face(tmp_path / 'a' / '1.jpg')
    with pytest.raises(ValueError, match='scen'):
        scan_people(tmp_path, 'lpw')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        scan_people(tmp_path / 'nowhere', 'folder')
    assert scan_people(tmp_path, 'folder')[0] == {'a/1.jpg': 'a'}
    with pytest.raises(ValueError, match='layout'):
        UISearch('market')


def test_natural_order():
    names = ['F10', 'F9', 'a2b3', 'a2b10']
    assert sorted(names, key=natural_key) == ['F9', 'F10', 'a2b3', 'a2b10']


# Filters ------------------------------------------------------------------------------------------


def test_crops_are_squares_inside_the_image():
    assert crop_box((40, 20, 50, 32), (256, 128, 3), 0.0) == (39, 20, 51, 32)
    assert crop_box((40, 20, 50, 30), (256, 128, 3), 0.1) == (39, 19, 51, 31)
    assert crop_box((-3, -2, 7, 8), (256, 128, 3), 0.0) == (0, 0, 7, 8)
    assert crop_box((120, 250, 130, 260), (256, 128, 3), 0.0) == (120, 250, 128, 256)


def test_thumbnails_correlate_as_numpy_says():
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 256, (32, 48, 3), dtype=np.uint8) for _ in range(3)]
    # Averages over 2 x 3 pixels, with the weights of ITU-R BT.601.
    gray = [f.reshape(16, 2, 16, 3, 3).mean((1, 3)) @ (0.299, 0.587, 0.114) for f in faces]
    for a in range(3):
        for b in range(3):
            expected = np.corrcoef(gray[a].ravel(), gray[b].ravel())[0, 1]
            found = make_thumbnail(faces[a]) @ make_thumbnail(faces[b])
            assert found == pytest.approx(expected, abs=0.02)
    assert not make_thumbnail(np.full((9, 9, 3), 80, np.uint8)).any()


def test_near_duplicates_are_those_of_a_kept_face():
    def at(degrees):
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    # Each turns by 20 degrees: the third is near the second, which is dropped, not the first. The
    # last is near the first alone.
    degrees = [0, 20, 40, 60, 61, 2]
    marks = find_near_duplicates([at(angle) for angle in degrees], np.cos(np.radians(30)))
    assert marks.tolist() == [False, True, False, True, True, True]
    assert find_near_duplicates([], 0.9).tolist() == []


def test_the_largest_cluster_is_found():
    rng = np.random.default_rng(0)
    centers = np.linalg.qr(rng.standard_normal((32, 8)))[0].T
    people = [centers[1 + i % 7] + 0.05 * rng.standard_normal(32) for i in range(28)]
    unrecognizable = [centers[0] + 0.05 * rng.standard_normal(32) for _ in range(12)]
    embeddings = np.array(people[:14] + unrecognizable + people[14:]) * 40
    inside, sizes = find_unrecognizable(embeddings, 0.5)
    assert np.flatnonzero(inside).tolist() == list(range(14, 26))
    assert sizes == [12] + [4] * 7
    assert find_unrecognizable(embeddings[:1], 0.5)[0].tolist() == [True]
    with pytest.raises(ValueError, match='tighter limits'):
        find_unrecognizable(np.ones((20_001, 2)), 0.5)


@pytest.mark.parametrize('change', [dict(every=0), dict(min_size=9, max_size=8)])
def test_limits_out_of_range_are_an_error(change):
    with pytest.raises(ValueError, match=r'every|range'):
        UIFilter(**change)


# The whole ----------------------------------------------------------------------------------------


@needs_mtcnn
@pytest.mark.parametrize('layout', ['lpw', 'mars'])
def test_faces_of_people_are_found(shared, tmp_path, layout):
    truth = compose_people(tmp_path / 'people', real_faces(shared, 12, 20), layout)
    out = tmp_path / 'out'
    result = build_ui_set(tmp_path / 'people', out, UISearch(layout))
    assert (result.images, len(truth)) == (18, 12)
    right = [face for face in result.faces if overlap(face.box, truth.get(face.source, (0,) * 4))]
    # Precision, and recall of the eight different faces.
    assert len(right) == len(result.faces)
    assert len(right) >= 6
    # The last frame of each of the four tracks repeats the one before.
    repeated = result.left_out['near duplicates within their track']
    assert len(repeated) >= 3
    last = ('00002.jpg', 'F002.jpg')
    assert all(name.endswith(last) for name in repeated)
    backs = {name for name in scan_people(tmp_path / 'people', layout)[0] if name not in truth}
    assert backs <= set(result.left_out['images without a face'])
    # The manifest tells where each face comes from; crops are pixels of the source.
    rows = read_manifest(out)
    assert [row['file'] for row in rows] == [
        f'faces/ui_{number:06d}.png' for number in range(1, len(rows) + 1)
    ]
    for row in rows:
        x1, y1, x2, y2 = (int(row[side]) for side in ('x1', 'y1', 'x2', 'y2'))
        with Image.open(tmp_path / 'people' / row['source']) as image:
            expected = np.asarray(image)[y1:y2, x1:x2]
        with Image.open(out / row['file']) as crop:
            np.testing.assert_array_equal(np.asarray(crop), expected)
    faces = UIFaces(str(out / 'faces'))
    assert len(faces) == len(rows)


@needs_mtcnn
def test_other_limits_need_no_new_search(shared, tmp_path, monkeypatch):
    people, out = tmp_path / 'people', tmp_path / 'out'
    compose_people(people, real_faces(shared, 8, 20), 'mars', tracks=2)
    first = build_ui_set(people, out, UISearch('mars'), UIFilter(max_correlation=1.0))
    assert first.resumed == 0
    assert len(first.faces) > 2
    monkeypatch.setattr(
        'mmvlr.preparation.ui_building._FindFaces.__call__', lambda *_: pytest.fail('searched')
    )
    largest = max(json.loads(line)['faces'][0][2] for line in journal_lines(out))
    assert largest > 0
    second = build_ui_set(people, out, UISearch('mars'), UIFilter(min_size=200, max_size=300))
    assert second.resumed == 6
    assert not second.faces
    assert len(second.left_out['faces below 200 pixels']) == second.found == first.found
    assert not list((out / 'faces').iterdir())
    third = build_ui_set(people, out, UISearch('mars'), UIFilter(min_confidence=1.0))
    assert len(third.left_out['faces of a confidence below 1']) == third.found
    fourth = build_ui_set(people, out, UISearch('mars'), UIFilter(min_size=0, max_size=2))
    assert len(fourth.left_out['faces above 2 pixels']) == fourth.found
    every = build_ui_set(people, out, UISearch('mars'), UIFilter(every=2))
    assert every.images == 4
    assert len(every.left_out['images between those searched in a track']) == 2
    with pytest.raises(ValueError, match='other settings'):
        build_ui_set(people, out, UISearch('mars', upper=0.5))


def journal_lines(out):
    lines = (out / '.detections.jsonl').read_text().splitlines()[1:]
    return [line for line in lines if json.loads(line)['faces']]


@needs_mtcnn
def test_only_the_cluster_is_kept(shared, tmp_path):
    people, out = tmp_path / 'people', tmp_path / 'out'
    compose_people(people, real_faces(shared, 8, 20), 'mars', tracks=3)
    whole = build_ui_set(people, out, UISearch('mars'))
    assert len(whole.faces) >= 3
    crops = []

    def embed(faces):
        crops.extend(faces)
        return np.array([(1.0, 0.01 * i) if i else (0.0, 1.0) for i in range(len(faces))])

    result = build_ui_set(people, out, UISearch('mars'), embed=embed)
    assert len(crops) == len(whole.faces)
    assert result.faces == whole.faces[1:]
    assert result.clusters == [len(whole.faces) - 1, 1]
    assert result.left_out['faces outside the unrecognizable cluster'] == [whole.faces[0].source]
    assert len(list((out / 'faces').iterdir())) == len(result.faces) == len(read_manifest(out))


def test_the_output_must_be_a_folder_of_its_own(tmp_path, write_face):
    write_face(tmp_path / 'people' / '1.jpg')
    with pytest.raises(ValueError, match='lies in'):
        build_ui_set(tmp_path / 'people', tmp_path / 'people' / 'out', UISearch('folder'))
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.txt').write_text('')
    with pytest.raises(ValueError, match='other files'):
        build_ui_set(tmp_path / 'people', tmp_path / 'full', UISearch('folder'))
