"""Files that ask for more than their size: refused before it is paid, and told from good ones."""

import io
import pickle
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from mmvlr.utils.budget import BudgetError, check_pickle, check_plain, check_zip
from mmvlr.utils.compat import load_checkpoint_file
from tests.fuzz.hostile import checkpoint, repeated_key


def nested(kind, depth, width=10):
    found = kind(['lol'])
    for _ in range(depth):
        found = kind([found] * width)
    return found


def dicts(depth):
    found = {}
    for _ in range(depth):
        found = {str(index): found for index in range(10)}
    return found


def circle():
    found = []
    found.append(found)
    return found


REFUSED = {
    'lists': lambda: pickle.dumps(nested(list, 30), 2),
    'tuples': lambda: pickle.dumps(nested(tuple, 30), 2),
    'dicts': lambda: pickle.dumps(dicts(30), 2),
    'strings': lambda: pickle.dumps(['x' * 100_000] * 1000, 2),
    'key': repeated_key,
    'deep': lambda: b'\x80\x02' + b']' * 500 + b'a' * 499 + b'.',
    'circle': lambda: pickle.dumps(circle(), 2),
    'sets': lambda: b'\x80\x02](' + b'\x8f' * 200_000 + b'e.',
    'bytearray': lambda: b'\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.',
    'bytes': lambda: b'\x80\x02c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.',
    'array': lambda: b'\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R.',
    'integers': lambda: pickle.dumps(list(range(600_000)), 2),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('name', REFUSED)
def test_refused_checkpoint(tmp_path, name, zipped):
    path = tmp_path / 'a.pth'
    data = REFUSED[name]()
    path.write_bytes(checkpoint(data) if zipped else data)
    with pytest.raises(ValueError, match=r'a\.pth is not a readable checkpoint') as error:
        load_checkpoint_file(str(path))
    assert len(str(error.value)) < 1000


def test_zip_that_unpacks_to_more(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(dict(w=torch.zeros(10_000)), path)
    names = check_zip(path)
    assert any(name.endswith('/data.pkl') for name in names)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / 'b.pth', 'w', 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r'b\.pth.* would unpack to'):
        load_checkpoint_file(str(tmp_path / 'b.pth'))
    check_zip(tmp_path / 'b.pth', allowed=100_000)
    with pytest.raises(BudgetError, match='entries'):
        check_zip(path, entries=2)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match='cut off'):
        check_zip(path)


@pytest.mark.parametrize(
    'tensor',
    [torch.zeros(1).expand(10**9), torch.empty(5, device='meta'), torch.eye(3).to_sparse()],
)
def test_tensor_that_is_not_in_the_file(tmp_path, tensor):
    torch.save(dict(w=tensor), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'a\.pth'):
        load_checkpoint_file(str(tmp_path / 'a.pth'))


def test_what_a_long_training_stores(tmp_path):
    """Many names, groups of parameters that share their settings, views of one storage."""
    buffer = HistoryBuffer(np.arange(10.0), np.ones(10))
    shared = dict(lr=0.1, betas=(0.9, 0.999), eps=1e-8)
    weight = torch.zeros(300, 300)
    content = dict(
        state_dict={f'layer{i}.weight': weight[i % 300] for i in range(2000)},
        optimizer=dict(
            state={i: dict(step=i, exp_avg=weight[i % 300]) for i in range(2000)},
            param_groups=[dict(shared, params=[i], name=f'layer{i}') for i in range(2000)],
        ),
        meta=dict(classes=[f'person {i}' for i in range(30_000)], same=('a', ('b',) * 100)),
        message_hub=dict(log_scalars={f'loss{i}': buffer for i in range(30)}),
    )
    path = tmp_path / 'a.pth'
    torch.save(content, path)
    found = load_checkpoint_file(str(path))
    assert found['meta'] == content['meta']
    assert found['optimizer']['param_groups'] == content['optimizer']['param_groups']
    assert found['message_hub']['log_scalars']['loss3'].data[0].tolist() == list(range(10))


def test_files_are_loaded_in_threads(tmp_path):
    """torch keeps one list of what is safe; one thread's end must not take it from another."""
    torch.save(dict(a=np.arange(5), h=HistoryBuffer()), tmp_path / 'a.pth')
    barrier = threading.Barrier(8)

    def load(_):
        barrier.wait()
        return [load_checkpoint_file(str(tmp_path / 'a.pth'))['a'].tolist() for _ in range(30)]

    with ThreadPoolExecutor(8) as pool:
        assert all(found == [[0, 1, 2, 3, 4]] * 30 for found in pool.map(load, range(8)))


def test_plain_values_are_counted_as_they_stand_there():
    check_plain(nested(list, 5), 0)
    with pytest.raises(BudgetError, match='repeat'):
        check_plain(nested(list, 6), 0)
    check_plain(nested(list, 6), 6_000_000)
    check_pickle(io.BytesIO(pickle.dumps(nested(tuple, 5), 2)), 0)
    with pytest.raises(BudgetError, match='again and again'):
        check_pickle(io.BytesIO(pickle.dumps(nested(tuple, 6), 2)), 0)


@pytest.mark.parametrize('protocol', range(6))
def test_pickles_of_any_protocol(protocol):
    value = dict(a=[1, 2.5, None], b=(1, (2, 3)), c={'x', 'y'}, d=b'z', e=10**30, f='é')
    data = pickle.dumps([value, value], protocol)
    file = io.BytesIO(data + b'rest')
    check_pickle(file, len(data))
    assert file.read() == b'rest'
    with pytest.raises(ValueError, match='cut off'):
        check_pickle(io.BytesIO(data[:-1]), len(data))
