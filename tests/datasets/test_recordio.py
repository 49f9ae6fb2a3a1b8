"""RecordIO: against a writer that follows the format's definition, and against damage."""

import io
import pickle
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets.storage import ImageError, RecordIOReader, recordio
from mmvlr.datasets.storage.faces import RecordIOFaces
from mmvlr.datasets.transforms import read_image
from mmvlr.registry import DATASETS
from mmvlr.utils.schema import FileFormatError

MAGIC = struct.pack('<I', 0xCED7230A)


def parts(content):
    """The parts of a record as dmlc-core writes them: (flag, bytes)."""
    cuts, start = [], 0
    for place in range(0, len(content) // 4 * 4, 4):
        if content[place : place + 4] == MAGIC:
            cuts.append(content[start:place])
            start = place + 4
    cuts.append(content[start:])
    flags = [0] if len(cuts) == 1 else [1, *[2] * (len(cuts) - 2), 3]
    return list(zip(flags, cuts, strict=True))


def write_records(folder, records, name='train'):
    """Write records, number -> content, as .rec and .idx; return the .rec file."""
    rec, idx = io.BytesIO(), []
    for key, content in records.items():
        idx.append(f'{key}\t{rec.tell()}\n')
        for flag, part in parts(content):
            rec.write(MAGIC + struct.pack('<I', flag << 29 | len(part)) + part)
        rec.write(bytes(-len(content) % 4))
    (folder / f'{name}.rec').write_bytes(rec.getvalue())
    (folder / f'{name}.idx').write_text(''.join(idx))
    return folder / f'{name}.rec'


def header(label, *labels, number=0):
    """An IRHeader with one label, or with an array of labels."""
    many = (label, *labels)
    if not labels:
        return struct.pack('<IfQQ', 0, label, number, 0)
    return struct.pack('<IfQQ', len(many), 0, number, 0) + struct.pack(f'<{len(many)}f', *many)


def pixels(number, size=(9, 8)):
    return np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)


def encode(image, kind='PNG', **kwargs):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **kwargs)
    return stream.getvalue()


def insightface_records(labels):
    """Records of a train.rec: header, images, and one record a person with its range."""
    people = sorted(set(labels))
    first_person = len(labels) + 1
    records = {0: header(first_person, first_person + len(people))}
    for number, label in enumerate(labels, start=1):
        # Both forms are in use: one label, and an array whose first entry counts.
        head = header(label) if number % 2 else header(label, 7.5, 3)
        records[number] = head + encode(pixels(number))
    for place, label in enumerate(people):
        members = [n for n, other in enumerate(labels, start=1) if other == label]
        records[first_person + place] = header(members[0], members[-1] + 1)
    return records


LABELS = [0, 0, 0, 1, 1, 2, 3, 3]


@pytest.fixture
def rec(tmp_path):
    return write_records(tmp_path, insightface_records(LABELS))


CONTENTS = {
    'empty': b'',
    'short': b'abc',
    'aligned': b'abcdefgh',
    'only the magic': MAGIC,
    'magic first': MAGIC + b'tail',
    'magic last': b'head' + MAGIC,
    'magic before an odd end': b'head' + MAGIC + b'xyz',
    'twice in a row': b'head' + MAGIC + MAGIC + b'tail',
    'three times': MAGIC + b'1234' + MAGIC + b'12345678' + MAGIC + b'1',
    'not at a multiple of four': b'ab' + MAGIC + b'cdefgh',
    'both': b'a' + MAGIC + b'123' + MAGIC + b'x',
}


def test_contents_come_back(tmp_path):
    path = write_records(tmp_path, dict(enumerate(CONTENTS.values())))
    reader = RecordIOReader(path)
    for key, content in reversed(list(enumerate(CONTENTS.values()))):
        assert reader.raw(key) == content, list(CONTENTS)[key]
    # The writer did cut.
    assert [len(parts(content)) for content in CONTENTS.values()] == [
        1,
        1,
        1,
        2,
        2,
        2,
        2,
        3,
        4,
        1,
        2,
    ]
    assert len(reader) == len(CONTENTS)


def test_random_contents(tmp_path):
    rng = np.random.default_rng(0)
    pieces = [MAGIC, b'a', b'bc', b'1234', bytes(7)]
    records = {
        int(key): b''.join(pieces[i] for i in rng.integers(0, 5, rng.integers(0, 20)))
        for key in rng.permutation(500) * 3
    }
    assert sum(len(parts(content)) > 2 for content in records.values()) > 50
    reader = RecordIOReader(write_records(tmp_path, records))
    assert reader.keys.tolist() == sorted(records)
    for key, content in records.items():
        assert reader.raw(key) == content


def test_every_part_is_padded(tmp_path):
    """dmlc-core's reader allows parts of any length, though its writer cuts at multiples of 4."""
    content = b''.join(
        MAGIC + struct.pack('<I', flag << 29 | len(part)) + part + bytes(-len(part) % 4)
        for flag, part in ((1, b'12345'), (2, b'678'), (3, b'9'))
    )
    (tmp_path / 'x.rec').write_bytes(content)
    (tmp_path / 'x.idx').write_text('4\t0\n')
    expected = b'12345' + MAGIC + b'678' + MAGIC + b'9'
    assert RecordIOReader(tmp_path / 'x.rec').raw(4) == expected


def test_headers(tmp_path):
    records = {
        0: struct.pack('<IfQQ', 0, 2.5, 2**40, 2**50) + b'rest',
        1: header(3, 4, 5, number=9) + b'rest of it',
        2: header(1),
    }
    reader = RecordIOReader(write_records(tmp_path, records))
    first, second, third = (reader[key] for key in range(3))
    assert (first.labels.tolist(), first.id, first.id2) == ([2.5], 2**40, 2**50)
    assert first.content == b'rest'
    assert (second.labels.tolist(), second.id, second.content) == ([3, 4, 5], 9, b'rest of it')
    assert (third.labels.tolist(), third.content) == ([1], b'')
    assert second.labels.dtype == np.float32


@pytest.mark.parametrize('chunk', [1, 3, 1 << 16])
def test_first_labels(rec, chunk, monkeypatch):
    monkeypatch.setattr(recordio, '_CHUNK', chunk)
    reader = RecordIOReader(rec)
    keys = reader.image_keys()
    assert keys.tolist() == list(range(1, 9))
    assert reader.first_labels(keys).tolist() == LABELS
    assert reader.first_labels(keys[::-2]).tolist() == LABELS[::-2]
    with pytest.raises(KeyError, match='no record 77'):
        reader.first_labels(np.array([1, 77]))


def test_first_labels_of_records_in_parts(tmp_path):
    """The magic may stand inside the header, and in the label itself."""
    magic = struct.unpack('<I', MAGIC)[0]
    in_id = struct.pack('<IfQQ', 0, 5, magic, 0)
    in_label = struct.pack('<I', 0) + MAGIC + bytes(16)
    in_array = struct.pack('<IfQQ', 2, 0, 0, 0) + MAGIC + struct.pack('<f', 1)
    later = header(6) + b'1234' + MAGIC
    records = dict(enumerate([in_id, in_label, in_array, later, header(8)]))
    reader = RecordIOReader(write_records(tmp_path, records))
    value = struct.unpack('<f', MAGIC)[0]
    assert reader.first_labels(reader.keys).tolist() == [5, value, value, 6, 8]
    assert [reader[key].labels[0] for key in range(5)] == [5, value, value, 6, 8]


def test_faces(rec, messages):
    dataset = RecordIOFaces(data_root=str(rec.parent), pipeline=[dict(type='LoadFace')])
    found = [(info['role'], info['identity'], info['gt_label']) for info in dataset.infos()]
    assert found == [('train', label, label) for label in LABELS]
    assert dataset.num_classes == 4
    assert not dataset.test_mode
    for index in range(len(LABELS)):
        # PNG loses nothing: the order of the channels shows.
        np.testing.assert_array_equal(dataset[index]['img'], pixels(index + 1))
    assert not [text for _, text in messages if 'renumbered' in text]
    assert isinstance(
        DATASETS.build(dict(type='RecordIOFaces', data_root=str(rec.parent))), RecordIOFaces
    )


def test_another_name(tmp_path):
    write_records(tmp_path, insightface_records([0, 1]), name='other')
    assert len(RecordIOFaces(data_root=str(tmp_path), rec='other.rec')) == 2


def test_folder_and_file_are_both_named(rec):
    by_folder, by_file = (RecordIOFaces(str(root)) for root in (rec.parent, rec))
    infos = [[(i['img_path'], i['gt_label']) for i in d.infos()] for d in (by_folder, by_file)]
    assert infos[0] == infos[1] and len(infos[0]) == len(LABELS)
    assert RecordIOReader(rec.parent).keys.tolist() == RecordIOReader(rec).keys.tolist()


def test_real_file_without_a_header_record(shared):
    dataset = RecordIOFaces(str(shared / 'data' / 'formats'), pipeline=[dict(type='LoadFace')])
    assert [info['gt_label'] for info in dataset.infos()] == [0] * 4 + [1] * 4
    assert all(dataset[index]['img'].shape[2] == 3 for index in range(8))


def test_image_with_several_labels_is_no_header(tmp_path):
    """Record 0 of a file without a header may have an array of labels."""
    records = {n: header(n % 2, 7.5) + encode(pixels(n)) for n in range(4)}
    reader = RecordIOReader(write_records(tmp_path, records))
    assert reader.image_keys().tolist() == [0, 1, 2, 3]


def test_without_a_header_record(tmp_path):
    """MXNet's own im2rec numbers images from 0 and has no header."""
    records = {n: header(n % 2) + encode(pixels(n)) for n in range(4)}
    write_records(tmp_path, records)
    dataset = RecordIOFaces(data_root=str(tmp_path), pipeline=[dict(type='LoadFace')])
    assert [info['gt_label'] for info in dataset.infos()] == [0, 1, 0, 1]
    np.testing.assert_array_equal(dataset[0]['img'], pixels(0))


def test_labels_with_gaps_are_renumbered(tmp_path, warned):
    write_records(tmp_path, insightface_records([7, 7, 30, 12]))
    dataset = RecordIOFaces(data_root=str(tmp_path))
    found = [(info['identity'], info['gt_label']) for info in dataset.infos()]
    assert found == [(7, 0), (7, 0), (30, 2), (12, 1)]
    assert 'labels 7 to 30 of 3 people are renumbered to 0 to 2' in warned()


@pytest.mark.parametrize('label', [-1, 0.5, float('nan'), float('inf'), 2.0**24])
def test_label_that_is_no_person(tmp_path, label):
    records = {n: header(value) + encode(pixels(n)) for n, value in enumerate([0, 1, label])}
    write_records(tmp_path, records)
    with pytest.raises(ValueError, match=r'record 2 of .*train\.rec has the label .*1 records'):
        RecordIOFaces(data_root=str(tmp_path))


def test_jpeg_as_opencv_decodes_it(tmp_path):
    smooth = cv2.resize(pixels(1, (4, 4)), (64, 64), interpolation=cv2.INTER_CUBIC)
    content = encode(smooth, 'JPEG', quality=95)
    path = write_records(tmp_path, {1: header(0) + content, 2: header(0) + content[:-200]})
    found = read_image(f'{path}/1')
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(found, expected[..., ::-1])
    assert np.abs(found.astype(int) - smooth).mean() < 3
    with pytest.raises(ImageError, match=r'train\.rec: record 2 cannot be read \(.*truncated'):
        read_image(f'{path}/2')


def test_orientation_tag_is_ignored_as_in_folders(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = tmp_path / 'x.jpg'
    file.write_bytes(encode(pixels(0, (16, 32)), 'JPEG', exif=exif))
    path = write_records(tmp_path, {1: header(0) + file.read_bytes()})
    assert read_image(f'{path}/1').shape == read_image(str(file)).shape == (16, 32, 3)


def test_missing_images(rec):
    for name in ('77', 'x', '1/2'):
        with pytest.raises(FileNotFoundError, match=rf'train\.rec has no record {name}'):
            read_image(f'{rec}/{name}')
    with pytest.raises(ImageError, match=r'train\.rec: record 9 cannot be read \(no image'):
        read_image(f'{rec}/9')


def offsets(rec):
    lines = (line.split() for line in rec.with_suffix('.idx').read_text().splitlines())
    return {int(key): int(offset) for key, offset in lines}


def test_damaged_magic_names_the_record(rec):
    place = offsets(rec)[3]
    content = bytearray(rec.read_bytes())
    content[place] ^= 1
    rec.write_bytes(content)
    reader = RecordIOReader(rec)
    message = r'train\.rec: record 3 is damaged \(magic 0xced7230b'
    with pytest.raises(ImageError, match=message):
        reader[3]
    with pytest.raises(ImageError, match=message):
        reader.first_labels(reader.image_keys())
    with pytest.raises(ImageError, match=message):
        RecordIOFaces(data_root=str(rec.parent))
    assert reader[2].labels[0] == 0


def test_damaged_second_part(tmp_path):
    path = write_records(tmp_path, {5: header(1) + MAGIC + b'1234' + MAGIC + b'tail'})
    clean = path.read_bytes()
    place = clean.index(MAGIC, 4)
    for change, message in (
        ((place, 1), 'magic'),
        ((place + 7, 0x40), 'part 1 has the flag 0'),
        ((place + 7, 0x60), 'part 1 has the flag 1'),
    ):
        content = bytearray(clean)
        content[change[0]] ^= change[1]
        path.write_bytes(content)
        with pytest.raises(ImageError, match=f'record 5 is damaged .{message}'):
            RecordIOReader(path).raw(5)
    content = bytearray(clean)
    content[7] |= 0xE0
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r'record 5 is damaged .part 0 has the flag 7'):
        RecordIOReader(path).raw(5)
    # The highest bit of the length, 2^28 bytes more.
    content = bytearray(clean)
    content[7] |= 0x10
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r'record 5 is damaged .the file ends'):
        RecordIOReader(path).raw(5)


@pytest.mark.parametrize('last', [b'12345678', MAGIC + b'12345678'])
def test_every_truncation_names_the_last_record(tmp_path, last):
    records = {1: header(0) + b'1234', 2: header(1) + last}
    path = write_records(tmp_path, records)
    clean, start = path.read_bytes(), offsets(path)[2]
    for length in range(start, len(clean)):
        path.write_bytes(clean[:length])
        if length < start + 8:
            with pytest.raises(ValueError, match=r'idx: record 2 at 36 lies outside .*train\.rec'):
                RecordIOReader(path)
            continue
        reader = RecordIOReader(path)
        assert reader.raw(1) == records[1]
        with pytest.raises(ImageError, match=r'train\.rec: record 2 is damaged .the file ends'):
            reader.raw(2)
        with pytest.raises(ImageError, match=r'train\.rec: record 2 is damaged .the file ends'):
            reader.first_labels(reader.keys)
    path.write_bytes(b'')
    with pytest.raises(FileFormatError, match=r'train\.rec: empty'):
        RecordIOReader(path)


def test_content_too_short_for_its_header(tmp_path):
    records = {1: b'12345678', 2: struct.pack('<IfQQ', 3, 0, 0, 0) + bytes(8)}
    reader = RecordIOReader(write_records(tmp_path, {**records, 3: header(1) + bytes(40)}))
    for key, message in ((1, '8 bytes are no header'), (2, '32 bytes do not hold 3 labels')):
        with pytest.raises(ImageError, match=f'record {key} is damaged .{message}'):
            reader[key]
        with pytest.raises(ImageError, match=f'record {key} is damaged .{message}'):
            reader.first_labels(np.array([key]))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', r'train\.idx: empty'),
        ('hello\n', r'train\.idx: expected the number'),
        ('1\t0\n2\n', r'train\.idx: expected the number'),
        ('1\t0\t5\n', 'found 3 numbers'),
        ('1\t0\n1\t8\n', 'record 1 is listed twice'),
        ('1\t0\n4\t99999999\n', r'record 4 at 99,999,999 lies outside .*train\.rec'),
        ('1\t0\n4\t-8\n', r'record 4 at -8 lies outside'),
        (f'1\t0\n4\t{2**63 - 1}\n', r'train\.idx: record 4 at 9,223'),
        (f'1\t0\n4\t{2**63}\n', r'train\.idx: expected the number'),
        ('-1\t0\n4\t36\n', r'train\.idx: record -1'),
    ],
)
def test_damaged_index(rec, text, message):
    rec.with_suffix('.idx').write_text(text)
    with pytest.raises(FileFormatError, match=message):
        RecordIOReader(rec)


def test_index_that_points_between_records(rec):
    rec.with_suffix('.idx').write_text('1\t4\n')
    with pytest.raises(ImageError, match='record 1 is damaged'):
        RecordIOReader(rec).raw(1)


def test_missing_files(rec):
    with pytest.raises(FileNotFoundError, match=r'no \.rec file .*other\.rec'):
        RecordIOFaces(data_root=str(rec.parent), rec='other.rec')
    rec.with_suffix('.idx').unlink()
    with pytest.raises(FileNotFoundError, match=r'train\.idx is missing'):
        RecordIOFaces(data_root=str(rec.parent))


def test_header_record_tells_of_more_than_the_index_has(rec):
    idx = rec.with_suffix('.idx')
    lines = [line for line in idx.read_text().splitlines(True) if not line.startswith('4\t')]
    idx.write_text(''.join(lines))
    with pytest.raises(FileFormatError, match=r'train\.idx: .* 8 images .*record 4 is missing'):
        RecordIOFaces(data_root=str(rec.parent))


@pytest.mark.parametrize(
    ('labels', 'told'),
    [
        ((9, 3), r'train\.rec: record 0 is a header with \[9.0, 3.0\]'),
        ((float('inf'), float('inf')), r'train\.rec: record 0 is a header with \[inf, inf\]'),
        # A list of so many numbers would take 8 TB.
        ((1e12, 1e12), r'train\.idx: .*record 2 is missing'),
    ],
)
def test_header_record_that_cannot_be(tmp_path, labels, told):
    path = write_records(tmp_path, {0: header(*labels), 1: header(0)})
    with pytest.raises(FileFormatError, match=told):
        RecordIOReader(path).image_keys()


def test_pickle_and_an_index_elsewhere(rec, tmp_path):
    idx = rec.with_suffix('.idx').rename(tmp_path / 'elsewhere.txt')
    reader = pickle.loads(pickle.dumps(RecordIOReader(rec, idx)))
    np.testing.assert_array_equal(reader.image('2'), pixels(2))
