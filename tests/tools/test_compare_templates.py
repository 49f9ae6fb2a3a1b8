"""projects/studies/compare_templates.py and projects/benchmarks/gallery.py on small sets."""

import csv
import json

import numpy as np
import pytest

from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import closed_set_ranks, open_set_scores
from mmvlr.identification import ImageTemplates, MeanTemplate


def faces(seed=0, unmated=40, distractors=9):
    """People with 1 to 3 gallery images each; good images have a high RI and little noise."""
    rng = np.random.default_rng(0)
    noise = np.random.default_rng(seed)
    center = rng.standard_normal((30, 12))
    identity = np.concatenate(
        [
            np.repeat(np.arange(20), 1 + np.arange(20) % 3),
            np.repeat(np.arange(20), 3),
            np.full(distractors, -100),
            20 + np.arange(unmated) % 10,
        ]
    )
    counts = [np.sum(1 + np.arange(20) % 3), 60, distractors, unmated]
    role = np.repeat(['gallery', 'probe', 'distractor', 'unmated'], counts)
    ri = noise.normal(0, 0.7, len(role))
    place = np.where(identity < 0, 29, identity)
    embedding = center[place] + np.exp(-ri)[:, None] * noise.standard_normal((len(role), 12))
    order = rng.permutation(len(role))
    columns = dict(ri=ri, norm=np.linalg.norm(embedding, axis=1))
    return FaceTable(
        embedding[order], role[order], identity[order], {k: v[order] for k, v in columns.items()}
    )


@pytest.fixture
def module(tool):
    return tool('studies/compare_templates.py')


@pytest.fixture
def run(module, capsys):
    def call(*arguments):
        code = module.main([*map(str, arguments), '--resamples=50'])
        return code, *capsys.readouterr()

    return call


def test_search_is_that_of_the_metrics(module):
    table = faces()
    mated = np.flatnonzero(table.role == 'probe')
    gallery = np.isin(table.role, ('gallery', 'distractor'))
    unit = table.unit.numpy()
    unmated = unit[table.role == 'unmated']
    given = unit[gallery], table.identity[gallery], unit[mated], table.identity[mated]
    found = module.search(table, MeanTemplate(), mated)
    expected = open_set_scores(*given, unmated)
    np.testing.assert_array_equal(found.rank, expected.rank)
    np.testing.assert_allclose(found.mated_score, expected.mated_score, atol=1e-6)
    np.testing.assert_allclose(found.unmated_score, expected.unmated_score, atol=1e-6)
    # Per image the scores are those of the metric, whose ranks count images, not people.
    found = module.search(table, ImageTemplates(), mated)
    images = closed_set_ranks(*given)
    within = found.rank <= 20
    np.testing.assert_allclose(found.mated_score[within], images.mate_score[within], atol=1e-6)
    assert (found.rank <= images.rank).all()
    np.testing.assert_array_equal(found.rank == 1, images.rank == 1)
    expected = open_set_scores(*given, unmated, template='none')
    np.testing.assert_allclose(found.unmated_score, expected.unmated_score, atol=1e-6)


def test_table_and_file(run, tmp_path):
    paths = [faces(seed).save(tmp_path / f'{seed}.npz') for seed in (0, 1)]
    code, out, _ = run(*paths, '--out', tmp_path / 'rules.csv', '--fpirs', 0.3)
    assert code == 0
    assert out.startswith(
        '2 files; gallery: 39 images of 20 people (7 with 1, 7 with 2, 6 with 3), '
        '9 distractors; probes: 60 mated of 20 people, 40 unmated\n'
    )
    with open(tmp_path / 'rules.csv', encoding='utf-8') as file:
        rows = {(row['rule'], row['statistic']): row for row in csv.DictReader(file)}
    statistics = ['rank1', 'tpir20@fpir0.3', 'auc']
    assert {statistic for _, statistic in rows} == set(statistics)
    for (rule, statistic), row in rows.items():
        row = {key: float(value) for key, value in row.items() if key not in ('rule', 'statistic')}
        base = float(rows['mean', statistic]['value'])
        assert row['low'] <= row['value'] <= row['high']
        assert row['difference'] == pytest.approx(row['value'] - base)
        assert row['difference_low'] <= row['difference_high']
        assert row['difference_least'] <= row['difference'] <= row['difference_most']
        if rule == 'mean':
            assert row['difference_low'] == row['difference_high'] == 0
    # The mean over the seeds, and not one of them.
    singly = []
    for path in paths:
        run(path, '--out', tmp_path / 'one.csv')
        with open(tmp_path / 'one.csv', encoding='utf-8') as file:
            singly.append(float(next(csv.DictReader(file))['value']))
    assert singly[0] != singly[1]
    assert float(rows['mean', 'rank1']['value']) == pytest.approx(np.mean(singly))


def test_closed_set_and_people_with_many_images(run, tmp_path):
    path = faces(unmated=0).save(tmp_path / 'closed.npz')
    code, out, _ = run(path, '--min-images', 3)
    assert code == 0
    assert 'probes: 18 mated of 6 people, 0 unmated' in out
    assert ('rank5 ' in out, 'tpir' in out) == (True, False)
    code, _, errors = run(path, '--min-images', 4)
    assert (code, 'no probe has 4 gallery images' in errors) == (1, True)


def test_what_cannot_be_compared(run, tmp_path):
    path, other = faces().save(tmp_path / 'a.npz'), faces(unmated=41).save(tmp_path / 'b.npz')
    code, _, errors = run(path, other)
    assert (code, f'{other} is not of the same test set as {path}' in errors) == (1, True)
    table = faces()
    bare = FaceTable(table.embedding, table.role, table.identity).save(tmp_path / 'bare.npz')
    code, _, errors = run(bare)
    assert (code, f"{bare}: NormWeightedTemplate needs the quality 'norm'" in errors) == (1, True)


def test_benchmark_runs(tool, capsys, monkeypatch, tmp_path):
    pytest.importorskip('faiss')
    module = tool('benchmarks/gallery.py')
    # In this process: three new ones would take longer than all they do.
    monkeypatch.setattr(
        module,
        'run',
        lambda step, folder, args: (
            args.__setattr__('step', step),
            dict(getattr(module, 'enroll' if step == 'enroll' else 'search')(folder, args))
            | dict(peak_mib=1.0),
        )[1],
    )
    arguments = ['--people=400', '--dims=32', '--probes=20', '--cosine=0.9']
    assert module.main([*arguments, f'--folder={tmp_path}']) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(result['searches']) == ['exact', 'flat', 'ivf16', 'ivf4']
    assert result['searches']['exact']['rank1'] == result['searches']['flat']['found'] == 1
    assert 0 < result['searches']['ivf16']['found'] <= result['searches']['ivf4']['found']
