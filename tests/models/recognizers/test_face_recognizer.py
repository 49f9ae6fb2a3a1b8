import math

import pytest
import torch
from torch.nn import functional as F

from mmvlr.models import FaceRecognizer
from mmvlr.models.recognizers import effective_rank, predict_in_full_batches


@pytest.fixture
def make(tiny_backbone, tiny_preprocessor):
    def build(with_head=True, **kwargs):
        head = dict(type='RecognitionModule', num_classes=3, dropout=0.0) if with_head else None
        return FaceRecognizer(
            dict(tiny_backbone), head, data_preprocessor=dict(tiny_preprocessor), **kwargs
        )

    return build


def test_tensor_mode(make, batch):
    model = make().eval()
    feature_map, embeddings = model(batch[0], mode='tensor')
    assert feature_map.shape == (6, 32, 4, 4)
    assert embeddings.shape == (6, 16)
    again = model.backbone(batch[0])
    torch.testing.assert_close((feature_map, embeddings), again)


def test_loss_mode(make, batch):
    model = make().eval()
    losses = model(*batch, mode='loss')
    assert set(losses) == {'loss_cls', 'effective_rank'}
    embeddings = model.extract_feat(batch[0])[1]
    expected = model.head.loss(embeddings, torch.tensor([0, 1, 2, 0, 1, 2]))['loss_cls']
    torch.testing.assert_close(losses['loss_cls'], expected)
    # What is only logged must not enter the sum that is minimized.
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, losses['loss_cls'])


def test_predict_mode(make, batch):
    model = make().eval()
    inputs, samples = batch
    predictions = model(inputs, samples, mode='predict')
    embeddings = model(inputs)[1]
    assert [sample.sample_idx for sample in predictions] == list(range(6))
    for sample, embedding in zip(predictions, embeddings, strict=True):
        torch.testing.assert_close(sample.embedding, embedding)
        assert sample.embedding_norm.item() == pytest.approx(embedding.norm().item(), rel=1e-5)
        assert 'ers' not in sample
        assert 'backbone_embedding' not in sample


def test_predict_without_samples(make, batch):
    predictions = make().eval()(batch[0], mode='predict')
    assert len(predictions) == 6
    assert predictions[0].embedding.shape == (16,)


def test_ers_formula(make, batch):
    model = make().eval()
    embeddings = model(batch[0])[1]
    # One face in the direction of the center, one opposite to it.
    center = F.normalize(embeddings[0], dim=0)
    model.set_ui_center(3 * center)
    predictions = model(batch[0], mode='predict')
    assert predictions[0].ers.item() == pytest.approx(0, abs=1e-5)
    for sample, v in zip(predictions, embeddings, strict=True):
        cosine = sum(a * b for a, b in zip(v.tolist(), center.tolist(), strict=True)) / v.norm()
        assert sample.ers.item() == pytest.approx(min(1 - cosine.item(), 1), abs=1e-5)
    model.set_ui_center(-center)
    assert model(batch[0], mode='predict')[0].ers == 1


def test_ui_center_travels_in_the_state(make):
    model = make()
    assert not model.has_ui_center
    model.set_ui_center(torch.full((16,), 2.0))
    assert model.has_ui_center
    torch.testing.assert_close(model.ui_center, torch.full((16,), 0.25))
    other = make()
    other.load_state_dict(model.state_dict())
    assert other.has_ui_center


def test_flip_fusion(make, batch):
    inputs = batch[0]
    model = make(flip_fusion='sum').eval()
    predictions = model(inputs, mode='predict')
    plain, mirrored = model(inputs)[1], model(torch.flip(inputs, dims=[3]))[1]
    expected = plain + mirrored
    expected = expected / expected.norm(dim=1, keepdim=True)
    found = torch.stack([sample.embedding for sample in predictions])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    # Quality stays that of the face as it is.
    norms = torch.stack([sample.embedding_norm for sample in predictions])
    torch.testing.assert_close(norms, plain.norm(dim=1))
    assert not torch.allclose(plain, mirrored, rtol=1e-2)


def test_flip_fusion_is_symmetric(make, batch):
    model = make(flip_fusion='sum').eval()
    one = [sample.embedding for sample in model(batch[0], mode='predict')]
    other = [sample.embedding for sample in model(batch[0].flip(3), mode='predict')]
    torch.testing.assert_close(torch.stack(one), torch.stack(other))


def test_channels_last_changes_no_number(make, batch):
    fast, plain = make(channels_last=True).eval(), make(channels_last=False).eval()
    plain.load_state_dict(fast.state_dict())
    assert fast.backbone.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fast(batch[0]), plain(batch[0]))


def test_train_step(make):
    model = make().train()
    from mmengine.optim import OptimWrapper

    from mmvlr.structures import FaceDataSample

    wrapper = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    data = dict(
        inputs=torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8),
        data_samples=[FaceDataSample(gt_label=torch.tensor(i % 3)) for i in range(6)],
    )
    first = model.train_step(data, wrapper)
    for _ in range(40):
        last = model.train_step(data, wrapper)
    assert set(first) == {'loss', 'loss_cls', 'effective_rank'}
    assert last['loss'] < first['loss'] / 2


def test_errors(make, batch):
    with pytest.raises(ValueError, match='mode must be'):
        make()(batch[0], mode='train')
    with pytest.raises(ValueError, match='flip_fusion must be'):
        make(flip_fusion='mean')
    with pytest.raises(ValueError, match=r'model\.head'):
        make(with_head=False)(*batch, mode='loss')


def test_without_head_it_embeds(make, batch):
    model = make(with_head=False).eval()
    assert model.head is None
    assert len(model(batch[0], mode='predict')) == 6


def slow_effective_rank(embeddings):
    """exp of the Renyi entropy of order 2 of the Gram matrix's eigenvalues."""
    unit = embeddings.double()
    unit = torch.stack([row / row.norm() for row in unit])
    values = torch.linalg.eigvalsh(unit @ unit.T).clamp_min(0)
    shares = (values / values.sum()).tolist()
    return math.exp(-math.log(sum(p * p for p in shares)))


@pytest.mark.parametrize('shape', [(8, 16), (16, 4), (2, 2)])
def test_effective_rank(shape):
    embeddings = 5 * torch.randn(shape)
    found = effective_rank(embeddings).item()
    assert found == pytest.approx(slow_effective_rank(embeddings), rel=1e-4)
    assert 1 <= found <= min(shape)


def test_effective_rank_at_its_ends():
    assert effective_rank(torch.ones(9, 5)).item() == pytest.approx(1)
    assert effective_rank(3 * torch.eye(7)).item() == pytest.approx(7)
    assert not effective_rank(torch.randn(3, 3, requires_grad=True)).requires_grad


@pytest.mark.parametrize('num', [1, 2, 8, 33])
def test_a_face_does_not_depend_on_its_batch(num):
    """Bit for bit: the share of a rank ends in another short batch than the whole does."""
    model = FaceRecognizer(dict(type='MobileFaceNet', variant='tfjs')).eval()
    faces = torch.randn(40, 3, 112, 112)
    with torch.no_grad():
        whole = predict_in_full_batches(model.predictions, faces)
        part = predict_in_full_batches(model.predictions, faces[:num])
    for name, values in part.items():
        assert len(values) == num
        assert torch.equal(values, whole[name][:num]), name
