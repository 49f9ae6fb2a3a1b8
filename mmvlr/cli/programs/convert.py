"""Convert a public PyTorch checkpoint into an mmvlr checkpoint.

Usage::

    python tools/model_converters/convert.py FAMILY SRC DST [--depth DEPTH]

FAMILY says who published SRC; it decides the names of the weights and the preprocessing contract:

- ``insightface-iresnet``: ``backbone.pth`` of r18, r34, r50, r100 (insightface, arcface_torch);
- ``insightface-mbf``: ``backbone.pth`` of mbf;
- ``adaface``: IR-18 to IR-101 ``.ckpt`` files, keys behind ``model.``;
- ``cvlface``: IR-18 to IR-101 of CVLface, keys behind ``net.``;
- ``faceevolve``: IR-50 of face.evoLVe;
- ``facexzoo``, ``facexzoo-mbf``: IR and MobileFaceNet of FaceX-Zoo, keys behind ``backbone.``;
- ``magface``: iResNet of MagFace, keys behind ``module.features.`` or ``features.module.``;
- ``facenet``: ``InceptionResnetV1`` of facenet-pytorch.

SRC is a PyTorch or a safetensors file, read without running code that may be hidden in it. The
network is found behind any prefix and in any dict, and it is said where.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmvlr.models.backbones import FaceBackbone, InceptionResnetV1, IResNet, MobileFaceNet
from mmvlr.models.data_preprocessor import FaceDataPreprocessor
from mmvlr.utils.checkpoint import check_values, save_pretrained
from mmvlr.utils.command import describe, output_file, tell_write_errors
from mmvlr.utils.compat import UntrustedCheckpointError, load_checkpoint_file
from mmvlr.utils.filetype import describe_content
from mmvlr.utils.io import sha256_of

#: Dicts in dicts that are searched for weights.
DEEPEST = 3
#: Names of the residual blocks of an IResNet, in all its layouts.
BLOCK = re.compile(r'(layer\d+|body)\.\d+\.')


def same_names(backbone: FaceBackbone) -> dict[str, str]:
    """The source names its layers as mmvlr does."""
    return {}


def ir_names(backbone: IResNet) -> dict[str, str]:
    """Names in AdaFace and face.evoLVe: blocks in one row, layers by their place in a Sequential.

    Returns:
        dict: Layer of the backbone -> layer of the source.
    """
    names = {'conv1': 'input_layer.0', 'bn1': 'input_layer.1', 'prelu': 'input_layer.2'}
    # output_layer.1 is the dropout and output_layer.2 the flattening.
    names |= {'bn2': 'output_layer.0', 'fc': 'output_layer.3', 'features': 'output_layer.4'}
    blocks = [
        f'layer{stage}.{index}'
        for stage, count in enumerate(backbone.arch_settings[backbone.depth], start=1)
        for index in range(count)
    ]
    layers = ['bn1', 'conv1', 'bn2', 'prelu', 'conv2', 'bn3']
    if not backbone.variants[backbone.variant]['inner_bn']:
        layers.remove('bn2')
    for number, block in enumerate(blocks):
        for place, layer in enumerate(layers):
            names[f'{block}.{layer}'] = f'body.{number}.res_layer.{place}'
        for place in (0, 1):
            names[f'{block}.downsample.{place}'] = f'body.{number}.shortcut_layer.{place}'
    return names


def mbf_names(backbone: MobileFaceNet) -> dict[str, str]:
    """Names in insightface's mbf: every unit is a Sequential called ``layers``.

    Returns:
        dict: Layer of the backbone -> layer of the source.
    """
    units = {'stem': 'layers.0', 'stem_depthwise': 'layers.1', 'last': 'conv_sep'}
    units['global_depthwise'] = 'features.layers.0'
    # A stride-2 block stands alone; the blocks behind it, with shortcuts, share one Sequential.
    blocks = ['layers.2', *(f'layers.3.layers.{i}' for i in range(4))]
    blocks += ['layers.4', *(f'layers.5.layers.{i}' for i in range(6))]
    blocks += ['layers.6', *(f'layers.7.layers.{i}' for i in range(2))]
    for number, block in enumerate(blocks):
        for place, unit in enumerate(('expand', 'depthwise', 'project')):
            units[f'blocks.{number}.{unit}'] = f'{block}.layers.{place}'
    names = {'embedding': 'features.layers.2', 'features': 'features.layers.3'}
    for unit, source in units.items():
        for place, layer in enumerate(('conv', 'bn', 'act')):
            names[f'{unit}.{layer}'] = f'{source}.layers.{place}'
    return names


def facexzoo_mbf_names(backbone: MobileFaceNet) -> dict[str, str]:
    """Names in FaceX-Zoo's MobileFaceNet, which are those of InsightFace_Pytorch.

    Returns:
        dict: Layer of the backbone -> layer of the source.
    """
    names = {'embedding': 'linear', 'features': 'bn'}
    units = {'stem': 'conv1', 'stem_depthwise': 'conv2_dw', 'last': 'conv_6_sep'}
    units['global_depthwise'] = 'conv_6_dw'
    blocks = ['conv_23', *(f'conv_3.model.{i}' for i in range(4))]
    blocks += ['conv_34', *(f'conv_4.model.{i}' for i in range(6))]
    blocks += ['conv_45', *(f'conv_5.model.{i}' for i in range(2))]
    for number, block in enumerate(blocks):
        for unit, source in dict(expand='conv', depthwise='conv_dw', project='project').items():
            units[f'blocks.{number}.{unit}'] = f'{block}.{source}'
    for unit, source in units.items():
        for layer, name in dict(conv='conv', bn='bn', act='prelu').items():
            names[f'{unit}.{layer}'] = f'{source}.{name}'
    return names


@dataclass(frozen=True)
class Family:
    """What is known about the checkpoints of one publisher.

    Args:
        url: Where they come from.
        architecture: Config of the backbone.
        names: Backbone -> its layers' names in the source, where they differ.
        anchor: A weight that every file of the family has, and of other layouts none.
        preprocessing: Arguments of FaceDataPreprocessor.
        home: How the prefix ends, behind which the publisher keeps the network, where others use
            the same layout. Any other prefix is fine, too, unless ``only_home``.
        only_home: A network elsewhere is another publisher's.
        heads: How the head's names start where the backbone's have no prefix.
    """

    url: str
    architecture: Mapping[str, Any]
    names: Callable[[Any], dict[str, str]]
    anchor: str
    preprocessing: Mapping[str, Any]
    home: tuple[str, ...] = ()
    only_home: bool = False
    heads: tuple[str, ...] = ()


FAMILIES = {
    'insightface-iresnet': Family(
        url='https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch',
        architecture=dict(type='IResNet'),
        names=same_names,
        anchor='layer1.0.bn1.weight',
        preprocessing=dict(color_order='RGB', mean=127.5, std=127.5),
    ),
    'insightface-mbf': Family(
        url='https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch',
        architecture=dict(type='MobileFaceNet', variant='insightface'),
        names=mbf_names,
        anchor='conv_sep.layers.0.weight',
        preprocessing=dict(color_order='RGB', mean=127.5, std=127.5),
    ),
    'adaface': Family(
        url='https://github.com/mk-minchul/AdaFace',
        architecture=dict(type='IResNet', variant='adaface'),
        names=ir_names,
        # The last BN of a block: face.evoLVe has one layer less.
        anchor='body.0.res_layer.5.running_mean',
        heads=('head.',),
        preprocessing=dict(color_order='BGR', mean=127.5, std=127.5),
    ),
    'cvlface': Family(
        url='https://github.com/mk-minchul/CVLface',
        architecture=dict(type='IResNet', variant='adaface'),
        names=ir_names,
        anchor='body.0.res_layer.5.running_mean',
        home=('net.',),
        preprocessing=dict(color_order='RGB', mean=127.5, std=127.5),
    ),
    'faceevolve': Family(
        url='https://github.com/ZhaoJ9014/face.evoLVe',
        architecture=dict(type='IResNet', variant='faceevolve'),
        names=ir_names,
        anchor='body.0.res_layer.4.running_mean',
        preprocessing=dict(color_order='RGB', mean=127.5, std=127.5),
    ),
    'facexzoo': Family(
        url='https://github.com/JDAI-CV/FaceX-Zoo',
        architecture=dict(type='IResNet', variant='faceevolve'),
        names=ir_names,
        anchor='body.0.res_layer.4.running_mean',
        home=('backbone.', 'feat_net.'),
        preprocessing=dict(color_order='BGR', mean=127.5, std=128.0),
    ),
    'facexzoo-mbf': Family(
        url='https://github.com/JDAI-CV/FaceX-Zoo',
        architecture=dict(type='MobileFaceNet', variant='slim'),
        names=facexzoo_mbf_names,
        anchor='conv_6_sep.conv.weight',
        preprocessing=dict(color_order='BGR', mean=127.5, std=128.0),
    ),
    'magface': Family(
        url='https://github.com/IrvingMeng/MagFace',
        architecture=dict(type='IResNet', bn_eps=2e-5),
        names=same_names,
        anchor='layer1.0.bn1.weight',
        # Elsewhere it would be an insightface file, whose colors are the other way round.
        home=('features.', 'features.module.'),
        only_home=True,
        preprocessing=dict(color_order='BGR', mean=0.0, std=255.0),
    ),
    'facenet': Family(
        url='https://github.com/timesler/facenet-pytorch',
        architecture=dict(type='InceptionResnetV1'),
        names=same_names,
        anchor='conv2d_1a.conv.weight',
        heads=('logits.',),
        preprocessing=dict(size=(160, 160), color_order='RGB', mean=127.5, std=128.0),
    ),
}
BACKBONES = {cls.__name__: cls for cls in (IResNet, MobileFaceNet, InceptionResnetV1)}


def read_weights(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights in a checkpoint, by the path of the dict that they stand in.

    Raises:
        ValueError: There are none.
    """
    head = b''
    if path.is_file():
        with path.open('rb') as file:
            head = file.read(512)
    try:
        safetensors = 'safetensors' in (describe_content(head) or '')
        content = load_file(path) if safetensors else load_checkpoint_file(str(path))
    except ImportError as error:
        # Lightning files name classes of Lightning beside the weights; trusted, they are imported.
        raise ValueError(
            f'{path}: {error}, which is stored beside the weights. Install it, or where it is '
            "installed save the weights alone: torch.save(torch.load('"
            f"{path.name}', 'cpu', weights_only=False)['state_dict'], 'weights.pth')"
        ) from error
    except (OSError, ValueError, UntrustedCheckpointError):
        raise
    except Exception as error:  # safetensors has its own type
        raise ValueError(f'{path} is no readable safetensors file ({error})') from error
    states: dict[str, dict[str, torch.Tensor]] = {}
    level = {'': content}
    for _ in range(DEEPEST):
        level = {name: inner for name, inner in level.items() if isinstance(inner, Mapping)}
        for name, inner in level.items():
            weights = {str(k): v for k, v in inner.items() if isinstance(v, torch.Tensor)}
            if weights:
                states[name] = weights
        level = {f'{n}{k}.': v for n, inner in level.items() for k, v in inner.items()}
    if not states:
        raise ValueError(f'{path}: no weights in it, but a {type(content).__name__}')
    return states


def find_networks(
    states: Mapping[str, Mapping[str, Any]], family: Family
) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return the weights with networks of a family's layout, by their dict and the prefix there."""
    return {
        (name, key.removesuffix(family.anchor)): state
        for name, state in states.items()
        for key in state
        if key == family.anchor or key.endswith(f'.{family.anchor}')
    }


def split(
    path: Path, states: Mapping[str, Mapping[str, torch.Tensor]], name: str
) -> tuple[dict[str, torch.Tensor], list[str], str]:
    """Return the backbone's weights without their prefix, the names of those left out, and a note.

    The note says where the network was found, and whose file it looks like if not of the family.

    Raises:
        ValueError: The file is of another family, or holds several networks.
    """
    family = FAMILIES[name]
    homes = {
        other: {place for place in find_networks(states, f) if place[1].endswith(f.home)}
        for other, f in FAMILIES.items()
        if f.home
    }
    found = find_networks(states, family)
    if family.only_home:
        found = {place: state for place, state in found.items() if place in homes[name]}
    likely = [other for other, places in homes.items() if places and FAMILIES[other].only_home]
    if not found or set(likely) - {name}:
        likely = likely or [
            other
            for other, f in FAMILIES.items()
            if homes.get(other) or (not f.home and find_networks(states, f))
        ]
        known = 'it is of no layout that is known here'
        first = next(iter(next(iter(states.values()))))
        raise ValueError(
            f'{path}: no weight {family.anchor}, behind whatever prefix, which every file of '
            f'{name} has; its first weight is {first}: '
            + (f'it looks like {" or ".join(likely)}' if likely else known)
        )
    if len(found) > 1:
        places = ', '.join(f'{wrapper}{prefix}*' for wrapper, prefix in found)
        raise ValueError(
            f'{path}: it holds {len(found)} networks of {name}: {places}; save one of them alone'
        )
    ((place, state),) = found.items()
    wrapper, prefix = place
    backbone, left_out = {}, []
    for key, value in state.items():
        of_head = key.startswith(family.heads) if not prefix else not key.startswith(prefix)
        if of_head:
            left_out.append(key)
        else:
            backbone[key.removeprefix(prefix)] = value
    note = f'; the network was found behind {wrapper}{prefix}' if wrapper or prefix else ''
    for other, places in homes.items():
        if other != name and place in places:
            contract = FaceDataPreprocessor(**FAMILIES[other].preprocessing)
            note += (
                f', as {other} keeps it: if it is a file of {FAMILIES[other].url}, convert it as '
                f'{other}, for which faces are {contract.color_order}, '
                f'(x - {contract.mean_values[0]:g}) / {contract.std_values[0]:g}'
            )
    return backbone, left_out, note


def depth_of(path: Path, state: Mapping[str, Any], wanted: int | None) -> int:
    """Return the depth of an IResNet, told from the number of its residual blocks.

    Raises:
        ValueError: No depth has so many, or another than ``wanted``.
    """
    blocks = [match.group() for match in map(BLOCK.match, state) if match]
    count = len(set(blocks))
    counts = {depth: sum(stages) for depth, stages in IResNet.arch_settings.items()}
    found = next((depth for depth, number in counts.items() if number == count), None)
    if found is None:
        known = ', '.join(f'{number} (depth {depth})' for depth, number in counts.items())
        raise ValueError(
            f'{path}: {count} residual blocks, the last {blocks[-1]}*, where there can be {known}; '
            'the file is incomplete or holds another network'
        )
    if wanted not in (None, found):
        raise ValueError(
            f'{path}: {count} residual blocks, the last {blocks[-1]}*, are depth {found} and not '
            f'{wanted}; give --depth {found} or leave the option out'
        )
    return found


def load(
    path: Path, state: Mapping[str, torch.Tensor], backbone: FaceBackbone, names: dict[str, str]
) -> None:
    """Load a state dict in the layout of its source into a backbone, in place.

    Raises:
        ValueError: Weights are missing, unknown or of another shape.
    """
    wanted = backbone.state_dict()
    sources = {}
    for key in wanted:
        layer, _, field = key.rpartition('.')
        sources[key] = f'{names.get(layer, layer)}.{field}'
    # torch counts the batches since 0.4.1; older files lack the number, which nothing here uses.
    missing = [
        source
        for source in sources.values()
        if source not in state and not source.endswith('.num_batches_tracked')
    ]
    known = set(sources.values())
    unknown = [key for key in state if key not in known]
    problems = []
    if missing:
        problems.append(f'{len(missing)} weights are missing, the first {missing[0]}')
    if unknown:
        problems.append(f'{len(unknown)} weights are unknown, the first {unknown[0]}')
    converted = {}
    for key, source in sources.items():
        value = state.get(source, torch.zeros_like(wanted[key]))
        # mbf makes its embedding with a linear layer, MobileFaceNet with a 1x1 convolution.
        if wanted[key].shape == (*value.shape, 1, 1):
            value = value[..., None, None]
        if value.shape != wanted[key].shape:
            shapes = f'{tuple(value.shape)} instead of {tuple(wanted[key].shape)}'
            problems.append(f'{source} has the shape {shapes}')
            break
        converted[key] = value
    if problems:
        raise ValueError(
            f'{path}: {"; ".join(problems)}. The file is incomplete or holds another network '
            '(squeeze-excitation, another width or input size): get the one FAMILY names'
        )
    backbone.load_state_dict(converted)


def convert(source: Path, out: Path, name: str, depth: int | None = None) -> str:
    """Convert a checkpoint.

    Args:
        source: The public checkpoint.
        out: The mmvlr checkpoint to write.
        name: One of ``FAMILIES``.
        depth: Refuse an IResNet of another depth.

    Returns:
        str: One line that says what was written.

    Raises:
        ValueError: The file is not what ``name`` and ``depth`` say, or ``out`` is ``source``.
    """
    if source.resolve() == out.resolve():
        raise ValueError(f'{out}: is the source itself; name another file to write')
    family = FAMILIES[name]
    state, left_out, note = split(source, read_weights(source), name)
    architecture = dict(family.architecture)
    if architecture['type'] == 'IResNet':
        architecture['depth'] = depth_of(source, state, depth)
    elif depth is not None:
        raise ValueError(f'{source}: {name} comes in one depth; leave --depth out')
    arguments = {key: value for key, value in architecture.items() if key != 'type'}
    # Random values would be drawn for nothing: every weight and statistic is loaded.
    with torch.device('meta'):
        backbone = BACKBONES[architecture['type']](**arguments)
    backbone.to_empty(device='cpu')
    real = {key: torch.zeros(()) for key in state if not key.endswith('.num_batches_tracked')}
    check_values(state, real, str(source))
    load(source, state, backbone, family.names(backbone))
    preprocessor = FaceDataPreprocessor(**family.preprocessing)
    digest = save_pretrained(
        out,
        backbone,
        preprocessor.contract,
        architecture=architecture,
        source=f'{family.url}, {source.name}, sha256 {sha256_of(source)}',
        license=f'as stated at {family.url}',
    )
    height, width = preprocessor.size
    count = sum(parameter.numel() for parameter in backbone.parameters())
    described = ' '.join(f'{key}={value}' for key, value in arguments.items())
    line = (
        f'{out}: {architecture["type"]}{f" {described}" if described else ""}, {count:,} '
        f'parameters, {backbone.embed_dims}-d, faces {width}x{height} {preprocessor.color_order} '
        f'(x - {preprocessor.mean_values[0]:g}) / {preprocessor.std_values[0]:g}, '
        f'sha256 {digest[:16]}'
    )
    if left_out:
        line += f'; {len(left_out)} weights of the head left out ({left_out[0]} ...)'
    return line + note


@tell_write_errors
def main(argv: list[str] | None = None) -> int:
    """Run the converter; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='mmvlr convert',
        description=describe(__doc__),
        epilog='The TensorFlow.js MobileFaceNet has its own converter, tfjs_mobilefacenet.py.',
    )
    parser.add_argument(
        'family',
        metavar='FAMILY',
        choices=FAMILIES,
        help=f'who published SRC: {", ".join(FAMILIES)}',
    )
    parser.add_argument('source', type=Path, metavar='SRC', help='the public checkpoint')
    parser.add_argument(
        'out', type=output_file, metavar='DST', help='the mmvlr checkpoint to write'
    )
    parser.add_argument(
        '--depth',
        type=int,
        choices=sorted(IResNet.arch_settings),
        help='depth the network must have; otherwise it is told from SRC',
    )
    args = parser.parse_args(argv)
    try:
        print(convert(args.source, args.out, args.family, args.depth))
    except (OSError, ValueError, UntrustedCheckpointError) as error:
        print(f'mmvlr convert: {error}', file=sys.stderr)
        return 1
    return 0
