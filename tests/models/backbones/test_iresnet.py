import pytest
import torch

from mmvlr.models import IResNet

BN = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')


@pytest.fixture(scope='module')
def ir50():
    # Only names and shapes count here; the meta device saves filling 43 M numbers.
    with torch.device('meta'):
        return IResNet(50)


def insightface_keys(blocks):
    """Names in insightface's ``backbone.pth``, written from its layout, with their shapes' ends."""

    def bn(name):
        return [f'{name}.{field}' for field in BN]

    keys = ['conv1.weight', *bn('bn1'), 'prelu.weight']
    for layer, count in enumerate(blocks, start=1):
        for block in range(count):
            at = f'layer{layer}.{block}'
            keys += [*bn(f'{at}.bn1'), f'{at}.conv1.weight', *bn(f'{at}.bn2'), f'{at}.prelu.weight']
            keys += [f'{at}.conv2.weight', *bn(f'{at}.bn3')]
            if block == 0:
                keys += [f'{at}.downsample.0.weight', *bn(f'{at}.downsample.1')]
    return [*keys, *bn('bn2'), 'fc.weight', 'fc.bias', *bn('features')]


def test_parameter_count(ir50):
    assert sum(parameter.numel() for parameter in ir50.parameters()) == 43_590_848


def test_keys_are_those_of_insightface(ir50):
    assert sorted(ir50.state_dict()) == sorted(insightface_keys((3, 4, 14, 3)))


def test_shapes_are_those_of_insightface(ir50):
    shapes = {name: tuple(value.shape) for name, value in ir50.state_dict().items()}
    assert shapes['conv1.weight'] == (64, 3, 3, 3)
    assert shapes['layer1.0.downsample.0.weight'] == (64, 64, 1, 1)
    # The first block of a stage takes the old width in bn1 and conv1, and the stride in conv2.
    assert shapes['layer2.0.bn1.weight'] == (64,)
    assert shapes['layer2.0.conv1.weight'] == (128, 64, 3, 3)
    assert shapes['layer2.0.conv2.weight'] == (128, 128, 3, 3)
    assert shapes['layer3.13.conv2.weight'] == (256, 256, 3, 3)
    assert shapes['fc.weight'] == (512, 512 * 7 * 7)
    assert shapes['features.weight'] == (512,)


def test_strides_sit_where_insightface_has_them(ir50):
    assert ir50.conv1.stride == (1, 1)
    for index in range(1, 5):
        layer = getattr(ir50, f'layer{index}')
        assert layer[0].conv1.stride == (1, 1)
        assert layer[0].conv2.stride == (2, 2)
        assert layer[0].downsample[0].stride == (2, 2)
        assert all(block.conv2.stride == (1, 1) for block in layer[1:])


@pytest.mark.parametrize(('depth', 'blocks'), [(18, 8), (34, 16), (100, 49)])
def test_depths(depth, blocks):
    with torch.device('meta'):
        backbone = IResNet(depth)
    assert sum(len(getattr(backbone, f'layer{i}')) for i in range(1, 5)) == blocks
    # Two convolutions a block, the first one and the linear layer.
    assert 2 * blocks + 2 == depth


def test_unknown_depth():
    with pytest.raises(ValueError, match='depth must be one of'):
        IResNet(49)


@pytest.mark.parametrize(
    ('variant', 'count'), [('adaface', 43_585_600), ('faceevolve', 43_574_976)]
)
def test_parameter_count_of_variants(variant, count):
    with torch.device('meta'):
        backbone = IResNet(50, variant=variant)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == count


def test_unknown_variant():
    with pytest.raises(ValueError, match='variant must be one of'):
        IResNet(18, variant='arcface')


def test_last_scale_is_fixed_in_insightface_only():
    with torch.device('meta'):
        assert not IResNet(18).features.weight.requires_grad
        assert IResNet(18, variant='faceevolve').features.weight.requires_grad
        assert IResNet(18, variant='adaface').features.weight is None


@pytest.mark.parametrize('variant', ['adaface', 'faceevolve'])
def test_blocks_of_variants_by_hand(variant):
    layers = IResNet(18, input_size=32, embed_dims=8, variant=variant).double().eval()
    x = torch.randn(2, 64, 9, 9, dtype=torch.float64)
    # The first block keeps its channels and halves the map; the one behind it changes neither.
    for block, stride in zip(layers.layer1, (2, 1), strict=True):
        torch.nn.init.normal_(block.bn3.weight)
        out = block.conv1(block.bn1(x))
        out = block.bn2(out) if variant == 'adaface' else out
        out = torch.where(out > 0, out, out * block.prelu.weight.view(1, -1, 1, 1))
        expected = block.bn3(block.conv2(out)) + torch.nn.functional.max_pool2d(x, 1, stride)
        x = block(x)
        torch.testing.assert_close(x, expected)
    assert x.shape[-2:] == (5, 5)
    assert layers.layer2[0].downsample is not None


def test_block_by_hand():
    block = IResNet(18, input_size=32, embed_dims=8).eval().layer2[0].double()
    torch.nn.init.normal_(block.bn3.weight)
    x = torch.randn(2, 64, 8, 8, dtype=torch.float64)
    out = block.bn2(block.conv1(block.bn1(x)))
    out = torch.where(out > 0, out, out * block.prelu.weight.view(1, -1, 1, 1))
    expected = block.bn3(block.conv2(out)) + block.downsample[1](block.downsample[0](x))
    torch.testing.assert_close(block(x), expected)


def test_feature_map_makes_the_embedding():
    backbone = IResNet(18, input_size=32, embed_dims=8).eval()
    feature_map, embedding = backbone(torch.randn(2, 3, 32, 32))
    expected = backbone.features(backbone.fc(feature_map.flatten(1)))
    torch.testing.assert_close(embedding, expected)


def test_dropout_acts_in_training_only():
    backbone = IResNet(18, input_size=32, embed_dims=8, dropout=0.5, frozen_bn=True).train()
    backbone.features.eval()
    faces = torch.randn(2, 3, 32, 32)
    assert not torch.equal(backbone(faces)[1], backbone(faces)[1])
    backbone.eval()
    assert torch.equal(backbone(faces)[1], backbone(faces)[1])


def test_bn_eps():
    backbone = IResNet(18, input_size=32, embed_dims=8, bn_eps=2e-5)
    layers = [m for m in backbone.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert {layer.eps for layer in layers} == {2e-5}
