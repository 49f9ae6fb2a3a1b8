"""From a file to a network: whatever the file says, none of it is run."""

import copy
import json
import os
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmvlr.apis.network import (
    TorchNetwork,
    fingerprint_model,
    load_model,
    load_network,
    plain_assignment,
)
from mmvlr.models import FaceRecognizer, RIFace
from mmvlr.registry import MODELS, check_registered
from mmvlr.utils.checkpoint import CheckpointMismatchError, save_pretrained
from mmvlr.utils.compat import UntrustedCheckpointError
from mmvlr.utils.contract import ContractMismatchError, ModelMismatchError, check_fingerprint


@pytest.fixture
def config(tiny_backbone, tiny_preprocessor):
    """Config of a RIFace as a training states it, the parts that only training needs too."""
    return dict(
        type='RIFace',
        backbone=dict(tiny_backbone, init_cfg=dict(type='Pretrained', checkpoint='start.pth')),
        head=dict(type='RecognitionModule', num_classes=3, loss=dict(type='CurricularFaceLoss')),
        attention=dict(type='PerceptibilityAttention', reduction=4),
        regression=dict(type='PerceptibilityRegression'),
        recognizability=dict(type='RecognizabilityIndex'),
        loss_regression=dict(type='IndexRegressionLoss'),
        loss_diversion=dict(type='IndexDiversionLoss'),
        data_preprocessor=tiny_preprocessor,
    )


def without(config, *names):
    return {key: value for key, value in config.items() if key not in names}


def riface(config, **changes):
    """The model of a training: random statistics, a UI center, with its head."""
    settings = copy.deepcopy(without(config, 'type'))
    settings['backbone'].pop('init_cfg', None)
    model = RIFace(**{**settings, **changes})
    for name, values in model.named_buffers():
        if name.endswith('running_mean'):
            values.normal_(0, 0.2)
    model.set_ui_center(torch.randn(16))
    model.set_ui_statistics(torch.tensor(0.4), torch.tensor(0.1))
    return model.eval()


def save(path, model, config=None, contract=True, **meta):
    """Write a checkpoint as mmengine does in a training."""
    if config is not None:
        meta['cfg'] = Config(dict(model=config, default_scope='mmvlr')).pretty_text
    if contract:
        meta['preprocessing'] = model.data_preprocessor.contract
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def faces(count=5, side=32):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def predictions(model, images):
    """By the model's own way, from a list of tensors as the collation makes it."""
    inputs = [torch.from_numpy(face).permute(2, 0, 1) for face in images]
    with torch.no_grad():
        samples = model.predict(model.data_preprocessor(dict(inputs=inputs))['inputs'])
    keys = dict(embedding='embedding', norm='embedding_norm', ri='recognizability', ers='ers')
    return {
        name: np.stack([sample.get(key).numpy() for sample in samples])
        for name, key in keys.items()
        if key in samples[0]
    }


# What a network says ----------------------------------------------------------------------------


def test_training_checkpoint(tmp_path, config):
    model = riface(config)
    expected = predictions(model, faces())
    network = load_network(save(tmp_path / 'epoch_3.pth', model, config), 'cpu')
    assert network.size == (32, 32)
    assert network.contract == model.data_preprocessor.contract
    found = network(faces())
    assert sorted(found) == ['embedding', 'ers', 'norm', 'ri']
    for name, values in found.items():
        assert values.dtype == np.float32
        assert np.array_equal(values, expected[name]), name


def test_checkpoint_of_a_recognizer(tmp_path, config):
    config = dict(without(config, 'head'), type='FaceRecognizer')
    config = {key: config[key] for key in ('type', 'backbone', 'data_preprocessor')}
    model = FaceRecognizer(
        backbone=without(config['backbone'], 'init_cfg'),
        data_preprocessor=config['data_preprocessor'],
    ).eval()
    found = load_network(str(save(tmp_path / 'a.pth', model, config)), 'cpu')(faces())
    assert sorted(found) == ['embedding', 'norm']
    assert np.array_equal(found['embedding'], predictions(model, faces())['embedding'])


def test_backbone_of_a_converter(tmp_path, config):
    model = riface(config, inference_embedding='backbone')
    path = tmp_path / 'converted.pth'
    architecture = without(config['backbone'], 'init_cfg')
    contract = model.data_preprocessor.contract
    save_pretrained(path, model.backbone, contract, architecture=architecture)
    found = load_network(path, 'cpu')(faces())
    assert sorted(found) == ['embedding', 'norm']
    assert np.array_equal(found['embedding'], predictions(model, faces())['embedding'])


def test_weights_only_with_a_config(tmp_path, config):
    """A bare state dict: the config says all the rest."""
    model = riface(config)
    path = tmp_path / 'bare.pth'
    torch.save({f'module.{k}': v for k, v in model.state_dict().items()}, path)
    with pytest.raises(ValueError, match=r'bare\.pth does not say which model.*--config'):
        load_model(path)
    found = TorchNetwork(load_model(path, config), 'cpu')(faces())
    assert np.array_equal(found['ri'], predictions(model, faces())['ri'])


def test_color_order_and_normalization_of_the_checkpoint(tmp_path, config):
    """They reach the network: a wrong order of colors costs accuracy and raises no error."""
    preprocessor = dict(config['data_preprocessor'], color_order='BGR', mean=100.0, std=50.0)
    model = riface(config, data_preprocessor=preprocessor)
    network = load_network(save(tmp_path / 'a.pth', model, config), 'cpu')
    (face,) = network.inputs(faces(1)).numpy()
    expected = (faces(1)[0][..., ::-1].transpose(2, 0, 1).astype(np.float64) - 100) / 50
    assert np.allclose(face, expected, atol=1e-6)


def test_names_of_the_project_with_its_scope(tmp_path, config):
    config = dict(config, type='mmvlr.RIFace')
    assert isinstance(load_model(save(tmp_path / 'a.pth', riface(config), config)), RIFace)


def test_home(tmp_path, monkeypatch, config):
    monkeypatch.setenv('HOME', str(tmp_path))
    save(tmp_path / 'a.pth', riface(config), config)
    assert load_network('~/a.pth', 'cpu').size == (32, 32)


def test_the_model_as_it_was_built_from(tmp_path, config):
    model = load_model(save(tmp_path / 'a.pth', riface(config), config))
    assert model.head is None and not model.training
    again = load_model(save(tmp_path / 'b.pth', model, model.source_config))
    assert fingerprint_model(again) == fingerprint_model(model)


# Files that do not fit --------------------------------------------------------------------------


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent\.pth does not exist'):
        load_network(tmp_path / 'absent.pth')


def test_other_architecture_than_stated(tmp_path, config):
    path = save(tmp_path / 'a.pth', riface(config), config)
    wider = dict(config, backbone=dict(config['backbone'], embed_dims=24))
    with pytest.raises(CheckpointMismatchError, match=r'a\.pth does not fit.*have another shape'):
        load_model(path, wider)
    other = dict(config, backbone=dict(type='IResNet', depth=18, input_size=32, embed_dims=16))
    with pytest.raises(CheckpointMismatchError, match=r'a\.pth does not fit.*are missing in it'):
        load_model(path, other)
    shorter = dict(config, backbone=dict(config['backbone'], stages=((16, 8, 2, 2),)))
    with pytest.raises(CheckpointMismatchError, match='does not fit'):
        load_model(path, shorter)


def test_recognizer_with_the_config_of_riface(tmp_path, config):
    model = FaceRecognizer(without(config['backbone'], 'init_cfg'), data_preprocessor=None)
    path = save(tmp_path / 'a.pth', model, contract=False)
    with pytest.raises(CheckpointMismatchError, match=r'missing in it, such as (att|reg)'):
        load_model(path, config)


def test_config_of_another_preprocessing(tmp_path, config):
    path = save(tmp_path / 'a.pth', riface(config), config)
    other = dict(config, data_preprocessor=dict(config['data_preprocessor'], color_order='BGR'))
    with pytest.raises(ContractMismatchError, match=r"a\.pth.*color_order: checkpoint 'RGB'"):
        load_model(path, other)
    # One that says nothing about it takes the checkpoint's.
    model = load_model(path, without(config, 'data_preprocessor'))
    assert model.data_preprocessor.size == (32, 32)


@pytest.mark.parametrize('wrong', ['configs/a.py', dict(model=dict(type='RIFace')), {}, 3])
def test_what_is_no_config_of_a_model(tmp_path, config, wrong):
    path = save(tmp_path / 'a.pth', riface(config), config)
    with pytest.raises(ValueError, match=r'a\.pth: a config of a model is wanted.*load_config'):
        load_model(path, wrong)


@pytest.mark.parametrize('change', [dict(backbone=dict(type='MobileFaceNet', odd=1)), dict(x=1)])
def test_arguments_of_another_version(tmp_path, config, change):
    path = save(tmp_path / 'a.pth', riface(config), {**config, **change})
    with pytest.raises(ValueError, match=r'a\.pth: no RIFace can be built.*another version'):
        load_model(path)


@pytest.mark.parametrize(
    'content',
    [
        [1, 2],
        dict(state_dict=[torch.zeros(2)]),
        {1: torch.zeros(2)},
        dict(epoch=3, model=torch.zeros(2)),
        dict(state_dict={}, meta='text'),
        dict(state_dict={}, meta=dict(cfg='model = 5')),
        dict(state_dict={}, meta=dict(cfg='train = dict()')),
        dict(state_dict={}, meta=dict(cfg='')),
        dict(state_dict={}, meta=dict(cfg='model = dict(')),
        dict(state_dict={}, meta=dict(cfg='model = \0')),
        dict(state_dict={}, meta=dict(cfg='model = ' + '(' * 5000)),
        dict(state_dict={}, meta=dict(cfg='model = ' + '-' * 9999 + '1')),
        dict(state_dict={}, meta=dict(cfg='model = ' + '-' * 900 + '1')),
        dict(state_dict={}, meta=dict(cfg='model = {[]: 1}')),
        dict(state_dict={}, meta=dict(architecture=dict(type='MobileFaceNet'), preprocessing=7)),
        dict(state_dict={}, meta=dict(architecture=dict(), preprocessing=dict(size='x'))),
    ],
)
def test_files_that_are_something_else(tmp_path, content):
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    with pytest.raises(ValueError, match=r'other\.pth'):
        load_model(path)


def test_weight_that_is_no_tensor(tmp_path, config):
    model = riface(config)
    state = dict(model.state_dict(), **{'regression.net.0.weight': 'text', 'ui_center': 3})
    name = next(name for name in model.state_dict() if name.startswith('regression.'))
    state[name] = 'text'
    path = save(tmp_path / 'a.pth', model, config)
    content = torch.load(path)
    torch.save(dict(content, state_dict=state), path)
    with pytest.raises(CheckpointMismatchError, match='missing in it'):
        load_model(path)


def test_truncated_file(tmp_path, config):
    path = save(tmp_path / 'a.pth', riface(config), config)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r'a\.pth is not a readable checkpoint'):
        load_model(path)


@pytest.mark.parametrize('thing', [None, 3, dict(type='RIFace'), torch.nn.Linear(2, 2)])
def test_what_is_no_model(thing):
    with pytest.raises(TypeError, match=r'not (NoneType|int|dict|Linear)'):
        load_network(thing)


def test_gpu_that_is_not_there(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match="device is 'cuda:1', but PyTorch sees no GPU"):
        load_network(riface(config), 'cuda:1')


# Files of somebody who means harm ---------------------------------------------------------------


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('place', ['alone', 'meta', 'state'])
@pytest.mark.parametrize('legacy', [False, True])
def test_pickle_that_runs_a_command(tmp_path, config, place, legacy):
    mark = tmp_path / 'was-run'
    model, bomb = riface(config), Command(f'touch {mark}')
    contents = dict(
        alone=bomb,
        meta=dict(state_dict=model.state_dict(), meta=dict(extra=bomb)),
        state=dict(state_dict=dict(model.state_dict(), x=bomb)),
    )
    path = tmp_path / 'bomb.pth'
    if legacy:
        path.write_bytes(pickle.dumps(contents[place]))
    else:
        torch.save(contents[place], path)
    with pytest.raises((UntrustedCheckpointError, ValueError), match=r'bomb\.pth'):
        load_network(path)
    assert not mark.exists()
    # The file is a weapon: what follows shows that the test can fail.
    torch.load(path, weights_only=False) if not legacy else pickle.loads(path.read_bytes())
    assert mark.exists()


TYPES = [
    "dict(type='os.system', command='touch {mark}')",
    "dict(type='RIFace', backbone=dict(type='subprocess.getoutput', cmd='touch {mark}'))",
    "dict(type='RIFace', backbone=dict(type='MobileFaceNet', x=[(dict(type='os.system'),)]))",
    "dict(type='RIFace', regression=dict(type='builtins.eval', source='1'))",
    "dict(type='FaceRecognizer', data_preprocessor=dict(type='os.system', command='x'))",
    "dict(type='mmengine.runner.Runner')",
    "dict(type='mmengine::Runner')",
    "dict(type='mmvlr.models.RIFace')",
    "dict(type=['os.system'])",
    "dict(type='RIFace', backbone=dict(type='MobileFaceNet', _scope_='antigravity'))",
]


@pytest.mark.parametrize('text', TYPES)
def test_config_that_names_functions(tmp_path, config, text):
    mark = tmp_path / 'was-run'
    path = tmp_path / 'bomb.pth'
    cfg = f'model = {text.format(mark=mark)}'
    torch.save(dict(state_dict=riface(config).state_dict(), meta=dict(cfg=cfg)), path)
    with pytest.raises(ValueError, match=r'bomb\.pth: .*(is not registered|names a _scope_)'):
        load_network(path)
    assert not mark.exists()


CALLS = [
    "model = __import__('os').system('touch {mark}')",
    "model = dict(type=__import__('os').system('touch {mark}'))",
    "model = dict(type='RIFace', x=[open('{mark}', 'w')])",
    "model = dict(**open('{mark}', 'w'))",
    "model = dict([('type', open('{mark}', 'w'))])",
    "model = {{**{{'type': open('{mark}', 'w')}}}}",
    "model = {{open('{mark}', 'w'): 1}}",
    "model = [x for x in [open('{mark}', 'w')]]",
    "model = (lambda: open('{mark}', 'w'))()",
    'model = f\'{{open("{mark}", "w")}}\'',
    "model = x = open('{mark}', 'w')",
]


@pytest.mark.parametrize('text', CALLS)
def test_config_that_holds_calls(tmp_path, config, text):
    mark = tmp_path / 'was-run'
    path = tmp_path / 'bomb.pth'
    cfg = text.format(mark=mark)
    torch.save(dict(state_dict=riface(config).state_dict(), meta=dict(cfg=cfg)), path)
    with pytest.raises(ValueError, match=r'bomb\.pth.*(no plain value|does not say which model)'):
        load_network(path)
    assert not mark.exists()


def test_the_rest_of_the_config_is_not_run(tmp_path, config):
    mark = tmp_path / 'was-run'
    path = save(tmp_path / 'a.pth', riface(config), config)
    content = torch.load(path)
    harm = f"open({str(mark)!r}, 'w')\nimport os\nos.system('touch {mark}')\n"
    content['meta']['cfg'] = harm + content['meta']['cfg'] + harm
    torch.save(content, path)
    assert isinstance(load_model(path), RIFace)
    assert not mark.exists()


def test_contract_that_names_a_function(tmp_path, config):
    mark = tmp_path / 'was-run'
    path = save(tmp_path / 'a.pth', riface(config), config)
    content = torch.load(path)
    content['meta']['preprocessing'] = dict(type='os.system', command=f'touch {mark}')
    torch.save(content, path)
    with pytest.raises(ValueError, match=r'a\.pth: preprocessing\.'):
        load_model(path)
    assert not mark.exists()


# Files that state more than they hold ------------------------------------------------------------


def restated(tmp_path, config, **changes):
    """A checkpoint whose backbone is said to be another."""
    model = riface(config)
    architecture = dict(without(config['backbone'], 'init_cfg'), **changes)
    state = {f'backbone.{key}': value for key, value in model.backbone.state_dict().items()}
    meta = dict(preprocessing=model.data_preprocessor.contract, architecture=architecture)
    torch.save(dict(state_dict=state, meta=meta), tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    'changes',
    [
        dict(embed_dims=10**9),
        dict(embed_dims=10**30),
        dict(stem_channels=5_000_000),
        dict(stages=((16, 8, 10**9, 2),)),
        dict(stages=((16, 8, 1, 2),) * 100_000),
        dict(input_size=10**9),
        dict(variant='x' * 100_000),
        dict(type='x' * 100_000),
    ],
)
def test_sizes_are_believed_no_further_than_the_weights_go(tmp_path, config, changes):
    start = time.process_time()
    with pytest.raises(ValueError, match=r'a\.pth') as error:
        load_model(restated(tmp_path, config, **changes))
    assert time.process_time() - start < 10 and len(str(error.value)) < 1500


@pytest.mark.parametrize(
    'changes',
    [
        dict(size=[10**12, 10**12]),
        dict(size=[0, 32]),
        dict(size=[32]),
        dict(size='32'),
        dict(std=[1.0, 0.0, 1.0]),
        dict(mean=[float('nan')] * 3),
        dict(color_order='GRB'),
        dict(interpolation='x' * 100_000),
        dict(alignment=None),
        dict(odd=1),
    ],
)
def test_contract_of_a_file_is_checked(tmp_path, config, changes):
    path = restated(tmp_path, config)
    content = torch.load(path)
    content['meta']['preprocessing'].update(changes)
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf'a\.pth: preprocessing\.{next(iter(changes))}') as error:
        load_model(path)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda w: w.to(torch.complex64), 'complex64'),
        (lambda w: w.to(torch.int32), 'int32'),
        (lambda w: w * float('nan'), 'not finite'),
    ],
)
def test_weights_that_are_no_real_numbers(tmp_path, config, change, told):
    path = restated(tmp_path, config)
    content = torch.load(path)
    name = 'backbone.stem.conv.weight'
    content['state_dict'][name] = change(content['state_dict'][name])
    torch.save(content, path)
    with pytest.raises(CheckpointMismatchError, match=rf'a\.pth.*{name}.*{told}'):
        load_model(path)


@pytest.mark.parametrize('side', [16, 352])
def test_preprocessing_that_the_network_does_not_fit(tmp_path, config, side):
    path = restated(tmp_path, config)
    content = torch.load(path)
    content['meta']['preprocessing']['size'] = [side, side]
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf'a\.pth: .*{side} x {side}') as error:
        load_model(path)
    assert len(str(error.value)) < 1000


def test_long_names_are_cut(tmp_path, config):
    path = restated(tmp_path, config)
    content = torch.load(path)
    content['state_dict'] |= {'backbone.' + 'x' * 10**6: torch.zeros(1)}
    torch.save(content, path)
    with pytest.raises(CheckpointMismatchError, match=r'a\.pth') as error:
        load_model(path)
    assert len(str(error.value)) < 1000


def test_models_are_loaded_in_threads(tmp_path, config):
    path = save(tmp_path / 'a.pth', riface(config), config)
    identity = fingerprint_model(load_model(path))
    with ThreadPoolExecutor(8) as pool:
        assert all(
            found == identity
            for found in pool.map(lambda _: fingerprint_model(load_model(path)), range(24))
        )


def test_plain_values():
    text = (
        "a = dict(b=[1, -2.5, None, True], c=('x', dict(d={'e': 1e-3})), f=b'g')\n"
        'b = 1\nb = 2\nc: int = 3\nd = 1 + 2j\ne = {1, 2}\n'
    )
    expected = dict(b=[1, -2.5, None, True], c=('x', dict(d={'e': 1e-3})), f=b'g')
    assert plain_assignment(text, 'a', 'text') == expected
    assert plain_assignment(text, 'b', 'text') == 2
    assert plain_assignment(text, 'absent', 'text') is None
    assert plain_assignment(text, 'e', 'text') == {1, 2}


@pytest.mark.parametrize('file', ['riface/r50_scface.py', 'magface/mobilefacenet_tinyface.py'])
def test_configs_of_the_project_are_plain(root, file):
    """As mmengine writes them into a checkpoint."""
    config = Config.fromfile(root / 'configs' / file)
    model = plain_assignment(config.pretty_text, 'model', file)
    assert model == config.model.to_dict()
    check_registered(without(model, 'init_cfg'), MODELS, file)


# Identity ---------------------------------------------------------------------------------------


def test_identity_is_of_the_weights(tmp_path, config):
    model = riface(config)
    identity = fingerprint_model(model)
    assert identity == json.loads(json.dumps(identity))
    assert identity['embedding'] == dict(
        dims=16, flip_fusion='none', inference_embedding='backbone'
    )
    assert identity['preprocessing'] == model.data_preprocessor.contract
    # Whatever file they are in, and in whatever order and layout.
    path = save(tmp_path / 'a.pth', model, config)
    assert fingerprint_model(load_model(path)) == identity
    content = torch.load(path)
    content['state_dict'] = {
        f'module.{key}': value.clone() for key, value in reversed(content['state_dict'].items())
    }
    torch.save(content, path)
    assert fingerprint_model(load_model(path, config)) == identity
    model.to(memory_format=torch.contiguous_format)
    assert fingerprint_model(model) == identity


def test_identity_is_not_of_the_head_or_the_training(config):
    model = riface(config)
    identity = fingerprint_model(model)
    with torch.no_grad():
        model.head.weight.normal_()
    model.set_ui_statistics(torch.tensor(0.9), torch.tensor(0.3))
    for name, values in model.named_buffers():
        if name.endswith('num_batches_tracked'):
            values += 1
    assert fingerprint_model(model) == identity
    fewer = riface(config, head=None)
    fewer.load_state_dict({k: v for k, v in model.state_dict().items() if 'head' not in k})
    assert fingerprint_model(fewer) == identity
    assert fingerprint_model(model.train()) == identity


def tensors_of(config):
    """Names of all tensors that decide embeddings or qualities."""
    return [
        name
        for name in riface(config).state_dict()
        if not name.startswith(('head.', 'ui_mean', 'ui_std'))
        and not name.endswith('num_batches_tracked')
    ]


def test_every_weight_counts(config):
    model = riface(config)
    identity = fingerprint_model(model)
    names = tensors_of(config)
    assert {'ui_center'} < set(names) and len(names) > 30
    for name in names:
        tensor = model.state_dict()[name]
        before = tensor[(-1,) * tensor.ndim].item()
        tensor[(-1,) * tensor.ndim] = before + 1e-3 * (1 + abs(before))
        assert fingerprint_model(model)['weights'] != identity['weights'], name
        tensor[(-1,) * tensor.ndim] = before
    assert fingerprint_model(model) == identity


@pytest.mark.parametrize(
    ('part', 'change'),
    [
        ('preprocessing', dict(std=128.0)),
        ('preprocessing', dict(color_order='BGR')),
        ('preprocessing', dict(alignment='arcface112-0123456789ab')),
        ('embedding', dict(inference_embedding='attention')),
        ('embedding', dict(flip_fusion='sum')),
    ],
)
def test_contract_and_embedding_count(config, part, change):
    model = riface(config)
    if part == 'preprocessing':
        change = dict(data_preprocessor={**config['data_preprocessor'], **change})
    other = riface(config, **change)
    other.load_state_dict(model.state_dict())
    identity, found = fingerprint_model(model), fingerprint_model(other)
    assert [key for key in identity if identity[key] != found[key]] == [part]
    with pytest.raises(ModelMismatchError, match=f'gallery was made with another.*{part}'):
        check_fingerprint(identity, found, 'gallery')


def test_check_identity():
    here = dict(weights='a' * 64, preprocessing=dict(size=(8, 8)), embedding=dict(dims=3))
    check_fingerprint(here, json.loads(json.dumps(here)))
    there = dict(here, weights='b' * 64, embedding=dict(dims=4, more=1))
    told = r'the\.npz was made.*embedding\.dims: 4 there, 3 here; embedding\.more: 1 there, None'
    with pytest.raises(ModelMismatchError, match=told + r'.*weights: b{16} there, a{16} here'):
        check_fingerprint(here, there, 'the.npz')
    with pytest.raises(ModelMismatchError, match='weights: nothing there'):
        check_fingerprint(here, {})
