"""Exported and published files: the same model, checked, and refused when damaged."""

import copy
import hashlib
import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mmvlr.apis import FaceInferencer, export
from mmvlr.apis.export import OnnxNetwork, export_onnx, publish, read_published
from mmvlr.apis.exported import digest_weights
from mmvlr.apis.network import fingerprint_model, load_model
from mmvlr.cli import main
from mmvlr.registry import MODELS
from mmvlr.utils.contract import check_fingerprint
from mmvlr.utils.schema import FileFormatError

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
runtime = pytest.importorskip('onnxruntime')

pytestmark = pytest.mark.slow

MEAN, STD = np.float32([100, 120, 140]), np.float32([50, 60, 70])


def built(config, **changes):
    """A recognizer in eval mode whose every layer does something."""
    config = {**config, **changes}
    torch.manual_seed(1)
    model = MODELS.build(copy.deepcopy(config))
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight, 1, 0.2)
            nn.init.normal_(layer.bias, 0, 0.2)
        if isinstance(layer, nn.PReLU):
            # Public models have slopes far outside of [0, 1].
            nn.init.normal_(layer.weight, 0, 3)
    model.source_config = config
    return model.eval()


@pytest.fixture(scope='module')
def config(tiny_backbone):
    """Of a recognizer with everything an export has to keep."""
    return dict(
        type='RIFace',
        backbone={**tiny_backbone, 'padding': 'tf_same'},
        data_preprocessor=dict(
            type='FaceDataPreprocessor',
            size=(32, 32),
            color_order='BGR',
            mean=MEAN.tolist(),
            std=STD.tolist(),
        ),
        attention=dict(type='PerceptibilityAttention'),
        regression=dict(type='PerceptibilityRegression', zero_init=False),
        recognizability=dict(type='RecognizabilityIndex', log=True),
        flip_fusion='sum',
        inference_embedding='sum',
    )


@pytest.fixture(scope='module')
def model(config):
    model = built(config)
    model.set_ui_center(torch.randn(16))
    return model


@pytest.fixture(scope='module')
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp('export') / 'small.onnx'
    return export_onnx(model, path, license='CC-BY-NC-4.0', name='small').path


@pytest.fixture
def faces():
    return np.random.default_rng(3).integers(0, 256, (19, 32, 32, 3), np.uint8)


@pytest.fixture
def plain(tiny_backbone, tiny_preprocessor):
    return built(
        dict(type='FaceRecognizer', backbone=tiny_backbone, data_preprocessor=tiny_preprocessor)
    )


def slow_embedding(model, face):
    """Steps of one face, written out: BGR, scaling, both images, both embeddings."""
    total = 0
    for image in (face, face[:, ::-1]):
        x = (image[..., ::-1].astype(np.float32) - MEAN) / STD
        x = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]
        feature_map, embedding = model.backbone(x)
        attended = model.attention(feature_map)
        total = total + F.normalize(embedding, dim=1) + F.normalize(attended, dim=1)
    return F.normalize(total, dim=1)[0].detach().numpy()


def test_everything_is_inside(model, file, faces):
    found = OnnxNetwork(file)(faces)
    assert {key: value.dtype for key, value in found.items()} == dict.fromkeys(
        ('embedding', 'norm', 'ri', 'ers'), np.float32
    )
    wanted = np.stack([slow_embedding(model, face) for face in faces])
    np.testing.assert_allclose(found['embedding'], wanted, atol=1e-5)
    inputs = model.data_preprocessor(dict(inputs=torch.from_numpy(faces).permute(0, 3, 1, 2)))
    samples = model.predict(inputs['inputs'])
    for name, key in (('norm', 'embedding_norm'), ('ri', 'recognizability'), ('ers', 'ers')):
        wanted = np.array([sample.get(key).item() for sample in samples])
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-5)
        assert np.ptp(wanted) > 0.01


def test_gated_adapters_are_refused(config, tmp_path):
    gate = dict(type='QualityGate', quality=dict(type='NormQuality'))
    backbone = {**config['backbone'], 'adapter': dict(type='LoRA', rank=2, gate=gate)}
    with pytest.raises(ValueError, match='gate'):
        export_onnx(built(config, backbone=backbone), tmp_path / 'a.onnx', license='MIT')
    assert not (tmp_path / 'a.onnx').exists()


@pytest.mark.parametrize('number', [1, 8, 9, 19])
def test_any_batch(file, faces, number):
    network = OnnxNetwork(file, threads=1)
    alone = [network(face[None]) for face in faces[:number]]
    for name, values in network(faces[:number]).items():
        assert len(values) == number
        np.testing.assert_allclose(
            values, np.concatenate([one[name] for one in alone]), rtol=1e-4, atol=1e-5
        )


def test_file_says_what_it_is(model, file):
    network = OnnxNetwork(file)
    check_fingerprint(fingerprint_model(model), network.fingerprint)
    assert network.contract == model.data_preprocessor.contract
    assert network.size == (32, 32)
    assert (network.name, network.license) == ('small', 'CC-BY-NC-4.0')
    assert network.training_note is None
    proto = onnx.load(file)
    onnx.checker.check_model(proto)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata['mmvlr.weights_sha256'] == fingerprint_model(model)['weights']
    assert json.loads(metadata['mmvlr.outputs']) == ['embedding', 'norm', 'ri', 'ers']
    assert [entry.version for entry in proto.opset_import if not entry.domain] == [export.OPSET]
    operations = {node.op_type for node in proto.graph.node}
    assert not operations & {'PRelu', 'BatchNormalization'}
    # Nothing of the machine on which it was made.
    assert b'.py' not in file.read_bytes()


def test_model_without_qualities(plain, tmp_path, faces, capfd):
    plain.train()
    made = export_onnx(plain, tmp_path / 'plain.onnx', license='MIT')
    assert plain.training
    assert capfd.readouterr() == ('', '')
    assert made.sha256 == export.sha256_of(made.path)
    assert set(made.differences) == {'embedding', 'norm'}
    assert 0 < made.differences['embedding'] < 1e-5
    network = OnnxNetwork(made.path)
    assert network.name == 'plain'
    assert list(network(faces)) == ['embedding', 'norm']


def test_file_that_differs_is_not_written(plain, tmp_path, monkeypatch):
    monkeypatch.setattr(export.PlainPReLU, 'forward', lambda self, x: F.relu(x))
    with pytest.raises(RuntimeError, match='was not written: onnxruntime and PyTorch differ'):
        export_onnx(plain, tmp_path / 'plain.onnx', license='MIT')
    assert not list(tmp_path.iterdir())


class FakeNetwork:
    """A file that is off by given amounts."""

    size = (32, 32)

    def __init__(self, model, **errors):
        self.model, self.errors = model, errors

    def __call__(self, faces):
        inputs = torch.from_numpy(faces).permute(0, 3, 1, 2)
        with torch.no_grad():
            found = self.model.predictions(
                self.model.data_preprocessor(dict(inputs=inputs))['inputs']
            )
        found = {name: found[key].numpy().copy() for name, key in export.OUTPUTS.items()}
        for name, error in self.errors.items():
            # Of one number of the last face only.
            found[name].reshape(-1)[-1] += error
        return found


@pytest.mark.parametrize(
    ('name', 'low', 'high'),
    [
        ('embedding', 0.0099, 0.0101),  # unit vectors
        ('norm', 1e-4, 0.005),  # well above 1
        ('ri', 1e-3, 0.0101),
        ('ers', 0.0099, 0.0101),  # at most 1
    ],
)
def test_largest_differences(model, name, low, high):
    difference = export.largest_differences(model, FakeNetwork(model, **{name: 0.01}))
    others = {key: value for key, value in difference.items() if key != name}
    assert others == dict.fromkeys(others, 0.0)
    assert low < difference[name] < high
    difference = export.largest_differences(model, FakeNetwork(model, **{name: np.nan}))
    assert np.isnan(difference[name])


def test_slopes_of_prelu():
    prelu = nn.PReLU(4)
    prelu.weight.data = torch.tensor([-9.0, 0.0, 0.3, 9.0])
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(export.PlainPReLU(prelu)(x), prelu(x).detach())


@pytest.mark.parametrize(
    'faces',
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 31, 32, 3), np.uint8),
        np.zeros((2, 3, 32, 32), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
)
def test_other_faces_are_refused(file, faces):
    with pytest.raises(ValueError, match=r'takes uint8 RGB faces \(B, 32, 32, 3\)'):
        OnnxNetwork(file)(faces)


def sealed(proto):
    data = proto.SerializeToString()
    return data + export.SEAL + hashlib.sha256(data).hexdigest().encode()


def stripped(file, **metadata):
    """The file with other metadata, and a checksum that holds."""
    proto = onnx.load(file)
    entries = {entry.key: entry.value for entry in proto.metadata_props} | metadata
    entries.pop('mmvlr.sha256')
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, entries)
    return sealed(proto)


def test_damaged_file_is_refused(file, tmp_path):
    data = file.read_bytes()
    path = tmp_path / 'damaged.onnx'
    for position in np.linspace(0, len(data) - 200, 9).astype(int):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(ValueError, match=r'damaged\.onnx is damaged'):
            OnnxNetwork(path)
    for other in (data[: len(data) // 2], data[:-1], b'', b'<html>', data + b'\n'):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r'damaged\.onnx is no ONNX file exported by mmvlr'):
            OnnxNetwork(path)
    with pytest.raises(FileNotFoundError, match='export_onnx makes such files'):
        OnnxNetwork(tmp_path / 'none.onnx')


def test_other_files_are_refused(file, tmp_path):
    path = tmp_path / 'other.onnx'
    foreign = onnx.ModelProto()
    foreign.CopyFrom(onnx.load(file))
    del foreign.metadata_props[:]
    path.write_bytes(foreign.SerializeToString())
    with pytest.raises(ValueError, match='no ONNX file exported by mmvlr'):
        OnnxNetwork(path)
    path.write_bytes(sealed(foreign))
    with pytest.raises(ValueError, match='states no format version'):
        OnnxNetwork(path)
    path.write_bytes(stripped(file, **{'mmvlr.format': '3'}))
    with pytest.raises(ValueError, match=r'newer mmvlr \(format 3'):
        OnnxNetwork(path)
    future = onnx.load(file)
    del future.metadata_props[-1]
    future.ir_version = 99
    path.write_bytes(sealed(future))
    with pytest.raises(ValueError, match='cannot run it'):
        OnnxNetwork(path)


@pytest.mark.parametrize(
    ('key', 'value', 'told'),
    [
        ('identity', None, 'identity'),
        ('identity', '[1', 'mmvlr.identity'),
        ('identity', '{"weights": "0"}', 'identity.preprocessing'),
        ('contract', '{"size": [1e400, 1]}', 'mmvlr.contract'),
        ('contract', '[' * 5000, 'mmvlr.contract'),
        ('outputs', '["embedding", "os"]', 'outputs.1'),
        ('outputs', '["ri"]', 'outputs'),
        ('outputs', '{}', 'outputs'),
        ('name', None, 'name'),
        ('license', 'x' * 10**6, 'license'),
        ('format', '9' * 5000, 'format version'),
        ('format', '٣', 'format version'),
    ],
)
def test_metadata_are_checked(file, tmp_path, key, value, told):
    """Sealed again, so that nothing but the entry is wrong."""
    proto = onnx.load(file)
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    entries = {**entries, f'mmvlr.{key}': value}
    entries.pop('mmvlr.sha256')
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {k: v for k, v in entries.items() if v is not None})
    path = tmp_path / 'other.onnx'
    path.write_bytes(sealed(proto))
    with pytest.raises(ValueError, match=r'other\.onnx') as error:
        OnnxNetwork(path)
    assert told in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda m: m.pop('config'), 'config'),
        (lambda m: m.pop('identity'), 'identity'),
        (lambda m: m['identity']['preprocessing'].update(size=[10**12] * 2), 'size'),
        (lambda m: m['identity']['preprocessing'].update(std=[0.0] * 3), 'std'),
        (lambda m: m.update(identity=[]), 'identity'),
        (lambda m: m.update(config=3), 'config'),
        (lambda m: m.update(license=None), 'license'),
        (lambda m: m.update(odd=1), 'odd'),
    ],
)
def test_metadata_of_published_weights_are_checked(plain, tmp_path, change, told):
    """With a digest that holds, so that nothing but the entry is wrong."""
    path = tmp_path / 'a.safetensors'
    publish(plain, path, license='MIT')
    with safe_open(path, 'pt') as file:
        metadata = json.loads(file.metadata()['mmvlr'])
    state = load_file(path)
    change(metadata)
    metadata.pop('sha256')
    metadata['sha256'] = digest_weights(state, metadata)
    save_file(state, path, {'mmvlr': json.dumps(metadata)})
    with pytest.raises(ValueError, match=rf'a\.safetensors.*{told}'):
        read_published(path)


@pytest.mark.parametrize('content', [b'<html></html>', b'', b'version https://git-lfs', bytes(50)])
def test_weights_of_another_kind(tmp_path, content):
    (tmp_path / 'a.safetensors').write_bytes(content)
    with pytest.raises(ValueError, match=r'a\.safetensors is no readable safetensors file'):
        read_published(tmp_path / 'a.safetensors')


def test_missing_provider(file):
    assert 'ROCMExecutionProvider' not in runtime.get_available_providers()
    with pytest.raises(ValueError, match=r'has no ROCMExecutionProvider, only .*CPU'):
        OnnxNetwork(file, providers=['ROCMExecutionProvider'])


@pytest.mark.parametrize('package', ['onnx', 'onnxscript', 'onnxruntime'])
def test_missing_package(plain, file, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'mmvlr\[export\]'"):
        export_onnx(plain, tmp_path / 'plain.onnx', license='MIT')
    if package == 'onnxruntime':
        with pytest.raises(ImportError, match=r"pip install 'mmvlr\[export\]'"):
            OnnxNetwork(file)


@pytest.mark.parametrize('write', [export_onnx, publish])
@pytest.mark.parametrize('license', ['', None, 'free for all', 'MIT OR', '(c) us'])
def test_license_is_needed(plain, tmp_path, write, license):
    suffix = '.onnx' if write is export_onnx else '.safetensors'
    with pytest.raises(ValueError, match='license must be an SPDX expression'):
        write(plain, tmp_path / f'a{suffix}', license=license)
    with pytest.raises(ValueError, match=f'must end in {suffix}'):
        write(plain, tmp_path / 'a.pth', license='MIT')


@pytest.mark.parametrize(
    'license', ['MIT', 'CC-BY-NC-4.0', 'LicenseRef-ours', '(MIT OR Apache-2.0) AND GPL-2.0+']
)
def test_licenses(plain, tmp_path, license):
    publish(plain, tmp_path / 'a.safetensors', license=license)
    assert read_published(tmp_path / 'a.safetensors')[2]['license'] == license


def test_published_model_is_the_model(config, tmp_path):
    trained = built(
        config,
        head=dict(type='RecognitionModule', num_classes=5),
        loss_diversion=dict(type='IndexDiversionLoss'),
        recognizability=dict(type='RecognizabilityIndex', log=True),
        backbone={**config['backbone'], 'init_cfg': dict(type='Pretrained', checkpoint='/a/b')},
    )
    trained.set_ui_center(torch.randn(16))
    path = tmp_path / 'ours.safetensors'
    digest = publish(trained, path, license='MIT')
    assert digest == export.sha256_of(path)
    assert not any(key.startswith('head') for key in load_file(path))
    stated, state, metadata = read_published(path)
    assert set(stated) == set(config)
    assert 'init_cfg' not in stated['backbone']
    assert metadata['name'] == 'ours'
    check_fingerprint(fingerprint_model(trained), metadata['identity'])
    again = MODELS.build(stated)
    again.load_state_dict(state)
    again.eval()
    inputs = torch.randn(2, 3, 32, 32)
    wanted, found = trained.predictions(inputs), again.predictions(inputs)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    # What was read can be published, and the same model makes the same file.
    second = publish(load_model(path), tmp_path / 'second.safetensors', 'MIT', name='ours')
    again = load_model(tmp_path / 'second.safetensors')
    assert publish(again, tmp_path / 'third.safetensors', 'MIT', name='ours') == second


def test_files_keep_the_training_note(plain, tmp_path, capsys):
    """Whatever file of a model judges faces, the same is said of the faces that it learned from."""
    note = 'Drawn by hand.'
    meta = dict(cfg=f'model = {plain.source_config!r}', dataset_meta=dict(note=note))
    torch.save(dict(state_dict=plain.state_dict(), meta=meta), tmp_path / 'epoch_1.pth')
    Image.fromarray(np.full((32, 32, 3), 9, np.uint8)).save(tmp_path / 'face.png')
    made = [tmp_path / name for name in ('epoch_1.pth', 'a.safetensors', 'b.safetensors', 'b.onnx')]
    for number, path in enumerate(made):
        if number:
            source = made[number - 1 if number < 3 else 0]
            assert main(['export', str(source), str(path), '--license', 'MIT']) == 0
        assert FaceInferencer(path).training_note == note
        capsys.readouterr()
        assert main(['quality', str(tmp_path / 'face.png'), '--model', str(path)]) == 0
        assert note in capsys.readouterr().err


def test_config_of_another_model_is_refused(plain, config, tmp_path):
    path = tmp_path / 'a.safetensors'
    other = copy.deepcopy(plain.source_config)
    other['flip_fusion'] = 'sum'
    with pytest.raises(RuntimeError, match=r'not the given one \(different: embedding\)'):
        publish(plain, path, license='MIT', config=other)
    other = copy.deepcopy(plain.source_config)
    other['backbone']['padding'] = 'tf_same'
    with pytest.raises(RuntimeError, match='different: backbone_embedding'):
        publish(plain, path, license='MIT', config=other)
    # A part that predicts nothing by itself still belongs to the identity.
    whole = built({**config, 'inference_embedding': 'backbone'})
    other = {key: value for key, value in whole.source_config.items() if key != 'attention'}
    with pytest.raises(RuntimeError, match=r'\(different: fingerprint\)'):
        publish(whole, path, license='MIT', config=other)
    with pytest.raises(ValueError, match='more than plain values'):
        publish(plain, path, license='MIT', config=dict(type=object()))
    del plain.source_config
    with pytest.raises(ValueError, match='give its config'):
        publish(plain, path, license='MIT')
    assert not list(tmp_path.iterdir())


def test_damaged_weights_are_refused(plain, tmp_path):
    path = tmp_path / 'a.safetensors'
    publish(plain, path, license='MIT')
    data = path.read_bytes()
    positions = [data.index(b'MIT'), *np.linspace(0, len(data) - 1, 9).astype(int)]
    for position in positions:
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(ValueError, match=r'a\.safetensors (is|holds)'):
            read_published(path)
    for other in (data[: len(data) // 2], data[:-1], b'', b'<html>'):
        path.write_bytes(other)
        with pytest.raises(ValueError, match='no readable safetensors file'):
            read_published(path)
    with pytest.raises(FileNotFoundError, match='publish makes such files'):
        read_published(tmp_path / 'none.safetensors')


def test_index_of_format_1_is_on_another_scale(model, plain, tmp_path, monkeypatch):
    path = tmp_path / 'a.safetensors'
    monkeypatch.setattr(export, 'FORMAT', 1)
    with pytest.raises(FileFormatError, match=r'format: 1.*publish it again'):
        publish(model, path, license='MIT')
    with pytest.raises(FileFormatError, match=r'mmvlr\.format: 1.*export it again'):
        export_onnx(model, tmp_path / 'a.onnx', license='MIT')
    publish(plain, path, license='MIT')
    assert load_model(path) and not list(tmp_path.glob('*.onnx'))
    # A file of an RI-Face that regresses its logarithm says so: the same index, above 0.
    monkeypatch.undo()
    publish(model, path, license='MIT')
    inputs = torch.randn(2, 3, 32, 32)
    read, own = (one.predictions(inputs)['recognizability'] for one in (load_model(path), model))
    assert torch.equal(read, own) and (own > 0).all()


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    for metadata, message in (
        (None, 'states no format version'),
        ({'format': 'pt'}, 'states no format version'),
        ({'mmvlr': '{}'}, 'states no format version'),
        ({'mmvlr': '{"format": "x"}'}, 'states no format version'),
        ({'mmvlr': '{"format": 3}'}, r'newer mmvlr \(format 3'),
        ({'mmvlr': '{"format": 1}'}, 'is damaged'),
        ({'mmvlr': '{'}, 'not a readable JSON'),
        ({'mmvlr': '[]'}, 'valid dict'),
    ):
        save_file({'a': torch.zeros(2)}, path, metadata)
        with pytest.raises(ValueError, match=message):
            read_published(path)
