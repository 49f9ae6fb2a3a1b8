import re
from pathlib import Path

import pytest

from mmvlr.datasets import SCface
from mmvlr.datasets.scface import parse_subjects

SPLIT = dict(train_subjects='1-2', test_subjects='3-4', gallery_subjects='1-4')
PIPELINE = [dict(type='LoadFace'), dict(type='ResizeFace', size=(32, 32)), dict(type='PackFace')]


def make(root, split='test', **kwargs):
    return SCface(data_root=str(root), split=split, **{**SPLIT, **kwargs})


def names(dataset, role=None):
    return [Path(info['img_path']).name for info in dataset.infos() if role in (None, info['role'])]


def image(root, subject, camera, distance):
    folder = root / f'surveillance_cameras_distance_{distance}' / f'cam_{camera}'
    return folder / f'{subject:03d}_cam{camera}_{distance}.jpg'


def mugshot(root, subject):
    return root / 'mugshot_frontal_cropped_all' / f'{subject:03d}_frontal.JPG'


@pytest.mark.parametrize(
    ('subjects', 'numbers'),
    [
        ('1-3', (1, 2, 3)),
        (' 7, 1 - 2 ,2', (1, 2, 7)),
        ('007', (7,)),
        ([3, 1], (1, 3)),
        (range(2, 4), (2, 3)),
        # What mmengine's --cfg-options makes of 1-2,7 and of 7.
        (['1-2', 7], (1, 2, 7)),
        (7, (7,)),
    ],
)
def test_parse_subjects(subjects, numbers):
    assert parse_subjects(subjects) == numbers


@pytest.mark.parametrize('subjects', ['', 'all', '1-', '-3', '1;2', '1,,2', [1.5], ['a'], '1-2-3'])
def test_subjects_of_another_form(subjects):
    expected = f"subjects {subjects!r}: expected numbers such as '1-50'"
    with pytest.raises(ValueError, match=re.escape(expected)):
        parse_subjects(subjects)


def test_no_subject():
    with pytest.raises(ValueError, match=r'subjects \[\]: no subject'):
        parse_subjects([])


@pytest.mark.parametrize('subjects', ['50-1', '1-3, 9-7'])
def test_subjects_backwards(subjects):
    with pytest.raises(ValueError, match=r'(50-1|9-7) runs backwards'):
        parse_subjects(subjects)


def test_train(scface_root):
    dataset = make(scface_root, 'train', train_subjects='2, 4', test_subjects='3')
    found = [
        (i['identity'], i['gt_label'], i['distance'], i['camera'], i['role'], i['img_path'])
        for i in dataset.infos()
    ]
    # No mugshot and no infra-red camera among them.
    assert found == [
        (s, label, d, c, 'train', str(image(scface_root, s, c, d)))
        for label, s in enumerate((2, 4))
        for d in (1, 2, 3)
        for c in (1, 2, 3, 4, 5)
    ]
    assert dataset.num_classes == 2
    assert not dataset.test_mode


def test_test(scface_root, warned):
    dataset = make(scface_root)
    infos = list(dataset.infos())
    assert [(i['role'], i['identity'], i['template'], i['img_path']) for i in infos[:4]] == [
        ('gallery', s, s, str(mugshot(scface_root, s))) for s in (1, 2, 3, 4)
    ]
    assert [
        (i['role'], i['identity'], i['distance'], i['camera'], i['img_path']) for i in infos[4:]
    ] == [
        ('probe', s, d, c, str(image(scface_root, s, c, d)))
        for s in (3, 4)
        for d in (1, 2, 3)
        for c in (1, 2, 3, 4, 5)
    ]
    assert dataset.test_mode
    assert dataset.num_classes == 0
    assert not warned()


def test_default_split(tmp_path, write_scface, warned):
    """50 subjects train; 80 are probed, 400 images a distance, against all 130 mugshots."""

    def touch(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    root = str(write_scface(tmp_path, range(1, 131), write=touch))
    train = SCface(data_root=root)
    assert {info['identity'] for info in train.infos()} == set(range(1, 51))
    assert (len(train), train.num_classes) == (750, 50)
    infos = list(SCface(data_root=root, split='test').infos())
    gallery = [info['identity'] for info in infos if info['role'] == 'gallery']
    assert gallery == list(range(1, 131))
    probes = [info for info in infos if info['role'] == 'probe']
    assert {info['identity'] for info in probes} == set(range(51, 131))
    for distance in (1, 2, 3):
        assert sum(info['distance'] == distance for info in probes) == 400
    assert not warned()
    # The other split in use: the same probes against 80 mugshots.
    other = SCface(data_root=root, split='test', gallery_subjects='51-130')
    infos = list(other.infos())
    assert [i['identity'] for i in infos if i['role'] == 'gallery'] == list(range(51, 131))
    assert [i['img_path'] for i in infos[80:]] == [i['img_path'] for i in probes]
    assert '(50): mugshots of other subjects than gallery_subjects (001_frontal.JPG' in warned()


def test_subjects_as_numbers(scface_root):
    text = make(scface_root)
    numbers = make(
        scface_root, train_subjects=[1, 2], test_subjects=[4, 3], gallery_subjects=range(1, 5)
    )
    assert list(numbers.infos()) == list(text.infos())


def test_chosen_distances_and_cameras(scface_root, warned):
    dataset = make(scface_root, distances=[3, 1], cameras=[2, 6])
    found = {(info['distance'], info['camera']) for info in dataset.infos() if 'camera' in info}
    assert found == {(1, 2), (1, 6), (3, 2), (3, 6)}
    assert len(dataset) == 4 + 2 * 4
    assert not warned()


def test_extensions_in_any_case(scface_root, write_face):
    mugshot(scface_root, 3).rename(mugshot(scface_root, 3).with_suffix('.jpg'))
    for camera, suffix in ((1, '.JPG'), (2, '.Jpeg'), (3, '.png')):
        path = image(scface_root, 3, camera, 1)
        path.unlink()
        write_face(path.with_suffix(suffix))
    dataset = make(scface_root, pipeline=PIPELINE)
    assert len(dataset) == 4 + 30
    expected = ['003_cam1_1.JPG', '003_cam2_1.Jpeg', '003_cam3_1.png', '003_cam4_1.jpg']
    assert names(dataset)[2:8] == ['003_frontal.jpg', '004_frontal.JPG', *expected]
    assert all(face['inputs'].shape == (3, 32, 32) for face in dataset)


def test_flat_folder(tmp_path, scface_root, write_scface, warned):
    flat = write_scface(tmp_path / 'flat', range(1, 5), flat=True)
    for split in ('train', 'test'):
        one, other = (
            [{**info, 'img_path': Path(info['img_path']).name} for info in make(r, split).infos()]
            for r in (scface_root, flat)
        )
        assert one == other
    assert not warned()


def test_folders_by_distance_go_before_the_flat_one(scface_root, write_face):
    write_face(scface_root / 'surveillance_cameras_all' / '003_cam1_1.png')
    paths = {info['img_path'] for info in make(scface_root).infos()}
    assert str(image(scface_root, 3, 1, 1)) in paths
    assert len(paths) == 4 + 30


def test_root_that_holds_the_database(tmp_path, scface_root):
    expected = names(make(scface_root))
    scface_root.rename(tmp_path / 'SCface_database')
    assert names(make(tmp_path)) == expected


def test_probed_subject_without_mugshot(scface_root):
    mugshot(scface_root, 4).unlink()
    expected = (
        r'1 probed subjects have no mugshot in .*mugshot_frontal_cropped_all: 4\. '
        r'Restore 004_frontal\.JPG, or leave the subjects out of test_subjects'
    )
    with pytest.raises(ValueError, match=expected):
        make(scface_root)
    assert len(make(scface_root, 'train')) == 30
    assert 'gallery' in make(scface_root, test_subjects='3')[0]['role']


def test_subject_of_the_gallery_without_mugshot(scface_root, warned):
    mugshot(scface_root, 1).unlink()
    assert [n for n in names(make(scface_root)) if 'frontal' in n] == [
        f'00{s}_frontal.JPG' for s in (2, 3, 4)
    ]
    assert 'note (1): subjects of the gallery without a mugshot (001)' in warned()
    assert '3 mugshots (official 4)' in warned()


@pytest.mark.parametrize(('split', 'subject'), [('train', 2), ('test', 4)])
def test_missing_image_is_counted(scface_root, split, subject, warned):
    complete = len(make(scface_root, split))
    image(scface_root, subject, 3, 2).unlink()
    assert len(make(scface_root, split)) == complete - 1
    assert f'note (1): subjects with fewer than 15 images (00{subject})' in warned()
    assert ('29 probes (official 30)' in warned()) == (split == 'test')


def test_subject_without_an_image(scface_root, warned):
    dataset = make(scface_root, 'train', train_subjects='1-2, 5', gallery_subjects='1-5')
    assert dataset.num_classes == 2
    assert 'note (1): train_subjects without an image (005)' in warned()


def test_second_images(scface_root, write_face, warned):
    write_face(image(scface_root, 3, 1, 1).with_suffix('.png'))
    # Without leading zeros it is the same subject.
    write_face(image(scface_root, 3, 2, 1).with_name('3_cam2_1.jpg'))
    write_face(mugshot(scface_root, 2).with_suffix('.png'))
    dataset = make(scface_root)
    assert len(dataset) == 4 + 30
    assert {'003_cam1_1.jpg', '003_cam2_1.jpg', '002_frontal.JPG'} <= set(names(dataset))
    assert (
        'left out (2): second images of a subject, camera and distance '
        '(003_cam1_1.png, 3_cam2_1.jpg)'
    ) in warned()
    assert 'left out (1): second mugshots of a subject (002_frontal.png)' in warned()


@pytest.mark.parametrize('name', ['003_cam2_1.png', '003_cam1_2.png'])
def test_name_that_contradicts_its_folder(scface_root, name, warned):
    """The folder says camera 1 and distance 1: neither can be believed."""
    image(scface_root, 3, 1, 1).rename(image(scface_root, 3, 1, 1).with_name(name))
    dataset = make(scface_root)
    assert len(dataset) == 4 + 29
    assert name not in names(dataset)
    assert (
        'left out (1): images whose name contradicts their folder '
        f'(surveillance_cameras_distance_1/cam_1/{name})'
    ) in warned()


def test_foreign_files(scface_root, write_face, warned):
    folder = image(scface_root, 3, 1, 1).parent
    write_face(folder / '003_somewhere.jpg')
    write_face(mugshot(scface_root, 3).with_name('003_left.JPG'))
    (folder / 'Thumbs.db').write_text('junk')
    (folder / '._003_cam1_1.jpg').write_text('junk')
    assert len(make(scface_root)) == 4 + 30
    assert 'left out (1): images whose name is not NNN_camK_D (003_somewhere.jpg)' in warned()
    assert 'left out (1): images whose name is not NNN_frontal (003_left.JPG)' in warned()
    assert 'left out (1): entries that are no images (cam_1/Thumbs.db)' in warned()


def test_train_and_test_share_subjects(scface_root):
    expected = r'subjects 2-3, 5 are both in train_subjects and in test_subjects'
    with pytest.raises(ValueError, match=expected):
        make(scface_root, train_subjects='1-3,5', test_subjects='2-5', gallery_subjects='1-5')


def test_probed_subject_outside_the_gallery(scface_root):
    with pytest.raises(ValueError, match='subjects 3 are probed but not in gallery_subjects'):
        make(scface_root, gallery_subjects='1-2, 4')


@pytest.mark.parametrize(
    ('split', 'which', 'variable'),
    [
        ('train', 'train_subjects', 'SCFACE_TRAIN_SUBJECTS'),
        ('test', 'test_subjects', 'SCFACE_TEST_SUBJECTS'),
    ],
)
def test_no_image_of_the_subjects(scface_root, split, which, variable):
    with pytest.raises(
        ValueError,
        match=rf'no image of {which} 7-8 at distances \(1, 2, 3\) by cameras .*; '
        rf'it has subjects 1-4\. Set {which} \(in the configs: {variable}\)',
    ):
        make(scface_root, split, **{which: '7-8', 'gallery_subjects': '1-8'})


@pytest.mark.parametrize(
    'folder',
    [
        'mugshot_frontal_cropped_all',
        'surveillance_cameras_distance_2',
        'surveillance_cameras_distance_2/cam_4',
    ],
)
def test_missing_folder_names_the_layout(scface_root, folder):
    (scface_root / folder).rename(scface_root / 'elsewhere')
    with pytest.raises(FileNotFoundError, match=rf'{folder} does not exist; expected .*NNN_camK_D'):
        make(scface_root)


def test_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere does not exist; expected mugshot'):
        make(tmp_path / 'nowhere')


def test_unknown_split(scface_root):
    with pytest.raises(ValueError, match="'train' or 'test'"):
        make(scface_root, 'val')


@pytest.mark.parametrize('split', ['train', 'test'])
def test_images_load(scface_root, split):
    dataset = make(scface_root, split, pipeline=PIPELINE)
    face = dataset[len(dataset) - 1]
    assert face['inputs'].shape == (3, 32, 32)
    sample = face['data_samples']
    assert (sample.identity, sample.distance, sample.camera) == (2 if split == 'train' else 4, 3, 5)
    assert ('gt_label' in sample) == (split == 'train')


def test_real(shared, warned):
    root = shared / 'data' / 'scface'
    split = dict(train_subjects='1-12', test_subjects='13-30', gallery_subjects='1-30')
    train = make(root, 'train', **split)
    assert (len(train), train.num_classes) == (180, 12)
    test = make(root, **split, pipeline=PIPELINE)
    # Independent reading: all files by glob, who and where by the name.
    files = {path.name for path in root.glob('surveillance*/cam_[1-5]/*.jpg')}
    assert set(names(train)) == {name for name in files if int(name[:3]) <= 12}
    assert set(names(test, 'probe')) == {name for name in files if int(name[:3]) > 12}
    assert len(names(test, 'probe')) == 270
    assert len(names(test, 'gallery')) == 30
    for info in test.infos():
        name = Path(info['img_path']).name
        assert info['identity'] == int(name[:3])
        if info['role'] == 'probe':
            assert name[3:] == f'_cam{info["camera"]}_{info["distance"]}.jpg'
    assert test[0]['data_samples'].ori_shape == (112, 112)
    assert test[299]['inputs'].shape == (3, 32, 32)
    assert not warned()
