"""Run a function on several gloo ranks, forked: nobody imports everything again."""

import os
import socket
import traceback

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(rank, num, port, folder, function, args):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(num),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    try:
        torch.save(function(*args), folder / f'rank{rank}.pt')
    except BaseException:
        (folder / f'rank{rank}.txt').write_text(traceback.format_exc())
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def run_on_ranks(num, folder, function, *args):
    """Return what ``function(*args)`` returns on each of ``num`` ranks, which start no group."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        port = taken.getsockname()[1]
    context = mp.start_processes(
        _rank, (num, port, folder, function, args), num, join=False, start_method='fork'
    )
    try:
        while not context.join(timeout=60):
            pass
    except Exception:
        errors = [path.read_text() for path in sorted(folder.glob('rank*.txt'))]
        pytest.fail('\n'.join(errors) or 'a rank ended without a word')
    return [torch.load(folder / f'rank{rank}.pt') for rank in range(num)]
