"""The command ``mmvlr`` on small files: what it prints, writes and returns."""

import json
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmvlr.apis import FaceInferencer
from mmvlr.apis.network import load_model
from mmvlr.cli import main
from mmvlr.cli.common import table
from mmvlr.cli.identification import bin_names
from mmvlr.cli.operating import tell_level, tell_operation
from mmvlr.identification.abstention import AbstentionLevel
from mmvlr.identification.people import find_owner
from mmvlr.models.quality import FaceBatch, GraFIQsQuality, PreFIQsQuality
from mmvlr.structures import FaceTable

from ..people import model_file

COMMANDS = [
    'embed',
    'quality',
    'verify',
    'enroll',
    'people',
    'calibrate',
    'audit-gallery',
    'identify',
    'export',
    'page',
    'doctor',
]


@pytest.mark.parametrize('command', COMMANDS)
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as left:
        main([command, '--help'])
    told = capsys.readouterr().out
    assert left.value.code == 0
    assert '--json' in told
    # An example or an explanation, not options alone.
    assert len(told.split('options:')[0]) > 150


def test_module_runs_and_help_imports_no_torch(root):
    """``python -m mmvlr`` answers at once: a shell completes nothing while torch loads."""
    code = (
        'import sys, runpy\n'
        "sys.argv = ['mmvlr', '--help']\n"
        "try:\n    runpy.run_module('mmvlr', run_name='__main__')\n"
        'except SystemExit as left:\n    assert left.code == 0\n'
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 'identify' in done.stdout


def test_no_model_is_wrong_usage(monkeypatch, capsys, faces):
    monkeypatch.delenv('MMVLR_MODEL', raising=False)
    with pytest.raises(SystemExit) as left:
        main(['quality', str(faces), '--json'])
    assert left.value.code == 2
    captured = capsys.readouterr()
    assert 'MMVLR_MODEL' in captured.err
    assert json.loads(captured.out)['kind'] == 'UsageError'


def test_model_from_the_environment(mmvlr, faces):
    code, document = mmvlr('quality', faces / 'people', model_used=False)
    assert code == 0
    assert len(document['faces']) == 16


@pytest.mark.parametrize('command', ['quality', 'embed', 'enroll'])
def test_linked_people_are_used_and_what_cannot_be_read_is_named(
    mmvlr, faces, tmp_path, monkeypatch, command
):
    root = tmp_path / 'people'
    root.mkdir()
    people = sorted((faces / 'people').iterdir())
    (root / 'linked').symlink_to(people[0])
    shutil.copytree(people[1], root / 'own')
    (root / 'own' / 'loop').symlink_to(root / 'own')
    (root / 'own' / 'gone.png').symlink_to('nowhere.png')
    shutil.copytree(people[2], root / 'denied')
    scandir = os.scandir

    def refuse(path='.'):
        if os.fspath(path) == str(root / 'denied'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    arguments = dict(
        quality=[root],
        embed=[root, '--out', tmp_path / 'faces.npz'],
        enroll=[tmp_path / 'gallery', root],
    )
    code, document = mmvlr(command, *arguments[command])
    assert code == 3
    reasons = {failure['name']: failure['reason'] for failure in document['failures']}
    assert set(reasons) == {str(root / 'own' / 'gone.png'), str(root / 'denied')}
    assert 'Permission denied' in reasons[str(root / 'denied')]
    used = dict(
        quality=lambda: len(document['faces']),
        embed=lambda: document['faces'],
        enroll=lambda: sum(document['enrolled'].values()),
    )
    assert used[command]() == 4


def test_error_names_the_file(mmvlr, tmp_path, capsys):
    code, document = mmvlr('quality', tmp_path / 'nothing here')
    assert code == 1
    assert 'nothing here' in document['error']
    assert document['kind'] == 'FileNotFoundError'


# embed, quality, verify ---------------------------------------------------------------------------


def test_embed_writes_what_the_inferencer_says(mmvlr, faces, model, tmp_path):
    out = tmp_path / 'faces.npz'
    code, document = mmvlr('embed', faces / 'people', '--out', out)
    assert (code, document['faces'], document['dims']) == (0, 16, 16)
    expected = FaceInferencer(model, 'cpu').embed(faces / 'people')
    found = FaceTable.load(out)
    assert found.names == expected.names
    assert np.array_equal(found.embedding, expected.embedding)
    assert document['fingerprint'] == json.loads(json.dumps(dict(expected.fingerprint)))
    code, _ = mmvlr('embed', faces / 'people', '--out', tmp_path / 'faces.csv')
    lines = (tmp_path / 'faces.csv').read_text().splitlines()
    assert code == 0
    assert len(lines) == 17
    assert np.allclose([float(x) for x in lines[1].split(',')[-16:]], expected.embedding[0])


def test_embed_refuses_other_suffixes(mmvlr, faces, tmp_path):
    with pytest.raises(SystemExit) as left:
        mmvlr('embed', faces, '--out', tmp_path / 'faces.txt')
    assert left.value.code == 2
    assert not (tmp_path / 'faces.txt').exists()


def test_quality_sorts_the_worst_first(mmvlr, faces):
    _, document = mmvlr('quality', faces / 'people')
    found = [row['ri'] for row in document['faces']]
    assert found == sorted(found)
    assert len(set(found)) > 1
    _, document = mmvlr('quality', faces / 'people', '--sort', 'name')
    names = [row['name'] for row in document['faces']]
    assert names == sorted(names)


def test_broken_images_are_listed(mmvlr, faces, tmp_path):
    shutil.copytree(faces / 'people', tmp_path / 'mixed')
    (tmp_path / 'mixed' / 'broken.jpg').write_bytes(b'no image')
    code, document = mmvlr('quality', tmp_path / 'mixed')
    assert code == 3
    assert len(document['faces']) == 16
    assert [failure['name'].endswith('broken.jpg') for failure in document['failures']] == [True]
    assert 'broken.jpg' in document['failures'][0]['reason']


def test_verify(mmvlr, faces, model):
    pair = faces / 'people' / 'Zoë 0' / '0.png', faces / 'people' / 'Zoë 0' / '1.png'
    code, document = mmvlr('verify', *pair)
    unit = FaceInferencer(model, 'cpu').embed(list(pair)).unit.numpy().astype(np.float64)
    assert code == 0
    assert document['similarity'] == pytest.approx(float(unit[0] @ unit[1]), abs=1e-5)
    assert len(document['qualities']['ri']) == 2
    above, below = document['similarity'] - 0.01, document['similarity'] + 0.01
    assert mmvlr('verify', *pair, '--threshold', above)[0] == 0
    code, document = mmvlr('verify', *pair, '--threshold', below)
    assert (code, document['match']) == (4, False)


# Gallery and decision -----------------------------------------------------------------------------


@pytest.fixture
def gallery(mmvlr, faces, tmp_path):
    folder = tmp_path / 'gallery'
    # With every image a template of its own an enrolled image finds itself.
    code, document = mmvlr('enroll', folder, faces / 'people', '--template', 'images')
    assert (code, document['people']) == (0, 8)
    assert document['enrolled'] == {f'Zoë {number}': 2 for number in range(8)}
    return folder


def test_enroll_one_person_extend_and_remove(mmvlr, faces, gallery):
    more = sorted((faces / 'known' / 'Zoë 3').iterdir())
    _, document = mmvlr('enroll', gallery, *more, '--person', 'Zoë 3')
    assert document['enrolled'] == {'Zoë 3': 3}
    _, document = mmvlr('people', gallery, model_used=False)
    assert {row['person']: row['images'] for row in document['people']}['Zoë 3'] == 5
    _, document = mmvlr('enroll', gallery, '--remove', 'Zoë 3')
    assert (document['people'], document['removed']) == (7, ['Zoë 3'])
    code, document = mmvlr('enroll', gallery, '--remove', 'Zoë 3')
    assert code == 1
    assert 'Zoë 3' in document['error']


def test_enroll_refuses_loose_images(mmvlr, faces, tmp_path):
    shutil.copytree(faces / 'people', tmp_path / 'people')
    shutil.copy(faces / 'people' / 'Zoë 0' / '0.png', tmp_path / 'people' / 'whose.png')
    code, document = mmvlr('enroll', tmp_path / 'gallery', tmp_path / 'people')
    assert code == 1
    assert 'whose.png' in document['error']
    assert '--person' in document['error']
    assert not (tmp_path / 'gallery').exists()


def test_enroll_takes_the_person_from_the_name(mmvlr, faces, tmp_path):
    flat = tmp_path / 'flat'
    flat.mkdir()
    for image in (faces / 'people').glob('*/*.png'):
        shutil.copy(image, flat / f'{image.parent.name}_{image.name}')
    code, document = mmvlr('enroll', tmp_path / 'gallery', flat, '--by-name')
    assert code == 0
    assert document['enrolled'] == {f'Zoë {number}': 2 for number in range(8)}
    assert document['notes'] == []
    for image in [*flat.iterdir()]:
        image.rename(flat / image.name.replace('.png', '_1.png'))
    code, document = mmvlr('enroll', tmp_path / 'split', flat, '--by-name')
    assert (code, document['people']) == (0, 16)
    # Camera or number was taken for a part of the name.
    assert "'Zoë 0_0'" in document['notes'][0] and "'Zoë 0_1'" in document['notes'][0]
    (flat / 'Zoë 0_0_1.png').rename(flat / 'whose.png')
    code, document = mmvlr('enroll', tmp_path / 'other', flat, '--by-name')
    assert code == 1
    assert 'whose.png' in document['error']
    assert not (tmp_path / 'other').exists()


def test_enroll_tells_people_without_images(mmvlr, faces, tmp_path):
    shutil.copytree(faces / 'people', tmp_path / 'people')
    (tmp_path / 'people' / 'Nobody').mkdir()
    code, document = mmvlr('enroll', tmp_path / 'gallery', tmp_path / 'people')
    assert (code, document['people']) == (0, 8)
    assert 'Nobody' in document['notes'][0]


def test_enroll_twice_adds_nothing(mmvlr, faces, gallery):
    code, document = mmvlr('enroll', gallery, faces / 'people')
    assert (code, document['enrolled']) == (0, {})
    assert document['notes'] == ['16 images are enrolled already']
    _, document = mmvlr('people', gallery, model_used=False)
    assert {row['images'] for row in document['people']} == {2}


def test_enroll_into_an_empty_folder_with_the_person_first(mmvlr, faces, tmp_path):
    (tmp_path / 'gallery').mkdir()
    images = sorted((faces / 'people' / 'Zoë 0').iterdir())
    code, document = mmvlr('enroll', tmp_path / 'gallery', '--person', 'Ann', *images)
    assert (code, document['enrolled']) == (0, {'Ann': 2})


def test_enroll_tells_why_no_image_can_be_used(mmvlr, tmp_path):
    (tmp_path / 'people' / 'Ann').mkdir(parents=True)
    (tmp_path / 'people' / 'Ann' / 'a.png').write_text('no image')
    code, document = mmvlr('enroll', tmp_path / 'gallery', tmp_path / 'people')
    assert code == 1
    assert 'a.png' in document['error']


def test_enroll_beside_the_model_and_other_files(mmvlr, faces, model, tmp_path, monkeypatch):
    """A gallery may be kept in any folder: nothing else in it is touched."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(faces / 'people', 'people')
    net = tmp_path / 'gallery_net.safetensors'
    mmvlr('export', model, net, '--license', 'MIT', model_used=False)
    shutil.copy(net, 'gallery-0123456789abcdef.safetensors')
    (tmp_path / 'gallery.json').write_text('{"mine": 1}')
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    for arguments in (['people'], ['--remove', 'Zoë 0'], ['people']):
        code, document = mmvlr('enroll', '.', *arguments, '--model', net, model_used=False)
        assert code == 0, document
    after = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    added = tmp_path / 'gallery.safetensors'
    assert after == before | {added: added.read_bytes()}
    # Not even a model that has the name of the gallery.
    (tmp_path / 'other').mkdir()
    shutil.copy(net, 'other/gallery.safetensors')
    code, document = mmvlr('enroll', 'other', 'people')
    assert (code, document['kind']) == (1, 'FileFormatError')
    assert (tmp_path / 'other' / 'gallery.safetensors').read_bytes() == before[net]


def test_files_of_faces_are_private(mmvlr, gallery, faces, tmp_path):
    def mode(path):
        return oct(path.stat().st_mode & 0o777)

    file = gallery / 'gallery.safetensors'
    assert (mode(gallery), mode(file)) == ('0o700', '0o600')
    file.chmod(0o640)
    mmvlr('enroll', gallery, '--remove', 'Zoë 7', '--keep-mode')
    assert mode(file) == '0o640'
    mmvlr('enroll', gallery, '--remove', 'Zoë 6')
    assert mode(file) == '0o600'
    out = tmp_path / 'd.json'
    mmvlr('calibrate', gallery, out, '--unmated', faces / 'strangers', '--fpir', 0.2)
    assert mode(out) == '0o600'


def test_what_enroll_notices_is_in_the_document_and_the_text(mmvlr, faces, model, tmp_path, capsys):
    shutil.copytree(faces / 'people' / 'Zoë 0', tmp_path / 'people' / 'Rene\u0301')
    shutil.copytree(faces / 'people' / 'Zoë 0', tmp_path / 'people' / 'Zoë')
    code, document = mmvlr('enroll', tmp_path / 'gallery', tmp_path / 'people')
    assert code == 0
    assert document['enrolled'] == {'René': 2, 'Zoë': 2}
    assert [pair['person'] for pair in document['shared']] == ['Zoë', 'Zoë']
    assert [pair['other_person'] for pair in document['shared']] == ['René'] * 2
    assert any('NFC' in note for note in document['notes'])
    (tmp_path / 'people' / 'a\x1b[2Jb').mkdir()
    arguments = ['enroll', tmp_path / 'gallery', tmp_path / 'people', '--device', 'cpu']
    assert main([*map(str, arguments), '--model', str(model)]) == 1
    assert '\x1b' not in capsys.readouterr().err


@pytest.mark.parametrize('whole', [True, False])
def test_images_without_a_face_have_their_own_exit_code(mmvlr, faces, tmp_path, monkeypatch, whole):
    """Where alignment was asked for; other images are done, unless there are none."""

    def align(pixels):
        found = None if pixels.max() == pixels.min() else SimpleNamespace(size=20)
        return SimpleNamespace(image=pixels, detection=found, faces=int(found is not None))

    monkeypatch.setattr(FaceInferencer, '_make_aligner', lambda *_: align)
    wall = tmp_path / 'people' / 'Zoë 0' / 'wall.png'
    if not whole:
        shutil.copytree(faces / 'people', tmp_path / 'people')
    wall.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (30, 30), (90, 90, 90)).save(wall)
    people, out = tmp_path / 'people', tmp_path / 'out.npz'
    mmvlr('enroll', tmp_path / 'there', faces / 'people', '--align', 'mtcnn')
    for arguments in (
        ['enroll', tmp_path / 'gallery', people],
        ['identify', tmp_path / 'there', people],
        ['quality', people],
        ['embed', people, '--out', out],
    ):
        code, document = mmvlr(*arguments, '--align', 'mtcnn')
        assert code == 5
        if whole:
            assert document['kind'] == 'NoFaceError' and 'wall.png' in document['error']
        else:
            assert document['unaligned'] == [str(wall)]
            assert [failure['name'] for failure in document['failures']] == [str(wall)]
    code, document = mmvlr('verify', wall, faces / 'people' / 'Zoë 0' / '0.png', '--align', 'mtcnn')
    assert (code, document['kind']) == (5, 'NoFaceError')


def test_images_with_several_faces_are_named(mmvlr, faces, tmp_path, monkeypatch):
    """The main one is taken: whoever reads the answer must know that there are others."""

    def align(pixels):
        return SimpleNamespace(image=pixels, detection=SimpleNamespace(size=20), faces=3)

    monkeypatch.setattr(FaceInferencer, '_make_aligner', lambda *_: align)
    one, two = sorted(map(str, (faces / 'people' / 'Zoë 0').iterdir()))[:2]
    mmvlr('enroll', tmp_path / 'there', faces / 'people', '--align', 'mtcnn')
    for arguments in (
        ['enroll', tmp_path / 'gallery', one, two, '--person', 'Zoë'],
        ['identify', tmp_path / 'there', one, two],
        ['quality', one, two],
        ['embed', one, two, '--out', tmp_path / 'out.npz'],
        ['verify', one, two],
    ):
        code, document = mmvlr(*arguments, '--align', 'mtcnn')
        assert code == 0
        assert document['several_faces'] == [dict(name=one, faces=3), dict(name=two, faces=3)]
    assert np.load(tmp_path / 'out.npz')['faces'].tolist() == [3, 3]


@pytest.mark.parametrize(
    'options',
    [
        ['--align', 'yunet'],
        ['--align', 'mtcnn', '--detector-file', 'FILE'],
        ['--detector-file', 'FILE'],
        ['--min-size', '20'],
    ],
)
def test_options_of_the_detector_go_together(mmvlr, faces, tmp_path, options):
    (tmp_path / 'a.onnx').touch()
    options = [str(tmp_path / 'a.onnx') if option == 'FILE' else option for option in options]
    with pytest.raises(SystemExit) as raised:
        mmvlr('quality', faces / 'people', *options)
    assert raised.value.code == 2


def test_another_model_is_refused(mmvlr, gallery, faces, tmp_path):
    other = model_file(tmp_path / 'other.pth', seed=1)
    arguments = ['identify', gallery, faces / 'known', '--model', other]
    code, document = mmvlr(*arguments, model_used=False)
    assert code == 1
    assert 'another model' in document['error']
    assert 'gallery.safetensors' in document['error']


def test_identify_lists_the_most_similar(mmvlr, gallery, faces):
    """The enrolled images themselves: everybody is found."""
    code, document = mmvlr('identify', gallery, faces / 'people', '--top', 2)
    assert code == 0
    assert len(document['faces']) == 16
    for row in document['faces']:
        assert len(row['candidates']) == 2
        best, second = row['candidates']
        assert best['similarity'] >= second['similarity']
        assert best['person'] in row['name']


def test_calibrate_and_identify(mmvlr, gallery, faces, tmp_path):
    out = tmp_path / 'decision.json'
    code, document = mmvlr(
        'calibrate', gallery, out, '--unmated', faces / 'strangers', '--mated', faces / 'known',
        '--fpir', 0.2, '--error', 0.9,
    )  # fmt: skip
    assert code == 0
    assert document['calibrated_on']['unmated_people'] == 12
    assert document['calibrated_on']['mated_faces'] == 24
    assert sum(row['faces'] for row in document['bins']) == 24
    whole, *rows = document['calibrated_on']['operating']['rows']
    assert (whole['by'], whole['mated_faces'], whole['unmated_faces']) == ('all', 24, 24)
    assert {row['by'] for row in rows} == {'size', 'ri'}
    code, document = mmvlr(
        'identify', gallery, faces / 'strangers', faces / 'people', '--decision', out
    )
    for row in document['faces']:
        assert 0 <= row['probability_low'] <= row['probability_high'] <= 1
    assert code == 0
    told = [row['outcome'] for row in document['faces']]
    assert set(told) <= {'accept', 'unknown', 'abstain'}
    # Of 12 strangers with shared weight at most 0.2 * 13 / 12 may lie above their thresholds.
    assert sum(outcome == 'accept' for outcome in told[:24]) <= 0.2 * 13 / 12 * 24
    assert all(row['reason'].endswith('.') for row in document['faces'])
    assert document['notes'] == []
    assert sum(document['abstained_for'].values()) == told.count('abstain')
    assert document['counts'] == {
        outcome: told.count(outcome) for outcome in ('accept', 'unknown', 'abstain')
    }
    mmvlr('enroll', gallery, '--remove', 'Zoë 0')
    _, document = mmvlr('identify', gallery, faces / 'people', '--decision', out)
    assert '8 people then, 7 now' in document['notes'][0]


def test_tracks_get_one_answer_each(mmvlr, gallery, faces, tmp_path):
    out, table = tmp_path / 'decision.json', tmp_path / 'tracks.csv'
    code, document = mmvlr(
        'calibrate', gallery, out, '--unmated', faces / 'strangers', '--mated', faces / 'known',
        '--fpir', 0.2, '--tracks', 'folder', '--least', 'size=1',
    )  # fmt: skip
    assert code == 0
    assert sum(row['faces'] for row in document['bins']) == 12
    assert document['calibrated_on']['probe']['least'] == dict(size=1.0)
    arguments = 'identify', gallery, faces / 'strangers', '--decision', out
    code, document = mmvlr(*arguments, '--tracks', 'folder', '--best-shot', 'norm')
    assert code == 0 and len(document['faces']) == 12
    assert sum(row['outcome'] == 'accept' for row in document['faces']) <= 0.2 * 13
    for row in document['faces']:
        assert (row['images'], row['used']) == (2, 2)
        assert row['best_shot'].startswith(row['name'])
    # One track of all; what is left out is told, and is no error.
    names = [f'{p.parent.name}/{p.name}' for p in sorted((faces / 'strangers').glob('*/*'))]
    table.write_text('file,track,medium\n')
    rows = [f'{faces}/strangers/{name},all,{name[:2]}' for name in names]
    table.write_text('\n'.join(['file,track,medium', *rows]) + '\n')
    code, document = mmvlr(
        'identify', gallery, faces / 'strangers', '--tracks', table, '--track-template', 'media'
    )
    assert code == 0 and [row['images'] for row in document['faces']] == [24]
    code, document = mmvlr(
        'identify', gallery, faces / 'strangers', '--tracks', table, '--least', 'size=9999'
    )
    assert code == 0 and document['faces'][0]['outcome'] == 'abstain'
    (change,) = document['faces'][0]['changes']
    assert (change['measure'], change['at_least']) == ('size', 9999)
    assert change['by'] == 9999 - change['value'] > 0
    code, document = mmvlr(*arguments)
    assert code == 1 and 'tracks' in document['error']


@pytest.mark.parametrize(
    'options',
    [
        ['--least', 'size=1'],
        ['--track-template', 'mean'],
        ['--best-shot', 'norm'],
        ['--tracks', 'folder', '--least', 'size'],
        ['--tracks', 'folder', '--least', 'size=nan'],
    ],
)
def test_options_of_tracks_go_together(gallery, faces, capsys, model, options):
    arguments = ['identify', gallery, faces / 'strangers', '--model', model, *options]
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in arguments])
    assert left.value.code == 2 and '--' in capsys.readouterr().err


def test_enroll_refuses_what_strangers_match(mmvlr, gallery, faces, tmp_path, capsys):
    out, strangers = tmp_path / 'decision.json', faces / 'strangers'
    mmvlr('calibrate', gallery, out, '--unmated', strangers, '--fpir', 0.2)
    # An image of a stranger is matched by that stranger at least.
    (image,) = (faces / 'strangers').glob('*20/0.png')
    mine = tmp_path / 'new' / 'Ann'
    mine.mkdir(parents=True)
    shutil.copy(image, mine)
    arguments = 'enroll', gallery, mine.parent, '--gate', out, '--strangers', strangers
    code, document = mmvlr(*arguments)
    total = document['people']
    (refusal,) = document['refused']
    assert (code, document['enrolled'], refusal['forced']) == (3, {}, False)
    code, document = mmvlr(*arguments, '--force')
    assert (code, document['people'], document['enrolled']) == (0, total + 1, dict(Ann=1))
    assert document['refused'][0]['forced'] and document['refused'][0]['matched'] >= 1
    for options in (['--gate', str(out)], ['--force'], ['--strangers', str(strangers)]):
        with pytest.raises(SystemExit) as left:
            main(['enroll', str(gallery), str(strangers), *options])
        assert left.value.code == 2


@pytest.mark.parametrize('few', [0.0, 1.1])
def test_few_answers_are_warned_of(mmvlr, gallery, faces, tmp_path, monkeypatch, few):
    monkeypatch.setattr('mmvlr.cli.identification.FEW_ANSWERS', few)
    code, document = mmvlr(
        'calibrate', gallery, tmp_path / 'd.json', '--unmated', faces / 'strangers',
        '--mated', faces / 'known', '--fpir', 0.2, '--error', 0.9,
    )  # fmt: skip
    assert code == 0
    warnings = document.get('warnings', [])
    assert len(warnings) == (few > 1)
    assert all('--error' in warning for warning in warnings)


@pytest.mark.parametrize('level', [-float('inf'), 0.25])
def test_level_is_told_as_a_number_or_not_at_all(level):
    found = AbstentionLevel(level, True, 0.1, 0.05, 1.0, None, 9)
    told = tell_level('ri', found)
    assert told.endswith(found.summary) and 'inf' not in told
    assert ('ri 0.250' in told) == (level == 0.25)


def test_identify_shows_candidate_and_counts(gallery, model, faces, mmvlr, tmp_path, capsys):
    out = tmp_path / 'd.json'
    mmvlr('calibrate', gallery, out, '--unmated', faces / 'strangers', '--fpir', 0.2)
    arguments = ['identify', gallery, faces / 'strangers', '--decision', out, '--model', model]
    assert main([*map(str, arguments), '--device', 'cpu']) == 0
    rows, total = capsys.readouterr().out.strip().split('\n\n')[:2]
    # A candidate also where there is no person: whom it was nearest to.
    assert all(re.search(r'Zoë \d -?\d\.\d{3}', row) for row in rows.splitlines()[1:])
    assert total.startswith('24 faces: ') and 'unknown' in total and 'abstain' in total


def test_calibrate_needs_enough_people(mmvlr, gallery, faces, tmp_path, monkeypatch):
    # Told before faces are embedded.
    monkeypatch.delattr(FaceInferencer, 'embed')
    code, document = mmvlr(
        'calibrate', gallery, tmp_path / 'd.json', '--unmated', faces / 'strangers', '--fpir', 0.01
    )
    assert code == 1
    assert '99' in document['error']
    assert not (tmp_path / 'd.json').exists()


@pytest.mark.parametrize(
    ('unmated', 'mated', 'told'),
    [
        ('people', 'known', 'are in the gallery'),
        ('strangers', 'strangers', 'are not in the gallery'),
        ('strangers', 'people', 'enrolled themselves'),
    ],
)
def test_calibrate_refuses_mixed_up_people(mmvlr, gallery, faces, tmp_path, unmated, mated, told):
    code, document = mmvlr(
        'calibrate', gallery, tmp_path / 'd.json', '--fpir', 0.2,
        '--unmated', faces / unmated, '--mated', faces / mated,
    )  # fmt: skip
    assert code == 1
    assert told in document['error']


def test_calibrate_refuses_what_nobody_can_sort(mmvlr, gallery, faces, tmp_path, capsys):
    strangers = sorted((faces / 'strangers').iterdir())
    with pytest.raises(SystemExit) as left:
        mmvlr('calibrate', gallery, tmp_path / 'd.json', '--fpir', 0.2, '--unmated', *strangers)
    assert left.value.code == 2
    capsys.readouterr()
    # A stranger's image that is enrolled under another name.
    shutil.copytree(faces / 'strangers', tmp_path / 'strangers')
    shutil.copy(faces / 'people' / 'Zoë 0' / '0.png', tmp_path / 'strangers' / 'who.png')
    code, document = mmvlr(
        'calibrate', gallery, tmp_path / 'd.json', '--fpir', 0.2, '--unmated',
        tmp_path / 'strangers',
    )  # fmt: skip
    assert code == 1
    assert 'who.png' in document['error']


@pytest.mark.parametrize('text', ['model = (', 'x = 1'])
def test_a_config_that_is_none_is_an_error_with_a_name(mmvlr, faces, tmp_path, text):
    (tmp_path / 'mine.py').write_text(text)
    code, document = mmvlr('quality', faces, '--config', tmp_path / 'mine.py')
    assert code == 1
    assert 'mine.py' in document['error']


def test_find_owner():
    assert find_owner('a/b/c/d.png', ['x', 'a']) == 'a/b/c/d.png'


def test_find_owner_folders(tmp_path):
    (tmp_path / 'Ann' / 'deep').mkdir(parents=True)
    root = str(tmp_path)
    assert find_owner(f'{root}/Ann/1.png', [root]) == 'Ann'
    assert find_owner(f'{root}/Ann/deep/1.png', [root]) == 'Ann'
    assert find_owner(f'{root}/1.png', [root]) == f'{root}/1.png'


def test_bin_names():
    assert bin_names('ri', ()) == ['any']
    assert bin_names('ri', (0.5, 1.0)) == ['ri < 0.500', '0.500 to 1.000', 'ri >= 1.000']


# Output -------------------------------------------------------------------------------------------


def test_tell_operation():
    rates = dict(tpir=0.5, tpir_low=0.25, tpir_high=0.75, answered=1.0)
    rates |= dict(answered_low=0.9, answered_high=1.0)
    rates |= dict.fromkeys(['fpir', 'fpir_low', 'fpir_high'])
    rows = [
        dict(by='size', low=low, high=high, mated_faces=3, unmated_faces=0, **rates)
        for low, high in ((None, 8.0), (8.0, 12.0), (12.0, None))
    ]
    told = tell_operation(dict(held_out=True, rows=rows)).splitlines()
    starts = 'size below 8', 'size 8 to 12', 'size from 12'
    assert all(line.startswith(start) for line, start in zip(told[2:], starts, strict=True))
    assert '50.0% (25% to 75%)' in told[2] and ' - ' in told[2]
    assert 'optimistic' in tell_operation(dict(held_out=False, rows=rows))
    assert tell_operation(None) == ''


def test_table_aligns_text_left_and_numbers_right():
    rows = [dict(name='a', ri=-1.5), dict(name='longer', ri=10.25)]
    assert table(['name', 'ri'], rows).splitlines() == [
        'name        ri',
        'a       -1.500',
        'longer  10.250',
    ]


def test_table_shows_control_characters_as_escapes():
    (_, line) = table(['name'], [dict(name='a\x1b[2J\nb\u202e')]).split('\n')
    assert line == r'a\x1b[2J\nb\u202e'


def test_text_output(model, faces, capsys):
    code = main(['quality', str(faces / 'people'), '--model', str(model), '--device', 'cpu'])
    captured = capsys.readouterr()
    assert code == 0
    assert captured.out.splitlines()[0].split() == ['name', 'ri', 'ers', 'norm', 'size']
    assert len(captured.out.split('\n\n')[0].splitlines()) == 17
    # The size is a number of pixels; a legend and a summary say what the numbers mean.
    assert all(line.split()[-1].isdecimal() for line in captured.out.splitlines()[1:17])
    legend = captured.out.split('\n\n')[1].splitlines()
    assert [line.split()[0] for line in legend] == ['ri', 'ers', 'norm', 'size']
    assert captured.out.split('\n\n')[2].startswith('16 images; ri from ')


def test_quality_summary(mmvlr, faces):
    _, document = mmvlr('quality', faces / 'people')
    values = [row['ri'] for row in document['faces']]
    found = document['summary']['ri']
    assert (found['lowest'], found['highest']) == (min(values), max(values))
    assert found['median'] == pytest.approx(float(np.median(values)))


def test_export_writes_published_weights(mmvlr, model, faces, tmp_path):
    out = tmp_path / 'model.safetensors'
    code, document = mmvlr('export', model, out, '--license', 'MIT', model_used=False)
    assert code == 0
    assert document['bytes'] == out.stat().st_size
    a = FaceInferencer(model, 'cpu').embed(faces / 'people')
    b = FaceInferencer(out, 'cpu').embed(faces / 'people')
    assert np.array_equal(a.embedding, b.embedding)
    assert a.fingerprint == b.fingerprint


@pytest.mark.slow
def test_a_pipe_that_closes_is_no_error(root):
    """As with ``| head``."""
    code = (
        'import sys\n'
        'from mmvlr.cli import health, main\n'
        'from mmvlr.cli.common import Outcome\n'
        "health.run_doctor = lambda args: Outcome({}, 'a line\\n' * 100_000)\n"
        "sys.exit(main(['doctor']))\n"
    )
    child = subprocess.Popen(
        [sys.executable, '-c', code], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout.readline() == b'a line\n'
    child.stdout.close()
    assert child.stderr.read() == b''
    assert child.wait() == 0


def test_images_without_face_do_not_stop_the_others(mmvlr, faces, tmp_path):
    Image.new('RGB', (1, 1)).save(tmp_path / 'dot.png')
    code, document = mmvlr('quality', faces / 'people', tmp_path / 'dot.png')
    assert code == 3
    assert '1 x 1' in document['failures'][0]['reason']


def test_quality_measures_of_a_config(mmvlr, faces, model, tmp_path):
    config = tmp_path / 'judges.py'
    people = faces / 'people'
    stated = f'model = {load_model(model).source_config!r}\nquality_measures = '
    config.write_text(f"{stated}[dict(type='PreFIQsQuality'), dict(type='GraFIQsQuality')]")
    _, document = mmvlr('quality', people, '--config', config, '--sort', 'name')
    inferencer = FaceInferencer(model, 'cpu')
    network = inferencer.network
    crops = np.stack(inferencer.crops(people))
    batch = FaceBatch(network.model, network.inputs(crops))
    expected = {'prefiqs': PreFIQsQuality()(batch), 'grafiqs': GraFIQsQuality()(batch)}
    for name, values in expected.items():
        found = [row[name] for row in document['faces']]
        assert found == pytest.approx(values.tolist(), rel=1e-3)
    for measure, told in (('Sharpness', 'native size'), ('CCS', 'prototype_dataloader')):
        config.write_text(f"{stated}[dict(type='{measure}Quality')]")
        code, document = mmvlr('quality', people, '--config', config)
        assert code != 0 and told in document['error']
