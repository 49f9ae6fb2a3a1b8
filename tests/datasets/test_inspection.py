"""What is wrong with a set although each image can be read: shape, size, color, copies."""

import json
import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from mmvlr.apis import FaceInferencer, add_warnings
from mmvlr.datasets import FaceFolder, SCface, SurvFace, TinyFace, UIFaces
from mmvlr.datasets.inspection import MAX_SQUEEZE, inspect_images, spread, squeeze
from mmvlr.datasets.storage import write_pack
from mmvlr.datasets.synthesis import synthesize_face
from mmvlr.datasets.transforms import read_image


def draw(number, size, kind='color'):
    """A face-like image of (height, width): synthetic skin, resized."""
    pixels = np.asarray(Image.fromarray(synthesize_face(number, 0).image).resize(size[::-1]))
    # Synthetic skin is hardly redder than blue; real skin is.
    pixels = np.clip(pixels + np.array([20, 0, -20]), 0, 255).astype(np.uint8)
    if kind == 'gray':
        pixels = np.repeat(pixels[..., 1:2], 3, axis=2)
    return pixels[..., ::-1] if kind == 'swapped' else pixels


def records(sizes, kind='color', role='probe'):
    return [dict(img=draw(n, size, kind), role=role) for n, size in enumerate(sizes)]


CROPS = [(20, 16), (24, 20), (15, 12), (14, 11), (36, 28), (112, 112), (9, 7), (6, 4), (16, 20)] * 4


@pytest.mark.parametrize(
    ('sizes', 'kind', 'told'),
    [
        (CROPS, 'color', None),
        ([(100, 75)] * 9, 'color', 'squeezed'),
        ([(144, 108), (224, 168), (32, 24)] * 3, 'color', 'squeezed'),
        # Wide is as wrong as tall; and one image alone is seen.
        ([(54, 96)], 'color', 'squeezed'),
        ([(1080, 1920)] * 3, 'color', 'frames'),
        ([(512, 512)] * 3, 'color', 'frames'),
        # Not where it holds for the smaller part of a set.
        ([(100, 75)] * 15 + CROPS, 'color', None),
        (CROPS, 'gray', 'gray'),
        (CROPS, 'swapped', 'swapped'),
    ],
)
def test_sample(sizes, kind, told):
    found = inspect_images(records(sizes, kind))
    assert len(found) == (told is not None)
    for reason, names in found.items():
        assert told in reason and 'probe' in reason
        assert len(names) == len(spread(len(sizes)))
        assert ('align' in reason) == (told in ('squeezed', 'frames'))


def test_shape_is_compared_with_the_network_s():
    sizes = [(100, 75)] * 4
    assert inspect_images(records(sizes), (112, 112))
    assert not inspect_images(records(sizes), (128, 96))
    assert inspect_images(records([(112, 112)] * 4), (128, 96))


@pytest.mark.parametrize('size', [(112, 112), (112, 96)])
def test_squeeze_is_the_ratio_of_ratios(size):
    for height, width in ((1200, 1600), (1600, 1200), (480, 360)):
        exact = (width / height) / (size[1] / size[0])
        assert squeeze((height, width), size) == pytest.approx(max(exact, 1 / exact), rel=0.01)
    # Half a pixel of rounding explains what a crop of few pixels lacks.
    assert squeeze((7, 5), (112, 112)) < MAX_SQUEEZE < squeeze((700, 500), (112, 112))


def test_roles_are_judged_apart():
    faces = records(CROPS) + records([(100, 75)] * 3, role='gallery')
    (reason,) = inspect_images(faces)
    assert 'gallery' in reason


def test_sample_is_spread_evenly():
    assert spread(3) == [0, 1, 2] and spread(0) == []
    indices = spread(1000)
    assert len(indices) == 64 and (indices[0], indices[-1]) == (0, 999)
    assert {b - a for a, b in pairwise(indices)} == {15, 16}


@pytest.mark.slow
def test_real_sets_are_silent(shared):
    """Native crops are not square, and no reason to say anything."""
    data = shared / 'data'
    subjects = dict(train_subjects='1-12', test_subjects='13-30', gallery_subjects='1-30')
    for dataset in (
        *(TinyFace(str(data / 'tinyface'), split) for split in ('train', 'test')),
        TinyFace(str(data / 'cfp'), 'test'),
        *(SurvFace(str(data / 'survface'), split) for split in ('train', 'test')),
        *(SCface(str(data / 'scface'), split, **subjects) for split in ('train', 'test')),
        UIFaces(str(data / 'ui')),
    ):
        assert not any(dataset.noticed.values()), dataset.noticed
    frames = UIFaces(str(data / 'frames'))
    assert any('frames' in reason for reason in frames.noticed)


# Where it is said -------------------------------------------------------------------------------


@pytest.fixture
def portraits(tmp_path):
    """Three people with two portraits of 3 : 4 each."""
    for person in range(3):
        for n in range(2):
            path = tmp_path / 'portraits' / str(person) / f'{n}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(2 * person + n, (100, 75))).save(path)
    return tmp_path / 'portraits'


def test_said_once_a_set_and_in_its_meta_information(portraits, warned):
    pipeline = [dict(type='LoadFace'), dict(type='ResizeFace', size=(112, 112))]
    dataset = FaceFolder(str(portraits), 'test', pipeline=pipeline)
    for index in range(len(dataset)):
        assert dataset[index]['img'].shape == (112, 112, 3)
    assert warned().count('(3): sampled gallery images (of 3) have another shape') == 1
    assert warned().count('mmvlr align') == 2
    warnings = dataset.metainfo['warnings']
    assert len(warnings) == 2
    assert 'gallery' in warnings[0] and '0/0.png' in warnings[0] and 'probe' in warnings[1]
    # The pipeline says what the network is fed with.
    pipeline[1]['size'] = (128, 96)
    assert 'warnings' not in FaceFolder(str(portraits), 'test', pipeline=pipeline).metainfo
    # Checkpoints carry the meta information of training sets.
    train = FaceFolder(str(portraits))
    assert train.noticed and 'warnings' not in train.metainfo


def test_result_of_an_evaluation(portraits):
    class Metric:
        dataset_meta = FaceFolder(str(portraits), 'test').metainfo

    result = add_warnings({'tinyface/rank1': 0.5}, [Metric])
    assert result == {'tinyface/rank1': 0.5, 'warnings': Metric.dataset_meta['warnings']}
    json.dumps(result)
    Metric.dataset_meta = None
    assert add_warnings({'tinyface/rank1': 0.5}, [Metric]) == {'tinyface/rank1': 0.5}


def test_inferencer_warns_once(portraits, warned, tiny_backbone, tiny_preprocessor):
    from mmvlr.registry import MODELS

    model = MODELS.build(
        dict(type='FaceRecognizer', backbone=tiny_backbone, data_preprocessor=tiny_preprocessor)
    )
    inferencer = FaceInferencer(model, batch_size=2)
    assert len(inferencer.embed(portraits)) == 6
    assert warned().count('6 sampled given images (of 6) have another shape') == 1
    before = warned()
    inferencer.embed([draw(n, (20, 16)) for n in range(100)])
    assert warned() == before


# Copies -----------------------------------------------------------------------------------------


def noticed(dataset):
    return {reason: names for reason, names in dataset.noticed.items() if names}


def copy_some(root):
    """Copy images between the parts of TinyFace; return what must be named."""
    test = root / 'Testing_Set'
    shutil.copy(test / 'Gallery_Match/11_1.jpg', test / 'Probe/11_2.jpg')
    shutil.copy(test / 'Gallery_Match/12_1.jpg', test / 'Gallery_Distractor/b.jpg')
    shutil.copy(root / 'Training_Set/7/7_1.jpg', test / 'Probe/12_3.jpg')
    shutil.copy(test / 'Gallery_Distractor/a.jpg', test / 'Gallery_Distractor/c.jpg')
    tail = 'images that are byte for byte in'
    return {
        f'probe {tail} gallery too': [
            'Testing_Set/Probe/11_2.jpg = Testing_Set/Gallery_Match/11_1.jpg'
        ],
        f'distractor {tail} gallery too': [
            'Testing_Set/Gallery_Distractor/b.jpg = Testing_Set/Gallery_Match/12_1.jpg'
        ],
        f'probe {tail} train too': ['Testing_Set/Probe/12_3.jpg = Training_Set/7/7_1.jpg'],
    }


TWICE = {
    'distractor images that are there twice': [
        'Testing_Set/Gallery_Distractor/c.jpg = Testing_Set/Gallery_Distractor/a.jpg'
    ]
}


@pytest.mark.parametrize('packed', [False, True])
def test_copies_in_a_test_set(tinyface_root, packed, warned):
    root = tinyface_root
    assert not TinyFace(str(root), 'test').noticed
    expected = copy_some(root)
    if packed:
        files = sorted(path for path in root.rglob('*') if path.is_file())
        write_pack(
            root.with_suffix('.pack'),
            (
                (
                    path.relative_to(root).as_posix(),
                    path.read_bytes() if path.suffix == '.mat' else read_image(str(path)),
                )
                for path in files
            ),
        )
        root = root.with_suffix('.pack')
    dataset = TinyFace(str(root), 'test')
    assert dict(dataset.noticed) == expected | TWICE
    assert '(1): probe images that are byte for byte in gallery too' in warned()
    assert len(dataset.metainfo['warnings']) == 4
    assert len(TinyFace(str(root), 'test', with_distractors=False).noticed) == 2


def test_only_files_of_equal_size_are_read(tinyface_root, monkeypatch):
    from mmvlr.datasets import inspection

    read = []
    digest = inspection._digest
    monkeypatch.setattr(inspection, '_digest', lambda path: read.append(path) or digest(path))
    probe = tinyface_root / 'Testing_Set/Probe/11_2.jpg'
    sizes = {}
    for path in tinyface_root.rglob('*.jpg'):
        sizes.setdefault(path.stat().st_size, []).append(str(path))
    TinyFace(str(tinyface_root), 'test')
    assert sorted(read) == sorted(p for paths in sizes.values() if len(paths) > 1 for p in paths)
    # Equal size is not equal content.
    other = tinyface_root / 'Testing_Set/Gallery_Match/11_1.jpg'
    content = other.read_bytes()
    probe.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    assert not TinyFace(str(tinyface_root), 'test').noticed
    assert {str(probe), str(other)} <= set(read)


def test_copies_of_scface(scface_root):
    split = dict(split='test', train_subjects='1', test_subjects='2-4', gallery_subjects='1-4')
    assert not noticed(SCface(str(scface_root), **split))
    far = scface_root / 'surveillance_cameras_distance_1/cam_1'
    shutil.copy(scface_root / 'mugshot_frontal_cropped_all/003_frontal.JPG', far / '003_cam1_1.jpg')
    shutil.copy(far / '001_cam1_1.jpg', far / '002_cam1_1.jpg')
    shutil.copy(far / '004_cam1_1.jpg', far.parent / 'cam_2/002_cam2_1.jpg')
    found = noticed(SCface(str(scface_root), **split))
    assert {reason: len(names) for reason, names in found.items()} == {
        'probe images that are byte for byte in gallery too': 1,
        'probe images that are byte for byte in train too': 1,
        'probe images that are there under two people': 1,
    }


@pytest.mark.parametrize('kind', [TinyFace, SurvFace])
def test_a_training_set_in_test_mode_is_no_copy_of_itself(kind, tinyface_root, survface_root):
    """The loader of prototypes embeds the training set as a test does."""
    root = tinyface_root if kind is TinyFace else survface_root
    assert not noticed(kind(str(root), 'train', test_mode=True))


def test_verification_shows_the_people_of_identification(survface_root):
    """As in the official set, the same images serve both; only training ones may not."""
    images = survface_root / 'Face_Verification_Test_Set/verification_images'
    gallery = survface_root / 'Face_Identification_Test_Set/gallery'
    shutil.copy(gallery / '11_cam1_1.jpg', images / '31_cam1_1.jpg')
    assert not noticed(SurvFace(str(survface_root), 'test'))
    shutil.copy(survface_root / 'training_set/7/7_cam1_1.jpg', images / '32_2.jpg')
    (reason,) = noticed(SurvFace(str(survface_root), 'verification'))
    assert reason == 'pair images that are byte for byte in train too'
