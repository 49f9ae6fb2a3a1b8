"""Describe the public checkpoints of each publisher: names of weights, preprocessing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmvlr.models.backbones import FaceBackbone, InceptionResnetV1, IResNet, MobileFaceNet


def same_names(backbone: FaceBackbone) -> dict[str, str]:
    """Return no renamed layers: the source uses the names of mmvlr."""
    return {}


def ir_names(backbone: IResNet) -> dict[str, str]:
    """Return the names of AdaFace and face.evoLVe, which number blocks and layers consecutively.

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
    """Return the names of insightface's mbf, where every unit is a Sequential named ``layers``.

    Returns:
        dict: Layer of the backbone -> layer of the source.
    """
    units = {'stem': 'layers.0', 'stem_depthwise': 'layers.1', 'last': 'conv_sep'}
    units['global_depthwise'] = 'features.layers.0'
    # A stride-2 block is separate; the blocks after it, with shortcuts, share one Sequential.
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
    """Return the names of FaceX-Zoo's MobileFaceNet, which are those of InsightFace_Pytorch.

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
    """Description of the checkpoints of one publisher.

    Args:
        url: Address of the publisher.
        architecture: Config of the backbone.
        names: Backbone -> its layers' names in the source, where they differ.
        anchor: Name of a weight that every file of the family has and no other layout has.
        preprocessing: Arguments of FaceDataPreprocessor.
        home: End of the prefix of the network's names in the publisher's files, to distinguish
            publishers of the same layout. Any other prefix is accepted too, unless ``only_home``.
        only_home: Whether a network under another prefix belongs to another publisher.
        heads: Start of the head's names, where the backbone's names have no prefix.
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
