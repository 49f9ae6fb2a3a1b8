"""The identifier: what is said of people, at enrollment and later, by command, page and library."""

import os
import shutil
from multiprocessing import get_context
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmvlr.apis import FaceInferencer
from mmvlr.apis.images import NoFaceError
from mmvlr.identification import (
    BrokenModelError,
    Decision,
    Gallery,
    Identifier,
    UnknownOwnerError,
)
from mmvlr.utils.contract import ModelMismatchError

SIDE = 8
FORK = get_context('fork')


class Pixels:
    """A network whose embedding is the image itself, times a number, plus another."""

    size = (SIDE, SIDE)
    contract = dict(interpolation='nearest', alignment='none')

    def __init__(self, scale=1.0, shift=0.0):
        self.scale, self.shift = scale, shift
        dims = 3 * SIDE * SIDE
        self.fingerprint = dict(
            weights=f'{scale} {shift}', preprocessing=self.contract, embedding=dict(dims=dims)
        )

    def __call__(self, faces):
        centered = faces.reshape(len(faces), -1).astype(np.float64) - 127.5
        embedding = (self.scale * centered + self.shift).astype(np.float32)
        return dict(embedding=embedding, norm=np.abs(centered).mean(1).astype(np.float32))


def face(person, image=0):
    """A random image a person, with a little noise in each of its versions."""
    base = np.random.default_rng(person).integers(20, 236, (SIDE, SIDE, 3))
    noise = np.random.default_rng((person, image + 1)).integers(-20, 20, base.shape)
    return (base + noise).astype(np.uint8)


def write_people(root, people, images=(0, 1)):
    for name, person in people.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for image in images:
            Image.fromarray(face(person, image)).save(root / name / f'{image}.png')
    return root


@pytest.fixture
def inferencer():
    return FaceInferencer(Pixels())


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path / 'people', dict(Ann=0, Bob=1, Eve=2))


def test_enroll_identify_remove(inferencer, people, tmp_path):
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    done = identifier.enroll(people)
    assert (done.people, done.enrolled) == (3, dict(Ann=2, Bob=2, Eve=2))
    assert (done.notes, done.shared, done.faces.failures) == ([], [], [])
    found = identifier.identify([face(1, 7), face(2, 7)], top=2)
    assert found.matches.person[:, 0].tolist() == ['Bob', 'Eve']
    assert (found.verdicts, found.note) == (None, '')
    # The same in memory, from images of one person at a time.
    memory = Identifier(inferencer)
    for number, name in enumerate(('Ann', 'Bob', 'Eve')):
        memory.enroll([face(number, image) for image in (0, 1)], name)
    assert memory.gallery.digest == identifier.gallery.digest
    # Nobody who was enrolled by others meanwhile is lost, and who is removed may come back.
    other = Identifier(inferencer, tmp_path / 'gallery')
    other.enroll([face(3)], 'Zoë')
    done = identifier.enroll([face(1, 9)], 'Bob', remove=['Bob', 'Ann'])
    assert (done.people, done.removed, done.enrolled) == (3, ['Bob', 'Ann'], dict(Bob=1))
    assert Gallery.load(tmp_path / 'gallery').counts == dict(Eve=2, Zoë=1, Bob=1)
    # People are removed without a model.
    assert Identifier(None, tmp_path / 'gallery').remove('Zoë').people == 2
    with pytest.raises(ValueError, match="'Zoë' is not in"):
        Identifier(None, tmp_path / 'gallery').remove('Eve', 'Zoë')
    assert Gallery.load(tmp_path / 'gallery').people == ['Eve', 'Bob']


def test_leftovers_of_the_first_version_are_named_at_removal(inferencer, people, tmp_path):
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    identifier.enroll(people)
    assert identifier.remove('Ann').notes == []
    left = tmp_path / 'gallery' / '.gallery.safetensors.a1b2c3d4.safetensors'
    left.write_text('cut')
    (note,) = identifier.remove('Bob').notes
    assert str(left) in note and left.exists()


def test_two_enroll_at_once(inferencer, tmp_path):
    """Both embed before either saves, into a folder that is not there."""
    barrier = FORK.Barrier(2)

    def run(number):
        names = {f'{number}-{i}': 10 * number + i for i in range(6)}
        folder = write_people(tmp_path / str(number), names)
        update = Gallery.update

        def wait(*args, **kwargs):
            barrier.wait(60)
            return update(*args, **kwargs)

        Gallery.update = wait
        done = Identifier(inferencer, tmp_path / 'gallery').enroll(folder)
        assert len(done.enrolled) == 6

    processes = [FORK.Process(target=run, args=(number,)) for number in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    counts = Gallery.load(tmp_path / 'gallery').counts
    assert counts == {f'{number}-{i}': 2 for number in (1, 2) for i in range(6)}


def test_the_same_image_under_two_names_is_told(inferencer, people, tmp_path):
    shutil.copy(people / 'Ann' / '0.png', people / 'Eve' / 'copy.png')
    shutil.copy(people / 'Ann' / '0.png', people / 'Ann' / 'copy.png')
    done = Identifier(inferencer, tmp_path / 'gallery').enroll(people)
    assert done.enrolled == dict(Ann=2, Bob=2, Eve=3)
    (pair,) = done.shared
    assert pair == (str(people / 'Eve' / 'copy.png'), 'Eve', str(people / 'Ann' / '0.png'), 'Ann')
    assert [note.split()[0] for note in done.notes] == ['1', '1']
    assert "'Eve'" in done.notes[1] and "'Ann'" in done.notes[1]
    done = Identifier(inferencer, tmp_path / 'gallery').enroll([people / 'Ann' / '0.png'], 'Carl')
    assert len(done.shared) == 1


@pytest.mark.parametrize('bad', ['a\nb', ' ', 'Ann\x1b[31m'])
def test_names_are_checked_before_anything_is_embedded(inferencer, people, tmp_path, bad):
    inferencer.network = None
    (people / bad).mkdir()
    for arguments in ((people,), ([face(0)], bad)):
        with pytest.raises(ValueError, match='person'):
            Identifier(inferencer, tmp_path / 'gallery').enroll(*arguments)
    assert not (tmp_path / 'gallery').exists()


def test_one_name_in_two_spellings_is_told(inferencer, tmp_path):
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    identifier.enroll(write_people(tmp_path / 'a', {'Zoë': 0}))
    done = identifier.enroll(write_people(tmp_path / 'b', {'Zoe\u0308': 0}, images=(2,)))
    assert (done.people, done.enrolled) == (1, {'Zoë': 1})
    assert 'NFC' in done.notes[0]


def test_people_whose_images_cancel_out_are_refused(inferencer, people, tmp_path):
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    identifier.enroll(people)
    opposite = 255 - face(0)
    with pytest.raises(ValueError, match="'Carl' cancel out"):
        identifier.enroll([face(0), opposite], 'Carl')
    assert identifier.gallery.people == ['Ann', 'Bob', 'Eve']
    assert len(identifier.identify(face(0)).matches) == 1


@pytest.mark.parametrize('network', [Pixels(0.0, 1.0), Pixels(1e-4, 5.0)])
def test_a_model_whose_embeddings_do_not_differ_is_broken(network, people, tmp_path):
    broken = FaceInferencer(network)
    identifier = Identifier(broken, tmp_path / 'gallery')
    gallery = Gallery(broken.fingerprint)
    gallery.enroll('Ann', np.ones((1, 3 * SIDE * SIDE)), dict(norm=[1]))
    for work in (
        lambda: identifier.enroll(people),
        lambda: identifier.enroll([face(0)], 'Ann'),
        lambda: identifier.enroll([people / 'Ann' / '0.png'], 'Ann'),
        lambda: Identifier(broken).verify(face(0), face(1)),
        lambda: Identifier(broken).verify(face(0), people / 'Ann' / '0.png'),
        lambda: Identifier(broken, gallery).calibrate([people], target_fpir=0.5),
    ):
        with pytest.raises(BrokenModelError, match='broken'):
            work()
    assert not (tmp_path / 'gallery').exists()


def test_a_working_model_is_not_called_broken(inferencer, tmp_path):
    """Whatever is alike is so for another reason: a copy, a burst of frames, dark images."""
    dark = np.zeros((SIDE, SIDE, 3), np.uint8)
    near = face(0).copy()
    near[0, 0, 0] += 1
    for pair in ((face(0), face(0)), (face(0), near), (dark, dark)):
        assert Identifier(inferencer).verify(*pair).similarity > 0.9995
        Identifier(inferencer).enroll(list(pair), 'Ann')


def test_images_without_a_face_are_failures(inferencer, people, tmp_path):
    """Where alignment was asked for; a frame of a street is not a person."""

    def align(pixels):
        wall = pixels.max() == pixels.min()
        found = None if wall else SimpleNamespace(size=8)
        return SimpleNamespace(image=pixels, detection=found, faces=int(not wall))

    inferencer.aligner = align
    wall = str(tmp_path / 'wall.png')
    Image.fromarray(np.full((SIDE, SIDE, 3), 90, np.uint8)).save(wall)
    shutil.copy(wall, people / 'Ann')
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    done = identifier.enroll(people)
    assert done.enrolled == dict(Ann=2, Bob=2, Eve=2)
    assert done.faces.unaligned == [str(people / 'Ann' / 'wall.png')]
    assert [name for name, _ in done.faces.failures] == done.faces.unaligned
    found = identifier.identify([wall, people / 'Bob' / '0.png'])
    assert (len(found.faces), found.faces.unaligned) == (1, [wall])
    for work in (
        lambda: identifier.enroll([wall], 'Carl'),
        lambda: identifier.enroll([wall, wall], 'Carl'),
        lambda: identifier.verify(wall, people / 'Bob' / '0.png'),
        lambda: identifier.verify(people / 'Bob' / '0.png', wall),
        lambda: identifier.identify(wall),
    ):
        with pytest.raises(NoFaceError, match=r'wall\.png'):
            work()
    assert 'Carl' not in Gallery.load(tmp_path / 'gallery')


def test_verify(inferencer, people):
    found = Identifier(inferencer).verify(face(0), people / 'Ann' / '1.png')
    first, second = (face(0, image).astype(float).ravel() - 127.5 for image in (0, 1))
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert found.similarity == pytest.approx(expected, abs=1e-6)
    assert found.faces.names == ['array 0', str(people / 'Ann' / '1.png')]
    for other in (people, [face(0), face(1)], people / 'Ann', []):
        with pytest.raises(ValueError, match='is not one'):
            Identifier(inferencer).verify(face(0), other)


def test_calibrate_and_decide(inferencer, people, tmp_path):
    strangers = write_people(tmp_path / 'strangers', {f's{i}': 10 + i for i in range(12)})
    known = write_people(tmp_path / 'known', dict(Ann=0, Bob=1), images=(5, 6))
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    identifier.enroll(people)
    made = identifier.calibrate([strangers], known, target_fpir=0.1, name='made up')
    assert made.decision.calibrated_on['unmated_people'] == 12
    assert made.decision.calibrated_on['mated_faces'] == 4
    made.decision.save(tmp_path / 'decision.json')
    assert os.stat(tmp_path / 'decision.json').st_mode & 0o777 == 0o600
    # The rule by hand: of 12 people two are above at most, each with the weight of one.
    other = Identifier(inferencer, tmp_path / 'gallery', tmp_path / 'decision.json')
    found = other.identify([known, strangers])
    outcomes = [verdict.outcome for verdict in found.verdicts]
    assert outcomes[:4] == ['accept'] * 4 and outcomes.count('accept') <= 6
    assert [verdict.person for verdict in found.verdicts[:4]] == ['Ann', 'Ann', 'Bob', 'Bob']
    threshold = max(found.threshold for found in made.decision.thresholds.thresholds)
    assert other.verify(face(0), face(1)).threshold == threshold
    identifier.remove('Eve')
    changed = Identifier(inferencer, tmp_path / 'gallery', made.decision).identify(known)
    assert '3 people then, 2 now' in changed.note
    assert [verdict.outcome for verdict in changed.verdicts] == ['accept'] * 4


@pytest.mark.parametrize(
    ('unmated', 'mated', 'message'),
    [
        ('known', None, 'such as Ann'),
        ('copies', None, 'copies.s0.0.png'),
        ('strangers', 'strangers', 'not in the gallery, such as s0'),
        ('strangers', 'people', 'enrolled themselves'),
    ],
)
def test_people_on_the_wrong_side(inferencer, people, tmp_path, unmated, mated, message):
    write_people(tmp_path / 'strangers', {f's{i}': 10 + i for i in range(12)})
    write_people(tmp_path / 'known', dict(Ann=0), images=(5, 6))
    write_people(tmp_path / 'copies', dict(s0=0))
    identifier = Identifier(inferencer, tmp_path / 'gallery')
    identifier.enroll(people)
    with pytest.raises(ValueError, match=message):
        identifier.calibrate([tmp_path / unmated], mated and tmp_path / mated, target_fpir=0.5)
    with pytest.raises(UnknownOwnerError, match='whose image is'):
        identifier.calibrate(sorted((tmp_path / 'strangers').iterdir()), target_fpir=0.5)


def test_files_of_another_model_are_found_before_anything_is_embedded(people, tmp_path):
    one = Identifier(FaceInferencer(Pixels()), tmp_path / 'gallery')
    one.enroll(people)
    strangers = write_people(tmp_path / 'strangers', {f's{i}': 10 + i for i in range(12)})
    one.calibrate([strangers], target_fpir=0.1).decision.save(tmp_path / 'decision.json')
    other = FaceInferencer(Pixels(2.0))
    other.network = None
    for work in (
        lambda: Identifier(other, tmp_path / 'gallery').enroll(people),
        lambda: Identifier(other, tmp_path / 'gallery').identify(people),
        lambda: Identifier(other, tmp_path / 'gallery').calibrate([people]),
        lambda: Identifier(other, tmp_path / 'gallery', tmp_path / 'decision.json'),
        lambda: Decision.load(tmp_path / 'decision.json', other.fingerprint),
    ):
        with pytest.raises(ModelMismatchError):
            work()
