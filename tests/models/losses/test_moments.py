"""Moments of a batch, in one process and on two ranks."""

import statistics

import pytest
import torch
import torch.multiprocessing

from mmvlr.models.losses import AdaFaceLoss, CurricularFaceLoss, batch_moments


@pytest.mark.parametrize('offset', [0.0, 1e4])
def test_against_the_standard_library(offset):
    values = torch.rand(50) + offset
    mean, std = batch_moments(values)
    assert mean.dtype is std.dtype is torch.float32
    assert mean.item() == pytest.approx(statistics.fmean(values.tolist()), rel=1e-6)
    assert std.item() == pytest.approx(statistics.stdev(values.tolist()), rel=1e-5)


@pytest.mark.parametrize('num', [2, 100, 1001])
def test_constant_values_have_no_deviation(num):
    """Rounding may put their variance below 0, whose root is not a number."""
    for value in torch.rand(50):
        mean, std = batch_moments(value.expand(num))
        assert mean == value
        assert 0 <= std < 1e-6


def test_single_value():
    assert [moment.item() for moment in batch_moments(torch.tensor([3.0]))] == [3, 0]


def test_no_gradient():
    assert not any(x.requires_grad for x in batch_moments(torch.rand(3, requires_grad=True)))


def buffers_after(faces, steps):
    """Train both losses with statistics on a part of each batch; return their buffers."""
    generator = torch.Generator().manual_seed(0)
    losses = CurricularFaceLoss(momentum=0.3), AdaFaceLoss(momentum=0.3)
    for _ in range(steps):
        cosines = 2 * torch.rand(12, 4, generator=generator) - 1
        norms = 80 * torch.rand(12, generator=generator)
        labels = torch.arange(12) % 4
        for loss in losses:
            loss(cosines[faces], labels[faces], norms[faces])
    return torch.stack([buffer for loss in losses for buffer in loss.buffers()])


def on_a_rank(rank, folder):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2
    )
    # Unequal shares.
    faces = slice(0, 5) if rank == 0 else slice(5, 12)
    torch.save(buffers_after(faces, steps=4), folder / f'{rank}.pt')
    torch.distributed.destroy_process_group()


def test_two_ranks_keep_the_statistics_of_one(tmp_path):
    torch.multiprocessing.start_processes(on_a_rank, (tmp_path,), nprocs=2, start_method='fork')
    first, second = (torch.load(tmp_path / f'{rank}.pt') for rank in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, buffers_after(slice(None), steps=4))
