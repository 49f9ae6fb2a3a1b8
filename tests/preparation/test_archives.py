"""Archives that are right, each kind of damage alone, and all of them at once."""

import hashlib
import io
import os
import shutil
import unicodedata
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets import SCface, SurvFace, TinyFace
from mmvlr.preparation.archives import (
    COLUMNS,
    check_archive,
    check_manifest_path,
    inspect_image,
)

UNREADABLE = 'images that cannot be read'
MISSPELT = 'names that differ only in case or in the form of Unicode; rename them'
FORMAT = 'images of another format than their name says'
COUNTS = 'counts other than the official ones: not the official data set'
NO_IMAGE = 'entries of label files without an image'
NO_ENTRY = 'images that no label file names'
ASCII = 'names with other characters than ASCII'


def problems(dataset, root, **kwargs):
    """Kind -> sorted lines of the problems."""
    found = check_archive(dataset, root, **kwargs).problems
    return {kind: sorted(lines) for kind, lines in found.items()}


def read_paths(root, *datasets):
    """Relative names of all that data sets read."""
    return {
        Path(info['img_path']).relative_to(root).as_posix()
        for dataset in datasets
        for info in dataset.infos()
    }


def lines_of(findings):
    """The lines of all kinds."""
    return [line for lines in findings.values() for line in lines]


def check_rows(report, root):
    """Compare the rows with the files, read again."""
    assert [row['file'] for row in report.rows] == sorted(row['file'] for row in report.rows)
    for row in report.rows:
        assert list(row) == ['file', 'part', 'person', *COLUMNS[3:]]
        content = (root / row['file']).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            assert (row['width'], row['height']) == image.size
        assert row['bytes'] == len(content)
        assert row['sha256'] == hashlib.sha256(content).hexdigest()


def test_tinyface(tinyface_root):
    report = check_archive('tinyface', tinyface_root)
    assert not report.problems
    assert list(report.notes) == [COUNTS]
    assert report.notes[COUNTS] == [
        'training people: 3 (official 2,570)',
        'training images: 7 (official 7,804)',
        'gallery images: 3 (official 4,443)',
        'probe images: 2 (official 3,728)',
        'distractor images: 3 (official 153,428)',
    ]
    check_rows(report, tinyface_root)
    assert {row['file'] for row in report.rows} == read_paths(
        tinyface_root, TinyFace(str(tinyface_root)), TinyFace(str(tinyface_root), 'test')
    )
    kept = {row['file']: (row['part'], row['person']) for row in report.rows}
    assert kept['Training_Set/10/10_2.jpg'] == ('train', 10)
    assert kept['Testing_Set/Gallery_Match/12_2.jpg'] == ('gallery', 12)
    assert kept['Testing_Set/Gallery_Distractor/a.jpg'] == ('distractor', '')
    assert report.found == dict(train=7, gallery=3, probe=2, distractor=3)


@pytest.mark.parametrize('flat', [False, True])
@pytest.mark.parametrize('wrapper', ['', 'SCface_database'])
def test_scface(tmp_path, write_scface, flat, wrapper):
    root = tmp_path / 'scface'
    write_scface(root / wrapper, range(1, 4), flat=flat)
    (root / wrapper / 'mugshot_rotation_all').mkdir()
    report = check_archive('scface', root)
    assert not report.problems
    assert report.notes[COUNTS] == [
        'subjects: 3 (official 130)',
        'mugshots: 3 (official 130)',
        'surveillance images by visible cameras: 45 (official 1,950)',
    ]
    assert any('mugshot_rotation_all' in line for line in lines_of(report.notes))
    check_rows(report, root)
    split = dict(train_subjects='1', test_subjects='2-3', gallery_subjects='1-3')
    read = read_paths(root, *(SCface(str(root), s, **split) for s in ('train', 'test')))
    # The infra-red camera is checked, but belongs to no split.
    assert {row['file'] for row in report.rows if 'cam6' not in row['file']} == read
    assert len(report.rows) == len(read) + 9


@pytest.mark.parametrize('wrapper', ['', 'QMUL-SurvFace'])
def test_survface(survface_root, wrapper):
    if wrapper:
        shutil.move(survface_root, survface_root.parent / 'x')
        shutil.move(survface_root.parent / 'x', survface_root / wrapper)
    (survface_root / wrapper / 'Face_Identification_Evaluation').mkdir()
    (survface_root / wrapper / 'readme.txt').write_text('read me')
    report = check_archive('survface', survface_root)
    assert not report.problems
    assert report.notes['files and folders that are not read'] == [
        str(Path(wrapper, name)) for name in ('Face_Identification_Evaluation', 'readme.txt')
    ]
    assert report.notes[COUNTS] == [
        'training people: 3 (official 5,319)',
        'training images: 7 (official 220,890)',
        'people in the gallery: 2 (official 3,000)',
        'mated probes: 2 (official 60,423)',
    ]
    check_rows(report, survface_root)
    read = read_paths(survface_root, *(SurvFace(str(survface_root), s) for s in ('train', 'test')))
    assert {row['file'] for row in report.rows} == read


# ----------------------------------------------------------------------------------------------
# Damage to TinyFace; each returns the problems that it must make, file names relative.


def truncated(root, **_):
    path = root / 'Training_Set/2/2_1.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    return {UNREADABLE: ['Training_Set/2/2_1.jpg: *truncated*']}


def no_image(root, **_):
    (root / 'Training_Set/2/2_2.jpg').write_text('<html>not found</html>')
    return {UNREADABLE: ['Training_Set/2/2_2.jpg: no image, but a web page*']}


def zero_bytes(root, **_):
    (root / 'Testing_Set/Probe/11_2.jpg').write_bytes(b'')
    return {UNREADABLE: ['Testing_Set/Probe/11_2.jpg: zero bytes']}


def unexpected(root, **_):
    (root / 'Training_Set/copies').mkdir()
    (root / 'Training_Set/²').mkdir()
    (root / 'tinyface.zip').write_bytes(b'PK')
    (root / 'Training_Set/list.txt').write_text('')
    return {
        'unexpected folders': ['Training_Set/copies', 'Training_Set/²'],
        'unexpected files': ['Training_Set/list.txt', 'tinyface.zip'],
        ASCII: [r"Training_Set/²: '\xb2'"],
    }


def unicode_names(root, write_face, **_):
    write_face(root / 'Training_Set/7/7_é.jpg')
    path = write_face(root / 'Testing_Set/Gallery_Distractor/x.jpg')
    os.rename(path, os.fsencode(path.parent) + b'/\xe9.jpg')
    return {
        ASCII: [
            r"Testing_Set/Gallery_Distractor/\udce9.jpg: '\udce9.jpg'",
            r"Training_Set/7/7_é.jpg: '7_\xe9.jpg'",
        ]
    }


def folder_named_like_an_image(root, **_):
    (root / 'Testing_Set/Gallery_Distractor/d.jpg').mkdir()
    return {'folders named like an image': ['Testing_Set/Gallery_Distractor/d.jpg']}


def dead_link(root, **_):
    (root / 'Testing_Set/Gallery_Distractor/l.jpg').symlink_to('gone.jpg')
    return {'links that lead nowhere': ['Testing_Set/Gallery_Distractor/l.jpg']}


def missing_label_file(root, **_):
    (root / 'Testing_Set/probe_img_ID_pairs.mat').unlink()
    return {'missing files': ['Testing_Set/probe_img_ID_pairs.mat']}


def entries(root, write_face, write_pairs, **_):
    test = root / 'Testing_Set'
    (test / 'Gallery_Match/12_1.jpg').rename(test / 'Gallery_Match/12_1.JPG')
    names = ['11_1.jpg', '12_1.jpg', '12_8.jpg', '12_9.jpg']
    write_pairs(test / 'gallery_match_img_ID_pairs.mat', 'gallery', names, [11, 12, 12, 12])
    write_face(test / 'Gallery_Match/nobody.jpg')
    return {
        NO_IMAGE: [
            f'Testing_Set/Gallery_Match/12_{n}.jpg: in gallery_match_img_ID_pairs.mat'
            for n in (8, 9)
        ],
        NO_ENTRY: [
            f'Testing_Set/Gallery_Match/{name}.jpg: not in gallery_match_img_ID_pairs.mat'
            for name in ('12_2', 'nobody')
        ],
        MISSPELT: [
            'Testing_Set/Gallery_Match/12_1.JPG: gallery_match_img_ID_pairs.mat names 12_1.jpg'
        ],
        'names without a person; <person>_<n>.jpg is expected': [
            'Testing_Set/Gallery_Match/nobody.jpg'
        ],
    }


def people_alike(root, write_face, **_):
    write_face(root / 'Training_Set/12/12_7.jpg')
    return {
        'people in training and test alike': [
            'Training_Set/12: also in the test, Testing_Set/Gallery_Match/12_1.*'
        ]
    }


def wrong_folder(root, write_face, **_):
    write_face(root / 'Training_Set/10/7_9.jpg')
    (root / 'Training_Set/99').mkdir()
    return {
        'images named for another person than their folder': [
            'Training_Set/10/7_9.jpg: 10_... is expected'
        ],
        'folders without an image': ['Training_Set/99'],
    }


def same_number(root, write_face, **_):
    write_face(root / 'Training_Set/07/7_8.jpg')
    return {'folders of people with the same number': ['Training_Set: 07 and 7']}


def copies(root, write_face, **_):
    """Also in a part that is named for another person, and within a part."""
    test = root / 'Testing_Set'
    shutil.copy(test / 'Gallery_Match/11_1.jpg', test / 'Gallery_Distractor/b.jpg')
    shutil.copy(root / 'Training_Set/10/10_1.jpg', test / 'Gallery_Distractor/c.jpg')
    shutil.copy(root / 'Training_Set/2/2_3.jpg', root / 'Training_Set/10/10_2.jpg')
    tail = 'images that are byte for byte in'
    return {
        f'distractor {tail} gallery too': [
            'Testing_Set/Gallery_Distractor/b.jpg = Testing_Set/Gallery_Match/11_1.jpg'
        ],
        f'distractor {tail} train too': [
            'Testing_Set/Gallery_Distractor/c.jpg = Training_Set/10/10_1.jpg'
        ],
        'train images that are there under two people': [
            'Training_Set/2/2_3.jpg = Training_Set/10/10_2.jpg'
        ],
    }


DAMAGES = [
    truncated,
    no_image,
    zero_bytes,
    unexpected,
    unicode_names,
    folder_named_like_an_image,
    dead_link,
    missing_label_file,
    entries,
    people_alike,
    wrong_folder,
    same_number,
    copies,
]


def matches(found, expected):
    """Compare kinds and lines; a * stands for any text, and [] for nothing special."""
    assert set(found) == set(expected)
    for kind, lines in expected.items():
        lines = sorted(lines)
        assert len(found[kind]) == len(lines), (kind, found[kind])
        for line, pattern in zip(found[kind], lines, strict=True):
            parts = pattern.split('*')
            assert line.startswith(parts[0]) and line.endswith(parts[-1] if parts[1:] else line)
            assert all(part in line for part in parts)
            assert parts[1:] or line == pattern
    return True


@pytest.mark.parametrize('damage', DAMAGES)
def test_each_damage_alone(tinyface_root, write_face, write_pairs, damage):
    before = len(check_archive('tinyface', tinyface_root).rows)
    expected = damage(tinyface_root, write_face=write_face, write_pairs=write_pairs)
    report = check_archive('tinyface', tinyface_root)
    assert matches({k: sorted(v) for k, v in report.problems.items()}, expected)
    assert set(report.notes) == {COUNTS}
    added = sum(report.found.values()) - before
    assert len(report.rows) == before + added - len(report.problems.get(UNREADABLE, []))
    for line in lines_of(report.problems):
        assert line in report.describe()


def test_all_damages_at_once(tinyface_root, write_face, write_pairs):
    expected = defaultdict(list)
    for damage in DAMAGES:
        made = damage(tinyface_root, write_face=write_face, write_pairs=write_pairs)
        for kind, lines in made.items():
            expected[kind] += lines
    assert matches(problems('tinyface', tinyface_root), expected)


def test_format_hidden_and_readme_are_notes(tinyface_root):
    image = tinyface_root / 'Training_Set/2/2_1.jpg'
    Image.new('RGB', (9, 7)).save(image, format='PNG')
    Image.new('RGB', (9, 7)).save(tinyface_root / 'Training_Set/2/2_2.jpg', format='GIF')
    (image.parent / '._2_1.jpg').write_bytes(b'mac')
    (tinyface_root / 'README.txt').write_text('')
    (tinyface_root / 'manifest.csv').write_text('of an earlier run')
    for litter in ('Thumbs.db', 'Training_Set/desktop.ini', 'Training_Set/2/THUMBS.DB'):
        (tinyface_root / litter).write_bytes(b'')
    shutil.copy(image.parent / '2_3.jpg', image.parent / '2_4.jpg')
    report = check_archive('tinyface', tinyface_root)
    assert not report.problems
    del report.notes[COUNTS]
    assert report.notes == {
        'hidden files and folders, which are not read': ['Training_Set/2/._2_1.jpg'],
        'files and folders that are not read': ['README.txt'],
        'files of the operating system, which are not read': [
            'Training_Set/2/THUMBS.DB',
            'Training_Set/desktop.ini',
            'Thumbs.db',
        ],
        'train images that are there twice': ['Training_Set/2/2_4.jpg = Training_Set/2/2_3.jpg'],
        FORMAT: ['Training_Set/2/2_1.jpg: PNG', 'Training_Set/2/2_2.jpg: GIF'],
    }


def test_many_notes_are_cut_and_problems_are_not(tinyface_root):
    for number in range(13):
        (tinyface_root / f'.{number}').touch()
        (tinyface_root / f'{number}.zip').touch()
    text = check_archive('tinyface', tinyface_root).describe()
    assert 'hidden files and folders, which are not read (13)' in text
    assert '    and 3 more' in text
    assert sum(line.endswith('.zip') for line in text.splitlines()) == 13


def test_statistics(tinyface_root, write_face):
    for index, size in enumerate([(7, 9), (8, 30), (200, 112)]):
        write_face(tinyface_root / f'Training_Set/55/55_{index}.png', size)
    lines = check_archive('tinyface', tinyface_root).describe().splitlines()
    rows = {line.split()[0]: line.split() for line in lines[:16] if line.strip()}
    assert rows['train'][1:] == ['4', '10', '10', '7', 'to', '112,', 'median', '20']
    assert rows['distractor'][1:4] == ['-', '3', '3']
    assert [line.split() for line in lines if line.startswith(('  0 to', '  8 to', '  20 to'))] == [
        ['0', 'to', '7', '1', '0', '0', '0'],
        ['8', 'to', '11', '1', '0', '0', '0'],
        ['20', 'to', '23', '7', '3', '2', '3'],
    ]
    assert any(line.split() == ['112', 'and', 'more', '1', '0', '0', '0'] for line in lines)


@pytest.mark.parametrize('depth', ['tinyface', 'download/tinyface'])
def test_nested(tinyface_root, tmp_path, depth):
    root = tmp_path / 'outer'
    (root / depth).parent.mkdir(parents=True)
    shutil.move(tinyface_root, root / depth)
    (root / depth / 'x.zip').touch()
    report = check_archive('tinyface', root)
    assert report.problems == {
        'archives unpacked too deep': [f'{depth}: give {root / depth} as the root'],
        'unexpected files': [f'{depth}/x.zip'],
    }
    assert len(report.rows) == 15
    check_rows(report, root)


def test_names_in_another_case(tinyface_root):
    (tinyface_root / 'Training_Set').rename(tinyface_root / 'training_set')
    test = tinyface_root / 'Testing_Set'
    (test / 'Probe').rename(test / 'PROBE')
    (test / 'probe_img_ID_pairs.mat').rename(test / 'probe_img_id_pairs.mat')
    (tinyface_root / 'training_set/2/2_1.jpg').write_text('')
    assert problems('tinyface', tinyface_root) == {
        MISSPELT: [
            'Testing_Set/PROBE: Probe is expected',
            'Testing_Set/probe_img_id_pairs.mat: probe_img_ID_pairs.mat is expected',
            'training_set: Training_Set is expected',
        ],
        UNREADABLE: ['training_set/2/2_1.jpg: zero bytes'],
    }


def test_another_form_of_unicode(tinyface_root, write_pairs):
    """As a Mac unpacks names: é is e with an accent behind it."""
    test = tinyface_root / 'Testing_Set'
    (test / 'Probe/12_3.jpg').rename(test / 'Probe' / unicodedata.normalize('NFD', '12_é.jpg'))
    names = ['11_2.jpg', unicodedata.normalize('NFC', '12_é.jpg')]
    write_pairs(test / 'probe_img_ID_pairs.mat', 'probe', names, [11, 12])
    found = problems('tinyface', tinyface_root)
    assert set(found) == {MISSPELT, ASCII}
    assert 'probe_img_ID_pairs.mat names 12_é.jpg' in found[MISSPELT][0]


def test_a_misspelt_image_stands_for_one_entry_only(tinyface_root, write_pairs):
    test = tinyface_root / 'Testing_Set'
    (test / 'Probe/12_3.jpg').rename(test / 'Probe/12_3.JPG')
    names = ['11_2.jpg', '12_3.jpg', '12_3.Jpg']
    write_pairs(test / 'probe_img_ID_pairs.mat', 'probe', names, [11, 12, 12])
    assert problems('tinyface', tinyface_root) == {
        MISSPELT: ['Testing_Set/Probe/12_3.JPG: probe_img_ID_pairs.mat names 12_3.jpg'],
        NO_IMAGE: ['Testing_Set/Probe/12_3.Jpg: in probe_img_ID_pairs.mat'],
    }


def test_nothing_is_there(tmp_path):
    assert problems('tinyface', tmp_path) == {'missing folders': ['Testing_Set', 'Training_Set']}
    assert 'QMUL' not in check_archive('survface', tmp_path).describe()


def test_missing_folder_with_its_entries(tinyface_root):
    shutil.rmtree(tinyface_root / 'Testing_Set/Probe')
    (tinyface_root / 'Testing_Set/Gallery_Distractor').rename(tinyface_root / 'Gallery_Distractor')
    assert problems('tinyface', tinyface_root) == {
        'missing folders': ['Testing_Set/Gallery_Distractor', 'Testing_Set/Probe'],
        NO_IMAGE: ['Testing_Set/Probe: all 2 in probe_img_ID_pairs.mat'],
        'unexpected folders': ['Gallery_Distractor'],
    }


def test_damaged_label_files(tinyface_root, write_pairs):
    test = tinyface_root / 'Testing_Set'
    (test / 'gallery_match_img_ID_pairs.mat').write_bytes(b'')
    names = ['11_2.jpg', '11_2.jpg']
    write_pairs(test / 'probe_img_ID_pairs.mat', 'probe', names, [11, 12])
    (found,) = problems('tinyface', tinyface_root).values()
    assert found[0].startswith('Testing_Set/gallery_match_img_ID_pairs.mat: not a readable .mat')
    assert found[1] == (
        'Testing_Set/probe_img_ID_pairs.mat: probe_ids: gives 11_2.jpg two identities, 11 and 12; '
        'unpack the archive again'
    )


def test_files_and_folders_in_each_others_place(tinyface_root):
    file = tinyface_root / 'Testing_Set/probe_img_ID_pairs.mat'
    file.unlink()
    file.mkdir()
    shutil.rmtree(tinyface_root / 'Training_Set')
    (tinyface_root / 'Training_Set').touch()
    assert problems('tinyface', tinyface_root) == {
        'entries that should be files': ['Testing_Set/probe_img_ID_pairs.mat'],
        'entries that should be folders': ['Training_Set'],
    }


def test_contradicting_identities_and_lonely_probes(tinyface_root, write_face, write_pairs):
    test = tinyface_root / 'Testing_Set'
    write_face(test / 'Probe/13_1.jpg')
    names = ['11_2.jpg', '12_3.jpg', '13_1.jpg']
    write_pairs(test / 'probe_img_ID_pairs.mat', 'probe', names, [11, 12, 12])
    found = problems('tinyface', tinyface_root)
    lonely = ['Testing_Set/Probe/13_1.jpg']
    assert found.pop('probes without their person in the gallery') == lonely
    assert found == {
        'identities of the .mat files that the file names contradict': [
            f'Testing_Set: (number in the names, in the file): ({n}, 12)' for n in (12, 13)
        ]
    }


def test_person_zero_takes_part(tinyface_root, write_face, write_pairs):
    """0 is a number, not none."""
    test = tinyface_root / 'Testing_Set'
    for folder, file, key, names in (
        ('Gallery_Match', 'gallery_match', 'gallery', ['0_1.jpg', '1_1.jpg']),
        ('Probe', 'probe', 'probe', ['0_2.jpg', '1_2.jpg']),
    ):
        shutil.rmtree(test / folder)
        for name in names:
            write_face(test / folder / name)
        write_pairs(test / f'{file}_img_ID_pairs.mat', key, names, [1, 1])
    write_face(tinyface_root / 'Training_Set/0/0_3.jpg')
    found = problems('tinyface', tinyface_root)
    assert found.pop('people in training and test alike') == [
        'Training_Set/0: also in the test, Testing_Set/Gallery_Match/0_1.jpg and 1 others'
    ]
    (contradicted,) = found.values()
    assert len(contradicted) == 2


def test_scface_damages(scface_root, write_face):
    near = scface_root / 'surveillance_cameras_distance_3'
    (near / 'cam_2/001_cam2_3.jpg').unlink()
    (near / 'cam_2/002_cam2_3.jpg').rename(near / 'cam_2/002_cam1_3.jpg')
    (near / 'cam_2/003_cam2_3.jpg').rename(near / 'cam_2/face.jpg')
    shutil.rmtree(near / 'cam_5')
    (near / 'cam_9').mkdir()
    shutil.rmtree(scface_root / 'surveillance_cameras_distance_1')
    (scface_root / 'surveillance_cameras_distance_1').write_text('')
    mugshots = scface_root / 'mugshot_frontal_cropped_all'
    (mugshots / '004_frontal.JPG').unlink()
    write_face(mugshots / '3_frontal.png')
    (near / 'cam_1/001_cam1_3.jpg').write_bytes(b'')
    assert problems('scface', scface_root) == {
        'entries that should be folders': ['surveillance_cameras_distance_1'],
        'missing folders': ['surveillance_cameras_distance_3/cam_5'],
        'unexpected folders': ['surveillance_cameras_distance_3/cam_9'],
        'missing images': [
            'mugshot_frontal_cropped_all/004_frontal.JPG',
            *(f'surveillance_cameras_distance_3/cam_2/00{n}_cam2_3.jpg' for n in (1, 2, 3)),
        ],
        'images whose name contradicts their folder': [
            'surveillance_cameras_distance_3/cam_2/002_cam1_3.jpg'
        ],
        'images whose name is not NNN_camK_D': ['surveillance_cameras_distance_3/cam_2/face.jpg'],
        'second images of the same': [
            'mugshot_frontal_cropped_all/3_frontal.png: beside '
            'mugshot_frontal_cropped_all/003_frontal.JPG'
        ],
        UNREADABLE: ['surveillance_cameras_distance_3/cam_1/001_cam1_3.jpg: zero bytes'],
    }


def test_survface_damages(survface_root, write_face, write_name_pairs):
    verification = survface_root / 'Face_Verification_Test_Set'
    images = verification / 'verification_images'
    pairs = [
        ('31_cam1_1.jpg', '31_cam2_2.jpg'),
        ('32_2.jpg', '33_cam1_1.jpg'),
        ('8_1.jpg', '8.jpg'),
    ]
    write_name_pairs(verification / 'positive_pairs_names.mat', 'positive_pairs_names', pairs)
    (verification / 'negative_pairs_names.mat').unlink()
    (images / '31_cam2_2.jpg').rename(images / '31_CAM2_2.jpg')
    unmated = survface_root / 'Face_Identification_Test_Set/unmated_probe'
    write_face(unmated / '7_cam1_1.jpg')
    (unmated / 'notes.txt').touch()
    (survface_root / 'Face_Identification_Test_Set/extra').mkdir()
    place = 'Face_Verification_Test_Set'
    assert problems('survface', survface_root) == {
        'unexpected files': ['Face_Identification_Test_Set/unmated_probe/notes.txt'],
        'unexpected folders': ['Face_Identification_Test_Set/extra'],
        'missing files': [f'{place}/negative_pairs_names.mat'],
        MISSPELT: [
            f'{place}/verification_images/31_CAM2_2.jpg: positive_pairs_names.mat names '
            '31_cam2_2.jpg'
        ],
        NO_IMAGE: [
            f'{place}/verification_images/{name}: in positive_pairs_names.mat'
            for name in ('8.jpg', '8_1.jpg')
        ],
        'positive pairs that the file names contradict': [
            f'{place}/positive_pairs_names.mat: 32_2.jpg and 33_cam1_1.jpg'
        ],
        'unmated_probe images that are byte for byte in train too': [
            'Face_Identification_Test_Set/unmated_probe/7_cam1_1.jpg = training_set/7/7_cam1_1.jpg'
        ],
        'people in training and test alike': [
            'training_set/7: also in the test, '
            'Face_Identification_Test_Set/unmated_probe/7_cam1_1.jpg'
        ],
    }


def test_survface_pairs_in_the_folder_of_the_evaluation(survface_root, write_face):
    test = survface_root / 'Face_Verification_Test_Set'
    for kind in ('positive', 'negative'):
        target = survface_root / 'Face_Verification_Evaluation' / f'{kind}_pairs_names.mat'
        target.parent.mkdir(exist_ok=True)
        shutil.move(test / target.name, target)
    write_face(test / 'verification_images/40_1.jpg')
    report = check_archive('survface', survface_root)
    assert not report.problems
    assert report.notes['verification images that are in no pair'] == [
        'Face_Verification_Test_Set/verification_images/40_1.jpg'
    ]
    (target.parent / 'negative_pairs_names.mat').unlink()
    assert problems('survface', survface_root) == {
        'missing files': ['Face_Verification_Test_Set/negative_pairs_names.mat']
    }


# ----------------------------------------------------------------------------------------------
# Images


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'BMP'])
def test_an_image_cut_anywhere(tmp_path, kind):
    """Wherever the file ends: it is refused, or every pixel is there."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (9, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    content = buffer.getvalue()
    whole = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'))
    path = tmp_path / 'face.jpg'
    path.write_bytes(content)
    facts = inspect_image(str(path))
    assert (facts['width'], facts['height'], facts['format']) == (8, 9, kind)
    accepted = 0
    for end in range(len(content)):
        path.write_bytes(content[:end])
        if 'problem' not in inspect_image(str(path)):
            accepted += 1
            np.testing.assert_array_equal(np.asarray(Image.open(path).convert('RGB')), whole)
    # The checksum of a PNG's end marker, which says nothing about pixels, may be missing.
    assert accepted <= (4 if kind == 'PNG' else 0)


def test_damaged_images_never_stop_the_check(tmp_path, write_face):
    rng = np.random.default_rng(0)
    path = tmp_path / 'face.bin'
    for suffix in ('jpg', 'png', 'bmp', 'tif', 'webp'):
        content = np.frombuffer(write_face(tmp_path / f'a.{suffix}').read_bytes(), np.uint8)
        for _ in range(40):
            damaged = content.copy()
            places = rng.integers(0, min(len(content), 120), 6)
            damaged[places] = rng.integers(0, 256, 6)
            path.write_bytes(damaged.tobytes())
            facts = inspect_image(str(path))
            assert ('problem' in facts) != ('sha256' in facts)
    assert inspect_image(str(tmp_path / 'gone.jpg'))['problem'].startswith('FileNotFoundError')


@pytest.mark.slow
def test_processes_give_the_same(survface_root):
    one, two = (check_archive('survface', survface_root, jobs=jobs) for jobs in (1, 2))
    assert one.describe() == two.describe()
    assert one.rows == two.rows


# ----------------------------------------------------------------------------------------------
# Wrong calls, and real faces


def test_wrong_calls(tmp_path):
    with pytest.raises(FileNotFoundError, match='absent does not exist'):
        check_archive('tinyface', tmp_path / 'absent')
    (tmp_path / 'x.pack').touch()
    with pytest.raises(FileNotFoundError, match=r'x\.pack is a file'):
        check_archive('tinyface', tmp_path / 'x.pack')
    with pytest.raises(ValueError, match=r"one of .*, not 'lfw'"):
        check_archive('lfw', tmp_path)
    with pytest.raises(ValueError, match='jobs must be at least 1'):
        check_archive('tinyface', tmp_path, jobs=0)


def test_place_of_the_manifest(tmp_path):
    root = tmp_path / 'set'
    (root / 'Training_Set').mkdir(parents=True)
    for place in (root / 'manifest.csv', root / 'a.csv', tmp_path / 'new' / 'b.csv'):
        check_manifest_path(place, root)
    other = root / 'mine.csv'
    other.write_text('my,own,table\n')
    (root / 'd.csv').mkdir()
    (root / 'old.csv').write_text(','.join(COLUMNS) + '\n')
    check_manifest_path(root / 'old.csv', root)
    for place, message in (
        (root / 'manifest.jpg', r'ends in \.csv'),
        (root / 'Training_Set/m.csv', 'lies among the data'),
        (root / '../set/Training_Set/m.csv', 'lies among the data'),
        (other, 'is no manifest'),
        (root / 'd.csv', 'is a folder'),
        (other / 'm.csv', 'cannot be written|lies among'),
        (tmp_path / 'x' / 'y.csv', None),
    ):
        if message is None:
            check_manifest_path(place, root)
            continue
        with pytest.raises(ValueError, match=message):
            check_manifest_path(place, root)


@pytest.mark.parametrize('dataset', ['tinyface', 'scface', 'survface'])
def test_real(shared, dataset):
    report = check_archive(dataset, shared / 'data' / dataset)
    assert not report.problems
    assert list(report.notes) == [COUNTS]
    people = {row['person'] for row in report.rows if row['part'] in ('train', 'mugshot')}
    expected = dict(tinyface=(150, 2823), scface=(30, 480), survface=(150, 2709))
    assert (len(people), len(report.rows)) == expected[dataset]
