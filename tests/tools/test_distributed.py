"""A test under torchrun: two gloo ranks give bit for bit what one process gives."""

import json
import os
import socket
import subprocess
import sys

import pytest


def free_port():
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        return taken.getsockname()[1]


@pytest.fixture
def launch(root, project, config_file, trained, tmp_path):
    """Return a function: number of ranks (0: no launcher), options -> text of the result file."""

    def run(ranks, *options):
        out = tmp_path / f'result{ranks}.json'
        arguments = [str(root / 'tools' / 'test.py'), config_file, str(trained / 'epoch_3.pth')]
        arguments += ['--out', str(out), '--work-dir', str(tmp_path / f'work{ranks}'), *options]
        command = [sys.executable]
        if ranks:
            command += ['-m', 'torch.distributed.run', f'--nproc_per_node={ranks}']
            command += [f'--master_port={free_port()}']
            arguments += ['--launcher', 'pytorch']
        path = os.pathsep.join([str(root), str(project)])
        # The ranks of torchrun get one thread each; the single process may have two.
        threads = {'OMP_NUM_THREADS': '2'} if not ranks else {}
        environment = {**os.environ, 'PYTHONPATH': path, **threads}
        done = subprocess.run(
            command + arguments, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return out.read_text()

    return run


@pytest.mark.slow
def test_two_ranks_equal_one(launch, tmp_path):
    """38 faces in batches of 9, 19 a rank: other batches, a short last one, other threads."""
    cache = tmp_path / 'cache'
    single = launch(0)
    assert json.loads(single)['tinyface/rank1'] > 0
    assert launch(2, '--cache', str(cache)) == single
    # What two ranks kept, one process takes.
    assert len(list(cache.glob('*.npz'))) == 1
    assert launch(1, '--cache', str(cache)) == single
