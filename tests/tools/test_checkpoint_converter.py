"""The converter of public PyTorch checkpoints.

The sources here are made up in the public layouts. What a source computes is written out in this
file with functions that read its state dict by the public names, so that neither the modules nor
the converter are their own reference.
"""

import sys
import types
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mmvlr.cli.programs import convert
from mmvlr.models import FaceRecognizer
from mmvlr.models.backbones import IResNet
from mmvlr.models.conversion import families, public
from mmvlr.models.data_preprocessor import FaceDataPreprocessor
from mmvlr.utils.checkpoint import check_architecture
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.io import sha256_of

STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
WIDTHS = (64, 128, 256, 512)


class Source:
    """A state dict that grows layer by layer, with random values as in a trained network."""

    def __init__(self, device=None):
        self.state = {}
        self.device = device

    def conv(self, name, out, channels, *kernel, bias=False):
        fan_in = channels * int(np.prod(kernel))
        weight = torch.randn(out, channels, *kernel, device=self.device) * (2 / fan_in) ** 0.5
        self.state[f'{name}.weight'] = weight
        if bias:
            self.state[f'{name}.bias'] = torch.randn(out, device=self.device) * 0.1

    def bn(self, name, channels, affine=True):
        uniform = torch.empty(2, channels, device=self.device).uniform_(0.5, 1.5)
        if affine:
            self.state[f'{name}.weight'] = uniform[0].clone()
            self.state[f'{name}.bias'] = torch.randn(channels, device=self.device) * 0.1
        self.state[f'{name}.running_mean'] = torch.randn(channels, device=self.device) * 0.1
        self.state[f'{name}.running_var'] = uniform[1].clone()
        self.state[f'{name}.num_batches_tracked'] = torch.tensor(7)

    def prelu(self, name, channels):
        self.state[f'{name}.weight'] = torch.empty(channels, device=self.device).uniform_(0, 0.5)

    def num_parameters(self):
        return sum(v.numel() for k, v in self.state.items() if k.endswith(('weight', 'bias')))


class Layers:
    """Layers that read their weights from a state dict, in double precision."""

    def __init__(self, state, eps):
        self.state = {k: v.double() for k, v in state.items() if v.is_floating_point()}
        self.eps = eps

    def __contains__(self, name):
        return f'{name}.weight' in self.state

    def conv(self, name, x, stride=1, padding=0, groups=1):
        bias = self.state.get(f'{name}.bias')
        return F.conv2d(x, self.state[f'{name}.weight'], bias, stride, padding, groups=groups)

    def bn(self, name, x):
        weight, bias = (self.state.get(f'{name}.{key}') for key in ('weight', 'bias'))
        mean, var = (self.state[f'{name}.running_{key}'] for key in ('mean', 'var'))
        return F.batch_norm(x, mean, var, weight, bias, eps=self.eps)

    def prelu(self, name, x):
        return F.prelu(x, self.state[f'{name}.weight'])

    def linear(self, name, x):
        return F.linear(x, self.state[f'{name}.weight'], self.state.get(f'{name}.bias'))


# insightface's iresnet and MagFace's


def iresnet_source(depth, device=None):
    source = Source(device)
    source.conv('conv1', 64, 3, 3, 3)
    source.bn('bn1', 64)
    source.prelu('prelu', 64)
    channels = 64
    for stage, (width, blocks) in enumerate(zip(WIDTHS, STAGES[depth], strict=True), start=1):
        for block in range(blocks):
            at = f'layer{stage}.{block}'
            source.bn(f'{at}.bn1', channels)
            source.conv(f'{at}.conv1', width, channels, 3, 3)
            source.bn(f'{at}.bn2', width)
            source.prelu(f'{at}.prelu', width)
            source.conv(f'{at}.conv2', width, width, 3, 3)
            source.bn(f'{at}.bn3', width)
            if block == 0:
                source.conv(f'{at}.downsample.0', width, channels, 1, 1)
                source.bn(f'{at}.downsample.1', width)
            channels = width
    source.bn('bn2', 512)
    source.conv('fc', 512, 512 * 7 * 7, bias=True)
    source.bn('features', 512)
    return source


def iresnet_forward(state, x, eps=1e-5):
    net = Layers(state, eps)
    x = net.prelu('prelu', net.bn('bn1', net.conv('conv1', x, padding=1)))
    for stage in (1, 2, 3, 4):
        block = 0
        while (at := f'layer{stage}.{block}') + '.conv1' in net:
            stride = 2 if block == 0 else 1
            out = net.conv(f'{at}.conv1', net.bn(f'{at}.bn1', x), padding=1)
            out = net.prelu(f'{at}.prelu', net.bn(f'{at}.bn2', out))
            out = net.bn(f'{at}.bn3', net.conv(f'{at}.conv2', out, stride, 1))
            if stride == 2:
                x = net.bn(f'{at}.downsample.1', net.conv(f'{at}.downsample.0', x, stride))
            x = x + out
            block += 1
    feature_map = net.bn('bn2', x)
    return feature_map, net.bn('features', net.linear('fc', feature_map.flatten(1)))


# AdaFace's and face.evoLVe's IR


def ir_source(depth, inner_bn, last_affine, device=None):
    source = Source(device)
    source.conv('input_layer.0', 64, 3, 3, 3)
    source.bn('input_layer.1', 64)
    source.prelu('input_layer.2', 64)
    channels, number = 64, 0
    for width, blocks in zip(WIDTHS, STAGES[depth], strict=True):
        for _ in range(blocks):
            at = f'body.{number}.res_layer'
            source.bn(f'{at}.0', channels)
            source.conv(f'{at}.1', width, channels, 3, 3)
            if inner_bn:
                source.bn(f'{at}.2', width)
            source.prelu(f'{at}.{2 + inner_bn}', width)
            source.conv(f'{at}.{3 + inner_bn}', width, width, 3, 3)
            source.bn(f'{at}.{4 + inner_bn}', width)
            if width != channels:
                source.conv(f'body.{number}.shortcut_layer.0', width, channels, 1, 1)
                source.bn(f'body.{number}.shortcut_layer.1', width)
            channels, number = width, number + 1
    source.bn('output_layer.0', 512)
    source.conv('output_layer.3', 512, 512 * 7 * 7, bias=True)
    source.bn('output_layer.4', 512, affine=last_affine)
    return source


def ir_forward(state, x, depth, inner_bn):
    net = Layers(state, 1e-5)
    x = net.prelu('input_layer.2', net.bn('input_layer.1', net.conv('input_layer.0', x, 1, 1)))
    first = set(np.cumsum((0, *STAGES[depth]))[:4].tolist())
    for number in range(sum(STAGES[depth])):
        at, stride = f'body.{number}.res_layer', 2 if number in first else 1
        out = net.conv(f'{at}.1', net.bn(f'{at}.0', x), padding=1)
        if inner_bn:
            out = net.bn(f'{at}.2', out)
        out = net.prelu(f'{at}.{2 + inner_bn}', out)
        out = net.bn(f'{at}.{4 + inner_bn}', net.conv(f'{at}.{3 + inner_bn}', out, stride, 1))
        shortcut = f'body.{number}.shortcut_layer'
        if f'{shortcut}.0' in net:
            x = out + net.bn(f'{shortcut}.1', net.conv(f'{shortcut}.0', x, stride))
        else:
            x = out + F.max_pool2d(x, 1, stride)
    feature_map = net.bn('output_layer.0', x)
    return feature_map, net.bn(
        'output_layer.4', net.linear('output_layer.3', feature_map.flatten(1))
    )


# insightface's mbf

MBF_UNITS = [
    # name, channels in and out, expanded, stride
    ('layers.2', 128, 128, 128, 2),
    *((f'layers.3.layers.{i}', 128, 128, 128, 1) for i in range(4)),
    ('layers.4', 128, 256, 256, 2),
    *((f'layers.5.layers.{i}', 256, 256, 256, 1) for i in range(6)),
    ('layers.6', 256, 256, 512, 2),
    *((f'layers.7.layers.{i}', 256, 256, 256, 1) for i in range(2)),
]


def mbf_source(device=None):
    source = Source(device)

    def unit(name, out, channels, kernel, act=True):
        source.conv(f'{name}.layers.0', out, channels, kernel, kernel)
        source.bn(f'{name}.layers.1', out)
        if act:
            source.prelu(f'{name}.layers.2', out)

    unit('layers.0', 128, 3, 3)
    unit('layers.1', 128, 2, 3)
    for name, channels, out, expanded, _ in MBF_UNITS:
        unit(f'{name}.layers.0', expanded, channels, 1)
        unit(f'{name}.layers.1', expanded, 1, 3)
        unit(f'{name}.layers.2', out, expanded, 1, act=False)
    unit('conv_sep', 512, 256, 1)
    unit('features.layers.0', 512, 1, 7, act=False)
    source.conv('features.layers.2', 512, 512)
    source.bn('features.layers.3', 512)
    return source


def mbf_forward(state, x):
    net = Layers(state, 1e-5)

    def unit(name, x, stride=1, padding=0, groups=1):
        x = net.bn(f'{name}.layers.1', net.conv(f'{name}.layers.0', x, stride, padding, groups))
        return net.prelu(f'{name}.layers.2', x) if f'{name}.layers.2' in net else x

    x = unit('layers.1', unit('layers.0', x, 2, 1), 1, 1, groups=64)
    for name, _, _, expanded, stride in MBF_UNITS:
        out = unit(f'{name}.layers.0', x)
        out = unit(f'{name}.layers.2', unit(f'{name}.layers.1', out, stride, 1, expanded))
        x = out if stride == 2 else x + out
    feature_map = unit('conv_sep', x)
    x = unit('features.layers.0', feature_map, groups=512).flatten(1)
    return feature_map, net.bn('features.layers.3', net.linear('features.layers.2', x))


# FaceX-Zoo's MobileFaceNet

ZOO_UNITS = [
    # name, channels in and out, expanded, stride
    ('conv_23', 64, 64, 128, 2),
    *((f'conv_3.model.{i}', 64, 64, 128, 1) for i in range(4)),
    ('conv_34', 64, 128, 256, 2),
    *((f'conv_4.model.{i}', 128, 128, 256, 1) for i in range(6)),
    ('conv_45', 128, 128, 512, 2),
    *((f'conv_5.model.{i}', 128, 128, 256, 1) for i in range(2)),
]


def zoo_mbf_source(device=None):
    source = Source(device)

    def unit(name, out, channels, kernel, act=True):
        source.conv(f'{name}.conv', out, channels, kernel, kernel)
        source.bn(f'{name}.bn', out)
        if act:
            source.prelu(f'{name}.prelu', out)

    unit('conv1', 64, 3, 3)
    unit('conv2_dw', 64, 1, 3)
    for name, channels, out, expanded, _ in ZOO_UNITS:
        unit(f'{name}.conv', expanded, channels, 1)
        unit(f'{name}.conv_dw', expanded, 1, 3)
        unit(f'{name}.project', out, expanded, 1, act=False)
    unit('conv_6_sep', 512, 128, 1)
    unit('conv_6_dw', 512, 1, 7, act=False)
    source.conv('linear', 512, 512)
    source.bn('bn', 512)
    return source


def zoo_mbf_forward(state, x):
    net = Layers(state, 1e-5)

    def unit(name, x, stride=1, padding=0, groups=1):
        x = net.bn(f'{name}.bn', net.conv(f'{name}.conv', x, stride, padding, groups))
        return net.prelu(f'{name}.prelu', x) if f'{name}.prelu' in net else x

    x = unit('conv2_dw', unit('conv1', x, 2, 1), 1, 1, groups=64)
    for name, _, _, expanded, stride in ZOO_UNITS:
        out = unit(f'{name}.conv', x)
        out = unit(f'{name}.project', unit(f'{name}.conv_dw', out, stride, 1, expanded))
        x = out if stride == 2 else x + out
    feature_map = unit('conv_6_sep', x)
    x = unit('conv_6_dw', feature_map, groups=512).flatten(1)
    return feature_map, net.bn('bn', net.linear('linear', x))


# facenet-pytorch's InceptionResnetV1

FACENET_BRANCHES = {
    # unit: its branches, each rows of (channels, kernel, stride, padding)
    'block35': [[(32, 1)], [(32, 1), (32, 3, 1, 1)], [(32, 1), (32, 3, 1, 1), (32, 3, 1, 1)]],
    'block17': [[(128, 1)], [(128, 1), (128, (1, 7), 1, (0, 3)), (128, (7, 1), 1, (3, 0))]],
    'block8': [[(192, 1)], [(192, 1), (192, (1, 3), 1, (0, 1)), (192, (3, 1), 1, (1, 0))]],
    'mixed_6a': [[(384, 3, 2)], [(192, 1), (192, 3, 1, 1), (256, 3, 2)]],
    'mixed_7a': [
        [(256, 1), (384, 3, 2)],
        [(256, 1), (256, 3, 2)],
        [(256, 1), (256, 3, 1, 1), (256, 3, 2)],
    ],
}
FACENET_STEM = {
    'conv2d_1a': (32, 3, 2),
    'conv2d_2a': (32, 3),
    'conv2d_2b': (64, 3, 1, 1),
    'conv2d_3b': (80, 1),
    'conv2d_4a': (192, 3),
    'conv2d_4b': (256, 3, 2),
}
FACENET_UNITS = [
    # name, kind, channels in, scale and whether a ReLU follows (of residual units)
    *((f'repeat_1.{i}', 'block35', 256, 0.17, True) for i in range(5)),
    ('mixed_6a', 'mixed_6a', 256, None, None),
    *((f'repeat_2.{i}', 'block17', 896, 0.1, True) for i in range(10)),
    ('mixed_7a', 'mixed_7a', 896, None, None),
    *((f'repeat_3.{i}', 'block8', 1792, 0.2, True) for i in range(5)),
    ('block8', 'block8', 1792, 1.0, False),
]


def facenet_layers(name, kind):
    """Each branch of a unit: its layers' names and settings; one alone stands in no Sequential."""
    for index, rows in enumerate(FACENET_BRANCHES[kind]):
        branch = f'{name}.branch{index}'
        # mixed_7a's branches have two layers or more; single ones are modules themselves.
        yield [(branch if len(rows) == 1 else f'{branch}.{i}', row) for i, row in enumerate(rows)]


def facenet_source(device=None):
    source = Source(device)

    def layer(name, out, channels, kernel):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        source.conv(f'{name}.conv', out, channels, *kernel)
        source.bn(f'{name}.bn', out)

    channels = 3
    for name, (out, kernel, *_) in FACENET_STEM.items():
        layer(name, out, channels, kernel)
        channels = out
    for name, kind, width, scale, _ in FACENET_UNITS:
        inner = 0
        for branch in facenet_layers(name, kind):
            channels = width
            for layer_name, (out, kernel, *_) in branch:
                layer(layer_name, out, channels, kernel)
                channels = out
            inner += channels
        if scale:
            source.conv(f'{name}.conv2d', width, inner, 1, 1, bias=True)
    source.conv('last_linear', 512, 1792)
    source.bn('last_bn', 512)
    return source


def facenet_forward(state, x):
    net = Layers(state, 1e-3)

    def layer(name, x, stride=1, padding=0):
        return F.relu(net.bn(f'{name}.bn', net.conv(f'{name}.conv', x, stride, padding)))

    for name, (_, _, *settings) in FACENET_STEM.items():
        x = layer(name, x, *settings)
        if name == 'conv2d_2b':
            x = F.max_pool2d(x, 3, 2)
    for name, kind, _, scale, relu in FACENET_UNITS:
        outs = []
        for branch in facenet_layers(name, kind):
            out = x
            for layer_name, (_, _, *settings) in branch:
                out = layer(layer_name, out, *settings)
            outs.append(out)
        if scale:
            x = net.conv(f'{name}.conv2d', torch.cat(outs, 1)) * scale + x
            x = F.relu(x) if relu else x
        else:
            x = torch.cat([*outs, F.max_pool2d(x, 3, 2)], 1)
    pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
    return x, net.bn('last_bn', net.linear('last_linear', pooled))


# The sources as they are published, and what each does with a uint8 RGB image


def as_published(prefix, state, **head):
    return {**{prefix + key: value for key, value in state.items()}, **head}


def half(image):
    return (image / 255.0 - 0.5) / 0.5


def bgr(image):
    return image[:, :, ::-1]


KERNEL = {'head.kernel': torch.ones(512, 3), 'head.t': torch.zeros(1)}
CASES = {
    # case: FAMILY, its state, what is stored, the forward pass, the image, size, parameters
    'insightface-iresnet-18': dict(
        family='insightface-iresnet',
        source=lambda: iresnet_source(18),
        stored=lambda state: state,
        forward=iresnet_forward,
        image=half,
        depth=18,
    ),
    'insightface-iresnet-34': dict(
        family='insightface-iresnet',
        source=lambda: iresnet_source(34),
        # As the training writes it, to go on from there.
        stored=lambda state: dict(
            epoch=3,
            state_dict_backbone=as_published('module.', state),
            state_dict_softmax_fc=dict(weight=torch.ones(3, 512)),
        ),
        forward=iresnet_forward,
        image=half,
        depth=34,
    ),
    'insightface-mbf': dict(
        family='insightface-mbf',
        source=mbf_source,
        stored=lambda state: state,
        forward=mbf_forward,
        image=half,
        parameters=2_059_520,
    ),
    'adaface-50': dict(
        family='adaface',
        source=lambda: ir_source(50, inner_bn=True, last_affine=False),
        stored=lambda state: dict(
            epoch=25,
            hyper_parameters=dict(arch='ir_50'),
            state_dict=as_published('model.', state, **KERNEL),
        ),
        forward=lambda state, x: ir_forward(state, x, 50, True),
        image=lambda image: half(bgr(image)),
        depth=50,
        parameters=43_585_600,
        left_out=2,
    ),
    'adaface-18-bare': dict(
        family='adaface',
        source=lambda: ir_source(18, inner_bn=True, last_affine=False),
        stored=lambda state: as_published('', state, **KERNEL),
        forward=lambda state, x: ir_forward(state, x, 18, True),
        image=lambda image: half(bgr(image)),
        depth=18,
        left_out=2,
    ),
    'faceevolve-50': dict(
        family='faceevolve',
        source=lambda: ir_source(50, inner_bn=False, last_affine=True),
        stored=lambda state: state,
        forward=lambda state, x: ir_forward(state, x, 50, False),
        image=half,
        depth=50,
        parameters=43_574_976,
    ),
    'magface-18': dict(
        family='magface',
        source=lambda: iresnet_source(18),
        stored=lambda state: dict(
            epoch=25,
            arch='iresnet18',
            state_dict=as_published(
                'features.module.', state, **{'parallel_fc.weight': torch.ones(512, 3)}
            ),
        ),
        forward=lambda state, x: iresnet_forward(state, x, eps=2e-5),
        image=lambda image: bgr(image) / 255.0,
        depth=18,
        left_out=1,
    ),
    'magface-18-distributed': dict(
        family='magface',
        source=lambda: iresnet_source(18),
        stored=lambda state: dict(
            state_dict=as_published(
                'module.features.', state, **{'module.fc.weight': torch.ones(512, 3)}
            )
        ),
        forward=lambda state, x: iresnet_forward(state, x, eps=2e-5),
        image=lambda image: bgr(image) / 255.0,
        depth=18,
        left_out=1,
    ),
    'cvlface-18': dict(
        family='cvlface',
        source=lambda: ir_source(18, inner_bn=True, last_affine=False),
        stored=lambda state: as_published('model.net.', state),
        safetensors=True,
        forward=lambda state, x: ir_forward(state, x, 18, True),
        image=half,
        depth=18,
    ),
    'facexzoo-18': dict(
        family='facexzoo',
        source=lambda: ir_source(18, inner_bn=False, last_affine=True),
        stored=lambda state: dict(
            epoch=3, batch_id=1, state_dict=as_published('backbone.', state, **KERNEL)
        ),
        forward=lambda state, x: ir_forward(state, x, 18, False),
        image=lambda image: (bgr(image) - 127.5) / 128,
        depth=18,
        left_out=2,
    ),
    'facexzoo-mbf': dict(
        family='facexzoo-mbf',
        source=zoo_mbf_source,
        stored=lambda state: dict(state_dict=as_published('backbone.', state, **KERNEL)),
        forward=zoo_mbf_forward,
        image=lambda image: (bgr(image) - 127.5) / 128,
        parameters=1_200_512,
        left_out=2,
    ),
    'facenet': dict(
        family='facenet',
        source=facenet_source,
        stored=lambda state: as_published(
            '', state, **{'logits.weight': torch.ones(3, 512), 'logits.bias': torch.ones(3)}
        ),
        forward=facenet_forward,
        image=lambda image: (image - 127.5) / 128.0,
        size=160,
        parameters=23_482_624,
        left_out=2,
    ),
}


# One of each kind of network; the others take seconds each.
QUICK = ('insightface-iresnet-18', 'insightface-mbf', 'facexzoo-mbf')


@pytest.fixture(scope='module')
def converter(tool):
    return tool('model_converters/convert.py')


@pytest.mark.parametrize(
    'case',
    [pytest.param(case, marks=[pytest.mark.slow] * (case not in QUICK)) for case in CASES],
)
def test_converted_network_computes_what_its_source_does(converter, tmp_path, capsys, case):
    case = CASES[case]
    source = case['source']()
    if 'parameters' in case:
        assert source.num_parameters() == case['parameters']
    path, out = tmp_path / 'public.pth', tmp_path / 'new' / 'mmvlr.pth'
    (save_file if case.get('safetensors') else torch.save)(case['stored'](source.state), path)
    depth = ['--depth', str(case['depth'])] if 'depth' in case else []
    assert converter.main([case['family'], str(path), str(out), *depth]) == 0
    said = capsys.readouterr().out
    assert f'{source.num_parameters():,} parameters' in said
    if 'left_out' in case:
        assert f'{case["left_out"]} weights of the head left out' in said
    else:
        assert 'left out' not in said

    checkpoint = load_checkpoint_file(str(out))
    meta = checkpoint['meta']
    model = FaceRecognizer(
        backbone=meta['architecture'],
        data_preprocessor=dict(type='FaceDataPreprocessor', **meta['preprocessing']),
    )
    check_architecture(model, checkpoint, str(out))
    assert not model.load_state_dict(checkpoint['state_dict'], strict=False).unexpected_keys
    assert meta['preprocessing'] == model.data_preprocessor.contract
    assert sha256_of(path) in meta['source']
    # pytest keeps the folders of its last runs, and these are large.
    path.unlink()
    out.unlink()
    count = sum(parameter.numel() for parameter in model.backbone.parameters())
    assert count == source.num_parameters()

    # An image goes through the preprocessor to what the source's own code would have made of it.
    size = case.get('size', 112)
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    face = torch.from_numpy(image.transpose(2, 0, 1).copy())
    prepared = model.data_preprocessor(dict(inputs=[face]))['inputs']
    expected_input = np.ascontiguousarray(case['image'](image.astype(float)).transpose(2, 0, 1))
    expected_input = torch.from_numpy(expected_input)[None]
    torch.testing.assert_close(prepared.double(), expected_input, rtol=0, atol=1e-6)

    # In double precision, where even another epsilon in the BN shows.
    with torch.no_grad():
        expected = case['forward'](source.state, expected_input)
        found = model.backbone.double().eval()(expected_input)
    assert expected[1].std() > 0.1
    for one, other in zip(found, expected, strict=True):
        error = (one - other).abs().max() / other.abs().max()
        assert error < 1e-10


CONTRACTS = {
    'insightface-iresnet': (112, 'RGB', 127.5, 127.5),
    'insightface-mbf': (112, 'RGB', 127.5, 127.5),
    'adaface': (112, 'BGR', 127.5, 127.5),
    'cvlface': (112, 'RGB', 127.5, 127.5),
    'faceevolve': (112, 'RGB', 127.5, 127.5),
    'facexzoo': (112, 'BGR', 127.5, 128.0),
    'facexzoo-mbf': (112, 'BGR', 127.5, 128.0),
    'magface': (112, 'BGR', 0.0, 255.0),
    'facenet': (160, 'RGB', 127.5, 128.0),
}


@pytest.mark.parametrize('family', CONTRACTS)
def test_contract_is_that_of_the_table(family):
    """As in shared/protocols.md, "Backbones and public checkpoints", and publishers' code."""
    assert sorted(CONTRACTS) == sorted(families.FAMILIES) == sorted(convert.FAMILIES)
    assert sorted(IResNet.arch_settings) == sorted(convert.DEPTHS)
    size, color_order, mean, std = CONTRACTS[family]
    contract = FaceDataPreprocessor(**families.FAMILIES[family].preprocessing).contract
    assert contract['size'] == [size, size]
    assert contract['color_order'] == color_order
    assert contract['mean'] == [mean] * 3
    assert contract['std'] == [std] * 3


@pytest.mark.parametrize('depth', [50, 100])
@pytest.mark.parametrize('family', ['insightface-iresnet', 'adaface', 'faceevolve', 'magface'])
def test_names_of_the_deep_networks(family, depth):
    """Every weight of the layout has its place, with its shape; nothing is computed."""
    with torch.device('meta'):
        if family in ('insightface-iresnet', 'magface'):
            source = iresnet_source(depth, 'meta')
        else:
            inner_bn = family == 'adaface'
            source = ir_source(depth, inner_bn, last_affine=not inner_bn, device='meta')
        architecture = dict(families.FAMILIES[family].architecture, depth=depth)
        backbone = families.BACKBONES[architecture.pop('type')](**architecture)
    assert public.derive_depth('x.pth', source.state, None) == depth
    public.load('x.pth', source.state, backbone, families.FAMILIES[family].names(backbone))


def test_insightface_ir50_has_as_many_parameters_as_published():
    assert iresnet_source(50, 'meta').num_parameters() == 43_590_848


def test_old_files_do_not_count_batches(converter, tmp_path):
    state = {k: v for k, v in mbf_source().state.items() if 'num_batches_tracked' not in k}
    torch.save(state, tmp_path / 'in.pth')
    out = tmp_path / 'out.pth'
    assert converter.main(['insightface-mbf', str(tmp_path / 'in.pth'), str(out)]) == 0
    assert load_checkpoint_file(str(out))['state_dict']['backbone.stem.bn.num_batches_tracked'] == 0


def test_half_precision_is_read(converter, tmp_path):
    state = {k: v.half() if v.is_floating_point() else v for k, v in mbf_source().state.items()}
    torch.save(state, tmp_path / 'in.pth')
    out = tmp_path / 'out.pth'
    assert converter.main(['insightface-mbf', str(tmp_path / 'in.pth'), str(out)]) == 0
    weight = load_checkpoint_file(str(out))['state_dict']['backbone.stem.conv.weight']
    assert weight.dtype == torch.float32
    assert torch.equal(weight, state['layers.0.layers.0.weight'].float())


@pytest.mark.parametrize(
    ('wrapped', 'where'),
    [
        (lambda s: s, None),
        (lambda s: as_published('a.b.', s), 'a.b.'),
        (lambda s: dict(state_dict=as_published('module.model.', s)), 'state_dict.module.model.'),
        (
            lambda s: dict(ema=dict(weights=s), epoch=1, optimizer=dict(state={0: {}})),
            'ema.weights.',
        ),
    ],
)
def test_network_behind_any_prefix_and_wrapper(converter, tmp_path, capsys, mbf, wrapped, where):
    path, out = tmp_path / 'in.pth', tmp_path / 'out.pth'
    torch.save(wrapped(mbf), path)
    assert converter.main(['insightface-mbf', str(path), str(out)]) == 0
    said = capsys.readouterr().out
    assert f'was found behind {where}' in said if where else 'found behind' not in said
    weight = load_checkpoint_file(str(out))['state_dict']['backbone.stem.conv.weight']
    assert torch.equal(weight, mbf['layers.0.layers.0.weight'])


def test_colors_of_another_publisher_are_pointed_out():
    """The layout alone does not tell: FAMILY decides, and the prefix gives a hint."""
    states = {'': as_published('net.', light(ir_source(18, True, False, 'meta')))}
    assert 'cvlface, for which faces are RGB' in public.split('a', states, 'adaface')[2]
    assert 'for which' not in public.split('a', states, 'cvlface')[2]
    states = {'': as_published('backbone.', light(ir_source(18, False, True, 'meta')))}
    assert 'facexzoo, for which faces are BGR' in public.split('a', states, 'faceevolve')[2]


# Refusals: small wrong files


@pytest.fixture
def refused(converter, tmp_path, capsys):
    """Return a function that stores a checkpoint and returns what the converter says against it."""

    def run(family, stored, *options):
        path, out = tmp_path / 'public.pth', tmp_path / 'out.pth'
        if stored is not None:
            torch.save(stored, path)
        assert converter.main([family, str(path), str(out), *options]) == 1
        assert not out.exists()
        said = capsys.readouterr().err
        assert str(path) in said
        return said

    return run


@pytest.fixture(scope='module')
def mbf():
    return mbf_source().state


def light(source):
    """The same names, with weights that take no space; refused before shapes count."""
    return {key: torch.zeros(1) for key in source.state}


def test_two_networks(refused, mbf):
    said = refused('insightface-mbf', dict(student=mbf, teacher=as_published('net.', mbf)))
    assert 'student.*, teacher.net.*' in said


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (lambda w: w.to(torch.complex64), 'complex64'),
        (lambda w: w.to(torch.int8), 'int8'),
        (lambda w: w * float('nan'), 'not finite'),
    ],
)
def test_weights_that_are_no_real_numbers(refused, mbf, change, told):
    said = refused('insightface-mbf', {**mbf, 'conv_sep.layers.0.weight': change(torch.ones(3))})
    assert 'conv_sep.layers.0.weight' in said and told in said


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        (b'<!DOCTYPE html><html>', 'web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (b'', 'empty'),
        (b'\x20' + bytes(7) + b'{"a":', 'safetensors'),
        ('zip', 'zip archive with inner/backbone.pth'),
    ],
)
def test_what_it_is_instead(refused, tmp_path, content, told):
    if content == 'zip':
        with zipfile.ZipFile(tmp_path / 'public.pth', 'w') as archive:
            archive.writestr('inner/backbone.pth', b'x')
    else:
        (tmp_path / 'public.pth').write_bytes(content)
    assert told in refused('insightface-mbf', None)


def test_missing_weight(refused, mbf):
    state = {k: v for k, v in mbf.items() if k != 'layers.4.layers.1.layers.1.running_var'}
    said = refused('insightface-mbf', state)
    assert '1 weights are missing, the first layers.4.layers.1.layers.1.running_var' in said
    assert 'unknown' not in said


def test_unknown_weight(refused, mbf):
    said = refused('insightface-mbf', {**mbf, 'extra.weight': torch.ones(1)})
    assert '1 weights are unknown, the first extra.weight' in said
    assert 'missing' not in said


def test_another_shape(refused, mbf):
    said = refused('insightface-mbf', {**mbf, 'conv_sep.layers.1.bias': torch.ones(256)})
    assert 'conv_sep.layers.1.bias has the shape (256,) instead of (512,)' in said


def test_squeeze_excitation_is_another_network(refused):
    state = light(ir_source(18, inner_bn=False, last_affine=True, device='meta'))
    state['body.0.res_layer.5.fc1.weight'] = torch.zeros(1)
    said = refused('faceevolve', state)
    assert '1 weights are unknown, the first body.0.res_layer.5.fc1.weight' in said
    assert 'squeeze-excitation' in said


@pytest.mark.parametrize('family', ['insightface-iresnet', 'adaface'])
def test_another_depth(refused, family):
    if family == 'adaface':
        state, last = light(ir_source(34, True, False, device='meta')), 'body.15.'
    else:
        state, last = light(iresnet_source(34, device='meta')), 'layer4.2.'
    said = refused(family, state, '--depth', '50')
    assert f'16 residual blocks, the last {last}*, are depth 34 and not 50' in said
    assert '--depth 34' in said


def test_no_such_depth(refused):
    state = light(iresnet_source(50, device='meta'))
    state = {k: v for k, v in state.items() if not k.startswith('layer4.2.')}
    said = refused('insightface-iresnet', state)
    assert '23 residual blocks, the last layer4.1.*' in said
    assert '24 (depth 50)' in said


def test_one_depth_only(refused, mbf):
    assert 'leave --depth out' in refused('insightface-mbf', mbf, '--depth', '18')


@pytest.mark.parametrize(
    ('named', 'stored', 'like'),
    [
        ('adaface', ir_source(18, False, True, 'meta'), 'faceevolve'),
        ('faceevolve', ir_source(18, True, False, 'meta'), 'adaface'),
        ('magface', iresnet_source(18, 'meta'), 'insightface-iresnet'),
        ('insightface-iresnet', mbf_source('meta'), 'insightface-mbf'),
        ('insightface-mbf', facenet_source('meta'), 'facenet'),
    ],
)
def test_another_family(refused, named, stored, like):
    said = refused(named, light(stored))
    first = next(iter(stored.state))
    assert f'its first weight is {first}: it looks like {like}\n' in said


def test_magface_is_not_taken_for_insightface(refused):
    """Same network, other colors: only the prefix tells them apart."""
    state = as_published('features.module.', light(iresnet_source(18, 'meta')))
    assert 'it looks like magface' in refused('insightface-iresnet', state)


def test_no_face_network(refused):
    said = refused('adaface', {'blocks.0.weight': torch.ones(1)})
    assert 'no weight body.0.res_layer.5.running_mean' in said
    assert 'its first weight is blocks.0.weight' in said and 'no layout that is known' in said


@pytest.mark.parametrize('stored', [{}, [torch.ones(1)], torch.ones(3), dict(epoch=3)])
def test_no_weights(refused, stored):
    assert 'no weights in it' in refused('adaface', stored)


def test_no_file(refused):
    assert 'does not exist' in refused('adaface', None)


class Callback:
    """Stands for an object that a Lightning checkpoint carries along."""


def test_hidden_code_is_not_run(refused):
    said = refused('adaface', dict(state_dict={}, callbacks=Callback()))
    assert 'loading it in full can run code' in said
    assert 'MMVLR_TRUSTED=' in said


def test_trusted_file_of_a_package_that_is_not_there(refused, tmp_path, monkeypatch):
    """Lightning checkpoints such as AdaFace's name Lightning's classes."""
    module = types.ModuleType('lightning_of_old')
    module.ModelCheckpoint = type('ModelCheckpoint', (), {'__module__': module.__name__})
    monkeypatch.setitem(sys.modules, module.__name__, module)
    torch.save(dict(state_dict={}, callbacks=module.ModelCheckpoint), tmp_path / 'public.pth')
    monkeypatch.delitem(sys.modules, module.__name__)
    assert 'MMVLR_TRUSTED=' in refused('adaface', None)
    monkeypatch.setenv('MMVLR_TRUSTED', str(tmp_path))
    said = refused('adaface', None)
    assert "No module named 'lightning_of_old'" in said
    assert "torch.load('public.pth', 'cpu', weights_only=False)['state_dict']" in said


def test_source_is_not_overwritten(converter, mbf, tmp_path, capsys):
    path = tmp_path / 'in.pth'
    torch.save(mbf, path)
    before = sha256_of(path)
    assert converter.main(['insightface-mbf', str(path), str(path)]) == 1
    assert 'is the source itself' in capsys.readouterr().err
    assert sha256_of(path) == before


def test_unknown_family(converter, capsys):
    with pytest.raises(SystemExit):
        converter.main(['arcface', 'a', 'b'])
    assert 'insightface-iresnet' in capsys.readouterr().err
