"""The converter of the public MobileFaceNet against reference embeddings of its own graph."""

import json
import shutil

import numpy as np
import pytest
import torch

from mmvlr.datasets.transforms import read_image
from mmvlr.models import FaceRecognizer
from mmvlr.utils.compat import load_checkpoint_file


@pytest.fixture(scope='module')
def converter(tool):
    return tool('model_converters/tfjs_mobilefacenet.py')


@pytest.fixture(scope='module')
def source(shared):
    return shared / 'weights' / 'mobilefacenet-tfjs'


@pytest.fixture(scope='module')
def converted(converter, source, tmp_path_factory):
    out = tmp_path_factory.mktemp('converted') / 'new' / 'mobilefacenet.pth'
    assert converter.main([str(source / 'mobilefacenet.json'), str(out)]) == 0
    return out


def test_reference_embeddings(converted, source, shared):
    reference = np.load(source / 'reference_embeddings.npz')
    checkpoint = load_checkpoint_file(str(converted))
    model = FaceRecognizer(
        backbone=checkpoint['meta']['architecture'],
        data_preprocessor=dict(type='FaceDataPreprocessor', **checkpoint['meta']['preprocessing']),
    ).eval()
    assert not model.load_state_dict(checkpoint['state_dict'], strict=False).unexpected_keys
    folder = shared / 'data' / 'scface' / 'mugshot_frontal_cropped_all'
    faces = [read_image(str(folder / name)) for name in reference['names'].tolist()]
    assert len(faces) == 30
    inputs = [torch.from_numpy(face.transpose(2, 0, 1).copy()) for face in faces]
    with torch.no_grad():
        found = model(model.data_preprocessor(dict(inputs=inputs))['inputs'])[1].numpy()
    error = np.linalg.norm(found - reference['embeddings'], axis=1)
    assert (error < 1e-3 * np.linalg.norm(reference['embeddings'], axis=1)).all()


def test_converted_file(converted):
    checkpoint = torch.load(converted, weights_only=True)
    assert checkpoint['meta']['license'] == 'MIT'
    assert checkpoint['meta']['preprocessing']['std'] == [128.0] * 3
    assert all(name.startswith('backbone.') for name in checkpoint['state_dict'])


@pytest.fixture
def copy(source, tmp_path):
    for name in ('mobilefacenet.json', 'mobilefacenet.bin'):
        shutil.copy(source / name, tmp_path / name)
        (tmp_path / name).chmod(0o644)
    return tmp_path


def refused(converter, folder, capsys):
    """What the converter says; it must fail and leave nothing behind."""
    before = set(folder.iterdir())
    assert converter.main([str(folder / 'mobilefacenet.json'), str(folder / 'out.pth')]) == 1
    assert set(folder.iterdir()) == before
    return capsys.readouterr().err


@pytest.mark.parametrize('kept', [0, 1000, -1])
def test_truncated_weights(converter, copy, capsys, kept):
    path = copy / 'mobilefacenet.bin'
    path.write_bytes(path.read_bytes()[:kept])
    assert 'the file is truncated' in refused(converter, copy, capsys)


def test_too_long_weights(converter, copy, capsys):
    path = copy / 'mobilefacenet.bin'
    path.write_bytes(path.read_bytes() + b'\0' * 4)
    assert 'the manifest describes' in refused(converter, copy, capsys)


def test_missing_weights(converter, copy, capsys):
    (copy / 'mobilefacenet.bin').unlink()
    assert 'mobilefacenet.bin' in refused(converter, copy, capsys)


@pytest.mark.parametrize('content', ['', '{}', '[1', '[1]'])
def test_no_model(converter, copy, capsys, content):
    (copy / 'mobilefacenet.json').write_text(content)
    assert 'not a TensorFlow.js model' in refused(converter, copy, capsys)


def test_another_model(converter, copy, capsys):
    path = copy / 'mobilefacenet.json'
    model = json.loads(path.read_text())
    entries = [entry for group in model['weightsManifest'] for entry in group['weights']]
    entries[-1]['name'] = 'SomethingElse'
    path.write_text(json.dumps(model))
    assert 'is missing' in refused(converter, copy, capsys)


# What the README of the real material says of this model, in per cent.
KNOWN = {
    'tinyface': dict(rank1=13.79, rank5=31.28, rank10=40.64, rank20=47.29),
    'scface': dict(d1_rank1=22.22, d2_rank1=75.56, d3_rank1=94.44),
    'survface': {
        'tpir20@fpir0.3': 22.97,
        'tpir20@fpir0.2': 18.02,
        'tpir20@fpir0.1': 10.25,
        'tpir20@fpir0.01': 2.47,
        'verification_auc': 86.91,
        'tar@far0.3': 86.6,
        'tar@far0.1': 67.4,
        'tar@far0.01': 17.4,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize('data', KNOWN)
def test_known_figures_on_real_faces(data, converted, shared, root, tool, tmp_path, monkeypatch):
    """Loader, preprocessing, network and metric together give the figures known of this model."""
    monkeypatch.setenv(f'{data.upper()}_ROOT', str(shared / 'data' / data))
    monkeypatch.setenv('UI_ROOT', str(shared / 'data' / 'ui'))
    subjects = dict(TRAIN='1-12', TEST='13-30', GALLERY='1-30')
    for which, numbers in subjects.items():
        monkeypatch.setenv(f'SCFACE_{which}_SUBJECTS', numbers)
    out = tmp_path / 'result.json'
    config = root / 'configs' / 'arcface' / f'mobilefacenet_{data}.py'
    arguments = ['--out', str(out), '--work-dir', str(tmp_path / 'work')]
    # ERS, which needs another 300 faces embedded, is not among the figures.
    options = ['test_dataloader.num_workers=0', 'custom_hooks=[]']
    assert (
        tool('test.py').main([str(config), str(converted), *arguments, '--cfg-options', *options])
        == 0
    )
    found = json.loads(out.read_text())
    for name, expected in KNOWN[data].items():
        assert round(100 * found[f'{data}/{name}'], 2) == expected, name
