"""The study of judges in ``projects/studies/judges.py``."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import rank1_error_versus_discard


@pytest.fixture
def study():
    path = Path(__file__).parents[2] / 'projects' / 'studies' / 'judges.py'
    spec = importlib.util.spec_from_file_location('judges', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables(study, tmp_path, capsys):
    rng = np.random.default_rng(0)
    people = np.r_[np.arange(30), np.repeat(np.arange(30), 3)]
    noise = rng.uniform(0.1, 4, len(people))
    noise[:30] = 0.1
    centers = rng.normal(size=(30, 16))
    embedding = centers[people] + noise[:, None] * rng.normal(size=(len(people), 16))
    role = np.array(['gallery'] * 30 + ['probe'] * 90)
    columns = dict(ri=np.exp(-noise), ers=-(noise**2), norm=rng.normal(size=len(people)))
    faces = FaceTable(embedding, role, people, columns)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    correct = (unit[30:] @ unit[:30].T).argmax(1) == people[30:]
    rows = {row['name']: row for row in study.judge(faces.only('probe'), correct, 50)}
    for name, row in rows.items():
        area = rank1_error_versus_discard(columns[name][30:], correct)['auc']
        assert row['area'] == pytest.approx(area)
        z = [float(v) for v in columns[name][30:]]
        mean = sum(z) / 90
        spread = math.sqrt(sum((v - mean) ** 2 for v in z) / 90)
        expected = sum(((v - mean) / spread) ** 3 for v in z) / 90
        assert row['skewness'] == pytest.approx(expected)
    # Of one order: the same judge. A random one is worse, by an interval without 0.
    assert rows['ers']['difference'] == rows['ers']['high'] == 0 < rows['norm']['low']
    hardest = study.find_hardest(faces.only('probe'), correct, 5)
    assert [row['ri'] for row in hardest] == sorted(columns['ri'][30:])[:5]
    assert study.main([str(faces.save(tmp_path / 'a.npz')), '--resamples', '20']) == 0
    printed = capsys.readouterr().out
    assert '| RI | ' in printed and '| row ' in printed
    bare = FaceTable(embedding, role, people, dict(norm=columns['norm']))
    with pytest.raises(ValueError, match=r'b\.npz: there is no RI'):
        study.main([str(bare.save(tmp_path / 'b.npz'))])
