import hashlib
import json
import math
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from mmvlr.identification import Decision, SearchedFaces, TargetNotReachedError, calibrate
from mmvlr.identification.abstention import AbstentionLevel, abstention_level
from mmvlr.identification.conformal import conformal_threshold, quality_edges
from mmvlr.utils.contract import ModelMismatchError
from mmvlr.utils.schema import FileFormatError

from .mutations import mutate_bytes, mutate_value

IDENTITY = dict(
    weights='ab' * 32,
    preprocessing=dict(size=[112, 112], mean=[127.5]),
    embedding=dict(dims=192, flip_fusion='none'),
)


def searched(seed=0, mated_people=40, unmated_people=160):
    """Two faces a person; the lower the RI, the lower the similarity of mates."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(mated_people + unmated_people), 2)
    mated = people < mated_people
    ri = rng.normal(size=len(people))
    similarity = np.where(mated, 0.7 + 0.1 * ri, 0.4) + 0.1 * rng.normal(size=len(people))
    correct = mated & (rng.random(len(people)) < 0.9)
    qualities = dict(ri=ri, size=rng.integers(15, 30, len(people)))
    return SearchedFaces(similarity, mated, correct, people, qualities)


def level_by_hand(quality, errors, target):
    """The lowest quality at which the faces at or above it err little enough, in loops."""
    for level in sorted(set(quality)):
        answered = [e for q, e in zip(quality, errors, strict=True) if q >= level]
        if sum(answered) / len(answered) <= target:
            return level, sum(answered) / len(answered), len(answered) / len(quality)
    return None


@pytest.mark.parametrize('levels', [4, 1000])
def test_level_equals_the_definition(levels):
    rng = np.random.default_rng(levels)
    reached = 0
    for _ in range(200):
        quality = rng.integers(0, levels, 30)
        errors = rng.random(30) < 0.5 - 0.4 * quality / levels
        found = abstention_level(quality, errors, 0.2)
        expected = level_by_hand(quality.tolist(), errors.tolist(), 0.2)
        assert found.reached == (expected is not None)
        if expected is not None:
            reached += 1
            answered = quality >= found.level
            assert (errors[answered].mean(), answered.mean()) == pytest.approx(expected[1:])
            assert (found.error, found.coverage) == pytest.approx(expected[1:])
            assert found.level == (-math.inf if expected[2] == 1 else expected[0])
    assert 20 < reached < 201


def test_level_that_cannot_be_reached():
    found = abstention_level([1, 2, 3, 4], [1, 1, 0, 1], target=0.1)
    assert not found.reached and found.level == 3.0
    assert found.error == pytest.approx(0.5) and found.coverage == 0.5
    assert found.summary.startswith('no level reaches an error of 10.0%; the best is')


def test_bound_is_that_of_clopper_and_pearson():
    rng = np.random.default_rng(0)
    quality = rng.random(200)
    errors = rng.random(200) < 0.3 * (1 - quality)
    found = abstention_level(quality, errors, 0.16, confidence=0.9)
    answered = quality >= found.level
    # Were the error as high as the bound, so few errors would be as rare as each test may err.
    chance = binom.cdf(errors[answered].sum(), answered.sum(), found.bound)
    assert chance == pytest.approx(0.1 / 20)
    assert found.reached and found.bound <= 0.16 and found.coverage < 1
    assert round(found.coverage * 20, 6) == round(found.coverage * 20)


def test_bound_holds_as_often_as_promised():
    rng = np.random.default_rng(1)
    target, broken, of_faces = 0.15, [], []
    person = np.repeat(np.arange(200), 3)
    for _ in range(1000):
        # Quality tells nothing, and the error is a hair above the target: whatever is chosen
        # breaks the promise.
        quality = rng.random(200)[person]
        errors = (rng.random(200) < 0.151)[person]
        found = abstention_level(quality, errors, target, 0.9, person)
        assert found.num_faces == 200
        broken.append(found.reached)
        of_faces.append(abstention_level(quality, errors, target, 0.9).reached)
    error = math.sqrt(0.1 * 0.9 / 1000)
    assert 0.005 < np.mean(broken) <= 0.1 + 2.5 * error
    # Faces that are taken for people break it more often.
    assert np.mean(of_faces) > 0.1 + 2.5 * error


def test_bound_is_not_vacuous():
    rng = np.random.default_rng(1)
    coverage = []
    for _ in range(200):
        # The error above quality q is 0.2 (1 - q): at a target of 0.15 0.75 may be answered.
        quality = rng.random(400)
        found = abstention_level(quality, rng.random(400) < 0.4 * (1 - quality), 0.15, 0.9)
        coverage.append(found.coverage * found.reached)
    assert 0.35 < np.mean(coverage) < 0.75


def test_errors_are_the_three_kinds():
    similarity = np.array([0.9, 0.9, 0.1, 0.9, 0.1, 0.5])
    mated = np.array([True, True, True, False, False, False])
    correct = np.array([True, False, True, False, False, False])
    faces = SearchedFaces(similarity, mated, correct, np.arange(6))
    # The last one ties with the threshold: not accepted.
    assert faces.errors(0.5).tolist() == [False, True, True, True, False, False]


def test_plain_decision_is_the_conformal_threshold():
    faces = searched()
    decision = calibrate(faces, IDENTITY, 0.1)
    unmated = ~faces.mated
    expected = conformal_threshold(faces.similarity[unmated], 0.1, faces.people[unmated])
    assert decision.thresholds.thresholds == (expected,) and decision.needs == ()
    level = expected.threshold
    verdicts = decision.decide([level, np.nextafter(level, 1)], ['a', 'b'])
    assert [v.outcome for v in verdicts] == ['unknown', 'accept']
    assert [v.person for v in verdicts] == [None, 'b']
    assert verdicts[0].quality is None
    assert 'not above' in verdicts[0].reason and 'rate of 0.1.' in verdicts[0].reason


def test_decide_in_plain_loops():
    faces = searched()
    decision = calibrate(
        faces, IDENTITY, 0.1, bin_quality='ri', num_bins=3, abstain_by='ri', target_error=0.08
    )
    edges = quality_edges(faces.qualities['ri'][faces.mated], 3)
    assert decision.thresholds.edges == edges and decision.needs == ('ri',)
    level = decision.level.level
    assert math.isfinite(level)
    names = [f'person {p}' for p in faces.people]
    verdicts = decision.decide(faces.similarity, names, faces.qualities)
    seen, wrong = [], []
    for row, verdict in enumerate(verdicts):
        quality, score = faces.qualities['ri'][row], faces.similarity[row]
        in_bin = [
            sum(q >= edge for edge in edges) == sum(quality >= edge for edge in edges)
            for q in faces.qualities['ri']
        ]
        chosen = ~faces.mated & in_bin
        bound = conformal_threshold(faces.similarity[chosen], 0.1, faces.people[chosen]).threshold
        assert verdict.threshold == bound and verdict.quality == quality
        if quality < level:
            expected = 'abstain'
            assert verdict.reason.startswith(f'RI {quality:.3f} is below {level:.3f}')
        else:
            expected = 'accept' if score > bound else 'unknown'
            right = faces.mated[row] and faces.correct[row] and score > bound
            wrong.append(not right if faces.mated[row] else score > bound)
        assert verdict.outcome == expected
        assert (verdict.person == names[row]) == (expected == 'accept')
        assert verdict.reason.endswith('.') and '\n' not in verdict.reason
        seen.append(expected)
    assert set(seen) == {'accept', 'unknown', 'abstain'}
    assert np.mean(wrong) == pytest.approx(decision.level.error)
    assert decision.level.coverage == pytest.approx(1 - np.mean(np.array(seen) == 'abstain'))
    assert decision.level.error <= 0.08


def test_abstention_by_distance():
    faces = searched()
    decision = calibrate(faces, IDENTITY, 0.1, abstain_by='distance', target_error=0.05)
    bound, level = decision.thresholds.thresholds[0].threshold, decision.level.level
    assert decision.needs == ()
    near, far = decision.decide([bound + 0.9 * level, bound + 1.1 * level], ['a', 'b'])
    assert (near.outcome, far.outcome) == ('abstain', 'accept')
    assert near.quality == pytest.approx(0.9 * level)
    assert 'only' in near.reason and 'from the threshold' in near.reason
    assert [change.outcome for change in near.changes] == ['accept', 'unknown']
    assert [change.measure for change in near.changes] == ['similarity'] * 2
    assert far.changes == ()


@pytest.mark.parametrize(
    ('abstain_by', 'level', 'bins'),
    [
        ('distance', 0.1, None),
        ('distance', 0.1, 'ri'),
        ('ri', 0.2, 'ri'),
        ('ri', 0.2, None),
        ('size', 20, 'ri'),
    ],
)
def test_what_is_said_to_change_an_abstention_changes_it(abstain_by, level, bins):
    """The same face with the value that is named gets the answer, and with a bit less none."""
    faces = searched()
    decision = calibrate(faces, IDENTITY, 0.1, bin_quality=bins, num_bins=3 if bins else 1)
    found = abstention_level([1, 2], [False, True], 0.9)
    decision = replace(decision, abstain_by=abstain_by, level=replace(found, level=level))
    qualities = {name: values[:, None] for name, values in faces.qualities.items()}
    verdicts = decision.decide(faces.similarity, [''] * len(faces.similarity), faces.qualities)
    tried = 0
    for row, verdict in enumerate(verdicts):
        assert bool(verdict.changes) == (verdict.outcome == 'abstain')
        for change in verdict.changes:
            given = dict(similarity=faces.similarity[[row]])
            given |= {name: values[row] for name, values in qualities.items()}
            step = 1e-9 * np.sign(change.bound - change.value)
            outcomes = []
            for value in (change.bound + step, change.bound - step):
                one = given | {change.measure: np.array([value])}
                (found,) = decision.decide(one.pop('similarity'), ['a'], one)
                outcomes.append(found.outcome)
            assert outcomes == [change.outcome, 'abstain']
            told = change.describe()
            assert told['by'] == pytest.approx(abs(change.value - change.bound))
            assert ('at_least' in told) == (change.bound > change.value)
            tried += 1
    assert tried > 5


def test_reasons_name_the_bin():
    faces = searched()
    decision = calibrate(faces, IDENTITY, 0.1, bin_quality='size', num_bins=3)
    low, high = decision.thresholds.edges
    told = decision.decide([0.9] * 3, ['a'] * 3, dict(size=[low - 1, low, high]))
    assert f'of faces with size below {low:.3f}' in told[0].reason
    assert f'of faces with size from {low:.3f} to {high:.3f}' in told[1].reason
    assert f'of faces with size from {high:.3f} for' in told[2].reason


def test_false_positives_of_new_people():
    """Decisions of 200 calibrations keep the rate on new people, in the bins and as a whole."""
    rates = []
    for seed in range(200):
        calibration, new = searched(2 * seed), searched(2 * seed + 1)
        decision = calibrate(calibration, IDENTITY, 0.1, bin_quality='ri', num_bins=2)
        verdicts = decision.decide(new.similarity, new.people.astype(str), new.qualities)
        accepted = np.array([verdict.outcome == 'accept' for verdict in verdicts])
        high = new.qualities['ri'] >= decision.thresholds.edges[0]
        rates.append([accepted[~new.mated & inside].mean() for inside in (high, ~high)])
    error = np.std(rates, axis=0) / math.sqrt(len(rates))
    assert (np.mean(rates, axis=0) <= 0.1 + 2.5 * error).all()
    assert (np.mean(rates, axis=0) >= 0.085).all()


def test_confidence_takes_other_people_for_the_level():
    faces = searched(mated_people=300, unmated_people=300)
    options = dict(abstain_by='ri', target_error=0.3)
    decision = calibrate(faces, IDENTITY, 0.1, confidence=0.9, **options)
    (threshold,) = decision.thresholds.thresholds
    assert threshold.num_people == 150
    # One face of each of the other half, of both kinds.
    assert decision.level.num_faces == 300
    assert decision.level.bound <= 0.3
    plain = calibrate(faces, IDENTITY, 0.1, **options)
    assert plain.thresholds.thresholds[0].num_people == 300 and plain.level.bound is None
    assert plain.level.coverage >= decision.level.coverage
    assert calibrate(faces, IDENTITY, 0.1, confidence=0.9, **options).level == decision.level


def test_file_keeps_everything(tmp_path):
    faces = searched()
    decision = calibrate(
        faces,
        IDENTITY,
        0.1,
        bin_quality='ri',
        abstain_by='distance',
        target_error=0.1,
        name='Pförtner, 3. März',
        gallery=dict(people=40, digest='12' * 32),
    )
    path = decision.save(tmp_path / 'decision.json')
    loaded = Decision.load(path, json.loads(json.dumps(IDENTITY)))
    assert loaded == decision
    known = loaded.calibrated_on
    assert (known['mated_faces'], known['mated_people']) == (80, 40)
    assert (known['unmated_faces'], known['unmated_people']) == (320, 160)
    assert known['name'] == 'Pförtner, 3. März' and known['gallery']['people'] == 40
    names = faces.people.astype(str)
    first, second = (d.decide(faces.similarity, names, faces.qualities) for d in (decision, loaded))
    assert first == second
    other = calibrate(searched(1), IDENTITY, 0.1)
    assert other.calibrated_on['scores_sha256'] != known['scores_sha256']


def test_file_of_a_decision_that_answers_all(tmp_path):
    decision = calibrate(searched(), IDENTITY, 0.1, abstain_by='ri', target_error=0.9)
    assert decision.level.level == -math.inf and decision.level.coverage == 1
    path = decision.save(tmp_path / 'decision.json')
    assert 'Infinity' not in path.read_text()
    assert Decision.load(path) == decision
    assert decision.decide([0.9], ['a'], dict(ri=[-99]))[0].outcome == 'accept'


def test_file_of_another_model_is_refused(tmp_path):
    path = calibrate(searched(), IDENTITY, 0.1).save(tmp_path / 'decision.json')
    with pytest.raises(ModelMismatchError, match=r'decision\.json'):
        Decision.load(path, dict(IDENTITY, weights='cd' * 32))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda text: text[: len(text) // 2], 'not a readable JSON'),
        (lambda text: text.replace('"target_fpir": 0.1', '"target_fpir": 0.2'), 'damaged'),
        (lambda text: text.replace('"threshold": 0.5', '"threshold": 0.1'), 'damaged'),
        (lambda text: text.replace('"version": 2', '"version": 3'), 'version: 3'),
        (lambda text: text.replace('mmvlr decision', 'something'), 'format: .something'),
        (lambda text: '[1]', 'content'),
    ],
)
def test_damaged_file_is_refused(tmp_path, change, message):
    path = calibrate(searched(), IDENTITY, 0.1).save(tmp_path / 'decision.json')
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(FileFormatError, match=message) as error:
        Decision.load(path)
    assert 'decision.json' in str(error.value)


def write_content(path, content, version=2):
    """Write a decision's file by hand, with the right digest of whatever is in it."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    whole = dict(format='mmvlr decision', version=version, sha256=digest, content=content)
    path.write_text(json.dumps(whole))


@pytest.mark.parametrize(
    ('change', 'field'),
    [
        (dict(target_fpir=2), 'target_fpir'),
        (dict(target_fpir='0.1'), 'target_fpir'),
        (dict(target_fpir=10**400), 'range|target_fpir'),
        (dict(edges=[1.0, 0.5]), 'edges'),
        (dict(edges=None), 'edges'),
        (dict(thresholds=[]), 'thresholds'),
        (dict(thresholds=[dict(threshold=0.5)]), 'thresholds.0.fpir'),
        (dict(bin_quality=None), 'bin_quality'),
        (dict(level=None), 'level'),
        (dict(abstain_by='sharpness'), 'sharpness'),
        (dict(quantiles=dict(ri=[])), 'quantiles.ri'),
        (dict(quantiles=dict(ri=[2.0, 1.0])), 'quantiles.ri'),
        (dict(calibrated_on={}), 'calibrated_on.gallery'),
        (dict(num_merged=-1), 'num_merged'),
        (dict(more=1), 'more'),
    ],
)
def test_content_that_contradicts_itself_is_refused_by_field(tmp_path, change, field):
    path = tmp_path / 'decision.json'
    options = dict(bin_quality='ri', num_bins=2, abstain_by='ri', target_error=0.9)
    calibrate(searched(), IDENTITY, 0.1, **options).save(path)
    content = json.loads(path.read_text())['content']
    write_content(path, content)
    Decision.load(path)
    write_content(path, content | change)
    with pytest.raises(FileFormatError, match=rf'decision\.json: .*({field})'):
        Decision.load(path)


def test_index_of_version_1_is_on_another_scale(tmp_path):
    path = tmp_path / 'decision.json'
    for options, field in (
        (dict(bin_quality='ri', num_bins=2), 'bin_quality'),
        (dict(abstain_by='ri', target_error=0.9), 'abstain_by'),
        (dict(abstain_by='size', target_error=0.9), None),
    ):
        decision = calibrate(searched(), IDENTITY, 0.1, **options)
        write_content(path, json.loads(decision.save(path).read_text())['content'], version=1)
        if field:
            with pytest.raises(FileFormatError, match=f'{field}.*calibrate again'):
                Decision.load(path)
        else:
            loaded = Decision.load(path)
            assert loaded.level == decision.level and set(loaded.quantiles) == {'size'}


def test_file_with_a_byte_order_mark_is_read(tmp_path):
    path = calibrate(searched(), IDENTITY, 0.1).save(tmp_path / 'decision.json')
    expected = Decision.load(path)
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())
    assert Decision.load(path) == expected


def test_file_is_private(tmp_path):
    path = tmp_path / 'decision.json'
    decision = calibrate(searched(), IDENTITY, 0.1)
    assert decision.save(path).stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    assert decision.save(path, keep_mode=True).stat().st_mode & 0o777 == 0o644
    assert decision.save(path).stat().st_mode & 0o777 == 0o600


def test_mutated_files_are_refused_or_work(tmp_path):
    """Content with the right digest, and bytes: one kind of error, or a decision that decides."""
    path, rng = tmp_path / 'decision.json', np.random.default_rng(0)
    options = dict(bin_quality='ri', num_bins=2, abstain_by='ri', target_error=0.9)
    calibrate(searched(), IDENTITY, 0.1, **options).save(path)
    whole, content = path.read_bytes(), json.loads(path.read_text())['content']
    outcomes = Counter()
    for turn in range(int(os.environ.get('MMVLR_MUTATIONS', 300))):
        if turn % 3:
            write_content(path, mutate_value(rng, content))
        else:
            path.write_bytes(mutate_bytes(rng, whole))
        try:
            decision = Decision.load(path)
        except FileFormatError as error:
            assert str(path) in str(error) and len(str(error)) < 1000
            outcomes['refused'] += 1
            continue
        outcomes['read'] += 1
        given = {name: [0.1, 1e9] for name in decision.needs}
        verdicts = decision.decide([0.5, -1.0], ['a', 'b'], given)
        assert {verdict.outcome for verdict in verdicts} <= {'accept', 'unknown', 'abstain'}
        for name in decision.quantiles:
            decision.percentile(name, [0.1, 9])
        assert all(found.realized_fpir(0.9) >= 0 for found in decision.thresholds.thresholds)
        decision.save(tmp_path / 'again.json')
        assert Decision.load(tmp_path / 'again.json') == decision
    assert outcomes['refused'] > outcomes['read'] > 0
    print(outcomes)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Decision.load(tmp_path / 'decision.json')


def test_percentile():
    quality = np.random.default_rng(0).normal(size=5000)
    faces = searched(mated_people=100, unmated_people=2400)
    decision = calibrate(replace(faces, qualities=dict(ri=quality)), IDENTITY, 0.1)
    for value in (-1.5, 0.0, 0.3, 2.0):
        expected = 100 * (quality < value).mean()
        assert decision.percentile('ri', value) == pytest.approx(expected, abs=0.3)
    assert decision.percentile('ri', [-9, 9]).tolist() == [0, 100]
    tied = replace(decision, quantiles=dict(size=[1.0] * 40 + [2.0] * 61))
    assert tied.percentile('size', [1, 1.5, 2]).tolist() == [19.5, 39.5, 70]
    with pytest.raises(ValueError, match="without 'norm'"):
        decision.percentile('norm', 1)


def test_unreachable_target_says_what_can_be_had():
    with pytest.raises(TargetNotReachedError, match='the best is an error of'):
        calibrate(searched(), IDENTITY, 0.1, abstain_by='size', target_error=0.001)


def test_too_few_people_are_counted():
    with pytest.raises(ValueError, match=r'at least 999 people .* there are 160'):
        calibrate(searched(), IDENTITY, 0.001)
    with pytest.raises(ValueError, match=r'there are 80: .* \(half of the people'):
        calibrate(searched(), IDENTITY, 0.01, abstain_by='ri', target_error=0.5, confidence=0.9)


def changed(**values):
    return lambda: calibrate(replace(searched(), **values), IDENTITY, 0.1)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (changed(mated=np.ones(400)), 'mated must be bool'),
        (changed(mated=np.zeros(400, bool)), 'correct: a face whose person is not enrolled'),
        (changed(people=np.zeros(400, int)), 'enrolled and not, such as 0'),
        (changed(people=np.zeros(3, int)), 'people must be 400'),
        (changed(similarity=np.full(400, np.nan)), 'similarity: face 0 is NaN'),
        (changed(qualities=dict(ri=[1.0])), 'ri must have 400 entries'),
        (lambda: calibrate(searched(), IDENTITY, 0.1, bin_quality='norm'), "no quality 'norm'"),
        (lambda: calibrate(searched(), IDENTITY, 0.1, abstain_by='ri'), 'go together'),
        (lambda: calibrate(searched(), IDENTITY, 0.1, confidence=0.9), 'confidence goes with'),
        (lambda: calibrate(searched().take(searched().mated), IDENTITY), 'not enrolled: add'),
        (
            lambda: calibrate(searched().take(~searched().mated), IDENTITY, 0.1, bin_quality='ri'),
            'are enrolled: add',
        ),
        (lambda: abstention_level([1], [2], 0.1), 'errors must be true or false'),
        (lambda: abstention_level([1], [1], 1), 'target error must lie in'),
        (lambda: abstention_level([1], [1], 0.5, 1), 'confidence must lie in'),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_faces_to_decide():
    decision = calibrate(searched(), IDENTITY, 0.1, bin_quality='ri')
    assert decision.decide([], [], {}) == []
    with pytest.raises(ValueError, match='needs ri of each face, got size'):
        decision.decide([0.5], ['a'], dict(size=[20]))
    with pytest.raises(ValueError, match='2 similarities and 1 people'):
        decision.decide([0.5, 0.6], ['a'], dict(ri=[1, 2]))
    with pytest.raises(ValueError, match='ri: face 1 is NaN'):
        decision.decide([0.5, 0.6], ['a', 'b'], dict(ri=[1, np.nan]))


def test_level_without_answers_is_not_defined_twice():
    # All wrong: the bound is one, whatever the number of faces.
    found = abstention_level(np.arange(40), np.ones(40), 0.5, confidence=0.9)
    assert found.bound == 1 and not found.reached
    assert isinstance(found, AbstentionLevel)


def test_confidence_needs_two_people_of_each_kind():
    faces = SearchedFaces(
        similarity=np.linspace(0, 1, 31),
        mated=np.arange(31) == 30,
        correct=np.arange(31) == 30,
        people=np.arange(31),
        qualities=dict(ri=np.linspace(0, 1, 31)),
    )
    with pytest.raises(ValueError, match='two people of each kind'):
        calibrate(faces, {}, 0.2, abstain_by='ri', target_error=0.5, confidence=0.9)
