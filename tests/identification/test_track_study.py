"""The study of probes of several faces, on faces whose people are known."""

import importlib.util
import sys

import numpy as np
import pytest

from mmvlr.evaluation import FaceTable


@pytest.fixture(scope='module')
def study():
    from tests.conftest import ROOT

    path = ROOT / 'projects' / 'studies' / 'track_study.py'
    spec = importlib.util.spec_from_file_location('track_study', path)
    module = importlib.util.module_from_spec(spec)
    sys.modules['track_study'] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules['track_study']


def embedded(seed, people, images):
    """Faces of people; the lower the RI, the more noise. Without people: noise alone."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), images)
    ri = rng.uniform(0.2, 1.5, len(person))
    noise = rng.normal(size=(len(person), 16)) * np.exp(-2 * ri)[:, None]
    names = [f'x/{who}_{number}.png' for number, who in enumerate(person)]
    columns = dict(ri=ri, ers=ri, norm=np.exp(ri), name=np.array(names))
    meta = dict(fingerprint=dict(embedding=dict(dims=16)))
    embedding = 0.5 * rng.normal(size=(people, 16))[person] + noise
    return FaceTable(
        embedding, np.full(len(person), 'probe'), np.full(len(person), -100), columns, meta=meta
    )


def test_tables(study, tmp_path, capsys):
    file = embedded(0, 60, 8).save(tmp_path / 'faces.npz')
    smears = embedded(1, 20, 1).save(tmp_path / 'smears.npz')
    options = '--enroll 20 --calibrate 20 --faces 1 4 --splits 8 --fpir 0.1 --bar /1\\d_'
    arguments = [str(file), '--smears', str(smears), *options.split()]
    assert study.main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed.startswith('faces.npz: 480 faces; 8 splits')
    tables = printed.split('smears, FPIR')[1:]
    assert len(tables) == 2
    for text in tables:
        lines = [line.strip('| ').split(' | ') for line in text.splitlines() if '[' in line]
        error = {cells[0]: [float(cell.split()[0]) for cell in cells[1:3]] for cells in lines}
        # One face of four is one face; four faces together are better.
        assert error['mean'][1] < error['one face'][1] - 5
        assert error['mean'][0] == error['one face'][0] == error['best shot by ri'][0]
        rates = {cells[0]: [float(cell.split()[0]) for cell in cells[-2:]] for cells in lines}
        assert all(max(both) < 25 for both in rates.values())
    # Whoever is barred is never enrolled, and nobody is on two sides.
    args = study.argparse.Namespace(
        person=r'^(\d+)_', bar=r'/1\d_', faces=[4], images=2, enroll=50, calibrate=5, fpir=[0.1]
    )
    seen = []
    study.judge = lambda gallery, rule, tables, fpirs: seen.append((gallery, tables)) or {}
    study.run_split(FaceTable.load(file), None, args, 0)
    gallery, tables = seen[0]
    sides = [{*map(str, table.columns['track'])} for table in tables]
    assert not {str(number) for number in range(10, 20)} & {*gallery.people}
    assert {*gallery.people} == sides[0] and len(sides[1]) == 5
    assert sum(map(len, sides)) == len(set.union(*sides)) == 60
