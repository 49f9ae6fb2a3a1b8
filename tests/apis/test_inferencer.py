"""FaceInferencer: equal to the library's own evaluation, and what it does with bad input."""

import copy
import csv
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from mmvlr.apis import FaceInferencer, FaceTable, fingerprint_model
from mmvlr.datasets import FaceFolder, SurvFace, face_collate
from mmvlr.datasets.transforms import ImageError
from mmvlr.engine.extraction import extract_predictions
from mmvlr.models import FaceRecognizer, RIFace
from mmvlr.models.activation import activation_maps
from mmvlr.utils.compat import UntrustedCheckpointError
from tests.fuzz.hostile import blank_png

SIDE = 4


class MeanColor:
    """A network whose embedding is the mean color, so that a test knows what it must be."""

    size = (SIDE, SIDE)

    def __init__(self, **contract):
        self.contract = dict(interpolation='nearest', alignment='none', **contract)
        self.fingerprint = dict(weights='fake', preprocessing=self.contract, embedding=dict(dims=3))
        self.batches = []

    def __call__(self, faces):
        assert faces.dtype == np.uint8
        assert faces.shape[1:] == (SIDE, SIDE, 3)
        self.batches.append(len(faces))
        embedding = faces.astype(np.float32).mean((1, 2))
        return dict(embedding=embedding, norm=np.linalg.norm(embedding, axis=1))


def face(level=90, height=SIDE, width=SIDE):
    return np.full((height, width, 3), level, np.uint8)


def save(path, level=90, **kwargs):
    Image.fromarray(face(level, **kwargs)).save(path)
    return path


def inferencer(**kwargs):
    return FaceInferencer(MeanColor(), **kwargs)


def levels(results):
    return [int(level) for level in results.embedding[:, 0]]


# What is found ----------------------------------------------------------------------------------


def test_results(tmp_path):
    path = save(tmp_path / 'a.png', 3, height=10, width=8)
    results = inferencer().embed([path, face(4)])
    assert len(results) == 2
    assert results.names == [str(path), 'array 0']
    assert levels(results) == [3, 4]
    assert list(results.qualities) == ['norm', 'size']
    assert results.qualities['size'].tolist() == [8, SIDE]
    assert results.qualities['norm'] == pytest.approx([3 * 3**0.5, 4 * 3**0.5])
    assert results.embedding.dtype == results.qualities['size'].dtype == np.float32
    assert np.linalg.norm(results.unit, axis=1) == pytest.approx([1, 1])
    assert results.failures == [] and results.unaligned == []
    assert results.fingerprint == MeanColor().fingerprint
    again = inferencer().quality([path, face(4)])
    assert np.array_equal(again.embedding, results.embedding)


def test_one_16_bit_image_equals_its_8_bit_version(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (9, 7), dtype=np.uint8)
    Image.fromarray(gray).save(tmp_path / '8.png')
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / '16.png')
    results = inferencer().embed([tmp_path / '8.png', tmp_path / '16.png', gray])
    assert np.array_equal(results.embedding[0], results.embedding[1])
    assert np.array_equal(results.embedding[0], results.embedding[2])
    assert results.embedding.max() < 250


@pytest.mark.parametrize('batch_size', [1, 2, 5, 7, 64])
def test_batches(batch_size):
    network = MeanColor()
    results = FaceInferencer(network, batch_size=batch_size).embed(face(i) for i in range(10))
    assert levels(results) == list(range(10))
    assert sum(network.batches) == 10
    assert max(network.batches) == min(batch_size, 10)


@pytest.mark.parametrize(
    ('wrong', 'told'),
    [
        (dict(batch_size=0), 'batch_size must be at least 1, not 0'),
        (dict(align='dlib'), "align must be 'none' or 'mtcnn', not 'dlib'"),
    ],
)
def test_wrong_arguments(wrong, told):
    with pytest.raises(ValueError, match=told):
        inferencer(**wrong)


def test_wrong_on_error():
    with pytest.raises(ValueError, match="on_error must be 'collect' or 'raise', not 'skip'"):
        inferencer().embed([face(), face()], on_error='skip')


# What cannot be used ----------------------------------------------------------------------------


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    """10,000 images, 7 of them broken; the first two colors are the number."""
    folder = tmp_path_factory.mktemp('many')
    broken = {0, 63, 64, 128, 5000, 5001, 9999}
    header = b'P6 4 4 255\n'
    for number in range(10_000):
        content = header + bytes([number // 256, number % 256, 0]) * 16
        content = (
            {0: b'', 1: b'a text', 2: content[:-1]}[number % 3] if number in broken else content
        )
        (folder / f'{number:05d}.png').write_bytes(content)
    return folder, broken


@pytest.mark.slow
def test_ten_thousand_files_of_which_seven_are_broken(many, capfd):
    folder, broken = many
    results = inferencer(batch_size=64).embed(folder)
    assert len(results) == 10_000 - 7
    good = [number for number in range(10_000) if number not in broken]
    assert results.names == [str(folder / f'{number:05d}.png') for number in good]
    assert (256 * results.embedding[:, 0] + results.embedding[:, 1]).astype(int).tolist() == good
    assert [name for name, _ in results.failures] == [
        str(folder / f'{number:05d}.png') for number in sorted(broken)
    ]
    for name, reason in results.failures:
        assert f'{name} cannot be read' in reason
    # A long work shows how far it is, where it does not disturb the output of a program.
    output, shown = capfd.readouterr()
    assert output == '' and '10000/10000' in shown


def test_the_first_of_them_ends_the_work_where_wished(many):
    folder, _ = many
    stream = inferencer(batch_size=64).stream([folder / '00010.png', folder / '00063.png'], 'raise')
    with pytest.raises(ImageError, match=r'00063\.png cannot be read'):
        next(stream)


def test_single_broken_image(tmp_path):
    path = tmp_path / 'face.jpg'
    path.write_bytes(b'')
    for faces in (path, str(path), [path], tmp_path, torch.zeros(8, 8, 3), face()[:1]):
        with pytest.raises(ImageError):
            inferencer().embed(faces)
    with pytest.raises(FileNotFoundError, match=r'absent\.png does not exist'):
        inferencer().embed(tmp_path / 'absent.png')


def test_all_broken(tmp_path):
    for name in 'ab':
        (tmp_path / f'{name}.jpg').write_bytes(b'')
    for faces in (tmp_path, [tmp_path / 'a.jpg', tmp_path / 'absent.jpg']):
        with pytest.raises(ValueError, match=r'none of the 2 images.*first: .*a\.jpg cannot be'):
            inferencer().embed(faces)


@pytest.mark.parametrize('nothing', [[], (), np.zeros((0, 8, 8, 3), np.uint8), iter(())])
def test_nothing(nothing):
    with pytest.raises(ValueError, match='there is no image in what was given'):
        inferencer().embed(nothing)


def test_missing_file_of_many(tmp_path):
    """The others are still wanted: thousands may have been embedded by then."""
    path = save(tmp_path / 'a.png', 7)
    results = inferencer().embed([path, tmp_path / 'absent.png', path])
    assert levels(results) == [7, 7]
    ((name, reason),) = results.failures
    assert name == str(tmp_path / 'absent.png') and 'does not exist' in reason
    with pytest.raises(FileNotFoundError):
        inferencer().embed([path, tmp_path / 'absent.png'], on_error='raise')


def test_batches_of_broken_images_alone(tmp_path):
    path = tmp_path / 'face.jpg'
    path.write_bytes(b'')
    faces = [path] * 5 + [face(1)] + [path] * 4 + [face(2)]
    results = inferencer(batch_size=2).embed(faces)
    assert levels(results) == [1, 2]
    assert len(results.failures) == 9
    assert list(results.qualities) == ['norm', 'size']


class Diverging(MeanColor):
    """NaN for faces of gray level 7; with ``everywhere`` for all."""

    def __init__(self, everywhere=False):
        super().__init__()
        self.everywhere = everywhere

    def __call__(self, faces):
        output = super().__call__(faces)
        wrong = (output['embedding'][:, 0] == 7) | self.everywhere
        output['embedding'][wrong] = np.nan
        return output


def test_face_whose_embedding_is_not_finite():
    """It is a failure of its own; the others keep their answers."""
    given = [face(level) for level in (1, 7, 2)]
    results = FaceInferencer(Diverging()).embed(given)
    assert levels(results) == [1, 2] and len(results.qualities['norm']) == 2
    assert [name for name, _ in results.failures] == ['array 1']
    with pytest.raises(ImageError, match='array 1'):
        list(FaceInferencer(Diverging()).stream(given, on_error='raise'))


def test_model_whose_embeddings_are_not_finite():
    """The model is to blame, and no image is named."""
    with pytest.raises(ValueError, match='the model is damaged') as error:
        FaceInferencer(Diverging(everywhere=True)).embed([face(1), face(2)])
    assert 'array' not in str(error.value)


def test_frames_that_a_camera_drops(tmp_path):
    """None and whatever else is no image is a failure; PIL images are images."""
    broken = tmp_path / 'broken.png'
    broken.write_bytes(save(tmp_path / 'a.png', height=64).read_bytes()[:-30])
    given = [face(1), None, Image.fromarray(face(2)), 3.5, b'bytes', object(), {}]
    given += [
        Image.open(broken),
        Image.fromarray(face(3)[..., 0]),
        torch.ones(2, 2).requires_grad_(),
    ]
    for faces in (given, iter(given)):
        (results,) = inferencer(batch_size=32).stream(faces)
        assert levels(results) == [1, 2, 3]
        assert [name for name, _ in results.failures] == [
            f'array {i}' for i in (1, 3, 4, 5, 6, 7, 9)
        ]


def test_hostile_image_costs_no_other_its_answer(tmp_path):
    """21 KB that would take gigabytes, and one that no decoder can make anything of."""
    good = [save(tmp_path / f'{level}.png', level) for level in (1, 3)]
    (tmp_path / '2.png').write_bytes(blank_png(13_370, 13_370, 1))
    (tmp_path / '4.png').write_bytes(good[0].read_bytes()[:40])
    results = inferencer().embed(tmp_path)
    assert levels(results) == [1, 3]
    assert [os.path.basename(name) for name, _ in results.failures] == ['2.png', '4.png']


def test_what_came_before_a_camera_failed():
    def camera():
        yield from (face(1), face(2))
        raise OSError('the cable')

    stream = inferencer(batch_size=64).stream(camera())
    assert levels(next(stream)) == [1, 2]
    with pytest.raises(OSError, match='the cable'):
        next(stream)


@pytest.mark.parametrize(
    'kind', [IndexError, NotImplementedError, MemoryError, cv2.error, SystemError]
)
def test_errors_of_resizing_and_aligning_cost_one_face(kind, monkeypatch):
    def aligner(pixels):
        if pixels[0, 0, 0] == 2:
            raise kind('odd')
        return SimpleNamespace(image=pixels, detection=SimpleNamespace(size=8.0), faces=1)

    aligning = inferencer()
    aligning.aligner = aligner
    results = aligning.embed([face(1), face(2), face(3)])
    assert levels(results) == [1, 3]
    assert [name for name, _ in results.failures] == ['array 1']


# Streams ----------------------------------------------------------------------------------------


def test_stream_reads_one_batch_ahead_and_no_more():
    taken = []

    def camera():
        for level in range(30):
            taken.append(level)
            yield face(level)

    stream = inferencer(batch_size=4).stream(camera())
    assert taken == []
    for number in range(1, 6):
        part = next(stream)
        assert levels(part) == list(range(4 * number - 4, 4 * number))
        deadline = time.monotonic() + 5
        while len(taken) < 4 * number + 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(taken) == 4 * number + 4
    stream.close()
    assert len(taken) <= 28


def test_a_closed_stream_leaves_no_thread():
    before = threading.active_count()
    stream = inferencer(batch_size=2).stream(face(i) for i in range(10))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_array_that_is_used_again():
    """As readers of videos do it."""

    def camera():
        frame = face()
        for level in range(9):
            frame[:] = level
            yield frame

    assert levels(inferencer(batch_size=4).embed(camera())) == list(range(9))


def test_error_of_the_callers_generator():
    def camera():
        yield face(1)
        raise RuntimeError('the cable')

    with pytest.raises(RuntimeError, match='the cable'):
        inferencer().embed(camera())


MEMORY = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from tests.apis.test_inferencer import face, inferencer

def peak():
    lines = open('/proc/self/status').read().splitlines()
    return [int(line.split()[1]) // 1024 for line in lines if line.startswith('VmHWM')][0]

inferencer().embed([face(1), face(2)])
before = peak()
results = inferencer().embed([{path!r}] * 3)
assert results.qualities['size'].tolist() == [6250] * 3, results.qualities
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='peak memory is read from /proc')
def test_memory_for_large_images(tmp_path, root):
    """50 megapixels are 150 MB: no batch of whole images may be kept."""
    path = tmp_path / 'large.jpg'
    Image.new('RGB', (8000, 6250), (9, 8, 7)).save(path)
    code = MEMORY.format(tests=str(root), path=str(path))
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < 600


# Files ------------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    path = tmp_path / 'face, "one".png'
    save(path, 3)
    (tmp_path / 'broken.jpg').write_bytes(b'')
    draws = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return inferencer().embed([path, draws, tmp_path / 'broken.jpg'])


def test_npz(tmp_path, results):
    path = results.save(tmp_path / 'faces.npz')
    again = FaceTable.load(path)
    assert again.names == results.names
    assert again.failures == results.failures
    assert again.unaligned == results.unaligned
    assert again.fingerprint == json.loads(json.dumps(results.fingerprint))
    assert list(again.qualities) == list(results.qualities) == ['norm', 'size']
    for name, values in results.qualities.items():
        assert np.array_equal(again.qualities[name], values)
        assert again.qualities[name].dtype == np.float32
    assert np.array_equal(again.embedding, results.embedding)
    assert again.embedding.dtype == np.float32
    with np.load(path) as file:
        assert file['name'].tolist() == results.names
    assert again.has('probe') and (again.identity == -100).all()


def test_tables_of_older_versions(tmp_path, results):
    """They called the model's fingerprint its identity."""
    old = replace(results, meta=dict(identity=dict(weights='ab'), failures=[('a', 'b')]))
    again = FaceTable.load(old.save(tmp_path / 'old.npz'))
    assert again.fingerprint == dict(weights='ab')
    assert again.failures == [('a', 'b')]


@pytest.mark.parametrize('embedding', [False, True])
def test_csv(tmp_path, results, embedding):
    path = results.to_csv(tmp_path / 'faces.csv', embedding=embedding)
    with open(path, encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['name'] for row in rows] == results.names
    columns = ['name', 'norm', 'size', *(['e0', 'e1', 'e2'] if embedding else [])]
    assert list(rows[0]) == columns
    for index, row in enumerate(rows):
        assert np.float32(row['norm']) == results.qualities['norm'][index]
        if embedding:
            found = [np.float32(row[f'e{dim}']) for dim in range(3)]
            assert found == results.embedding[index].tolist()


def test_home(tmp_path, monkeypatch, results):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)
    results.to_csv('~/out/a.csv')
    results.save('~/out/a.npz')
    assert FaceTable.load('~/out/a.npz').names == results.names
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.csv', 'a.npz']
    assert not (tmp_path / '~').exists()


def test_rows(results):
    rows = json.loads(json.dumps(results.rows(embedding=True)))
    assert rows == results.rows(embedding=True)
    assert list(rows[0]) == ['name', 'norm', 'size', 'embedding']
    assert rows[1]['embedding'] == results.embedding[1].tolist()
    assert 'embedding' not in results.rows()[0]


def test_join():
    parts = list(inferencer(batch_size=1).stream([face(1), face()[:1], face(2)]))
    joined = FaceTable.join(parts)
    assert levels(joined) == [1, 2] and len(joined.failures) == 1


# Equal to evaluation ----------------------------------------------------------------------------


@pytest.fixture
def model(tiny_backbone, tiny_preprocessor):
    model = RIFace(
        backbone=tiny_backbone,
        attention=dict(type='PerceptibilityAttention', reduction=4),
        data_preprocessor=tiny_preprocessor,
    )
    for name, values in model.named_buffers():
        if name.endswith('running_mean'):
            values.normal_(0, 0.2)
    model.set_ui_center(torch.randn(16))
    return model.eval()


@pytest.fixture
def people(tmp_path):
    """A folder a person, images of all sizes."""
    draws = np.random.default_rng(0)
    for person in range(5):
        folder = tmp_path / 'people' / str(person)
        folder.mkdir(parents=True)
        for number in range(5):
            side = draws.integers(8, 50, 2)
            pixels = draws.integers(0, 256, (*side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f'{number}.png')
    return tmp_path / 'people'


def read(path, side=32):
    with Image.open(path) as image:
        pixels = np.asarray(image.convert('RGB'))
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_CUBIC)


LOAD, PACK = dict(type='LoadFace'), dict(type='PackFace')
PIPELINE = [LOAD, dict(type='ResizeFace', size=(112, 112)), PACK]


def by_path(found):
    paths = [sample.img_path for sample in found['samples']]
    return {path: {k: v[row] for k, v in found.items()} for row, path in enumerate(paths)}


def evaluated(model, folder):
    """By data set, pipeline, collation and extraction, as tools/test.py does it."""
    pipeline = [LOAD, dict(type='ResizeFace', size=(32, 32)), PACK]
    dataset = FaceFolder(data_root=str(folder), pipeline=pipeline)
    return by_path(
        extract_predictions(model, DataLoader(dataset, batch_size=9, collate_fn=face_collate))
    )


def assert_equal(results, expected):
    keys = dict(ri='recognizability', ers='ers', norm='embedding_norm')
    assert len(results) == len(expected)
    for row, name in enumerate(results.names):
        assert np.array_equal(results.embedding[row], expected[name]['embedding'].numpy())
        for quality, key in keys.items():
            if key in expected[name]:
                assert results.qualities[quality][row] == expected[name][key].item()


@pytest.mark.parametrize('batch_size', [1, 7, 64])
def test_bitwise_equal_to_the_test_pipeline(model, people, batch_size):
    results = FaceInferencer(model, 'cpu', batch_size).embed(people)
    assert list(results.qualities) == ['ri', 'ers', 'norm', 'size']
    assert_equal(results, evaluated(model, people))


@pytest.mark.parametrize('interpolation', ['area', 'bilinear'])
def test_interpolation_of_the_contract(model, interpolation):
    """An image of 2 x 2 blocks, halved: only averaging gives the blocks' means."""
    draws = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    model.data_preprocessor.interpolation = interpolation
    found = FaceInferencer(model, 'cpu').embed([draws]).embedding
    blocks = draws.reshape(32, 2, 32, 2, 3).astype(np.float64).mean((1, 3))
    small = np.floor(blocks + 0.5).astype(np.uint8)
    expected = FaceInferencer(model, 'cpu').embed([small]).embedding
    assert np.allclose(found, expected, rtol=0.05, atol=0.02)


@pytest.fixture(scope='module')
def real(root, shared, tmp_path_factory):
    """The public MobileFaceNet, converted."""
    path = tmp_path_factory.mktemp('converted') / 'mobilefacenet.pth'
    source = shared / 'weights' / 'mobilefacenet-tfjs' / 'mobilefacenet.json'
    tool = root / 'tools' / 'model_converters' / 'tfjs_mobilefacenet.py'
    environment = {**os.environ, 'PYTHONPATH': str(root)}
    subprocess.run([sys.executable, tool, source, path], env=environment, check=True)
    return FaceInferencer(path, 'cpu')


@pytest.mark.slow
def test_real_faces(real, shared):
    """By the numbers of the weights' README, written out, in float64."""
    files = sorted((shared / 'data' / 'ui').glob('*.jpg'))[:12]
    results = real.embed(files)
    pixels = np.stack([read(path, 112) for path in files]).astype(np.float64)
    inputs = torch.from_numpy((pixels - 127.5) / 128).permute(0, 3, 1, 2)
    backbone = copy.deepcopy(real.network.model.backbone).double()
    with torch.no_grad():
        _, expected = backbone(inputs)
    assert np.abs(results.embedding - expected.numpy()).max() < 1e-4 * expected.abs().max()


@pytest.mark.slow
def test_real_faces_bitwise_equal_to_the_test_pipeline(real, shared):
    """Those of the SurvFace layout, in an order of their own."""
    model = real.network.model
    faces = SurvFace(str(shared / 'data' / 'survface'), split='identification', pipeline=PIPELINE)
    subset = Subset(faces, range(0, len(faces), len(faces) // 30))
    loader = DataLoader(subset, batch_size=13, collate_fn=face_collate)
    found = extract_predictions(model, loader)
    expected = by_path(found)
    assert_equal(real.embed(list(reversed(expected))), expected)


def test_verify(model, people):
    inferencer = FaceInferencer(model, 'cpu')
    first, second = people / '0' / '0.png', people / '1' / '1.png'
    result = inferencer.verify(first, second)
    a, b = (x.astype(np.float64) for x in inferencer.embed([first, second]).embedding)
    assert result.similarity == pytest.approx(a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b)), abs=1e-6)
    assert result.names == (str(first), str(second))
    assert list(result.qualities) == ['ri', 'ers', 'norm', 'size']
    for name, pair in result.qualities.items():
        assert pair == tuple(inferencer.embed([first, second]).qualities[name].tolist())
    assert inferencer.verify(first, first).similarity == pytest.approx(1)
    pixels = torch.zeros(20, 20, 3, dtype=torch.uint8)
    assert inferencer.verify(pixels, pixels).similarity == pytest.approx(1)


def test_verify_is_of_two_images(people):
    for wrong in (people, [], iter([face()]), str(people / '0' / '*.png')):
        with pytest.raises(ValueError, match='verify compares two images'):
            inferencer().verify(face(), wrong)
    with pytest.raises(FileNotFoundError):
        inferencer().verify(people / 'absent.png', face())


def test_crafted_checkpoint(tmp_path):
    mark = tmp_path / 'was-run'

    class Bomb:
        def __reduce__(self):
            import os

            return os.system, (f'touch {mark}',)

    torch.save(dict(state_dict={}, meta=dict(a=Bomb())), tmp_path / 'bomb.pth')
    with pytest.raises(UntrustedCheckpointError, match=r'bomb\.pth holds more than weights'):
        FaceInferencer(tmp_path / 'bomb.pth')
    assert not mark.exists()


# Attention --------------------------------------------------------------------------------------


@pytest.fixture
def cam():
    pytest.importorskip('pytorch_grad_cam', reason="needs pip install 'mmvlr[cam]'")


@pytest.mark.parametrize('with_references', [False, True])
def test_attention(cam, model, people, with_references):
    inferencer = FaceInferencer(model, 'cpu', batch_size=10)
    files = sorted(people.rglob('*.png'))
    references = torch.randn(25, 16).numpy() if with_references else None
    found = inferencer.attention(files, references)
    assert found.shape == (25, 32, 32) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1
    for index in (0, 13, 24):
        inputs = inferencer.network.inputs(read(files[index])[None])
        chosen = None if references is None else references[index : index + 1]
        expected = activation_maps(model, inputs, chosen)
        assert np.abs(found[index] - expected[0]).max() < 1e-3


def test_attention_that_cannot_be(cam, model, tmp_path):
    with pytest.raises(ValueError, match='needs the PyTorch model'):
        inferencer().attention([face()])
    real = FaceInferencer(model, 'cpu')
    with pytest.raises(ImageError):
        real.attention([face(), face()[:1]])
    with pytest.raises(ValueError, match='there is no face'):
        real.attention([])
    for count in (1, 3):
        with pytest.raises(ValueError, match='references'):
            real.attention([face(1), face(2)], torch.randn(count, 16))


def test_threads_share_an_inferencer(cam, model, people):
    """Attention, embedding and quality at once, in 8 threads: every answer is the right one."""
    inferencer = FaceInferencer(model, 'cpu', batch_size=10)
    files = sorted(people.rglob('*.png'))[:4]
    references = torch.randn(4, 16).numpy()

    def answers(index):
        chosen = files[index : index + 1]
        embedded = inferencer.embed(chosen)
        first, second = (
            inferencer.attention(chosen, r) for r in (references[index : index + 1], None)
        )
        return [first, second, embedded.embedding, *embedded.qualities.values()]

    expected = [answers(index) for index in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(answers, [i % 4 for i in range(48)]))
    wrong = sum(
        not all(map(np.array_equal, answer, expected[i % 4])) for i, answer in enumerate(found)
    )
    assert wrong == 0
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks and all(p.requires_grad for p in model.parameters())


# Alignment --------------------------------------------------------------------------------------


@pytest.fixture
def detector():
    pytest.importorskip('facenet_pytorch', reason="needs pip install 'mmvlr[align]'")


def test_alignment(detector, shared, tiny_backbone):
    """On mugshots: equal to aligning first; the gray image has no face."""
    from mmvlr.datasets import AlignmentRecipe
    from mmvlr.preparation import Aligner

    folder = shared / 'data' / 'scface' / 'mugshot_frontal_cropped_all'
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == '.jpg')[:3]
    model = FaceRecognizer(
        backbone=tiny_backbone, data_preprocessor=dict(type='FaceDataPreprocessor', size=(32, 32))
    )
    plain, aligning = FaceInferencer(model, 'cpu'), FaceInferencer(model, 'cpu', align='mtcnn')
    gray = np.full((40, 60, 3), 127, np.uint8)
    results = aligning.embed([*files, gray])
    aligner = Aligner(AlignmentRecipe(size=32))
    aligned = [aligner(np.asarray(Image.open(path).convert('RGB'))) for path in files]
    assert all(face.detection is not None for face in aligned)
    expected = plain.embed([face.image for face in aligned])
    assert np.array_equal(results.embedding[:3], expected.embedding)
    assert results.unaligned == ['array 0']
    assert not np.allclose(plain.embed(files).embedding, results.embedding[:3])
    # Embeddings of aligned and of other faces are not comparable, and whoever compares must know.
    assert plain.fingerprint == fingerprint_model(model)
    assert aligning.fingerprint != plain.fingerprint
    name = aligning.fingerprint['preprocessing']['alignment']
    assert name == aligner.recipe.name == results.fingerprint['preprocessing']['alignment']
    # A model of this very alignment takes it, one of another does not.
    model.data_preprocessor.alignment = aligner.recipe.name
    assert FaceInferencer(model, 'cpu', align='mtcnn').fingerprint == aligning.fingerprint


def test_model_of_another_alignment(detector):
    network = MeanColor()
    network.size = (32, 32)
    network.contract['alignment'] = 'arcface112-0123456789ab'
    with pytest.raises(ValueError, match=r"alignment arcface112-0123456789ab, not .*align='none'"):
        FaceInferencer(network, align='mtcnn')


def test_detector_that_is_not_installed(monkeypatch):
    from mmvlr.datasets import alignment

    def absent(name):
        raise alignment.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(alignment.importlib.metadata, 'version', absent)
    network = MeanColor()
    network.size = (32, 32)
    with pytest.raises(ImportError, match=r"pip install 'mmvlr\[align\]'"):
        FaceInferencer(network, align='mtcnn')


def test_face_that_cannot_be_aligned(monkeypatch):
    """Landmarks that coincide give no transform: one image is lost, not the work."""
    aligning = inferencer()

    def aligner(pixels):
        raise ValueError('no similarity transform')

    aligning.aligner = aligner
    with pytest.raises(ImageError, match='array 0: the face in it cannot be aligned'):
        aligning.embed(face())
