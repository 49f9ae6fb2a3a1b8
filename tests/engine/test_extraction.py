import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner

from mmvlr.engine import extract_predictions, unwrap
from mmvlr.engine.extraction import tell_progress


@pytest.mark.parametrize('shuffle', [False, True])
def test_order_is_that_of_the_data_set(make_model, make_loader, shuffle):
    model = make_model()
    loader = Runner.build_dataloader(make_loader(num_people=3, images_per_person=3), seed=0)
    mixed = Runner.build_dataloader(
        make_loader(num_people=3, images_per_person=3, shuffle=shuffle), seed=0
    )
    found = extract_predictions(model, mixed)
    assert found['sample_idx'].tolist() == list(range(9))
    assert [sample.sample_idx for sample in found['samples']] == list(range(9))
    assert found['backbone_embedding'].shape == (9, 16)
    assert found['recognizability'].shape == (9,)
    model.eval()
    for index in range(9):
        face = loader.dataset[index]
        with torch.no_grad():
            inputs = model.data_preprocessor(dict(inputs=[face['inputs']]))['inputs']
            expected = model.predictions(inputs)
        for name, value in expected.items():
            torch.testing.assert_close(found[name][index], value[0], rtol=1e-4, atol=1e-5)
        assert found['samples'][index].gt_label == index // 3


@pytest.mark.parametrize('training', [False, True])
def test_the_model_is_left_as_it_was(make_model, make_loader, training):
    model = make_model().train(training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loader = Runner.build_dataloader(make_loader(num_people=2, images_per_person=2))
    found = extract_predictions(model, loader)
    assert model.training is training
    assert model.backbone.training is training
    assert not found['embedding'].requires_grad
    # Running statistics of BN count only in training.
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)


def test_mode_comes_back_after_an_error(make_model):
    model = make_model().train()
    with pytest.raises(KeyError):
        extract_predictions(model, [dict()])
    assert model.training


def test_another_prediction(make_model, make_loader):
    model = make_model()
    loader = Runner.build_dataloader(make_loader(num_people=2, images_per_person=2))
    found = extract_predictions(model, loader, predict=lambda x: dict(mean=x.mean((1, 2, 3))))
    assert found['mean'].shape == (4,)
    assert 'embedding' not in found


def test_nothing_to_extract(make_model):
    with pytest.raises(ValueError, match='no image'):
        extract_predictions(make_model(), [])


def test_images_that_a_loader_leaves_out(make_model, make_loader):
    loader = {**make_loader(num_people=3, images_per_person=3), 'drop_last': True}
    with pytest.raises(ValueError, match='8 of 9 images'):
        extract_predictions(make_model(), Runner.build_dataloader(loader))


@pytest.mark.parametrize(('every', 'shares'), [(0, ['33%', '67%']), (60, [])])
def test_progress_is_told(make_loader, messages, every, shares):
    loader = Runner.build_dataloader(make_loader(num_people=3, images_per_person=3))
    messages.clear()
    assert len(list(tell_progress(loader, 'measuring', every))) == len(loader) == 3
    told = [text for _, text in messages]
    assert told[0].startswith('measuring: 9 images') and len(told) == 1 + len(shares)
    assert all(share in text for share, text in zip(shares, told[1:], strict=True))


def test_unwrap():
    model = torch.nn.Linear(1, 1)
    assert unwrap(model) is model
    # A wrapper without a process group behind it.
    wrapper = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    torch.nn.Module.__init__(wrapper)
    wrapper.module = model
    assert unwrap(wrapper) is model
