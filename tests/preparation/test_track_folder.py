"""Tracks of made-up videos, in which it is known who is where."""

import csv
import hashlib
import importlib.util
import json
import os
import re
import signal
import sys
import weakref
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmvlr.cli import main
from mmvlr.datasets.transforms import read_image
from mmvlr.identification.tracks import name_tracks
from mmvlr.preparation import (
    Detection,
    Judge,
    TrackSettings,
    UnreadableVideoError,
    make_judge,
    open_frames,
    track_faces,
    track_settings,
)
from mmvlr.preparation.tracking import FaceTracker
from mmvlr.utils.locks import LockedError
from mmvlr.utils.schema import FileFormatError
from mmvlr.utils.work import Journal

av = pytest.importorskip('av', reason="PyAV is missing: pip install 'mmvlr[video]'")
pytest.importorskip('trackers', reason="trackers is missing: pip install 'mmvlr[video]'")

FRAMES, RATE, SIDE = 24, 10, 16
#: Color -> row of the middle, column at the start, columns a frame.
PEOPLE = {0: (30, 20, 4), 1: (80, 130, -3)}


def draw(number, shape=(120, 160), people=PEOPLE):
    """A frame in which every person is a square of one color, and the boxes."""
    frame, boxes = np.full((*shape, 3), 20, np.uint8), {}
    for color, (row, start, speed) in people.items():
        x, y = start + speed * number - SIDE // 2, row - SIDE // 2
        frame[y : y + SIDE, max(0, x) : x + SIDE, color] = 220
        boxes[color] = (x, y, x + SIDE, y + SIDE)
    return frame, boxes


def find_squares(pixels):
    """Stand in for a detector: bright squares are faces, darker ones of a low score."""
    found = []
    bright = (pixels.max(axis=2) > 100).astype(np.uint8)
    for left, top, width, height, area in cv2.connectedComponentsWithStats(bright)[2][1:]:
        if area < 30:
            continue
        inside = pixels[top : top + height, left : left + width].max()
        box = tuple(map(float, (left, top, left + width, top + height)))
        points = (0.1 + 0.8 * np.random.default_rng(0).random((5, 2))) * (width, height)
        score = 0.95 if inside > 180 else 0.3
        found.append(Detection(box, score, np.add(points, (left, top))))
    return found


def write_video(path, frames, rate=RATE, codec='mpeg4'):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate)
        (stream.height, stream.width), stream.pix_fmt = frames[0].shape[:2], 'yuv420p'
        stream.bit_rate, stream.gop_size = 4_000_000, 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        container.mux(stream.encode(None))
    return path


def write_folder(path, frames):
    path.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f'f{number}.png')
    return path


@pytest.fixture(scope='module')
def frames():
    return [draw(number)[0] for number in range(FRAMES)]


@pytest.fixture(scope='module')
def video(tmp_path_factory, frames):
    return write_video(tmp_path_factory.mktemp('video') / 'two.mkv', frames)


def read_rows(out):
    with open(out / 'tracks.csv', newline='') as file:
        return list(csv.DictReader(file))


def digest(out):
    """Content of every file that is no note."""
    files = [path for path in out.rglob('*') if path.is_file() and path.name[0] != '.']
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def track(source, out, settings=None, detector=find_squares, **more):
    return track_faces(open_frames(source), out, settings, detector, **more)


# What is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(('kind', 'every'), [('video', 1), ('video', 3), ('folder', 1)])
def test_every_face_is_in_the_track_of_its_person(tmp_path, video, frames, kind, every):
    if kind == 'folder':
        # 9 comes before 10.
        source = open_frames(write_folder(tmp_path / 'frames', frames), every, RATE)
    else:
        source = open_frames(video, every)
    assert (source.total, source.rate) == (FRAMES / every, RATE / every)
    report = track_faces(source, tmp_path / 'out', TrackSettings(margin=0), find_squares)
    rows = read_rows(tmp_path / 'out')
    people = defaultdict(list)
    for row in rows:
        number = int(row['frame'])
        crop = read_image(str(tmp_path / 'out' / row['file']))
        color = int(crop.mean((0, 1)).argmax())
        box = [float(row[name]) for name in ('x1', 'y1', 'x2', 'y2')]
        np.testing.assert_allclose(box, draw(number)[1][color], atol=1)
        assert crop.shape[:2] == (round(box[3]) - round(box[1]), round(box[2]) - round(box[0]))
        assert float(row['seconds']) == pytest.approx(number / RATE, abs=2e-3)
        assert float(row['size']) == pytest.approx(SIDE, abs=1)
        assert row['file'] == f'{row["track"]}/{number:08d}.png'
        people[color].append((number, row['track']))
    # All frames, the first as well, and one track a person.
    numbers = list(range(0, FRAMES, every))
    assert {c: [n for n, _ in found] for c, found in people.items()} == {0: numbers, 1: numbers}
    assert {t for found in people.values() for _, t in found} == {'track_000001', 'track_000002'}
    assert all(len({t for _, t in found}) == 1 for found in people.values())
    assert (report.tracks, report.crops, report.found) == (2, len(rows), len(rows))
    assert report.frames == FRAMES / every and not report.problems and not report.resumed
    assert sum(report.left_out.values()) == 0


@pytest.mark.parametrize('by', ['size', 'judge'])
def test_the_best_crops_of_a_track(tmp_path, frames, video, by):
    """The face grows to the middle of the video; the judge likes the beginning."""
    if by == 'size':
        images = []
        for number in range(12):
            image = np.full((120, 160, 3), 20, np.uint8)
            side = 12 + min(number, 12 - number)
            image[40 : 40 + side, 60 : 60 + side] = 220
            images.append(image)
        video, judge = write_folder(tmp_path / 'frames', images), None
        wanted = [5, 6, 7]
    else:
        values = iter(range(2 * FRAMES, 0, -1))
        # Of no use as a number, and so never among the best.
        worst = float('nan')

        def measure(crops):
            return np.array([worst if (v := next(values)) == 2 * FRAMES else v for _ in crops])

        judge, wanted = Judge('ri', 'model', measure), [1, 2, 3]
    report = track(video, tmp_path / 'out', TrackSettings(best=3), judge=judge)
    rows = read_rows(tmp_path / 'out')
    found = defaultdict(list)
    for row in rows:
        found[row['track']].append(int(row['frame']))
        assert ('ri' in row) == (by == 'judge')
    assert found.pop('track_000001') == wanted
    assert all(numbers == [0, 1, 2] for numbers in found.values())
    assert sorted(digest(tmp_path / 'out')) == sorted([*(r['file'] for r in rows), 'tracks.csv'])
    assert report.left_out['not among the best of their track'] == report.found - len(rows)


def test_a_model_judges_as_the_inferencer_does(tmp_path, video, tiny_backbone, tiny_preprocessor):
    from mmvlr.apis import FaceInferencer
    from mmvlr.registry import MODELS

    head = dict(type='RecognitionModule', num_classes=2, embed_dims=16)
    model = MODELS.build(
        dict(
            type='FaceRecognizer',
            backbone=tiny_backbone,
            head=head,
            data_preprocessor=tiny_preprocessor,
        )
    )
    inferencer = FaceInferencer(model.eval(), batch_size=1)
    judge = make_judge(inferencer)
    track(video, tmp_path / 'out', judge=judge)
    rows = read_rows(tmp_path / 'out')
    # The folder is what identify --tracks folder and quality take.
    tracks = name_tracks(inferencer.quality(tmp_path / 'out'), 'folder').columns['track']
    names = [Path(track).name for track in tracks]
    assert sorted(names) == sorted(row['track'] for row in rows)
    files = [str(tmp_path / 'out' / row['file']) for row in rows]
    faces = inferencer.quality(files)
    assert judge.name == next(iter(faces.qualities))
    values = [float(row[judge.name]) for row in rows]
    np.testing.assert_allclose(values, faces.qualities[judge.name], atol=1e-3)


def test_aligned_faces_and_faces_without_landmarks(tmp_path, frames):
    source = write_folder(tmp_path / 'frames', frames[:3])
    track(source, tmp_path / 'aligned', TrackSettings(align=48))

    def bare(pixels):
        return [Detection(f.box, f.confidence, None) for f in find_squares(pixels)]

    track(source, tmp_path / 'bare', TrackSettings(align=48), bare)
    for out in ('aligned', 'bare'):
        shapes = {read_image(str(p)).shape for p in (tmp_path / out).rglob('*.png')}
        assert shapes == {(48, 48, 3)}
    name = 'track_000001/00000000.png'
    assert digest(tmp_path / 'aligned')[name] != digest(tmp_path / 'bare')[name]


def test_what_is_left_out_is_counted(tmp_path):
    images = []
    for number in range(6):
        image = draw(number, people={0: PEOPLE[0]})[0]
        image[100:108, 20:28] = 220  # too small
        if number == 3:
            image[60:80, 100:120] = 220  # in one frame only
        image[20:36, 130:146] = 120  # of a low score
        images.append(image)
    report = track(write_folder(tmp_path / 'frames', images), tmp_path / 'out')
    assert (report.tracks, report.crops, report.found) == (1, 6, 19)
    assert report.left_out == {'smaller than 12 pixels': 6, 'in no track': 7}


def test_faces_outside_of_the_frame(tmp_path, frames):
    def find(pixels):
        return [
            Detection((-40.0, -40.0, -10.0, -10.0), 0.9, None),
            Detection((-8.0, 0.0, 12.0, 20.0), 0.9, None),
        ]

    report = track(write_folder(tmp_path / 'frames', frames[:3]), tmp_path / 'out', None, find)
    assert report.left_out == {'outside of the frame': 3, 'in no track': 0}
    assert read_image(str(tmp_path / 'out/track_000001/00000000.png')).shape == (22, 14, 3)


# The tracker --------------------------------------------------------------------------------------


@pytest.mark.parametrize(('hidden', 'tracks'), [(6, 1), (14, 2)])
def test_a_face_may_be_hidden_for_a_while(hidden, tracks):
    tracker = FaceTracker(rate=10, gap=1.0, start=0.9)
    seen = []
    for number in range(30):
        if 5 <= number < 5 + hidden:
            faces = []
        else:
            x = 10.0 + number
            # Blurred once in a while: such a face goes on with a track.
            score = 0.5 if number in (3, 22) else 0.95
            faces = [Detection((x, 20.0, x + 16, 36.0), score, None)]
        found, begun = tracker.update(faces, number / 10)
        seen += [begun.get(track) is not None for track in found if track is not None]
        assert None not in found or number in (0, 5 + hidden)
    assert tracker.count == tracks and sum(seen) == tracks
    tracker.restart()
    face = Detection((50.0, 20.0, 66.0, 36.0), 0.95, None)
    assert tracker.update([face], 3.0) == ([None], {})
    assert tracker.update([face], 3.1) == ([tracks], {tracks: 0})


# Going on -----------------------------------------------------------------------------------------


def run_and_die(source, out, settings, after):
    """Track in a process that is killed with SIGKILL when it seeks faces in a frame."""
    child = os.fork()
    if not child:
        calls = iter(range(after))

        def find(pixels):
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return find_squares(pixels)

        find.version = 'squares'
        track(source, out, settings, find)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize('best', [None, 2])
def test_a_killed_run_goes_on_with_the_same_result(tmp_path, video, best):
    calls, settings, killed = [], TrackSettings(best=best, gap=0.2), tmp_path / 'killed'

    def find(pixels):
        calls.append(1)
        return find_squares(pixels)

    find.version = 'squares'
    track(video, tmp_path / 'whole', settings, find)
    assert len(calls) == FRAMES
    for after in (5, 3, 9):
        run_and_die(video, killed, settings, after)
        assert not (killed / 'tracks.csv').exists()
    # Of a last line that was cut short, nothing is taken; files of the user stay.
    with open(killed / '.frames.jsonl', 'ab') as file:
        file.write(b'{"frame": 17, "fa')
    own = {'mine.txt'} if best else {'mine.txt', 'track_000001/mine.png'}
    for name in own:
        (killed / name).write_text('mine')
    calls.clear()
    report = track(video, killed, settings, find)
    assert (len(calls), report.resumed) == (FRAMES - 17, 17)
    found = digest(killed)
    assert own < {*found}
    assert {name: value for name, value in found.items() if name not in own} == digest(
        tmp_path / 'whole'
    )
    assert not [path for path in killed.rglob('.mmvlr-*') if path.name != '.mmvlr-files']
    # Once more: nothing is sought, a lost crop is written again.
    (row, *_) = read_rows(killed)
    (killed / row['file']).unlink()
    again = track(video, killed, settings, find)
    assert again.resumed == FRAMES and len(calls) == FRAMES - 17
    assert digest(killed) == found


def test_results_of_other_settings_or_videos_are_refused(tmp_path, video, frames):
    out = tmp_path / 'out'
    source = write_folder(tmp_path / 'frames', frames[:4])
    track(source, out)
    before = digest(out)
    Image.fromarray(frames[9]).save(source / 'f1.png')
    for changed, named in ((None, 'images'), (TrackSettings(gap=2), 'gap')):
        with pytest.raises(FileFormatError, match=named):
            track(source, out, changed)
    with pytest.raises(FileFormatError, match='detector'):
        track(source, out, detector=lambda pixels: [])
    with pytest.raises(FileFormatError, match='source'):
        track(video, out)
    assert digest(out) == before
    # Files of the user are neither mixed with tracks nor replaced.
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'a.txt').touch()
    with pytest.raises(ValueError, match='own holds other files'):
        track(video, tmp_path / 'own')


def test_a_damaged_journal_is_named(tmp_path, video):
    out = tmp_path / 'out'
    track(video, out)
    journal = out / '.frames.jsonl'
    whole = journal.read_bytes()
    for damaged, named in (
        (whole.replace(b'"frame": 2,', b'"frame": 7,'), 'frame 7'),
        (whole.replace(b'"confidence": 0.95', b'"confidence": "x"', 1), 'line 2'),
        (b'', 'line 1'),
    ):
        journal.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=named):
            track(video, out)
        assert not (out / 'tracks.csv').exists()


def test_a_second_run_into_the_folder_is_refused(tmp_path, video):
    refused = []

    def find(pixels):
        if not refused:
            with pytest.raises(LockedError, match='being written by process'):
                track(video, tmp_path / 'out')
            refused.append(1)
        return find_squares(pixels)

    track(video, tmp_path / 'out', None, find)
    assert refused


def test_one_frame_is_held_in_memory(tmp_path, video):
    """And neither the journal nor the crops of tracks that are over."""
    source, alive, most = open_frames(video), [], []

    class Watched:
        rate, total, identity, problems = source.rate, source.total, source.identity, []

        def __iter__(self):
            for frame in source:
                alive.append(weakref.ref(frame.pixels))
                most.append(sum(one() is not None for one in alive))
                yield frame
                del frame

    track_faces(Watched(), tmp_path / 'out', None, find_squares)
    assert len(most) == FRAMES and max(most) <= 3


def test_a_journal_may_leave_its_entries_in_the_file(tmp_path):
    path = tmp_path / 'journal'
    journal = Journal(path, dict(a=1), 'n', keep=False)
    journal.extend([dict(n=number) for number in range(3)])
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"n": 3')
    journal = Journal(path, dict(a=1), 'n', keep=False)
    entries = journal.entries()
    assert next(entries) == dict(n=0)
    # What is added now is not of an earlier run.
    journal.append(dict(n=9))
    assert [entry['n'] for entry in entries] == [1, 2] and not journal.found
    journal.close()
    assert path.read_text().endswith('{"n": 2}\n{"n": 9}\n')


# What cannot be read ------------------------------------------------------------------------------


def test_a_folder_with_a_damaged_image(tmp_path, frames):
    source = write_folder(tmp_path / 'frames', frames[:6])
    (source / 'f3.png').write_bytes(b'no image')
    report = track(source, tmp_path / 'out')
    assert report.frames == 5 and report.tracks == 2
    (problem,) = report.problems
    assert 'f3.png' in problem
    assert sorted({int(row['frame']) for row in read_rows(tmp_path / 'out')}) == [0, 1, 2, 4, 5]


def test_a_cut_and_a_damaged_video(tmp_path, video):
    content = video.read_bytes()
    cut, hurt = tmp_path / 'cut.mkv', tmp_path / 'hurt.mkv'
    cut.write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    hurt.write_bytes(content[:middle] + bytes(3000) + content[middle + 3000 :])
    for path, named in ((cut, 'cut off'), (hurt, 'damaged|ended early')):
        report = track(path, tmp_path / f'out_{path.stem}')
        assert report.tracks >= 2 and 0 < report.frames < FRAMES
        assert any(path.name in problem for problem in report.problems)
        assert re.search(named, ' '.join(report.problems))
    assert not track(video, tmp_path / 'whole').problems


@pytest.mark.parametrize('kind', ['folder', 'video'])
def test_a_changing_frame_size_ends_all_tracks(tmp_path, kind):
    small = [draw(number, (120, 160))[0] for number in range(6)]
    large = [draw(number, (144, 192))[0] for number in range(6, 12)]
    if kind == 'folder':
        source = write_folder(tmp_path / 'source', small + large)
    else:
        source = tmp_path / 'two.ts'
        parts = [
            write_video(tmp_path / f'{index}.ts', images, 25, 'mpeg2video').read_bytes()
            for index, images in enumerate((small, large))
        ]
        source.write_bytes(b''.join(parts))
    report = track(source, tmp_path / 'out')
    (change,) = report.sizes
    assert change[1:] == (144, 192) and change[0] in (5, 6)
    assert report.tracks == 4
    for row in read_rows(tmp_path / 'out'):
        assert (int(row['frame']) >= change[0]) == (row['track'] > 'track_000002')


@pytest.mark.parametrize(
    ('name', 'content', 'named'),
    [
        ('a.mp4', b'', 'empty'),
        ('a.mp4', b'<!DOCTYPE html><html>', 'web page'),
        ('a.mp4', bytes(range(256)) * 20, 'no video'),
        ('a.txt', b'hello\n' * 99, 'no video'),
        (
            'a.m3u8',
            b'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n',
            'no video',
        ),
        ('a.png', None, 'PNG'),
        ('folder/a.txt', b'', 'holds no image'),
        ('folder/b/a.txt', b'', 'name one of them'),
    ],
)
def test_what_is_no_video(tmp_path, name, content, named):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content or b'')
    if content is None:
        Image.new('RGB', (64, 64)).save(path)
    source = tmp_path / Path(name).parts[0]
    with pytest.raises(ValueError, match=named) as told:
        open_frames(source)
    assert str(source) in str(told.value)
    assert source.is_dir() or told.type is UnreadableVideoError


@pytest.mark.parametrize(
    'values',
    [dict(best=0), dict(gap=-1), dict(margin=float('inf')), dict(min_confidence=2), dict(align=4)],
)
def test_settings_out_of_range(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        TrackSettings(**values)


def test_numbers_of_frames_out_of_range(tmp_path, video, frames):
    folder = write_folder(tmp_path / 'frames', frames[:1])
    for source, every, rate in ((video, 0, None), (folder, 1, 0.0), (video, 1, 10.0)):
        with pytest.raises(ValueError, match=r'every|frames a second'):
            open_frames(source, every, rate)


@pytest.mark.parametrize('module', ['av', 'trackers'])
def test_a_missing_package_is_named(tmp_path, video, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'mmvlr\[video\]'"):
        track(video, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def squares(monkeypatch):
    """The command finds squares."""

    class Squares:
        version, SURE = 'squares', 0.9

        def detect(self, images):
            return [find_squares(image) for image in images]

    monkeypatch.setattr(track_settings, 'build_detector', lambda *args, **more: Squares())


def test_exit_codes(tmp_path, video, frames, squares, capsys, monkeypatch):
    monkeypatch.delenv('MMVLR_MODEL', raising=False)
    run = lambda *words: main(['track', *map(str, words)])  # noqa: E731
    assert run(video, tmp_path / 'out') == 0
    printed = capsys.readouterr().out
    assert '48 faces found, 2 tracks' in printed and '48 crops' in printed
    dark = write_video(tmp_path / 'dark.mkv', [np.zeros_like(frame) for frame in frames])
    assert run(dark, tmp_path / 'dark') == 5
    assert 'no track of a face' in capsys.readouterr().err
    assert read_rows(tmp_path / 'dark') == []
    content = video.read_bytes()
    (tmp_path / 'cut.mkv').write_bytes(content[: len(content) // 2])
    assert run(tmp_path / 'cut.mkv', tmp_path / 'cut') == 3
    assert 'cut off' in capsys.readouterr().err
    (tmp_path / 'a.txt').write_text('hello')
    assert run(tmp_path / 'a.txt', tmp_path / 'text') == 1
    assert not (tmp_path / 'text').exists()
    sizes = [*frames[:4], *(frame[:100] for frame in frames[4:8])]
    folder = write_folder(tmp_path / 'sizes', sizes)
    assert run(folder, tmp_path / 'changed', '--fps', 10) == 0
    assert '160 x 100 at frame 4' in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec('facenet_pytorch') is None,
    reason="facenet-pytorch is missing: pip install 'mmvlr[align]'",
)
def test_real_faces_are_found_and_joined(shared, root, tmp_path, capsys, monkeypatch):
    path = root / 'projects' / 'studies' / 'track_video.py'
    spec = importlib.util.spec_from_file_location('track_video', path)
    study = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, 'track_video', study)
    spec.loader.exec_module(study)
    faces = shared / 'data' / 'cfp' / 'Testing_Set' / 'Gallery_Match'
    words = ['tracks', faces, shared / 'data' / 'frames', '--people', 3, '--seconds', 8]
    words += ['--width', 480, '--height', 270, '--every', 5, '--jobs', 1, '--min-size', 16]
    assert study.main([*map(str, words), '--keep', str(tmp_path / 'kept')]) == 0
    lines = dict(line.strip('| ').split(' | ') for line in capsys.readouterr().out.splitlines()[3:])
    found = {name: float(value) for name, value in lines.items()}
    assert found['people'] == found['people with a track'] == 3
    assert found['found in tracks, %'] > 25 and found['crops of their track, %'] > 95
    assert found['switches'] <= 2
    assert json.loads((tmp_path / 'kept/every_5/.frames.jsonl').open().readline())['version'] == 1
