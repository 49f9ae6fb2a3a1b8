"""The fuzzer for a few seconds a reader, what it found once, and that it finds what it should."""

from pathlib import Path

import pytest

from . import loop
from .faulty import READERS as FAULTY
from .readers import READERS

pytestmark = pytest.mark.slow
FOUND = sorted((Path(__file__).parent / 'found').glob('*-*'))


def test_readers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = loop.main(['--seconds', f'{6 * len(READERS)}', '--jobs', '2', '--cases', '150'])
    said = capsys.readouterr().out
    assert code == 0, said
    assert all(name in said for name in READERS)


@pytest.mark.parametrize('path', FOUND, ids=lambda path: path.stem)
def test_found_files(path):
    """Files that failed once: read, or refused by name."""
    try:
        READERS[path.stem.partition('-')[0]].read(path)
    except Exception as error:
        assert loop.judge(error, path) is None


def test_every_kind_of_failure_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, 'KILLED', 3)
    outcomes = loop.fuzz(list(FAULTY), 1, 300, 1, 0, FAULTY['good'].read.__module__, tmp_path)
    problems = {outcome.reader: outcome.problem for outcome in outcomes}
    assert sorted(problems) == sorted(FAULTY)
    assert problems['good'] is problems['refusing'] is None
    for name, told in dict(
        bare='KeyError', unnamed='not named', memory='MB', crash='(-11)', hang='killed'
    ).items():
        assert told in problems[name]
        assert (tmp_path / f'{name}-0.x').read_bytes() == b'x'
