"""The study of thresholds and abstention, on faces whose answers are known."""

import importlib.util
import sys

import cv2
import numpy as np
import pytest

from mmvlr.evaluation import FaceTable


@pytest.fixture(scope='module')
def study():
    from tests.conftest import ROOT

    path = ROOT / 'projects' / 'studies' / 'decision_study.py'
    spec = importlib.util.spec_from_file_location('decision_study', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules['decision_study'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['decision_study']


def scored(seed=0, people=40, others=80):
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(people + others, 16))
    person = np.r_[np.repeat(np.arange(people), 2), np.arange(people), people + np.arange(others)]
    role = np.repeat(['gallery', 'probe', 'unmated'], [2 * people, people, others])
    ri = rng.normal(size=len(person))
    noise = rng.normal(size=(len(person), 16)) * np.exp(-ri)[:, None]
    embedding = (directions[person] + noise).astype(np.float32)
    identity = np.where(person >= people + others // 2, -100, person)
    return FaceTable(embedding, role, identity, dict(ri=ri, size=rng.integers(15, 30, len(ri))))


def test_search_in_plain_loops(study):
    table = scored()
    faces = study.search_templates(table)
    unit = table.embedding / np.linalg.norm(table.embedding, axis=1, keepdims=True)
    row = 0
    for number in np.flatnonzero(table.role != 'gallery'):
        best, who = -1, None
        for person in range(40):
            template = unit[(table.role == 'gallery') & (table.identity == person)].mean(axis=0)
            score = unit[number] @ template / np.linalg.norm(template)
            if score > best:
                best, who = score, person
        assert faces.similarity[row] == pytest.approx(best, abs=1e-6)
        assert faces.mated[row] == (table.role[number] == 'probe')
        assert faces.correct[row] == (faces.mated[row] and who == table.identity[number])
        row += 1
    assert row == len(faces)
    # Those whom nobody knows are a person each.
    assert len(np.unique(faces.people)) == 40 + 80


def test_halves_share_no_person(study):
    faces = study.search_templates(scored())
    for split in range(3):
        chosen = study.calibration_half(faces, split)
        assert not np.intersect1d(faces.people[chosen], faces.people[~chosen]).size
        assert (chosen & faces.mated).sum() == 20 and (chosen & ~faces.mated).sum() == 40


def test_tables_and_figure(study, tmp_path, capsys):
    files = [scored(seed).save(tmp_path / f'{seed}.npz') for seed in range(2)]
    figure = tmp_path / 'figure.png'
    options = ['--splits', '6', '--resamples', '3', '--fpir', '0.1', '--figure', figure]
    assert study.main([str(word) for word in [*files, *options]]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith('2 files; 40 mated probes of 40 people, 80 unmated of 80; 6 splits')
    for text in ('Realized FPIR at target 10 %', 'Which errors remain', '| RI + distance |'):
        assert text in printed
    # Answers of all faces err alike, whatever decides on abstention.
    lines = [line.split(' | ') for line in printed.splitlines() if line.startswith('| ')]
    everything = {c[3].strip(' *') for c in lines if len(c) == 9 and c[1].startswith('0.')}
    assert 1 <= len(everything) <= 2
    assert cv2.imread(str(figure)).shape[1] > 1500


def test_files_that_do_not_fit(study, tmp_path, capsys):
    first, other = (
        table.save(tmp_path / name)
        for name, table in (('a.npz', scored()), ('b.npz', scored(people=30)))
    )
    assert study.main([str(first), str(other)]) == 1
    assert 'b.npz scores other faces' in capsys.readouterr().err
    closed = scored().only('gallery', 'probe').save(tmp_path / 'c.npz')
    assert study.main([str(closed)]) == 1
    assert "c.npz: there is no face of role 'unmated'" in capsys.readouterr().err
    assert study.main([str(tmp_path / 'absent.npz')]) == 1
    assert 'absent.npz does not exist' in capsys.readouterr().err
