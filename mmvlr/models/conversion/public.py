"""Convert public PyTorch checkpoints, without running code hidden in them.

The network is found under any prefix and in any nested dict; the result states where.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mmvlr.models.backbones import FaceBackbone, IResNet
from mmvlr.models.data_preprocessor import FaceDataPreprocessor
from mmvlr.utils.checkpoint import check_values, save_pretrained
from mmvlr.utils.compat import UntrustedCheckpointError, load_checkpoint_file
from mmvlr.utils.filetype import describe_content
from mmvlr.utils.io import sha256_of

from .families import BACKBONES, FAMILIES, Family

#: Depth to which nested dicts are searched for weights.
DEEPEST = 3
#: Names of the residual blocks of an IResNet, in all its layouts.
BLOCK = re.compile(r'(layer\d+|body)\.\d+\.')


def read_weights(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights in a checkpoint, by the path of the dict that holds them.

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
        # Files of Lightning reference its classes; reading them as trusted would import these.
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
    """Return the networks of a family's layout, by their dict and the prefix of their names."""
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

    The note states where the network was found, and which publisher's file it resembles if not the
    family's.

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


def derive_depth(path: Path, state: Mapping[str, Any], wanted: int | None) -> int:
    """Return the depth of an IResNet, derived from its number of residual blocks.

    Raises:
        ValueError: No depth has that number of blocks, or the depth is not ``wanted``.
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
    # BN of torch 0.4.1 and later counts batches; older files lack that count, which is not used.
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


def convert_checkpoint(source: Path, out: Path, name: str, depth: int | None = None) -> str:
    """Convert a checkpoint.

    Args:
        source: The public checkpoint.
        out: The mmvlr checkpoint to write.
        name: One of ``FAMILIES``.
        depth: Refuse an IResNet of another depth.

    Returns:
        str: One line that describes what was written.

    Raises:
        ValueError: The file is not what ``name`` and ``depth`` say, or ``out`` is ``source``.
    """
    if source.resolve() == out.resolve():
        raise ValueError(f'{out}: is the source itself; name another file to write')
    family = FAMILIES[name]
    state, left_out, note = split(source, read_weights(source), name)
    architecture = dict(family.architecture)
    if architecture['type'] == 'IResNet':
        architecture['depth'] = derive_depth(source, state, depth)
    elif depth is not None:
        raise ValueError(f'{source}: {name} comes in one depth; leave --depth out')
    arguments = {key: value for key, value in architecture.items() if key != 'type'}
    # Every weight and statistic is loaded, so random initialization would be wasted time.
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
