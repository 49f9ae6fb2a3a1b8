"""The table of faces: files, selections, people, and what it refuses."""

import json
import zipfile

import numpy as np
import pytest
import torch

from mmvlr.evaluation import FaceTable


@pytest.fixture
def table():
    """8 faces; rows 2 to 6 are in pairs, one of them with a gallery face."""
    rng = np.random.default_rng(0)
    return FaceTable(
        embedding=rng.standard_normal((8, 4)).astype(np.float32),
        role=['gallery', 'probe', 'pair', 'pair', 'gallery', 'pair', 'pair', 'unmated'],
        identity=[7, 7, 3, 3, 9, 5, -100, -100],
        columns=dict(
            norm=np.arange(8.0),
            distance=np.arange(8) % 3,
            name=[f'person_{i}/é {i}.jpg' for i in range(8)],
        ),
        pairs=[[2, 3], [3, 5], [6, 2], [4, 5]],
        same=[True, False, False, False],
        meta=dict(model='r50', seeds=[1, 2], flip=True, scale=0.5, none=None),
    )


def assert_equal(one, other):
    for name in ('embedding', 'role', 'identity', 'pairs', 'same'):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert one.columns.keys() == other.columns.keys()
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name])
        assert values.dtype == other.columns[name].dtype
    assert one.meta == other.meta


def test_round_trip(table, tmp_path):
    path = table.save(tmp_path / 'new' / 'faces.npz')
    assert path == tmp_path / 'new' / 'faces.npz'
    assert [file.name for file in path.parent.iterdir()] == ['faces.npz']
    assert_equal(FaceTable.load(path), table)
    # Over an old file, and from its own.
    assert_equal(FaceTable.load(FaceTable.load(path).save(path)), table)


def test_file_is_plain_numpy(table, tmp_path):
    with np.load(table.save(tmp_path / 'faces.npz'), allow_pickle=False) as file:
        names = {'embedding', 'role', 'identity', 'pairs', 'same', 'meta'}
        assert set(file.files) == names | {'norm', 'distance', 'name'}
        assert json.loads(str(file['meta'])) == {**table.meta, 'table_version': 2}
        np.testing.assert_array_equal(file['distance'], [0, 1, 2, 0, 1, 2, 0, 1])


def test_index_of_unknown_scale_is_refused(tmp_path):
    path = tmp_path / 'old.npz'
    fields = dict(embedding=np.eye(2), role=['probe'] * 2, identity=[1, 2], ri=[-0.1, 0.3])
    for meta in ({}, dict(meta='{"fingerprint": {}}')):
        np.savez(path, **fields, **meta)
        with pytest.raises(ValueError, match=r'old\.npz: ri: .*make the table again'):
            FaceTable.load(path)
    np.savez(path, **fields, meta='{"table_version": 2}')
    found = FaceTable.load(path)
    assert found.columns['ri'].tolist() == [-0.1, 0.3] and found.meta == {}
    np.savez(path, **fields, meta='{"table_version": 3}')
    with pytest.raises(ValueError, match='table_version'):
        FaceTable.load(path)


def test_round_trip_of_the_least(tmp_path):
    table = FaceTable(np.eye(3, dtype=np.float16), ['probe'] * 3, [1, 2, 3])
    found = FaceTable.load(table.save(tmp_path / 'faces.npz'))
    assert found.pairs is None
    assert found.same is None
    assert found.columns == {}
    assert found.meta == {}
    assert found.embedding.dtype == np.float16
    # Files that others wrote need no meta.
    np.savez(tmp_path / 'bare.npz', embedding=np.eye(2), role=['a', 'b'], identity=[1, 2])
    assert len(FaceTable.load(tmp_path / 'bare.npz')) == 2


@pytest.mark.parametrize('name', ['embedding', 'role', 'identity'])
def test_missing_field(table, tmp_path, name):
    with np.load(table.save(tmp_path / 'faces.npz')) as file:
        rest = {key: file[key] for key in file.files if key != name}
    np.savez(tmp_path / 'rest.npz', **rest)
    with pytest.raises(ValueError, match=rf'rest\.npz lacks {name}; it has distance, '):
        FaceTable.load(tmp_path / 'rest.npz')


def test_fields_of_a_file_that_contradict_each_other(tmp_path):
    np.savez(tmp_path / 'odd.npz', embedding=np.eye(3), role=['a', 'b'], identity=[1, 2, 3])
    with pytest.raises(ValueError, match=r'odd\.npz: role must have 3 entries .* got 2'):
        FaceTable.load(tmp_path / 'odd.npz')


def test_meta_that_is_no_json(tmp_path):
    fields = dict(embedding=np.eye(2), role=['a', 'b'], identity=[1, 2], meta='model=r50')
    np.savez(tmp_path / 'odd.npz', **fields)
    with pytest.raises(ValueError, match=r'odd\.npz: '):
        FaceTable.load(tmp_path / 'odd.npz')


def test_objects_are_refused(table, tmp_path):
    """In a file they would be pickles, which can run anything when they are read."""
    fields = dict(embedding=np.eye(2), role=['a', 'b'], identity=[1, 2])
    np.savez(tmp_path / 'odd.npz', **fields, note=np.array([{}, None], object))
    with pytest.raises(ValueError, match=r'odd\.npz is not a readable \.npz file .*allow_pickle'):
        FaceTable.load(tmp_path / 'odd.npz')
    with pytest.raises(ValueError, match='camera must hold plain values'):
        FaceTable(**fields, columns=dict(camera=['left', None]))


def test_not_a_file_of_arrays(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.npz does not exist'):
        FaceTable.load(tmp_path / 'none.npz')
    np.save(tmp_path / 'array.npy', np.eye(2))
    (tmp_path / 'text.npz').write_text('embedding')
    (tmp_path / 'empty.npz').write_bytes(b'')
    whole = FaceTable(np.eye(2), ['a', 'b'], [1, 2]).save(tmp_path / 'whole.npz').read_bytes()
    (tmp_path / 'half.npz').write_bytes(whole[: len(whole) // 2])
    for name in ('array.npy', 'text.npz', 'empty.npz', 'half.npz'):
        with pytest.raises(ValueError, match=f'{name} is not a readable .npz file'):
            FaceTable.load(tmp_path / name)


@pytest.mark.parametrize('meta', ['[' * 5000, '{"a": 1e999}', '[]', '{"a": NaN}', '9' * 5000, '{'])
def test_meta_that_cannot_be_read(tmp_path, meta):
    fields = dict(embedding=np.eye(2), role=['a', 'b'], identity=[1, 2], meta=meta)
    np.savez(tmp_path / 'odd.npz', **fields)
    with pytest.raises(ValueError, match=r'odd\.npz: meta'):
        FaceTable.load(tmp_path / 'odd.npz')


def test_compressed_file_that_takes_too_much(table, tmp_path, monkeypatch):
    path = tmp_path / 'zeros.npz'
    fields = dict(embedding=np.zeros((20_000, 500), np.float32), role=['probe'] * 20_000)
    np.savez_compressed(path, **fields, identity=np.zeros(20_000, int))
    assert len(FaceTable.load(path)) == 20_000
    monkeypatch.setenv('MMVLR_TABLE_BYTES', '10_000_000')
    with pytest.raises(ValueError, match=r'zeros\.npz is not read.*MMVLR_TABLE_BYTES'):
        FaceTable.load(path)
    # What is not compressed may have any size.
    monkeypatch.setenv('MMVLR_TABLE_BYTES', '1')
    assert len(FaceTable.load(table.save(tmp_path / 'faces.npz'))) == len(table)


@pytest.mark.parametrize('shape', ['(9, 9)', '(10000000000, 10000000000)', '(-1, 4)', '()'])
def test_array_that_says_another_size(tmp_path, table, shape):
    path = tmp_path / 'odd.npz'
    with zipfile.ZipFile(table.save(tmp_path / 'faces.npz')) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    changed = entries['embedding.npy'].replace(b'(8, 4)', shape.encode(), 1)
    start = 10 + int.from_bytes(changed[8:10], 'little') + len(shape) - 6
    header = changed[10:start].rstrip().ljust(start - 10 - len(shape) + 6 - 1)[: start - 10] + b'\n'
    entries['embedding.npy'] = (
        changed[:8] + len(header).to_bytes(2, 'little') + header + changed[start:]
    )
    with zipfile.ZipFile(path, 'w') as new:
        for name, content in entries.items():
            new.writestr(name, content)
    with pytest.raises(ValueError, match=r'odd\.npz is not a readable .*embedding\.npy holds'):
        FaceTable.load(path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(embedding=np.ones(3)), r'embedding must be a real matrix \(N, D\), got float64 \(3,'),
        (dict(embedding=np.ones((3, 2), int)), 'embedding must be a real matrix'),
        (dict(role=['a', 'b']), 'role must have 3 entries like embedding, got 2'),
        (dict(identity=[1, 2]), 'identity must have 3 entries'),
        (dict(identity=[1.0, 2.0, 3.0]), 'identity must be integers, got float64'),
        (dict(columns=dict(norm=[1.0])), 'norm must have 3 entries like embedding, got 1'),
        (dict(pairs=[[0, 1]]), 'pairs and same go together'),
        (dict(same=[True]), 'pairs and same go together'),
        (dict(pairs=[[0, 1]], same=[True, False]), r'pairs must be \(P, 2\) and same \(P,\)'),
        (dict(pairs=[[0, 1, 2]], same=[True]), r'got \(1, 3\) and \(1,\)'),
        (dict(pairs=[[0, 3]], same=[True]), 'pairs name rows 0 to 3 of 3 embeddings'),
        (dict(pairs=[[-1, 2]], same=[True]), 'pairs name rows -1 to 2'),
        (dict(pairs=[[0.5, 1]], same=[True]), 'pairs must be integers'),
        (dict(pairs=[[0, 1]], same=[2]), 'same must be bool'),
        (dict(pairs=[[0, 1]], same=[[True]]), r'same \(P,\), got \(1, 2\) and \(1, 1\)'),
        (dict(role=np.array('a')), r'role must be \(N,\)'),
        (dict(role=[b'a', b'b', b'c']), 'role must be text'),
        (dict(identity=np.array(3)), r'identity must be \(N,\)'),
        (dict(identity=np.full(3, 2**64 - 1, np.uint64)), 'identity must be below'),
        (dict(embedding=np.eye(3) * 1j), 'embedding must be a real matrix'),
        (dict(columns=dict(norm=['a', 'b', 'c'])), 'norm must hold numbers'),
        (dict(columns=dict(norm=np.array(1.0))), r'norm must be \(N,\)'),
        (dict(columns=dict(when=np.zeros(3, 'M8[s]'))), 'when must hold plain values'),
    ],
)
def test_bad_fields_are_named(change, message):
    good = dict(embedding=np.eye(3), role=['a', 'b', 'c'], identity=[1, 2, 3])
    with pytest.raises(ValueError, match=message):
        FaceTable(**(good | change))


def test_taken_pairs_show_the_same_faces(table):
    rows = np.array([5, 0, 3, 2])
    taken = table.take(rows)
    np.testing.assert_array_equal(taken.embedding, table.embedding[rows])
    assert taken.identity.tolist() == [5, 7, 3, 3]
    assert taken.columns['name'].tolist() == [f'person_{i}/é {i}.jpg' for i in (5, 0, 3, 2)]
    # Of (2, 3), (3, 5), (6, 2), (4, 5) the last two have a face that is gone.
    assert taken.pairs.tolist() == [[3, 2], [2, 0]]
    assert taken.same.tolist() == [True, False]
    names = taken.columns['name'][taken.pairs]
    np.testing.assert_array_equal(names, table.columns['name'][[[2, 3], [3, 5]]])
    assert taken.meta == table.meta


def test_only(table):
    found = table.only('pair')
    assert found.columns['norm'].tolist() == [2, 3, 5, 6]
    assert found.pairs.tolist() == [[0, 1], [1, 2], [3, 0]]
    assert found.same.tolist() == [True, False, False]
    several = table.only('unmated', 'probe')
    assert several.columns['norm'].tolist() == [1, 7]
    assert several.pairs.shape == (0, 2)
    assert several.same.shape == (0,)
    assert len(table.only('distractor')) == 0
    without = FaceTable(np.eye(2), ['probe', 'ui'], [1, -100]).only('ui')
    assert without.pairs is None


def test_has(table):
    assert table.has('gallery')
    assert table.has('gallery', 'unmated')
    assert not table.has('gallery', 'distractor')


def test_faces_of_nobody_stand_alone():
    table = FaceTable(np.eye(7), ['probe'] * 7, [4, -100, 4, 9, -100, 0, -100])
    groups = table.groups.tolist()
    assert groups[0] == groups[2]
    assert len(set(groups)) == 6
    # Also where nobody is known, and where unsigned numbers cannot hold -100.
    nobody = FaceTable(np.eye(3), ['ui'] * 3, [-100] * 3)
    assert len(set(nobody.groups.tolist())) == 3
    small = FaceTable(np.eye(2), ['probe'] * 2, np.array([255, 156], np.uint8))
    assert small.groups.tolist() == [255, 156]
    assert FaceTable(np.eye(2), ['ui'] * 2, [1, 2]).only('probe').groups.shape == (0,)


def test_identities_stay_as_they_are(table):
    before = table.identity.copy()
    assert table.groups is table.groups
    np.testing.assert_array_equal(table.identity, before)


@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_unit(dtype):
    embedding = (3 * np.random.default_rng(0).standard_normal((5, 4))).astype(dtype)
    unit = FaceTable(embedding, ['probe'] * 5, range(5)).unit
    expected = [row / np.sqrt(sum(x * x for x in row)) for row in embedding.astype(float)]
    assert unit.dtype == torch.float32
    np.testing.assert_allclose(unit.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize('value', [0.0, np.nan, np.inf])
def test_embeddings_without_direction(table, value):
    table.embedding[[3, 5]] = value
    with pytest.raises(ValueError, match=r'person_3/é 3\.jpg \(and 1 more'):
        _ = table.unit
    del table.columns['name']
    with pytest.raises(ValueError, match='row 3'):
        _ = table.unit


def test_qualities(table):
    table.columns['ri'] = np.ones(8)
    assert list(table.qualities) == ['ri', 'norm']
    np.testing.assert_array_equal(table.qualities['norm'], np.arange(8.0))


def test_what_a_damaged_file_quotes_is_cut(tmp_path):
    """A name of 64 KiB: the library quotes all that stands there."""
    path = FaceTable(np.ones((900, 8)), ['probe'] * 900, range(900)).save(tmp_path / 'a.npz')
    content = bytearray(path.read_bytes())
    # The length of the first name, in front of the array.
    content[26:28] = b'\xff\xff'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r'a\.npz') as error:
        FaceTable.load(path)
    assert len(str(error.value)) < 1000
