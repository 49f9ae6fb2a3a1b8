"""MATLAB's lists: what SciPy reads comes back, and no damage ends the process or takes long."""

import io
import random
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
import scipy.io

from mmvlr.datasets.pairs_files import read_name_pairs, read_pairs
from mmvlr.datasets.storage import mat
from mmvlr.datasets.storage.mat import read_variables

NAMES = ['3_1.jpg', '1_12.jpg', 'Zoë_1.jpg', '顔_2.jpg', 'a']


def cell(names, columns=1):
    cells = np.empty(len(names), object)
    cells[:] = names
    return cells.reshape(-1, columns)


def save(compressed=False, **content):
    stream = io.BytesIO()
    scipy.io.savemat(stream, content, do_compression=compressed)
    return stream.getvalue()


def pairs_file(compressed=False, names=NAMES, ids=(3, 1, 5, 6, 7), dtype=float):
    ids = np.array(ids, dtype)[:, None]
    return save(compressed, probe_set=cell(names), probe_ids=ids, other=np.eye(3), s={'a': 1})


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('dtype', ['f8', 'f4', 'u1', 'i2', 'u2', 'i4', 'i8'])
def test_against_scipy(compressed, dtype):
    content = pairs_file(compressed, dtype=dtype)
    found = read_variables(content, 'probe_set', 'probe_ids')
    expected = scipy.io.loadmat(io.BytesIO(content))
    assert [str(name.item()) for name in expected['probe_set'].ravel()] == NAMES
    assert found['probe_set'].tolist() == [[name] for name in NAMES]
    assert found['probe_ids'].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found['probe_ids'], expected['probe_ids'])
    # What is not asked for is skipped, whatever it is.
    assert found['other'] is None and found['s'] is None


def test_shapes_and_text():
    grid = np.arange(24).reshape(2, 3, 4)
    content = save(
        grid=grid,
        pairs=cell(list('abcdef'), 2),
        lines=np.array(['one', 'four', 'x']),
        nested=cell([cell(['a', 'b'])]),
        empty=np.empty((0, 1), object),
        truth=np.array([[True, False]]),
    )
    found = read_variables(content, 'grid', 'pairs', 'lines', 'nested', 'empty', 'truth')
    np.testing.assert_array_equal(found['grid'], grid)
    assert found['pairs'].tolist() == [['a', 'b'], ['c', 'd'], ['e', 'f']]
    assert found['lines'].tolist() == ['one ', 'four', 'x   ']
    assert found['nested'][0, 0].tolist() == [['a'], ['b']]
    assert found['empty'].shape == (0, 1)
    assert found['truth'].tolist() == [[1, 0]]


def element(order, kind, data):
    return struct.pack(f'{order}II', kind, len(data)) + data + bytes(-len(data) % 8)


def array(order, group, shape, name, *parts):
    head = element(order, 6, struct.pack(f'{order}II', group, 0))
    head += element(order, 5, struct.pack(f'{order}{len(shape)}i', *shape))
    return element(order, 14, head + element(order, 1, name.encode()) + b''.join(parts))


def file(order, *elements):
    mark = {'<': b'IM', '>': b'MI'}[order]
    return bytes(124) + struct.pack(f'{order}H', 0x0100) + mark + b''.join(elements)


@pytest.mark.parametrize('order', ['<', '>'])
@pytest.mark.parametrize('kind', [4, 16, 17, 18])
def test_written_by_hand(order, kind):
    """Both orders of bytes, all encodings of text, a small element, an object of MATLAB."""
    ends = {'<': 'le', '>': 'be'}[order]
    codec = {4: f'utf-16-{ends}', 16: 'utf-8', 17: f'utf-16-{ends}', 18: f'utf-32-{ends}'}[kind]
    text = array(order, 4, (1, 5), '', element(order, kind, 'äöü.x'.encode(codec)))
    small = struct.pack(f'{order}I', 2 << 16 | 4) + struct.pack(f'{order}H', 700) + bytes(2)
    opaque = element(order, 6, struct.pack(f'{order}II', 17, 0)) + element(order, 1, b'string')
    content = file(
        order,
        element(order, 14, opaque),
        array(order, 1, (1, 1), 'names', text),
        array(order, 11, (1, 1), 'ids', small),
    )
    found = read_variables(content, 'names', 'ids')
    assert found['names'].tolist() == [['äöü.x']]
    assert found['ids'].tolist() == [[700]]
    assert found['string'] is None


@pytest.mark.parametrize(
    ('name', 'count', 'stem'), [('gallery_match', 4443, 'gallery'), ('probe', 3728, 'probe')]
)
def test_the_official_lists(shared, name, count, stem):
    path = shared / 'data' / 'formats' / f'supersyz_{name}_img_ID_pairs.mat'
    pairs = read_pairs(path, f'{stem}_set', f'{stem}_ids')
    assert len(pairs) == count
    expected = scipy.io.loadmat(path)
    names = [str(np.squeeze(item).item()) for item in expected[f'{stem}_set'].ravel()]
    assert list(pairs.items()) == list(zip(names, expected[f'{stem}_ids'].ravel(), strict=True))


# Identities -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('ids', 'told'),
    [
        ([1.5, 2, 3, 4, 5], r'probe_ids: entry 1 is 1\.5'),
        ([1, 1.9, 3, 4, 5], r'probe_ids: entry 2 is 1\.9'),
        ([1, 2, np.inf, 4, 5], 'probe_ids: entry 3 is inf'),
        ([1, 2, 3, np.nan, 5], 'probe_ids: entry 4 is nan'),
        ([1, 2, 3, 4, 2.0**60], 'probe_ids: entry 5 is'),
        ([1, 2, 3, 4], '5 probe_set but 4 probe_ids'),
    ],
)
def test_identities_are_whole_numbers(tmp_path, ids, told):
    path = tmp_path / 'pairs.mat'
    path.write_bytes(pairs_file(ids=ids))
    with pytest.raises(ValueError, match=rf'pairs\.mat: {told}'):
        read_pairs(path, 'probe_set', 'probe_ids')


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        (
            dict(probe_set=np.empty((0, 1), object), probe_ids=np.empty((0, 1))),
            'probe_set: empty',
        ),
        (dict(probe_set=cell(['a']), probe_ids='one'), 'probe_ids: no numbers'),
        (dict(probe_set=cell(['a']), probe_ids=cell([1.0])), 'probe_ids: no numbers'),
        (dict(probe_set=cell([np.eye(2)]), probe_ids=1), 'probe_set: holds array'),
        (dict(probe_set=cell(['']), probe_ids=1), "probe_set: holds ''"),
        (dict(probe_set=cell(['a']), probe_ids=1 + 2j), 'neither a cell, text nor real numbers'),
        (dict(probe_set={'a': 1}, probe_ids=1), 'neither a cell, text nor real numbers'),
    ],
)
def test_other_contents(tmp_path, content, told):
    path = tmp_path / 'pairs.mat'
    path.write_bytes(save(**content))
    with pytest.raises(ValueError, match=rf'pairs\.mat.*{told}'):
        read_pairs(path, 'probe_set', 'probe_ids')


# Damage -----------------------------------------------------------------------------------------


def bomb():
    """64 KB that unpack to 64 MB and one byte."""
    packed = zlib.compress(bytes(mat.MAX_BYTES + 1))
    return file('<', struct.pack('<II', 15, len(packed)) + packed)


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        (b'', 'no header'),
        (b'MATLAB 5.0 MAT-file', 'no header'),
        (bytes(200), 'no header'),
        (b'\x89HDF\r\n\x1a\n' + bytes(200), '7.3'),
        (bytes(512) + b'\x89HDF\r\n\x1a\n', '7.3'),
        (bytes(124) + b'\x00\x02IM', 'version 0x0200'),
        (bomb(), 'unpacks to more'),
        (file('<', element('<', 14, b'')), 'ends before its flags'),
        (file('<', array('<', 1, (2**31 - 1, 2**31 - 1), 'x')), 'claims'),
        (file('<', array('<', 1, (1, 9), 'x', array('<', 1, (0, 0), ''))), 'has 1'),
        (file('<', array('<', 6, (2**30, 2**30), 'x', element('<', 9, bytes(8)))), 'has 1'),
        (file('<', array('<', 6, (-1, 1), 'x')), 'dimensions'),
        (file('<', array('<', 4, (1, 9), 'x', element('<', 16, b'abc'))), 'has 3'),
        (file('<', array('<', 4, (1, 1), 'x', element('<', 16, b'\xff'))), 'decode'),
        (pairs_file()[:-20], 'end'),
        (pairs_file(True)[:-5], 'end'),
    ],
)
def test_damaged(tmp_path, content, told):
    path = tmp_path / 'pairs.mat'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf'pairs\.mat: not a readable .*{told}'):
        read_pairs(path, 'x', 'x')


def test_cells_in_cells_end(tmp_path):
    inner = array('<', 1, (0, 0), '')
    for _ in range(2000):
        inner = array('<', 1, (1, 1), 'x', inner)
    (tmp_path / 'deep.mat').write_bytes(file('<', inner))
    with pytest.raises(ValueError, match='are nested more than'):
        read_pairs(tmp_path / 'deep.mat', 'x', 'x')


def test_large_files_are_not_read(tmp_path):
    with (tmp_path / 'big.mat').open('wb') as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(ValueError, match='a list of names has at most'):
        read_pairs(tmp_path / 'big.mat', 'x', 'x')


INTERESTING = (0, 1, 4, 5, 14, 15, 16, 17, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000)


def mutate(content, rng):
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(min(128, len(data) - 1), len(data))
        way = rng.randrange(4)
        if way == 0:
            data[place] ^= 1 << rng.randrange(8)
        elif way == 1:
            place &= ~3
            data[place : place + 4] = struct.pack('<I', rng.choice(INTERESTING))
        elif way == 2:
            del data[place : place + rng.randrange(1, 40)]
        else:
            data[place:place] = rng.randbytes(rng.randrange(1, 40))
    return bytes(data)


def test_mutants(tmp_path):
    """Of these files some end a process with SciPy in it."""
    rng = random.Random(0)
    names = [f'{n}_1.jpg' for n in range(9)]
    sources = [
        pairs_file(names=names, ids=range(9)),
        save(pairs_names=cell(names[:8], 2), probe_ids=np.eye(2)),
    ]
    path = tmp_path / 'pairs.mat'
    outcomes = {'read': 0, 'refused': 0}
    slowest = 0.0
    tracemalloc.start()
    for number in range(1500):
        content = mutate(sources[number % 2], rng)
        if number % 3 == 0:
            packed = zlib.compress(content[128:])
            content = content[:128] + struct.pack('<II', 15, len(packed)) + packed
        path.write_bytes(content)
        start = time.perf_counter()
        try:
            if number % 2:
                read_name_pairs(path, 'pairs_names')
            else:
                read_pairs(path, 'probe_set', 'probe_ids')
            outcomes['read'] += 1
        except ValueError as error:
            assert str(path) in str(error)
            outcomes['refused'] += 1
        slowest = max(slowest, time.perf_counter() - start)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(outcomes.values()) > 30
    assert slowest < 5 and peak < 20 << 20
