"""The study of the probability of a match, on faces whose people are known."""

import importlib.util
import sys

import numpy as np
import pytest

from tests.identification.test_track_study import embedded


@pytest.fixture(scope='module')
def study():
    from tests.conftest import ROOT

    path = ROOT / 'projects' / 'studies' / 'probability_study.py'
    spec = importlib.util.spec_from_file_location('probability_study', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules['probability_study'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['probability_study']


def test_tables(study, tmp_path, capsys):
    faces = embedded(0, 80, 6)
    columns = dict(faces.columns, size=np.random.default_rng(0).uniform(9, 30, len(faces)))
    file = type(faces)(faces.embedding, faces.role, faces.identity, columns, meta=faces.meta).save(
        tmp_path / 'faces.npz'
    )
    options = ['--enroll', '30', '--splits', '2']
    assert study.main([str(file), *options]) == 0
    printed = capsys.readouterr().out
    rows = [line.strip('| ').split(' | ') for line in printed.splitlines() if line.startswith('| ')]
    cells = {row[0]: row[1:] for row in rows}
    brier, constant, error = map(float, cells['similarity and ri'])
    assert brier < 0.8 * constant and error < 0.1
    assert {'size: 8 to 12 px', 'size: 24 to 32 px', 'ri: highest'} <= {*cells}
    good, poor = (
        float(cells[f'ri: {name}'][1].split()[0]) for name in ('highest', 'lowest quarter')
    )
    assert good > poor + 20


def test_calibration_and_test_share_no_person(study, tmp_path):
    args = study.argparse.Namespace(person=r'^(\d+)_', images=2, enroll=30)
    for seed in range(2):
        first, second = study.search_split(embedded(0, 80, 6), args, seed)
        assert not np.intersect1d(first.people, second.people).size
        assert len(first) + len(second) == 80 * 6 - 30 * 2
        assert first.mated.sum() == second.mated.sum() == 15 * 4
