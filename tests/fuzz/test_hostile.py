"""Twelve hostile files: each is answered within seconds, and within what an image may take."""

import json
import subprocess
import sys

import pytest

from . import hostile

pytestmark = pytest.mark.slow
ROOM = 5 * 2**28


@pytest.fixture(scope='module')
def answers(tmp_path_factory, root):
    """Read all of them in one process, which survives them all."""
    files = hostile.write(tmp_path_factory.mktemp('hostile'))
    command = [sys.executable, hostile.__file__, 'read', *map(str, files), '--room', str(ROOM)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root)
    assert done.returncode == 0, done.stderr[-2000:]
    return {answer['file']: answer for answer in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize('name', hostile.FILES)
def test_hostile_file(answers, name):
    answer = answers[name]
    assert answer['seconds'] < 10 and answer['memory'] < ROOM
    if name == 'strip.png':
        assert answer['error'] is None
    else:
        kind, _, told = answer['error'].partition(': ')
        assert kind in ('ValueError', 'ImageError', 'FileFormatError') and name in told
        assert len(told) < 1000
