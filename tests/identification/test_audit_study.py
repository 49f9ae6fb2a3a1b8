"""The study of the audit, on faces whose people are known."""

import importlib.util
import sys

import numpy as np
import pytest

from mmvlr.evaluation import FaceTable
from tests.identification.test_audit import DIMS, make_images


@pytest.fixture(scope='module')
def study():
    from tests.conftest import ROOT

    path = ROOT / 'projects' / 'studies' / 'audit_study.py'
    spec = importlib.util.spec_from_file_location('audit_study', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules['audit_study'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['audit_study']


def save(file, folder, names, embedding):
    columns = dict(name=np.array([f'{folder}/x/y/{name}' for name in names]))
    count, meta = len(names), dict(fingerprint=dict(embedding=dict(dims=DIMS)))
    FaceTable(embedding, np.full(count, 'probe'), np.full(count, -100), columns, meta=meta).save(
        file
    )
    return str(file)


def test_what_was_planted_is_found(study, tmp_path, capsys):
    _, names, embedding = make_images(60, 6)
    faces = save(tmp_path / 'faces.npz', 'a', names, embedding)
    copies = save(tmp_path / 'copies.npz', 'b', names[::7], embedding[::7] * 1.01)
    options = ['--people', '60', '--plants', '5', '--draws', '2']
    assert study.main([copies, faces, *options]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith('65 people, ')
    rows = [line.strip('| ').split(' | ') for line in printed.splitlines() if line.startswith('| ')]
    cells = {row[0]: [float(cell) for cell in row[1:]] for row in rows[1:]}
    assert {kind: row[0] for kind, row in cells.items()} == {
        'collision': 5, 'wrong person': 10, 'duplicate': 5, 'two names': 5,
    }  # fmt: skip
    # A copy of an image of somebody under two names may also resemble the other of these.
    for _, _, precision, recall in cells.values():
        assert recall == 100 and precision > 85
