"""Tracks: several faces that become one probe, one calibration unit and one answer."""

import numpy as np
import pytest

from mmvlr.apis import FaceInferencer
from mmvlr.identification import Identifier, TrackRule
from mmvlr.identification.tracks import name_tracks
from mmvlr.structures import FaceTable
from mmvlr.utils.schema import FileFormatError
from tests.identification.test_identifier import Pixels, write_people


def make_faces(tracks='aaabb', seed=0, **columns):
    rng = np.random.default_rng(seed)
    count = len(tracks)
    columns = dict(track=np.array([*tracks]), ri=rng.uniform(size=count)) | columns
    columns['name'] = np.array([f'{number}.png' for number in range(count)])
    embedding = rng.normal(size=(count, 6)) * rng.uniform(1, 9, (count, 1))
    return FaceTable(embedding, np.full(count, 'probe'), np.full(count, -100), columns)


def average(faces, rows, weights):
    unit = faces.embedding / np.linalg.norm(faces.embedding, axis=1, keepdims=True)
    mean = sum(weight * unit[row] for row, weight in zip(rows, weights, strict=True))
    return mean / np.linalg.norm(mean)


def test_rules_in_plain_loops():
    """Faces of a track need not stand together; each rule by its definition."""
    faces = make_faces('abaab', medium=np.array([*'xyxzy']))
    ri = faces.columns['ri']
    best = sorted((0, 2, 3), key=lambda row: -ri[row])[:2]
    for template, rows, weights in (
        ('mean', (0, 2, 3), (1, 1, 1)),
        ('best', best, (1, 1)),
        ('media', (0, 2, 3), (0.5, 0.5, 1)),
    ):
        found = TrackRule(template)(faces)
        assert found.probes.names == ['a', 'b']
        expected = average(faces, rows, weights)
        np.testing.assert_allclose(found.probes.embedding[0], expected, atol=1e-6)
    assert found.probes.columns['ri'][0] == pytest.approx(ri[[0, 2, 3]].mean())
    assert found.probes.columns['images'].tolist() == [3, 2]


def test_what_is_left_out():
    faces = make_faces('aaabb', ri=np.array([0.1, 0.9, 0.5, 0.2, 0.3]))
    found = TrackRule(least=dict(ri=0.4))(faces)
    assert (found.probes.names, found.empty) == (['a'], dict(b=2))
    assert found.kept.tolist() == [False, True, True, False, False]
    np.testing.assert_allclose(found.probes.embedding[0], average(faces, (1, 2), (1, 1)), atol=1e-6)
    assert found.probes.columns['used'].tolist() == [2]
    assert found.best_shots() == dict(a=1, b=4) and found.rows('b').tolist() == [3, 4]
    # A function sees the table, the tracks included.
    found = TrackRule(keep=lambda table: table.columns['track'] == 'b')(faces)
    assert (found.probes.names, found.empty) == (['b'], dict(a=3))
    found = TrackRule(least=dict(ri=2.0))(faces)
    assert len(found.probes) == 0 and found.empty == dict(a=3, b=2)


@pytest.mark.parametrize(
    ('rule', 'message'),
    [
        (TrackRule('images'), 'images'),
        (TrackRule('norm'), "'norm'"),
        (TrackRule('media'), "'medium'"),
        (TrackRule(least=dict(sharp=1.0)), "'sharp'"),
        (TrackRule(least=dict(track=1.0)), "'track'"),
        (TrackRule(keep=lambda table: [True]), 'bool'),
        (TrackRule(keep=lambda table: table.columns['ri']), 'bool'),
    ],
)
def test_rules_that_do_not_fit_the_faces(rule, message):
    with pytest.raises(ValueError, match=message):
        rule(make_faces())


def test_sources_of_tracks(tmp_path):
    faces = make_faces('aab')
    names = [str(tmp_path / 'cam' / place) for place in ('1/x.png', '1/y.png', '2/x.png')]
    faces = FaceTable(
        faces.embedding, faces.role, faces.identity, dict(name=np.array(names), ri=np.ones(3))
    )
    found = name_tracks(faces, 'folder').columns['track']
    assert found.tolist() == [str(tmp_path / 'cam' / '1')] * 2 + [str(tmp_path / 'cam' / '2')]
    file = tmp_path / 'tracks.csv'
    file.write_text('file,track,medium\ncam/1/x.png,t,m\ncam/1/y.png,u,m\ncam/2/x.png,t,n\n')
    found = name_tracks(faces, file).columns
    assert (found['track'].tolist(), found['medium'].tolist()) == ([*'tut'], [*'mmn'])
    file.write_text('file,track,medium\ncam/1/x.png,t,\ncam/1/y.png,u,\ncam/2/x.png,t,\n')
    assert 'medium' not in name_tracks(faces, file).columns
    file.write_text('file,track,medium\ncam/1/x.png,t,\n')
    with pytest.raises(ValueError, match=r'2 images .*tracks\.csv.*1/y\.png'):
        name_tracks(faces, file)
    file.write_text('image,track\n')
    with pytest.raises(FileFormatError, match='columns'):
        name_tracks(faces, file)
    assert name_tracks(faces, dict.fromkeys(names, 't')).columns['track'].tolist() == ['t'] * 3


@pytest.fixture
def identifier(tmp_path):
    made = Identifier(FaceInferencer(Pixels()), tmp_path / 'gallery')
    made.enroll(write_people(tmp_path / 'people', dict(Ann=0, Bob=1, Eve=2)))
    return made


def write_tracks(root, people, tracks=2, images=3):
    for name, person in people.items():
        for track in range(tracks):
            shown = range(10 * track + 5, 10 * track + 5 + images)
            write_people(root / name, {f't{track}': person}, shown)
    return root


def test_tracks_are_calibrated_and_identified(identifier, tmp_path):
    strangers = write_tracks(tmp_path / 'strangers', {f's{i}': 10 + i for i in range(12)})
    known = write_tracks(tmp_path / 'known', dict(Ann=0, Bob=1))
    made = identifier.calibrate(
        [strangers], known, target_fpir=0.1, tracks='folder', rule=TrackRule('norm')
    )
    about = made.decision.calibrated_on
    assert (about['unmated_people'], about['unmated_faces'], about['mated_faces']) == (12, 24, 4)
    (threshold,) = {bound.threshold for bound in made.decision.thresholds.thresholds}
    # By hand: each of the 12 people has weight one, shared by two tracks; the 0.9 * 13 / 12
    # quantile of the best similarities of the tracks is the threshold.
    faces = identifier.inferencer.embed(str(strangers))
    unit = faces.embedding / np.linalg.norm(faces.embedding, axis=1, keepdims=True)
    weight = faces.columns['norm'][:, None]
    probes = (unit * weight).reshape(24, 3, -1).sum(axis=1)
    best = np.sort(identifier.gallery.search(probes, k=1).similarity[:, 0])
    place = int(np.ceil(0.9 * 13 * 2 - 1e-9)) - 1
    assert threshold == pytest.approx(best[place], abs=1e-6)
    file = made.decision.save(tmp_path / 'decision.json')
    other = Identifier(identifier.inferencer, tmp_path / 'gallery', file)
    found = other.identify(known, tracks='folder')
    assert [verdict.person for verdict in found.verdicts] == ['Ann', 'Ann', 'Bob', 'Bob']
    assert found.rule.describe() == TrackRule('norm').describe()
    assert found.tracks.probes.columns['images'].tolist() == [3] * 4
    for arguments, message in (
        (dict(), 'on tracks, and single faces'),
        (dict(tracks='folder', rule=TrackRule('mean')), 'by the rule'),
        (dict(rule=TrackRule('norm')), 'needs tracks'),
    ):
        with pytest.raises(ValueError, match=message):
            other.identify(known, **arguments)
    identifier.calibrate([strangers], known, target_fpir=0.1)
    with pytest.raises(ValueError, match='on single faces, and tracks'):
        identifier.identify(known, tracks='folder')


def keep_all(faces):
    return np.ones(len(faces), bool)


def test_a_function_has_to_be_passed_again(identifier, tmp_path):
    strangers = write_tracks(tmp_path / 'strangers', {f's{i}': 10 + i for i in range(12)}, 1, 1)
    rule = TrackRule(keep=keep_all)
    made = identifier.calibrate([strangers], target_fpir=0.1, tracks='folder', rule=rule)
    assert made.decision.calibrated_on['probe']['keep'].endswith('test_tracks.keep_all')
    assert identifier.identify(strangers, tracks='folder', rule=rule).verdicts
    with pytest.raises(ValueError, match='keep_all'):
        identifier.identify(strangers, tracks='folder')


def test_tracks_without_a_used_face_do_not_count(identifier, tmp_path):
    strangers = write_tracks(tmp_path / 'strangers', {f's{i}': 10 + i for i in range(12)}, 1)
    norms = identifier.inferencer.embed(str(strangers)).columns['norm'].reshape(12, 3).max(axis=1)
    rule = TrackRule(least=dict(norm=float(np.sort(norms)[:2].mean())))
    made = identifier.calibrate([strangers], target_fpir=0.1, tracks='folder', rule=rule)
    assert len(made.left) == 1 and made.decision.calibrated_on['unmated_people'] == 11
    found = identifier.identify(strangers, tracks='folder')
    assert (len(found.verdicts), list(found.tracks.empty.values())) == (11, [3])


def test_a_track_is_of_one_person(identifier, tmp_path):
    strangers = write_tracks(tmp_path / 'strangers', {f's{i}': 10 + i for i in range(12)}, 1)
    names = identifier.inferencer.embed(str(strangers)).names
    with pytest.raises(ValueError, match='several people, such as s0 and s1'):
        identifier.calibrate([strangers], target_fpir=0.1, tracks=dict.fromkeys(names, 'one'))
