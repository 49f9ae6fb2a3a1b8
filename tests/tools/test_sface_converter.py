"""The converter of SFace's published network against reference embeddings of its own graph."""

import numpy as np
import pytest
import torch

from mmvlr.datasets.transforms import read_image
from mmvlr.models import FaceRecognizer
from mmvlr.utils.compat import load_checkpoint_file


@pytest.fixture(scope='module')
def converter(tool):
    return tool('model_converters/sface_onnx.py')


def test_reference_embeddings(converter, shared, tmp_path):
    source = shared / 'weights' / 'sface'
    out = tmp_path / 'new' / 'sface.pth'
    assert converter.main([str(source / 'face_recognition_sface_2021dec.onnx'), str(out)]) == 0
    checkpoint = load_checkpoint_file(str(out))
    assert checkpoint['meta']['license'] == 'Apache-2.0'
    model = FaceRecognizer(
        backbone=checkpoint['meta']['architecture'],
        data_preprocessor=dict(type='FaceDataPreprocessor', **checkpoint['meta']['preprocessing']),
    ).eval()
    assert sum(p.numel() for p in model.backbone.parameters()) == 9_642_880
    assert not model.load_state_dict(checkpoint['state_dict'], strict=False).unexpected_keys
    reference = np.load(source / 'reference_embeddings.npz')
    folder = shared / 'data' / 'scface' / 'mugshot_frontal_cropped_all'
    faces = [read_image(str(folder / name)) for name in reference['names'].tolist()]
    inputs = [torch.from_numpy(face.transpose(2, 0, 1).copy()) for face in faces]
    with torch.no_grad():
        found = model(model.data_preprocessor(dict(inputs=inputs))['inputs'])[1].numpy()
    error = np.linalg.norm(found - reference['embeddings'], axis=1)
    assert (error < 1e-4 * np.linalg.norm(reference['embeddings'], axis=1)).all()


def test_another_file_is_refused(converter, tmp_path, capsys):
    other = tmp_path / 'other.onnx'
    other.write_bytes(b'version https://git-lfs.github.com/spec/v1\n')
    assert converter.main([str(other), str(tmp_path / 'out.pth')]) == 1
    assert str(other) in capsys.readouterr().err
    assert not (tmp_path / 'out.pth').exists()
