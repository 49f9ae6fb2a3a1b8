import pytest
import torch

from mmvlr.models.backbones import InceptionResnetV1


@pytest.fixture(scope='module')
def backbone():
    torch.manual_seed(0)
    return InceptionResnetV1().eval()


def test_parameter_count(backbone):
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 23_482_624


def test_number_of_layers(backbone):
    """As counted in the published model, without its classifier."""
    modules = list(backbone.modules())
    assert sum(isinstance(m, torch.nn.Conv2d) for m in modules) == 132
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in modules) == 111
    norms = [m for m in modules if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert {layer.eps for layer in norms} == {1e-3}


@pytest.mark.parametrize(('size', 'side'), [(160, 3), (112, 2), (75, 1)])
def test_sizes(backbone, size, side):
    with torch.no_grad():
        feature_map, embedding = backbone(torch.randn(1, 3, size, size))
    assert feature_map.shape == (1, 1792, side, side)
    assert embedding.shape == (1, 512)


def test_too_small_faces(backbone):
    with pytest.raises(ValueError, match='faces of 75 pixels or more'):
        backbone(torch.zeros(1, 3, 112, 74))


def test_smallest_size_is_the_smallest(backbone, monkeypatch):
    monkeypatch.setattr(backbone, 'min_size', 1)
    with torch.no_grad(), pytest.raises(RuntimeError, match='Kernel size'):
        backbone(torch.zeros(1, 3, 74, 74))


def test_feature_map_makes_the_embedding(backbone):
    with torch.no_grad():
        feature_map, embedding = backbone(torch.randn(2, 3, 112, 112))
        pooled = torch.nn.functional.adaptive_avg_pool2d(feature_map, 1).flatten(1)
        expected = backbone.last_bn(pooled @ backbone.last_linear.weight.T)
    torch.testing.assert_close(embedding, expected)
    # The last unit has no ReLU, the ones in front of it have.
    assert feature_map.min() < 0


def test_residual_unit_by_hand(backbone):
    unit = backbone.repeat_2[3]
    x = torch.randn(2, 896, 5, 5)
    with torch.no_grad():
        inner = torch.cat([unit.branch0(x), unit.branch1(x)], dim=1)
        expected = torch.relu(x + 0.1 * unit.conv2d(inner))
        torch.testing.assert_close(unit(x), expected)


def test_dropout_acts_in_training_only():
    backbone = InceptionResnetV1(embed_dims=8, dropout=0.5, frozen_bn=True).train()
    backbone.last_bn.eval()
    faces = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        assert not torch.equal(backbone(faces)[1], backbone(faces)[1])
        backbone.eval()
        assert torch.equal(backbone(faces)[1], backbone(faces)[1])
