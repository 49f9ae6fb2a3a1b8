import pytest
import torch

from mmvlr.models import FaceDataPreprocessor
from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample


def faces(count=2, size=(4, 5)):
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(count)]


def test_numbers():
    preprocessor = FaceDataPreprocessor(size=(4, 5), mean=(10, 20, 30), std=(1, 2, 4))
    batch = faces()
    found = preprocessor(dict(inputs=batch))['inputs']
    assert found.dtype is torch.float32
    for image, face in zip(found, batch, strict=True):
        for channel, (mean, std) in enumerate([(10, 1), (20, 2), (30, 4)]):
            expected = (face[channel].double() - mean) / std
            torch.testing.assert_close(image[channel].double(), expected, rtol=1e-6, atol=1e-6)


def test_range_of_the_default():
    preprocessor = FaceDataPreprocessor(size=(1, 2))
    face = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    found = preprocessor(dict(inputs=[face]))['inputs']
    torch.testing.assert_close(found[0, :, 0], torch.tensor([[-1.0, 1.0]] * 3))


def test_bgr_reverses_the_channels_in_front_of_mean_and_std():
    batch = faces(1)
    rgb = FaceDataPreprocessor(size=(4, 5), mean=0, std=1)(dict(inputs=batch))['inputs']
    assert torch.equal(rgb[0], batch[0].float())
    bgr = FaceDataPreprocessor(size=(4, 5), color_order='BGR', mean=(1, 2, 3), std=1)
    found = bgr(dict(inputs=batch))['inputs'][0]
    red, green, blue = batch[0].float()
    # The first value of the mean belongs to the first channel that the network sees: blue.
    assert torch.equal(found, torch.stack([blue - 1, green - 2, red - 3]))


def test_list_and_tensor_give_the_same():
    preprocessor = FaceDataPreprocessor(size=(4, 5))
    batch = faces(3)
    one = preprocessor(dict(inputs=batch))['inputs']
    other = preprocessor(dict(inputs=torch.stack(batch)))['inputs']
    assert torch.equal(one, other)


def test_data_samples_pass_through():
    samples = [FaceDataSample(gt_label=torch.tensor(3)), FaceDataSample()]
    result = FaceDataPreprocessor(size=(4, 5))(dict(inputs=faces(), data_samples=samples))
    assert result['data_samples'][0].gt_label == 3
    assert FaceDataPreprocessor(size=(4, 5))(dict(inputs=faces()))['data_samples'] is None


@pytest.mark.parametrize('stacked', [False, True])
def test_another_size_is_an_error(stacked):
    preprocessor = FaceDataPreprocessor(size=(4, 5))
    batch = faces(2, size=(5, 4))
    with pytest.raises(ValueError, match=r'contract states faces of \(4, 5\).*5, 4'):
        preprocessor(dict(inputs=torch.stack(batch) if stacked else batch))


def test_one_wrong_face_among_right_ones_is_an_error():
    with pytest.raises(ValueError, match='ResizeFace'):
        FaceDataPreprocessor(size=(4, 5))(dict(inputs=[*faces(2), *faces(1, size=(4, 4))]))


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(size=(96, 80), interpolation='area', color_order='BGR', mean=0, std=255),
        dict(mean=(1, 2.5, 3), std=[4, 5, 6], alignment='mtcnn'),
    ],
)
def test_contract_round_trip(kwargs):
    contract = FaceDataPreprocessor(**kwargs).contract
    again = FaceDataPreprocessor(**contract)
    assert again.contract == contract
    batch = faces(1, size=again.size)
    assert torch.equal(
        again(dict(inputs=batch))['inputs'],
        FaceDataPreprocessor(**kwargs)(dict(inputs=batch))['inputs'],
    )


def test_contract_names_everything_that_changes_the_numbers():
    base = FaceDataPreprocessor().contract
    for change in (
        dict(size=(96, 96)),
        dict(interpolation='area'),
        dict(color_order='BGR'),
        dict(mean=0),
        dict(std=128),
        dict(alignment='mtcnn'),
    ):
        assert FaceDataPreprocessor(**change).contract != base, change


def test_nothing_of_it_lies_in_the_state_dict():
    """The numbers travel in the contract; a second copy could contradict it."""
    assert not FaceDataPreprocessor().state_dict()


@pytest.mark.parametrize('wrong', [dict(color_order='GRAY'), dict(mean=(1, 2)), dict(std=[])])
def test_unknown_values(wrong):
    with pytest.raises(ValueError, match=r'color_order|one value or three'):
        MODELS.build(dict(type='FaceDataPreprocessor', **wrong))
