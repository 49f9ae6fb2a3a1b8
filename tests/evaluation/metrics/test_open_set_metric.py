"""TPIR at FPIR of the metric by plain loops in float64."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mmvlr.evaluation.functional import bootstrap_interval, identification, open_set_rates
from mmvlr.evaluation.functional.curves import split_kinds, stack_kinds
from mmvlr.evaluation.metrics import ClosedSetMetric, OpenSetMetric, SCfaceMetric
from mmvlr.evaluation.tables import tell_unmeasurable

from .faces import check_intervals, discard_area, evaluate, make_faces, of, saved, unit

FPIRS = (0.3, 0.2, 0.1, 0.01)


@pytest.fixture
def faces():
    """9 people of 3 gallery images, 6 distractors, mated and unmated probes, other roles."""
    rng = np.random.default_rng(1)
    rows = [('gallery', person) for person in range(9) for _ in range(3)]
    rows += [('distractor', -100)] * 6 + [('pair', 2)] * 5 + [('ui', -100)] * 3
    rows += [('probe', person) for person in range(9) for _ in range(6)]
    # Some unmated people have several images, some images belong to nobody.
    rows += [('unmated', 20 + person) for person in range(15) for _ in range(3)]
    rows += [('unmated', -100)] * 8
    return make_faces(rows, rng.standard_normal((35, 12)), lambda *_: 1.2, rng)


def search(faces, rank, template='mean_unit'):
    """Rank and score (-inf beyond the rank) of mated probes, best score of unmated ones."""
    templates = []
    for person in range(9):
        own = [face for face in of(faces, 'gallery') if face['identity'] == person]
        raw = template == 'mean_raw'
        rows = [f['embedding'].double().numpy() if raw else unit(f) for f in own]
        weights = template(own) if callable(template) else None
        mean = np.average(rows, axis=0, weights=weights)
        templates.append((person, mean / np.linalg.norm(mean)))
    templates += [(-100, unit(face)) for face in of(faces, 'distractor')]
    ranks, scores = [], []
    for probe in of(faces, 'probe'):
        own = next(t for person, t in templates if person == probe['identity']) @ unit(probe)
        others = [t @ unit(probe) for person, t in templates if person != probe['identity']]
        ranks.append(1 + sum(score >= own for score in others))
        scores.append(own if ranks[-1] <= rank else -np.inf)
    best = [max(t @ unit(probe) for _, t in templates) for probe in of(faces, 'unmated')]
    return np.array(ranks), np.array(scores), np.array(best)


def expected_rates(faces, rank, prefix, template='mean_unit'):
    ranks, scores, best = search(faces, rank, template)
    result = {}
    for fpir in FPIRS:
        # Just above a score stands for all thresholds up to the next one.
        candidates = np.concatenate([best, scores[np.isfinite(scores)]]) + 1e-9
        threshold = min(t for t in candidates if np.mean(best >= t) <= fpir)
        result[f'{prefix}/tpir{rank}@fpir{fpir}'] = np.mean(scores >= threshold)
        result[f'{prefix}/threshold@fpir{fpir}'] = threshold
    kinds = np.repeat([1, 0], [len(scores), len(best)])
    finite = np.maximum(np.concatenate([scores, best]), -9)
    result[f'{prefix}/tpir{rank}_auc'] = roc_auc_score(kinds, finite)
    result |= {f'{prefix}/rank{k}': np.mean(ranks <= k) for k in {1, rank}}
    for name, key in (('ri', 'recognizability'), ('norm', 'embedding_norm')):
        quality = [probe[key].item() for probe in of(faces, 'probe')]
        result[f'{prefix}/discard_auc_{name}'] = discard_area(quality, ranks != 1)
    return result


@pytest.mark.parametrize('rank', [1, 3, 20])
@pytest.mark.parametrize('template', ['mean_unit', 'mean_raw'])
def test_equals_plain_loops(faces, rank, template):
    found = evaluate(OpenSetMetric(rank=rank, template=template, prefix='survface'), faces)
    expected = expected_rates(faces, rank, 'survface', template)
    assert found == pytest.approx(expected, abs=1e-6)
    rates = [expected[f'survface/tpir{rank}@fpir{f}'] for f in (0.3, 0.01)]
    assert 0 < rates[1] < rates[0] < 1


def test_names(faces):
    found = evaluate(OpenSetMetric(prefix='survface'), faces)
    names = [f'{name}@fpir{f}' for name in ('tpir20', 'threshold') for f in (0.3, 0.2, 0.1, 0.01)]
    names += ['tpir20_auc', 'rank1', 'rank20', 'discard_auc_ri', 'discard_auc_norm']
    assert set(found) == {f'survface/{name}' for name in names}
    assert all(type(value) is float for value in found.values())
    found = evaluate(OpenSetMetric(fpirs=(0.05,), rank=1), faces)
    assert {'open_set/tpir1@fpir0.05', 'open_set/rank1'} < set(found)


def test_grid_rule_reaches_the_function(faces):
    _, scores, best = search(faces, 2)
    expected = open_set_rates(scores, best, (0.2,), 'grid')
    found = evaluate(OpenSetMetric(fpirs=(0.2,), rank=2, threshold_rule='grid'), faces)
    assert found['open_set/threshold@fpir0.2'] == pytest.approx(expected['threshold@fpir0.2'])
    assert found['open_set/tpir2_auc'] == pytest.approx(expected['auc'])
    exact = evaluate(OpenSetMetric(fpirs=(0.2,), rank=2), faces)
    assert exact['open_set/threshold@fpir0.2'] != found['open_set/threshold@fpir0.2']


@pytest.mark.parametrize('template', ['mean_unit', 'mean_raw'])
def test_table_of_a_file_gives_the_same(faces, tmp_path, template):
    metric = OpenSetMetric(rank=3, template=template, intervals=True, num_resamples=20)
    assert metric.report(saved(faces, tmp_path / 'faces.npz')) == evaluate(metric, faces)


def test_intervals(faces):
    full = check_intervals(OpenSetMetric, faces, rank=3)
    _, scores, best = search(faces, 3)
    values, kind = stack_kinds(scores, best)
    people = [face['identity'] for role in ('probe', 'unmated') for face in of(faces, role)]
    # Each image of nobody is a person of its own.
    people = [1000 + i if person == -100 else person for i, person in enumerate(people)]

    def rate(kept):
        return open_set_rates(*split_kinds(kept), (0.1,))['tpir@fpir0.1']

    alone = bootstrap_interval(values, people, rate, num_resamples=200, strata=kind)
    name = 'open_set/tpir3@fpir0.1'
    assert (full[f'{name}_low'], full[f'{name}_high']) == pytest.approx((alone.low, alone.high))


def test_curves(faces):
    metric = OpenSetMetric(rank=3, fpirs=(1 / 53, 1.0), curves=True, num_resamples=50)
    found = evaluate(metric, faces)
    assert set(metric.drawn) == {'cmc', 'open_set', 'discard'}
    cmc = metric.drawn['cmc']['templates'].y
    assert cmc[[0, 2]] == pytest.approx([found['open_set/rank1'], found['open_set/rank3']])
    assert set(metric.drawn['discard']) == {'ri', 'norm'}
    ((name, curve),) = metric.drawn['open_set'].items()
    assert name == 'rank 3'
    assert (curve.x[0], curve.x[-1]) == (1 / 53, 1.0)
    assert curve.y[0] == found[f'open_set/tpir3@fpir{1 / 53:g}']
    assert curve.y[-1] == found['open_set/tpir3@fpir1'] == found['open_set/rank3']
    assert (curve.low <= curve.y).all()
    assert (curve.y <= curve.high).all()


@pytest.mark.parametrize('role', ['gallery', 'probe', 'unmated'])
def test_missing_role(faces, role):
    rest = [face for face in faces if face['role'] != role]
    rest = [{**face, 'sample_idx': index} for index, face in enumerate(rest)]
    with pytest.raises(ValueError, match=f'OpenSetMetric: the test set has no face of role {role}'):
        evaluate(OpenSetMetric(), rest)


def test_no_role_at_all(faces):
    rest = [{**face, 'sample_idx': i} for i, face in enumerate(of(faces, 'pair', 'ui'))]
    with pytest.raises(ValueError, match='no face of role gallery'):
        evaluate(OpenSetMetric(), rest)


@pytest.mark.parametrize('rule', ['exact', 'grid'])
def test_rates_that_the_probes_cannot_measure(faces, rule, messages):
    """One of the 53 unmated probes is a rate above 0.01."""
    metric = OpenSetMetric(fpirs=(0.1, 1 / 53, 0.01, 0), rank=3, threshold_rule=rule, prefix='a')
    evaluate(metric, faces)
    tell_unmeasurable([metric])
    assert 'a/tpir3@fpir0.01 (53)' in messages[0][1]
    names = ('tpir3@fpir0.01', 'threshold@fpir0.01', 'tpir3@fpir0', 'threshold@fpir0')
    assert metric.unmeasurable == {f'a/{name}': 53 for name in names}
    metric.fpirs = (0.1,)
    evaluate(metric, faces)
    assert metric.unmeasurable == {}
    tell_unmeasurable([metric])
    assert len(messages) == 1


@pytest.mark.parametrize(
    ('template', 'weights'),
    [
        ('mean', lambda own: np.ones(len(own))),
        ('norm', lambda own: [face['embedding_norm'].item() for face in own]),
        (
            dict(type='RIWeightedTemplate', temperature=0.5),
            lambda own: [face['recognizability'].item() ** (1 / 0.5) for face in own],
        ),
        (
            dict(type='BestTemplate', k=1, quality='norm'),
            lambda own: [
                face is max(own, key=lambda f: f['embedding_norm'].item()) for face in own
            ],
        ),
    ],
    ids=['mean', 'norm', 'ri', 'best'],
)
def test_templates_are_those_of_galleries(faces, template, weights):
    found = evaluate(OpenSetMetric(rank=2, template=template, prefix='a'), faces)
    assert found == pytest.approx(expected_rates(faces, 2, 'a', weights), abs=1e-6)
    with pytest.raises(ValueError, match='no template rule'):
        OpenSetMetric(template='median')
    for face in faces:
        del face['recognizability'], face['embedding_norm']
    if not isinstance(template, str) or template == 'norm':
        with pytest.raises(ValueError, match='needs the quality'):
            evaluate(OpenSetMetric(template=template), faces)


@pytest.mark.parametrize('metric', [ClosedSetMetric, SCfaceMetric, OpenSetMetric])
def test_a_table_is_searched_once(metric, faces, tmp_path, monkeypatch):
    """For numbers, intervals, curves and failures alike."""
    walks = []
    plain = identification.search
    monkeypatch.setattr(
        identification, 'search', lambda *args, **how: walks.append(1) or plain(*args, **how)
    )
    table = saved(faces, tmp_path / 'faces.npz')
    table.columns['distance'] = np.ones(len(table))
    judge = metric(intervals=True, curves=True, num_resamples=5)
    found = judge.report(table)
    assert judge.drawn and judge.report(table) == found
    first = judge.found_first(table)
    assert first.mean() == found[f'{judge.prefix}/{"mean_" * (metric is SCfaceMetric)}rank1']
    assert (judge.search(table).top_index[:, 0] == judge.search(table).mate_index)[first].all()
    assert len(walks) == 1
    again = saved(faces, tmp_path / 'again.npz')
    again.columns['distance'] = np.ones(len(again))
    assert judge.report(again) == found
    assert len(walks) == 2
