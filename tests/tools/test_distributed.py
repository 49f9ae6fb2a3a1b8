"""A test under torchrun: gloo ranks give bit for bit what one process gives."""

import json
import os
import socket
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


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


def test_three_ranks_equal_one(launch, tmp_path):
    """38 faces in batches of 9, 13 a rank, one of them twice: other batches, other threads."""
    cache = tmp_path / 'cache'
    single = launch(0)
    assert json.loads(single)['tinyface/rank1'] > 0
    assert launch(3, '--cache', str(cache)) == single
    # What three ranks kept, one process takes.
    assert len(list(cache.glob('*.npz'))) == 1
    assert launch(1, '--cache', str(cache)) == single


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_launchers_meet_and_restart(root, tmp_path, script):
    """What other variables give is in ``test_launch_scripts``."""
    (tmp_path / 'show').write_text(
        '#!/bin/sh\nprintf "<%s> " "$@"\necho "own store: $TORCH_DISABLE_SHARE_RDZV_TCP_STORE"\n'
    )
    (tmp_path / 'show').chmod(0o755)
    arguments = ['a b.py', '2'] if script == 'dist_train.sh' else ['a b.py', 'c.pth', '2']

    def shown(**variables):
        environment = {**os.environ, 'PYTHON': str(tmp_path / 'show'), 'NNODES': '2', **variables}
        command = [root / 'tools' / script, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True).stdout

    plain = shown()
    assert '<--nnodes> <2> <--node-rank> <0> ' in plain
    assert 'rdzv' not in plain and 'restarts' not in plain
    assert plain.endswith('own store: \n')
    met = shown(RDZV_ENDPOINT='node0:29501', MAX_RESTARTS='3')
    assert met.startswith(
        '<-m> <torch.distributed.run> <--nnodes> <2> <--rdzv-backend> <c10d> <--rdzv-endpoint> '
        '<node0:29501> <--rdzv-id> <mmvlr> <--nproc-per-node> <2> <--max-restarts> <3> '
    )
    assert 'node-rank' not in met and 'master' not in met
    # Or else the new processes find the addresses of those that are gone.
    assert met.endswith('own store: 1\n')
    restarted = shown(MASTER_ADDR='node1', PORT='29502', MAX_RESTARTS='1')
    assert '<c10d> <--rdzv-endpoint> <node1:29502> ' in restarted
    assert '<--max-restarts> <1> ' in restarted
    assert restarted.endswith('own store: 1\n')
    assert '<--rdzv-id> <other>' in shown(RDZV_ENDPOINT='node0:29501', RDZV_ID='other')
