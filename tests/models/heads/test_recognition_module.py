import pytest
import torch

from mmvlr.models import ArcFaceLoss, RecognitionModule
from mmvlr.models.losses import cosine_matrix


def test_cosines_and_loss():
    head = RecognitionModule(4, 6, dropout=0.0, loss=dict(type='ArcFaceLoss', margin=0.3))
    embeddings, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(head(embeddings), cosine_matrix(embeddings, head.weight))
    losses = head.loss(embeddings, labels)
    assert list(losses) == ['loss_cls']
    expected = ArcFaceLoss(margin=0.3)(cosine_matrix(embeddings, head.weight), labels)
    torch.testing.assert_close(losses['loss_cls'], expected)


def test_dropout_on_the_embedding_in_training_only():
    head = RecognitionModule(4, 6, dropout=0.5).train()
    embeddings, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    assert head.loss(embeddings, labels) != head.loss(embeddings, labels)
    assert torch.equal(head(embeddings), head(embeddings))
    head.eval()
    assert head.loss(embeddings, labels) == head.loss(embeddings, labels)


def test_loss_sees_the_norms_in_front_of_the_dropout():
    head = RecognitionModule(4, 6, dropout=0.5).train()
    seen = []
    head.loss_module.target_cosine = lambda cosine, norms: seen.append(norms) or cosine
    embeddings = torch.randn(5, 6)
    head.loss(embeddings, torch.tensor([0, 1, 2, 3, 0]))
    torch.testing.assert_close(seen[0], embeddings.norm(dim=1))


def test_the_loss_says_how_embeddings_are_compared():
    head = RecognitionModule(4, 6, dropout=0.5).eval()
    head.loss_module.similarities = lambda v, w: -torch.cdist(v, w) / 10
    embeddings, labels = torch.randn(5, 6), torch.tensor([0, 1, 2, 3, 0])
    similarities = -torch.cdist(embeddings, head.weight) / 10
    torch.testing.assert_close(head(embeddings), similarities)
    expected = ArcFaceLoss()(similarities, labels)
    torch.testing.assert_close(head.loss(embeddings, labels)['loss_cls'], expected)


def test_prototypes_start_as_unit_vectors():
    head = RecognitionModule(7, 6)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(7))


def test_set_prototypes():
    head = RecognitionModule(4, 6)
    parameter = head.weight
    prototypes = 5 * torch.randn(4, 6, dtype=torch.float64)
    head.set_prototypes(prototypes)
    # An optimizer holds the parameter: it must stay the same object.
    assert head.weight is parameter
    assert parameter.requires_grad
    expected = (prototypes / prototypes.norm(dim=1, keepdim=True)).float()
    torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize('shape', [(3, 6), (4, 5), (6, 4)])
def test_set_prototypes_of_another_shape(shape):
    head = RecognitionModule(4, 6)
    with pytest.raises(ValueError, match=r'not \(4, 6\)'):
        head.set_prototypes(torch.randn(shape))


@pytest.mark.parametrize('wrong', [1, 0, None, '5', 2.0])
def test_num_classes(wrong):
    with pytest.raises(ValueError, match='num_classes must be at least 2'):
        RecognitionModule(wrong, 6)


def test_training_pulls_embeddings_to_their_prototype():
    head = RecognitionModule(3, 8, dropout=0.0)
    embeddings = torch.randn(6, 8, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.Adam([embeddings, *head.parameters()], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(embeddings, labels)['loss_cls'].backward()
        optimizer.step()
    assert torch.equal(head(embeddings).argmax(1), labels)
