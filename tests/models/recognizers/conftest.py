import pytest
import torch

from mmvlr.structures import FaceDataSample


@pytest.fixture
def batch():
    """Network input of six faces and their data samples."""
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    samples = [FaceDataSample(metainfo=dict(sample_idx=i)) for i in range(6)]
    for sample, label in zip(samples, labels, strict=True):
        sample.gt_label = label
    return torch.randn(6, 3, 32, 32), samples
