"""Folders of people and of unrecognizable faces: what is used, what is left out and said."""

import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets import NO_IDENTITY, FaceFolder, UIFaces
from mmvlr.datasets.base import alike_people
from mmvlr.datasets.pairs_files import prefix_identity
from mmvlr.datasets.storage import write_pack
from mmvlr.datasets.transforms import ImageError


@pytest.fixture
def people(tmp_path, write_face):
    for person, count in (('2', 3), ('10', 1), ('1', 2)):
        for n in range(count):
            write_face(tmp_path / 'faces' / person / f'{n}.png')
    return tmp_path / 'faces'


def test_numbers_that_python_does_not_read_are_names(tmp_path, write_face):
    """Names in packs and label files may have any length: Python reads 4,300 digits."""
    long = '1' * 5000
    with pytest.raises(ValueError, match=r'no identity in the file name'):
        prefix_identity(f'{long}_1.jpg')
    assert alike_people([long, long + '1']) == []
    image = np.zeros((8, 8, 3), np.uint8)
    pack = write_pack(tmp_path / 'x.pack', [(f'{long}/a.png', image), ('7/a.png', image)])
    found = [(info['person'], info['gt_label']) for info in FaceFolder(str(pack.path)).infos()]
    assert found == [('7', 0), (long, 1)]


def test_labels_follow_the_numeric_order(people):
    dataset = FaceFolder(data_root=str(people))
    found = [(info['identity'], info['gt_label']) for info in dataset.infos()]
    assert found == [(1, 0), (1, 0), (2, 1), (2, 1), (2, 1), (10, 2)]
    assert dataset.num_classes == 3


def test_named_people(people, write_face):
    write_face(people / 'anna' / '0.png')
    dataset = FaceFolder(data_root=str(people))
    # Numbers in front of names; identity is the label where not everybody has a number.
    assert [info['identity'] for info in dataset.infos()] == [0, 0, 1, 1, 1, 2, 3]
    assert 'anna' in dataset[6]['img_path']


@pytest.mark.parametrize('number', [2**63 - 1, 2**63, 10**20])
def test_numbers_that_no_identity_holds_are_names(people, write_face, number):
    """Such as those of an account: 21 digits are more than 64 bits."""
    write_face(people / str(number) / '0.png')
    write_face(people / str(number) / '1.png')
    dataset = FaceFolder(data_root=str(people), split='test')
    identities = [info['identity'] for info in dataset.infos()]
    assert max(identities) == (number if number < 2**63 else 3)
    assert np.array(identities, np.int64).tolist() == identities
    assert FaceFolder(data_root=str(people)).class_names == ['1', '2', '10', str(number)]


def test_suffixes_in_any_case(people, write_face):
    write_face(people / '1' / 'x.JPG')
    write_face(people / '1' / 'y.jpeg')
    assert len(FaceFolder(data_root=str(people))) == 8


def test_empty_person_is_left_out_and_counted(people, warned):
    (people / '5').mkdir()
    dataset = FaceFolder(data_root=str(people))
    assert dataset.num_classes == 3
    assert dataset.left_out['people without an image'] == ['5']
    assert 'left out (1): people without an image (5)' in warned()


def test_person_with_one_image_is_used_and_noticed(people, warned):
    dataset = FaceFolder(data_root=str(people))
    assert dataset.noticed['people with one image'] == ['10']
    assert 'note (1): people with one image (10)' in warned()


def test_junk_is_counted(people, warned):
    (people / 'README').write_text('junk')
    (people / '1' / 'Thumbs.db').write_text('junk')
    (people / '1' / 'notes.txt').write_text('junk')
    (people / '1' / 'folder.jpg').mkdir()
    dataset = FaceFolder(data_root=str(people))
    assert len(dataset) == 6
    assert dataset.left_out['files outside the folder of a person'] == ['README']
    assert sorted(dataset.left_out['entries that are no images']) == [
        '1/Thumbs.db',
        '1/folder.jpg',
        '1/notes.txt',
    ]
    assert 'left out (3): entries that are no images' in warned()


def test_hidden_files_are_no_images(people):
    """Archives made on a Mac carry a ``._1.jpg`` beside every image."""
    (people / '1' / '._0.png').write_bytes(b'\0\5\26\7')
    assert len(FaceFolder(data_root=str(people))) == 6


def test_nothing_odd_is_no_warning(tmp_path, write_face, warned):
    for n in range(2):
        write_face(tmp_path / '1' / f'{n}.png')
    FaceFolder(data_root=str(tmp_path))
    assert not warned()


def test_no_person(tmp_path):
    with pytest.raises(ValueError, match='no person with an image'):
        FaceFolder(data_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match='one folder per person'):
        FaceFolder(data_root=str(tmp_path / 'nowhere'))


@pytest.mark.parametrize('count', [1, 2])
def test_gallery_and_probes(people, count):
    dataset = FaceFolder(data_root=str(people), split='test', gallery_per_person=count)
    seen = {}
    for info in dataset.infos():
        seen.setdefault(info['identity'], []).append(info['role'])
        assert 'gt_label' not in info
    for identity, images in ((1, 2), (2, 3), (10, 1)):
        gallery = min(count, images)
        assert seen[identity] == ['gallery'] * gallery + ['probe'] * (images - gallery)
    assert dataset.test_mode


def test_people_without_probe_are_named(people, warned):
    FaceFolder(data_root=str(people), split='test', gallery_per_person=2)
    assert 'note (2): people in the gallery without a probe (1, 10)' in warned()


@pytest.mark.parametrize(
    'names', [('1', '01'), ('1', '١'), ('7', '７', '007'), ('Ren\u00e9', 'Rene\u0301')]
)
def test_names_that_look_alike_are_two_people(tmp_path, write_face, names, warned):
    """In training and in the test, each folder is a person of its own; it is said."""
    for name in (*names, '5'):
        for n in range(2):
            write_face(tmp_path / name / f'{name[:1]}{n}{len(name)}.png')
    train = FaceFolder(data_root=str(tmp_path))
    test = FaceFolder(data_root=str(tmp_path), split='test')
    assert train.num_classes == len(names) + 1
    for dataset in (train, test):
        of_folder = {}
        for info in dataset.infos():
            of_folder.setdefault(info['img_path'].split('/')[-2], set()).add(info['identity'])
        assert sorted(of_folder) == sorted((*names, '5'))
        assert sorted(map(len, of_folder.values())) == [1] * len(of_folder)
        assert len(set.union(*of_folder.values())) == len(of_folder)
        (found,) = (v for k, v in dataset.noticed.items() if v and 'two here' in k)
        assert sorted(found[0].split(' and ')) == sorted(names)
    assert 'two here' in warned()


def test_numbers_of_21_digits(tmp_path, write_face):
    """An identity has 64 bits: longer numbers are counted anew, those of a set together."""
    long = [f'{10**20 + n}' for n in (3, 1, 2)]
    for name in long:
        for n in range(2):
            write_face(tmp_path / name / f'{name}_{n}.png')
    for split, roles in (('train', ['train'] * 2), ('test', ['gallery', 'probe'])):
        infos = list(FaceFolder(data_root=str(tmp_path), split=split).infos())
        assert [info['role'] for info in infos] == roles * 3
        assert [info['img_path'].split('/')[-2] for info in infos[::2]] == sorted(long)
        identities = [info['identity'] for info in infos]
        assert identities == [0, 0, 1, 1, 2, 2]
        assert np.array(identities).dtype == np.int64


def test_unknown_split(people):
    with pytest.raises(ValueError, match="'train' or 'test'"):
        FaceFolder(data_root=str(people), split='val')


LOAD = [dict(type='LoadFace')]


@pytest.mark.parametrize('kept', [0.3, 0.6, 0.95])
def test_truncated_jpeg_names_the_file(people, kept):
    path = people / '1' / '0.jpg'
    Image.effect_noise((200, 200), 80).convert('RGB').save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    dataset = FaceFolder(data_root=str(people), pipeline=LOAD)
    with pytest.raises(ImageError, match=r'1/0\.jpg cannot be read'):
        dataset[0]


@pytest.mark.parametrize('content', [b'', b'<html>not found</html>'])
def test_no_image_behind_the_suffix(people, content):
    (people / '1' / '0.png').write_bytes(content)
    with pytest.raises(ImageError, match='no image'):
        FaceFolder(data_root=str(people), pipeline=LOAD)[0]


def test_image_that_vanished(people):
    dataset = FaceFolder(data_root=str(people), pipeline=LOAD)
    (people / '1' / '0.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'0\.png'):
        dataset[0]


def test_ui_faces(tmp_path, write_face):
    for name in ('b.png', 'a.png', 'inner/c.png', 'inner/deep/d.jpg'):
        write_face(tmp_path / name)
    (tmp_path / 'readme.txt').write_text('junk')
    dataset = UIFaces(data_root=str(tmp_path))
    names = [info['img_path'].removeprefix(f'{tmp_path}/') for info in dataset.infos()]
    assert names == ['a.png', 'b.png', 'inner/c.png', 'inner/deep/d.jpg']
    assert {(info['role'], info['identity']) for info in dataset.infos()} == {('ui', NO_IDENTITY)}
    assert dataset.left_out['entries that are no images'] == ['readme.txt']
    assert dataset.num_classes == 0


def test_ui_faces_spread_over_the_set(tmp_path, write_face, warned):
    for n in range(10):
        write_face(tmp_path / f'{n}.png')
    dataset = UIFaces(data_root=str(tmp_path), max_images=4)
    names = [info['img_path'][-5] for info in dataset.infos()]
    assert names == ['0', '2', '5', '7']
    assert 'left out (6): images beyond max_images' in warned()
    assert len(UIFaces(data_root=str(tmp_path), max_images=20)) == 10


def test_ui_folder_without_image(tmp_path):
    (tmp_path / 'inner').mkdir()
    (tmp_path / 'inner' / 'readme.txt').write_text('junk')
    with pytest.raises(ValueError, match=r'no image under .*UI_ROOT'):
        UIFaces(data_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match='does not exist'):
        UIFaces(data_root=str(tmp_path / 'nowhere'))


def test_real_ui_faces(shared):
    dataset = UIFaces(data_root=str(shared / 'data' / 'ui'), pipeline=LOAD)
    assert len(dataset) == 300
    assert dataset[299]['img'].shape[2] == 3
