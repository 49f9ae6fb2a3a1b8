"""The fault tests find nothing lost in a command, and find what a broken one leaves."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# The command leaves a temporary file and writes over a file that is not its own.
BROKEN = """
import os, runpy, sys
from mmvlr.cli.programs import pack
run = pack.run

def broken(args):
    args.out.with_name('.mmvlr-0123456789abcdef').touch()
    for path in args.out.parent.glob('*.tex'):
        path.write_text('')
    return run(args)

pack.run = broken
tool, sys.argv = sys.argv[1], sys.argv[1:]
sys.path.insert(0, os.path.dirname(tool))
runpy.run_path(tool, run_name='__main__')
"""


@pytest.mark.parametrize('broken', [False, True])
def test_one_kill(root, tmp_path, broken):
    code = ['-c', BROKEN] if broken else []
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'thesis.tex').write_text('mine')
    tool = root / 'projects' / 'reliability' / 'faults.py'
    line = [sys.executable, *code, tool, tmp_path, '--kills', '1', '--commands', 'pack']
    done = subprocess.run(
        [*map(str, line), '--faults', 'kill'],
        env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        **dict(cwd=tmp_path, capture_output=True, text=True, check=False),
    )
    assert done.returncode == broken, done.stderr
    (row,) = json.loads((tmp_path / 'faults.json').read_text()).values()
    assert row['tries'] == 1
    assert (tmp_path / 'work' / 'thesis.tex').read_text() == 'mine'
    expected = {'pack: .mmvlr-0123456789abcdef is left', 'pack: thesis.tex changed'}
    assert {*row['wrong']} == (expected if broken else set())
