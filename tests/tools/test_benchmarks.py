"""The benchmarks run on something small and end with a JSON object of what they promise."""

import json
import os
import subprocess
import sys

import pytest

from ..people import model_file

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(root, tmp_path):
    """Return a function: tool and arguments -> the object of the last line."""

    def run(tool, *arguments):
        command = [
            sys.executable,
            str(root / 'projects' / 'benchmarks' / tool),
            *map(str, arguments),
        ]
        environment = {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_train_step(bench, root, tmp_path):
    found = bench(
        'train_step.py', root / 'configs/demo/riface_synthetic.py', '--device', 'cpu',
        '--batch-size', 8, '--iters', 1, '--rounds', 2, '--ui-faces', 8, '--num-classes', 5,
        '--trace', tmp_path / 'trace.json',
    )  # fmt: skip
    low, high = found['overhead_range']
    assert 0 < low <= found['overhead'] <= high
    assert found['peak_mib'] > 100
    assert json.loads((tmp_path / 'trace.json').read_text())['traceEvents']


def test_inference(bench, tmp_path):
    pytest.importorskip('onnxscript')
    found = bench(
        'inference.py', model_file(tmp_path / 'a.pth'), '--device', 'cpu', '--threads', 1,
        '--batch-sizes', 3, '--rounds', 1, '--seconds', 0.05,
    )  # fmt: skip
    assert found['speedup'] > 0
    assert found['cosine'] > 0.9999
    assert {row['way'] for row in found['rows']} >= {'eager', 'folded', 'exported'}


def test_partial_fc(bench):
    arguments = ('--classes', 2_000, '--dim', 16, '--batch', 8, '--steps', 1)
    arguments += ('--rates', 1, '--ranks', 1, 2)
    found = bench('partial_fc.py', *arguments)
    held = {(row['ranks'], row['rate']): row['held_mib'] for row in found['rows']}
    assert held[2, 1.0] == pytest.approx(held[1, 1.0] / 2, rel=0.01)
    assert found['device'] == 'cpu'
