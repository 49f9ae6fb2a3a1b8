"""Packs: the same images and records as the folder, and no damage that goes unnoticed."""

import json
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from mmvlr.datasets import FaceFolder, SCface, SurvFace, TinyFace, UIFaces
from mmvlr.datasets.storage import PackReader, data_path, file_status, pack, write_pack
from mmvlr.datasets.transforms import ImageError, read_image
from mmvlr.utils.schema import FileFormatError

LOAD = [dict(type='LoadFace')]
LABELS = {'.mat', '.db', '.txt'}


def decode(path):
    """What Pillow reads, without mmvlr."""
    return np.array(Image.open(path).convert('RGB'))


def pack_folder(root, out):
    paths = sorted(p for p in root.rglob('*') if not p.name.startswith('.'))
    files = [p for p in paths if p.is_file()]
    names = (p.relative_to(root).as_posix() for p in files)
    contents = (p.read_bytes() if p.suffix in LABELS else decode(p) for p in files)
    folders = [p.relative_to(root).as_posix() for p in paths if p.is_dir()]
    return write_pack(out, zip(names, contents, strict=True), folders)


@pytest.fixture(scope='module')
def packs(shared, tmp_path_factory):
    """Packs of the real data sets."""
    folder = tmp_path_factory.mktemp('packs')
    for name in ('tinyface', 'scface', 'survface', 'ui'):
        pack_folder(shared / 'data' / name, folder / f'{name}.pack')
    return folder


def records(dataset):
    """Records, the paths below ``data_root``."""
    found = []
    for info in dataset.infos():
        name = str(Path(info['img_path']).relative_to(dataset.data_root))
        found.append({**info, 'img_path': name})
    return found


def same_data(make, folder, packed):
    """Compare a data set in a folder and in a pack; return its number of images."""
    expected, found = (make(data_root=str(root), pipeline=LOAD) for root in (folder, packed))
    assert records(found) == records(expected)
    assert list(found.left_out.items()) == list(expected.left_out.items())
    assert list(found.noticed.items()) == list(expected.noticed.items())
    assert found.metainfo.keys() == expected.metainfo.keys()
    for key, value in expected.metainfo.items():
        np.testing.assert_array_equal(found.metainfo[key], value)
    for index, info in enumerate(expected.infos()):
        result = found[index]
        image = decode(info['img_path'])
        assert result['img'].dtype == np.uint8
        np.testing.assert_array_equal(result['img'], image)
        np.testing.assert_array_equal(result['img'], expected[index]['img'])
        assert result['ori_shape'] == image.shape[:2]
    return len(found)


SCFACE = dict(train_subjects='1-12', test_subjects='13-30', gallery_subjects='1-30')
CASES = {
    'tinyface': [
        (TinyFace, dict(split='train'), None),
        (TinyFace, dict(split='test'), 357 + 406 + 1000),
    ],
    'scface': [
        (SCface, dict(split='train', **SCFACE), 12 * 15),
        (SCface, dict(split='test', **SCFACE), 30 + 18 * 15),
    ],
    'survface': [(SurvFace, dict(split='train'), None), (SurvFace, dict(split='test'), None)],
    'ui': [(UIFaces, dict(), 300), (UIFaces, dict(max_images=70), 70)],
}


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ('tinyface', 'survface')))
        for name in CASES
    ],
)
def test_real_layouts(shared, packs, name):
    for kind, arguments, count in CASES[name]:
        folder, packed = shared / 'data' / name, packs / f'{name}.pack'
        found = same_data(lambda k=kind, a=arguments, **kw: k(**a, **kw), folder, packed)
        assert found == count or (count is None and found > 100)


def test_folder_inside_a_pack(shared, packs):
    folders = [
        root / 'Training_Set' for root in (shared / 'data/tinyface', packs / 'tinyface.pack')
    ]
    assert same_data(lambda **kw: FaceFolder(split='test', **kw), *folders) > 100


@pytest.mark.slow
def test_generated_layouts(tmp_path, tinyface_root, scface_root, survface_root):
    """With files that the loaders leave out, and a .mat file at its other place."""
    (tinyface_root / 'Testing_Set' / 'Probe' / 'Thumbs.db').write_text('junk')
    (survface_root / 'Face_Verification_Evaluation').mkdir()
    mat = 'positive_pairs_names.mat'
    (survface_root / 'Face_Verification_Test_Set' / mat).rename(
        survface_root / 'Face_Verification_Evaluation' / mat
    )
    # A copy is told by its pixels: a pack keeps nothing else.
    copied = survface_root / 'Face_Identification_Test_Set'
    content = (copied / 'gallery' / '12_2.jpg').read_bytes() + b'other bytes'
    (copied / 'unmated_probe' / '12_2.jpg').write_bytes(content)
    left_out = SurvFace(data_root=str(survface_root), split='test').left_out
    assert left_out['unmated images that are also in gallery or mated_probe'] == ['12_2.jpg']
    numbers = dict(train_subjects='1-2', test_subjects='3-4', gallery_subjects='1-4')
    for kind, root, arguments in (
        (TinyFace, tinyface_root, {}),
        (SCface, scface_root, numbers),
        (SurvFace, survface_root, {}),
    ):
        packed = pack_folder(root, tmp_path / f'{kind.__name__}.pack').path
        for split in ('train', 'test'):
            args = dict(split=split, **arguments)
            assert same_data(lambda k=kind, a=args, **kw: k(**a, **kw), root, packed)


@pytest.fixture
def people(tmp_path, write_face):
    """One folder a person, and one folder without images that changes the identities."""
    root = tmp_path / 'people'
    for person, count in (('2', 3), ('10', 1), ('1', 2)):
        for n in range(count):
            write_face(root / person / f'{n}.png', size=(7 + n, 5 + int(person)))
    (root / 'nobody').mkdir()
    (root / '1' / 'notes.txt').write_text('junk')
    (root / '1' / '.hidden.png').write_text('junk')
    return root


@pytest.fixture
def packed(people, tmp_path):
    return pack_folder(people, tmp_path / 'people.pack').path


@pytest.mark.parametrize('split', ['train', 'test'])
def test_people(people, packed, split):
    assert same_data(lambda **kw: FaceFolder(split=split, **kw), people, packed) == 6
    # Without the empty folder every person had a number.
    identities = {info['identity'] for info in FaceFolder(data_root=str(packed)).infos()}
    assert identities == {0, 1, 2}


def test_ui_without_hidden_folders(people, tmp_path, write_face):
    write_face(people / '.thumbnails' / 'x.png')
    write_face(people / '1' / '.thumbnails' / 'deep' / 'x.png')
    write_face(people / '1' / 'deep' / 'x.png')
    bare = tmp_path / 'bare.pack'
    names = [p for p in sorted(people.rglob('*.png')) if '/.' not in str(p)]
    items = [(p.relative_to(people).as_posix(), decode(p)) for p in names]
    write_pack(bare, [*items, ('1/notes.txt', b'junk')], ['nobody'])
    assert same_data(UIFaces, people, bare) == 7


def test_reader(people, packed):
    reader = PackReader(packed)
    names = sorted(p.relative_to(people).as_posix() for p in people.rglob('[0-9].png'))
    assert reader.names == list(reader) == names
    assert len(reader) == 6
    assert '1/0.png' in reader
    assert '1/notes.txt' not in reader
    assert reader.files == ['1/notes.txt']
    assert reader.read_file('1/notes.txt') == b'junk'
    for name in names:
        np.testing.assert_array_equal(reader[name], decode(people / name))
    assert reader.verify() == []
    with pytest.raises(ValueError, match='read-only'):
        reader[names[0]][0] = 0
    with pytest.raises(KeyError, match=r'people\.pack holds no image 3/0\.png'):
        reader['3/0.png']
    with pytest.raises(FileNotFoundError, match=r'people\.pack holds no image 3/0\.png'):
        read_image(f'{packed}/3/0.png')
    with pytest.raises(KeyError, match=r'holds no file 1/0\.png'):
        reader.read_file('1/0.png')


def test_format(packed, people):
    """The file by the table in the module's docstring."""
    content = packed.read_bytes()
    magic, version = struct.unpack('<8sI', content[:12])
    offset, length = struct.unpack('<QQ', content[12:28])
    index_crc, header_crc = struct.unpack('<II', content[28:36])
    assert (magic, version, offset + length) == (b'MMVLRPAK', 1, len(content))
    assert header_crc == zlib.crc32(content[:32])
    assert index_crc == zlib.crc32(content[offset:])
    index = json.loads(content[offset:])
    assert index['folders'] == ['1', '10', '2', 'nobody']
    table = index['images']
    position = 36
    spans = {}
    for name, height, width, start, crc in zip(
        *(table[key] for key in ('name', 'height', 'width', 'offset', 'crc32')), strict=True
    ):
        pixels = content[start : start + height * width * 3]
        expected = decode(people / name)
        assert pixels == expected.tobytes()
        assert (height, width) == expected.shape[:2]
        assert crc == zlib.crc32(pixels)
        spans[start] = start + len(pixels)
    (start,), (size,) = index['files']['offset'], index['files']['size']
    spans[start] = start + size
    # Without gaps.
    for start in sorted(spans):
        assert start == position
        position = spans[start]
    assert position == offset


def test_a_flipped_byte_is_named(packed, people):
    """Any byte of any image: that image is refused, all others are read."""
    clean = packed.read_bytes()
    index = json.loads(clean[struct.unpack('<Q', clean[12:20])[0] :])
    table = index['images']
    rows = list(zip(table['name'], table['offset'], table['height'], table['width'], strict=True))
    for name, offset, height, width in rows:
        for place in (offset, offset + height * width * 3 - 1):
            damaged = bytearray(clean)
            damaged[place] ^= 1
            packed.write_bytes(damaged)
            reader = PackReader(packed)
            assert reader.verify() == [name]
            for other, *_ in rows:
                if other == name:
                    message = rf'people\.pack: image {name} is damaged'
                    with pytest.raises(ImageError, match=message):
                        reader[other]
                    # Again, not only at the first time.
                    with pytest.raises(ImageError, match=message):
                        reader[other]
                else:
                    np.testing.assert_array_equal(reader[other], decode(people / other))
    damaged = bytearray(clean)
    damaged[index['files']['offset'][0]] ^= 128
    packed.write_bytes(damaged)
    assert PackReader(packed).verify() == ['1/notes.txt']
    with pytest.raises(ValueError, match=r'people\.pack: file 1/notes\.txt is damaged'):
        PackReader(packed).read_file('1/notes.txt')


def test_damage_reaches_the_data_set(packed):
    clean = bytearray(packed.read_bytes())
    clean[36] ^= 1
    packed.write_bytes(clean)
    dataset = FaceFolder(data_root=str(packed), pipeline=LOAD)
    with pytest.raises(ImageError, match=r'people\.pack: image 1/0\.png is damaged'):
        dataset[0]
    assert dataset[1]['img'].shape == (8, 6, 3)


def test_checksum_once(packed, monkeypatch):
    reader = PackReader(packed)
    calls = []
    real = zlib.crc32
    monkeypatch.setattr(pack.zlib, 'crc32', lambda data: calls.append(1) or real(data))
    for _ in range(3):
        reader['1/0.png']
        reader['2/0.png']
    assert len(calls) == 2


def rewrite_header(path, version):
    content = path.read_bytes()
    facts = content[:8] + struct.pack('<I', version) + content[12:32]
    path.write_bytes(facts + struct.pack('<I', zlib.crc32(facts)) + content[36:])


def test_later_version(packed):
    rewrite_header(packed, 2)
    for read in (PackReader, FaceFolder):
        with pytest.raises(FileFormatError, match=r'people\.pack: version: 2, .*update mmvlr'):
            read(str(packed))


def test_wrong_magic(tmp_path):
    for content in (b'', b'PK\3\4' + bytes(100), b'MMVLRPAX' + bytes(100)):
        path = tmp_path / 'x.pack'
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r'x\.pack: no pack'):
            PackReader(path)
    with pytest.raises(FileNotFoundError):
        PackReader(tmp_path / 'absent.pack')


def test_truncated_anywhere(packed):
    clean = packed.read_bytes()
    for length in (1, 8, 35, 36, 37, len(clean) // 2, len(clean) - 1):
        packed.write_bytes(clean[:length])
        with pytest.raises(FileFormatError, match=r'people\.pack: truncated'):
            PackReader(packed)
    packed.write_bytes(clean + b'x')
    with pytest.raises(FileFormatError, match=r'people\.pack: longer'):
        PackReader(packed)


def test_every_flipped_byte_of_header_and_index(packed):
    clean = packed.read_bytes()
    start = struct.unpack('<Q', clean[12:20])[0]
    for place in [*range(36), *range(start, len(clean))]:
        damaged = bytearray(clean)
        damaged[place] ^= 1
        packed.write_bytes(damaged)
        what = 'no pack' if place < 8 else 'header' if place < 36 else 'index'
        with pytest.raises(FileFormatError, match=rf'people\.pack.*{what}'):
            PackReader(packed)


def rewrite_index(path, change):
    """Change the index, with right checksums, as a faulty writer would make it."""
    content = path.read_bytes()
    start = struct.unpack('<Q', content[12:20])[0]
    index = json.loads(content[start:])
    change(index)
    text = json.dumps(index).encode()
    facts = struct.pack('<8sIQQI', b'MMVLRPAK', 1, start, len(text), zlib.crc32(text))
    header = facts + struct.pack('<I', zlib.crc32(facts))
    path.write_bytes(header + content[36:start] + text)


@pytest.mark.parametrize(
    ('change', 'field'),
    [
        (lambda index: index.pop('images'), 'images'),
        (lambda index: index.update(more=[]), 'more'),
        (lambda index: index.update(folders=[1]), 'folders'),
        (lambda index: index['images']['height'].pop(), 'images'),
        (
            lambda index: index['images']['name'].__setitem__(0, index['images']['name'][1]),
            'images',
        ),
        (lambda index: index['images']['name'].__setitem__(0, ['a']), 'images.name'),
        (lambda index: index['images']['crc32'].__setitem__(0, 2**32), 'images.crc32.0'),
        (lambda index: index['images']['offset'].__setitem__(0, 10**9), 'images.offset'),
        (lambda index: index['images']['offset'].__setitem__(0, -5), 'images.offset.0'),
        (lambda index: index['images']['offset'].__setitem__(0, '36'), 'images.offset.0'),
        (lambda index: index['images'].update(height=[-7] * 6, width=[-7] * 6), 'images.height.0'),
        # Their product is 12 modulo 2**64.
        (lambda index: index['images']['height'].__setitem__(0, 2**62 + 1), 'images.height.0'),
        (lambda index: index['files'].update(size=[10**9]), 'files.offset'),
    ],
)
def test_index_that_cannot_be(packed, change, field):
    rewrite_index(packed, change)
    with pytest.raises(FileFormatError) as raised:
        PackReader(packed)
    assert str(raised.value).startswith(f'{packed}: index: {field}: ')


def test_packs_of_mmvlr_0_1_are_read(packed):
    before = PackReader(packed)
    rewrite_index(packed, lambda index: index.update(pictures=index.pop('images')))
    found = PackReader(packed)
    assert found.names == before.names
    assert all(np.array_equal(found[name], before[name]) for name in found)


def face(value=0, shape=(3, 4, 3), dtype=np.uint8):
    return np.full(shape, value, dtype)


@pytest.mark.parametrize(
    ('items', 'message'),
    [
        ([('a.jpg', face()), ('a.jpg', face())], 'a.jpg occurs twice'),
        ([('a.jpg', face(dtype=np.float32))], r'a\.jpg: .* not float32'),
        ([('a.jpg', face(shape=(3, 4)))], r'a\.jpg: .*\(3, 4\)'),
        ([('a.jpg', face(shape=(3, 4, 4)))], r'a\.jpg: .*\(3, 4, 4\)'),
        ([('a.jpg', face(shape=(0, 4, 3)))], r'a\.jpg: .*\(0, 4, 3\)'),
        ([('/a.jpg', face())], 'no valid name in a pack'),
        ([('1/../../a.jpg', face())], 'no valid name in a pack'),
        ([('1//a.jpg', face())], 'no valid name in a pack'),
        ([('', face())], 'no valid name in a pack'),
        ([('a', face()), ('a/b.jpg', face())], 'a is both a file and a folder'),
    ],
)
def test_what_cannot_be_packed(tmp_path, items, message):
    out = tmp_path / 'x.pack'
    out.write_text('old')
    with pytest.raises(ValueError, match=message):
        write_pack(out, items)
    # Neither a half-written file nor a temporary one.
    assert [path.name for path in tmp_path.iterdir()] == ['x.pack']
    assert out.read_text() == 'old'
    with pytest.raises(ValueError, match=r'must end in \.pack'):
        write_pack(tmp_path / 'x.bin', [])


def test_images_of_any_memory_layout(tmp_path):
    image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    items = dict(flipped=image[:, ::-1], bgr=image[..., ::-1], part=image[1:3, 1:])
    reader = write_pack(tmp_path / 'x.pack', items.items())
    for name, expected in items.items():
        np.testing.assert_array_equal(reader[name], expected)


def test_writing_needs_memory_for_one_image(tmp_path):
    def items():
        for number in range(300):
            yield f'{number}.jpg', np.full((200, 200, 3), number % 251, np.uint8)

    tracemalloc.start()
    write_pack(tmp_path / 'x.pack', items())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 36 MB of pixels.
    assert peak < 2e6


def test_pickle(packed):
    reader = PackReader(packed)
    text = pickle.dumps(reader)
    assert len(text) < 1000
    again = pickle.loads(text)
    for name in reader:
        np.testing.assert_array_equal(again[name], reader[name])


def test_workers(packed, people):
    dataset = FaceFolder(data_root=str(packed), pipeline=LOAD)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    for info, result in zip(FaceFolder(data_root=str(people)).infos(), loader, strict=True):
        np.testing.assert_array_equal(result['img'], decode(info['img_path']))


def test_changed_pack_is_read_again(tmp_path):
    for value in (1, 2):
        write_pack(tmp_path / 'x.pack', [('1/a.jpg', face(value))])
        dataset = FaceFolder(data_root=str(tmp_path / 'x.pack'), pipeline=LOAD)
        np.testing.assert_array_equal(dataset[0]['img'], face(value))


@pytest.mark.parametrize('name', ['people.pack', 'people.rec', 'people.bin'])
def test_folder_with_the_ending_of_a_file(tmp_path, write_face, name):
    path = write_face(tmp_path / name / '1' / '0.png')
    dataset = FaceFolder(data_root=str(tmp_path / name), pipeline=LOAD)
    np.testing.assert_array_equal(dataset[0]['img'], decode(path))


def test_missing_folder_in_a_pack(packed, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'folder .*people\.pack/Training_Set does not'):
        TinyFace(data_root=str(packed))
    with pytest.raises(FileNotFoundError, match=r'folder .*absent\.pack does not exist'):
        FaceFolder(data_root=str(tmp_path / 'absent.pack'))


def test_paths(packed, people):
    """What a pack's path answers is what the folder's path answers."""
    root, folder = data_path(packed), data_path(people)
    assert type(folder) is type(people)

    def listed(path, below):
        visible = [p for p in path if not p.name.startswith('.')]
        return sorted((p.relative_to(below), p.is_file(), p.is_dir()) for p in visible)

    for name in ('.', '1', 'nobody'):
        inside = listed((folder / name).iterdir(), folder)
        assert listed((root / name).iterdir(), root) == [
            (type(root)(*p.parts), *kind) for p, *kind in inside
        ]
    assert listed(root.rglob('*'), root) == listed(folder.rglob('*'), folder)
    assert (root / '1' / 'notes.txt').read_bytes() == b'junk'
    assert not (root / 'absent').is_file()
    assert not (root / 'absent').is_dir()
    assert str(root / '1') == f'{packed}/1'
    assert data_path(packed / '1').is_dir()


def test_file_status(packed, people):
    assert file_status(f'{packed}/1/0.png').st_ino == packed.stat().st_ino
    assert file_status(people / '1/0.png').st_size == (people / '1/0.png').stat().st_size
    for absent in ('', 'synthetic:0/1/2', str(people / 'absent.png')):
        assert file_status(absent) is None
