"""insightface's .bin files: images and pairs come back, and code in them does not run."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from mmvlr.datasets.storage import BinReader, ImageError
from mmvlr.datasets.storage.faces import LFWBin
from mmvlr.datasets.transforms import read_image
from mmvlr.evaluation.metrics import VerificationMetric
from mmvlr.registry import DATASETS

from ..evaluation.metrics.faces import evaluate

SAME = [True, False, True, True, False, False, True, False, True, False] * 2


def pixels(number):
    """Two images of a pair of one person differ by noise alone."""
    pair = number // 2
    person = pair if SAME[pair] else 1000 + number
    base = np.random.default_rng(person).integers(40, 216, (8, 8, 3))
    noise = np.random.default_rng(5000 + number).integers(-40, 41, (8, 8, 3))
    return (base + noise).astype(np.uint8)


def encoded(number):
    stream = io.BytesIO()
    Image.fromarray(pixels(number)).save(stream, 'PNG')
    return stream.getvalue()


IMAGES = [encoded(number) for number in range(2 * len(SAME))]


def python2_pickle(images, same):
    """Protocol 2 as Python 2 writes it: images are its text, which has no encoding."""
    texts = b''.join(b'T' + struct.pack('<i', len(text)) + text for text in images)
    flags = b''.join(b'\x88' if flag else b'\x89' for flag in same)
    return b'\x80\x02](' + texts + b'e](' + flags + b'e\x86.'


def old_numpy(content):
    """The same pickle as NumPy 1 writes it; lengths of names in protocol 4 are one byte each."""
    return content.replace(b'\x16numpy._core.multiarray', b'\x15numpy.core.multiarray').replace(
        b'cnumpy._core.multiarray', b'cnumpy.core.multiarray'
    )


def arrays():
    return [np.frombuffer(text, np.uint8) for text in IMAGES]


FORMS = {
    **{f'protocol {p}': pickle.dumps((IMAGES, SAME), protocol=p) for p in range(6)},
    'python 2': python2_pickle(IMAGES, SAME),
    'list': pickle.dumps([IMAGES, SAME]),
    'arrays': pickle.dumps((arrays(), np.array(SAME))),
    'columns': pickle.dumps(([a[:, None] for a in arrays()], [np.array([s]) for s in SAME])),
    'rows, strided': pickle.dumps(([a.repeat(2)[None, ::2] for a in arrays()], SAME), protocol=5),
    'array of objects': pickle.dumps((np.array(IMAGES, object), np.array(SAME)[:, None])),
    'arrays, NumPy 1': old_numpy(pickle.dumps((arrays(), list(np.array(SAME))), protocol=2)),
    'arrays, protocol 5': pickle.dumps((arrays(), list(np.array(SAME))), protocol=5),
    'bytearrays and numbers': pickle.dumps(
        ([bytearray(p) for p in IMAGES], [int(s) for s in SAME])
    ),
}


@pytest.mark.parametrize('form', FORMS)
def test_forms(tmp_path, form):
    path = tmp_path / 'lfw.bin'
    path.write_bytes(FORMS[form])
    reader = BinReader(path)
    assert reader.encoded == IMAGES
    assert reader.same.tolist() == SAME
    assert reader.same.dtype == bool
    assert len(reader) == len(IMAGES)
    for number in (0, 7, 39):
        np.testing.assert_array_equal(reader.image(str(number)), pixels(number))


def test_real_file(shared):
    """insightface's own: columns (N, 1)."""
    path = shared / 'data' / 'formats' / 'small_lfw.bin'
    dataset = LFWBin(str(path), pipeline=[dict(type='LoadFace')])
    assert len(dataset) == 20 and len(dataset.metainfo['same']) == 10
    with path.open('rb') as file:
        columns, same = pickle.load(file, encoding='bytes')
    assert columns[0].ndim == 2
    assert dataset.metainfo['same'].tolist() == [bool(flag) for flag in same]
    for index in (0, 19):
        expected = Image.open(io.BytesIO(columns[index].tobytes())).convert('RGB')
        difference = np.abs(dataset[index]['img'].astype(int) - np.asarray(expected))
        assert difference.mean() < 1


def test_old_numpy_form_differs():
    assert b'numpy.core.multiarray' in FORMS['arrays, NumPy 1']


@pytest.fixture
def lfw(tmp_path):
    path = tmp_path / 'lfw.bin'
    path.write_bytes(FORMS['python 2'])
    return path


def test_faces(lfw):
    dataset = DATASETS.build(
        dict(type='LFWBin', data_root=str(lfw), pipeline=[dict(type='LoadFace')])
    )
    assert isinstance(dataset, LFWBin)
    assert len(dataset) == 40
    assert {(info['role'], info['identity']) for info in dataset.infos()} == {('pair', -100)}
    assert dataset.metainfo['pairs'].tolist() == [[2 * i, 2 * i + 1] for i in range(20)]
    assert dataset.metainfo['same'].tolist() == SAME
    assert dataset.test_mode
    for index in range(40):
        np.testing.assert_array_equal(dataset[index]['img'], pixels(index))


def test_verification_metric(lfw):
    """AUC and accuracy on the pixels themselves, against scikit-learn."""
    dataset = LFWBin(data_root=str(lfw), pipeline=[dict(type='LoadFace'), dict(type='PackFace')])
    metric = VerificationMetric(fars=(0.1,), folds=2)
    samples = []
    for index in range(len(dataset)):
        item = dataset[index]
        sample = item['data_samples']
        flat = item['inputs'].double().flatten()
        sample.embedding = (flat - flat.mean()).float()
        samples.append(sample.to_dict())
    columns = dict(pairs=dataset.metainfo['pairs'], same=dataset.metainfo['same'])
    found = evaluate(metric, samples, **columns)

    def unit(number):
        flat = pixels(number).transpose(2, 0, 1).ravel().astype(float)
        return (flat - flat.mean()) / np.linalg.norm(flat - flat.mean())

    scores = [unit(2 * i) @ unit(2 * i + 1) for i in range(20)]
    auc = found['verification/verification_auc']
    assert auc == pytest.approx(roc_auc_score(SAME, scores)) == 1
    # Another assignment of the pairs would not do.
    assert roc_auc_score(SAME[1:] + SAME[:1], scores) < 0.9


class Run:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def crafted(marker):
    """Pickles that make a file, with what would have to be refused in each."""
    code = f'open({str(marker)!r}, "w").close()'
    images = [*IMAGES[:-1], Run(os.system, f'touch {marker}')]
    yield 'posix.system', pickle.dumps((images, SAME), protocol=2)
    yield 'posix.system', pickle.dumps((images, SAME), protocol=4)
    yield 'builtins.exec', pickle.dumps((IMAGES, Run(exec, code)), protocol=4)
    yield '__builtin__.eval', pickle.dumps(Run(eval, f'exec({code!r})'), protocol=2)
    # An attribute of something that is allowed.
    attribute = b'\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93\x8c\x01x\x85R.'
    yield 'numpy.ndarray.tofile', attribute
    yield 'numpy.load', b'\x80\x02cnumpy\nload\n(X\x01\x00\x00\x00xtR.'
    yield (
        "the encoding 'rot13'",
        b'\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00xX\x05\x00\x00\x00rot13tR.',
    )


def test_code_does_not_run(tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'lfw.bin'
    for refused, content in crafted(marker):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf'lfw\.bin: refused: it requests {refused}'):
            BinReader(path)
        with pytest.raises(ValueError, match='do not trust it'):
            LFWBin(data_root=str(path))
        assert not marker.exists()


def test_the_crafted_pickles_would_run(tmp_path):
    marker = tmp_path / 'marker'
    for _, content in list(crafted(marker))[:4]:
        pickle.loads(content)
        assert marker.exists()
        marker.unlink()


def test_truncated_anywhere(tmp_path):
    path = tmp_path / 'lfw.bin'
    for form in ('python 2', 'protocol 0', 'protocol 4'):
        content = FORMS[form]
        for length in (0, 1, 2, 10, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(ValueError, match=r'lfw\.bin: (truncated|cannot be read)'):
                BinReader(path)
    path.write_bytes(b'\xff\xd8 no pickle')
    with pytest.raises(ValueError, match=r'lfw\.bin: cannot be read'):
        BinReader(path)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (5, r'holds int; expected \(images, same\)'),
        ((IMAGES,), r'holds tuple; expected \(images, same\)'),
        ((IMAGES[:-1], SAME), '39 images for 20 pairs'),
        ((IMAGES, SAME[:-1]), '40 images for 19 pairs'),
        (([], []), '0 images for 0 pairs'),
        ((IMAGES, [*SAME[:-1], 2]), r'same\[19\] is 2'),
        ((IMAGES, [*SAME[:-1], None]), r'same\[19\] is None'),
        (([*IMAGES[:-1], 'text'], SAME), 'image 39 is str'),
        (
            ([*IMAGES[:-1], np.zeros((3, 3), np.uint8)], SAME),
            r'image 39 is an array uint8 \(3,',
        ),
        (([*IMAGES[:-1], np.zeros(3)], SAME), 'image 39 is an array float64'),
    ],
)
def test_other_contents(tmp_path, content, message):
    path = tmp_path / 'lfw.bin'
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=rf'lfw\.bin.*{message}'):
        BinReader(path)


@pytest.mark.parametrize('protocol', [2, 4])
def test_damaged_image_is_named(tmp_path, protocol):
    path = tmp_path / 'lfw.bin'
    images = [*IMAGES[:-2], b'', b'no image']
    path.write_bytes(pickle.dumps((images, SAME), protocol=protocol))
    for number in (38, 39):
        with pytest.raises(ImageError, match=rf'lfw\.bin: image {number} cannot be read'):
            read_image(f'{path}/{number}')
    for name in ('40', '-1', 'x'):
        with pytest.raises(FileNotFoundError, match=rf'lfw\.bin has no image {name}'):
            read_image(f'{path}/{name}')


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no \.bin file .*absent\.bin'):
        LFWBin(data_root=str(tmp_path / 'absent.bin'))


def test_pickle(lfw):
    reader = pickle.loads(pickle.dumps(BinReader(lfw)))
    np.testing.assert_array_equal(reader.image('3'), pixels(3))
