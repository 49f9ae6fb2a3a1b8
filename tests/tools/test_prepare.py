"""prepare.py: exit codes, the printed report and the manifest."""

import csv
import hashlib
import os
import shutil

import pytest

from mmvlr.datasets import SurvFace, TinyFace
from mmvlr.datasets.storage import PackReader

from ..datasets.conftest import (  # noqa: F401 - fixtures
    survface_root,
    tinyface_root,
    write_face,
    write_name_pairs,
    write_pairs,
)


@pytest.fixture
def main(tool):
    return tool('dataset_converters/prepare.py').main


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob('*'))


def read_table(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def test_all_is_right(main, tinyface_root, capsys):  # noqa: F811
    before = names(tinyface_root)
    assert main(['tinyface', str(tinyface_root)]) == 0
    printed = capsys.readouterr().out
    assert 'problems: 0' in printed
    assert 'not the official data set' in printed
    assert f'{tinyface_root / "manifest.csv"}: 15 images; no problems' in printed
    assert names(tinyface_root) == sorted([*before, 'manifest.csv'])
    rows = read_table(tinyface_root / 'manifest.csv')
    assert list(rows[0]) == ['file', 'part', 'person', 'width', 'height', 'bytes', 'sha256']
    for row in rows:
        content = (tinyface_root / row['file']).read_bytes()
        assert row['sha256'] == hashlib.sha256(content).hexdigest()
        assert (row['width'], row['height'], int(row['bytes'])) == ('24', '20', len(content))
    # Again, with the manifest there: the same.
    first = (tinyface_root / 'manifest.csv').read_bytes()
    assert main(['tinyface', str(tinyface_root)]) == 0
    assert (tinyface_root / 'manifest.csv').read_bytes() == first


@pytest.mark.slow
def test_no_data_set_takes_the_manifest_for_data(
    main,
    tool,
    tinyface_root,  # noqa: F811
    survface_root,  # noqa: F811
    tmp_path,
):
    def read():
        found = []
        for dataset, root in ((TinyFace, tinyface_root), (SurvFace, survface_root)):
            for split in ('train', 'test'):
                loaded = dataset(str(root), split)
                found.append(([i['img_path'] for i in loaded.infos()], dict(loaded.left_out)))
        return found

    before = read()
    assert main(['tinyface', str(tinyface_root)]) == 0
    assert main(['survface', str(survface_root)]) == 0
    assert read() == before
    pack = tmp_path / 'x.pack'
    assert tool('dataset_converters/pack.py').main([str(tinyface_root), str(pack)]) == 0
    assert not any('manifest' in name for name in PackReader(pack).names)
    assert len(TinyFace(str(pack), 'train')) == len(before[0][0])


def test_problems(main, tinyface_root, tmp_path, capsys):  # noqa: F811
    image = tinyface_root / 'Training_Set/2/2_1.jpg'
    image.write_bytes(image.read_bytes()[:100])
    os.rename(
        tinyface_root / 'Testing_Set/Gallery_Distractor/a.jpg',
        os.fsencode(tinyface_root) + b'/Testing_Set/Gallery_Distractor/\xe9.jpg',
    )
    (tinyface_root / 'Testing_Set/probe_img_ID_pairs.mat').unlink()
    out = tmp_path / 'out' / 'table.csv'
    assert main(['tinyface', str(tinyface_root), '--manifest', str(out)]) == 1
    printed = capsys.readouterr().out
    for line in (
        'problems: 3',
        '    Training_Set/2/2_1.jpg: ',
        '    Testing_Set/probe_img_ID_pairs.mat',
        r'    Testing_Set/Gallery_Distractor/\udce9.jpg: ',
        f'{out}: 14 images; the archive has 3 problems, and 1 images that cannot be read are '
        'not in the manifest',
    ):
        assert line in printed
    rows = read_table(out)
    assert len(rows) == 14
    assert 'Training_Set/2/2_1.jpg' not in [row['file'] for row in rows]
    assert r'Testing_Set/Gallery_Distractor/\udce9.jpg' in [row['file'] for row in rows]
    assert os.listdir(out.parent) == ['table.csv']
    assert not (tinyface_root / 'manifest.csv').exists()


def test_nothing_half_written(main, tool, tinyface_root, monkeypatch, capsys):  # noqa: F811
    assert main(['tinyface', str(tinyface_root)]) == 0
    before = (tinyface_root / 'manifest.csv').read_bytes()

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(csv.DictWriter, 'writerows', full)
    capsys.readouterr()
    assert main(['tinyface', str(tinyface_root)]) == 1
    found = capsys.readouterr()
    assert 'manifest.csv' in found.err
    assert 'problems: 0' in found.out
    assert (tinyface_root / 'manifest.csv').read_bytes() == before
    assert not [name for name in os.listdir(tinyface_root) if name.startswith('.')]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['{root}/absent'], 'absent does not exist'),
        (['{root}', '--manifest', '{root}/m.jpg'], 'ends in .csv'),
        (['{root}', '--manifest', '{root}/Training_Set/m.csv'], 'among the data'),
    ],
)
def test_wrong_calls(main, tinyface_root, args, message, capsys):  # noqa: F811
    before = names(tinyface_root)
    assert main(['tinyface', *(arg.format(root=tinyface_root) for arg in args)]) == 1
    assert message in capsys.readouterr().err
    assert names(tinyface_root) == before


def test_unknown_data_set(main, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(['lfw', str(tmp_path)])
    assert stopped.value.code == 2


def test_damaged_copy_of_real_faces(main, shared, tmp_path, capsys):
    root = tmp_path / 'survface'
    shutil.copytree(shared / 'data' / 'survface', root)
    for path in (root, *root.rglob('*')):
        path.chmod(0o755)
    person = sorted((root / 'training_set').iterdir())[0]
    images = sorted(person.iterdir())
    images[0].write_bytes(images[0].read_bytes()[:-1])
    images[1].write_bytes(b'')
    (root / 'Face_Identification_Test_Set/gallery').rename(
        root / 'Face_Identification_Test_Set/Gallery'
    )
    assert main(['survface', str(root)]) == 1
    printed = capsys.readouterr().out
    assert 'problems: 3' in printed
    assert f'training_set/{person.name}/{images[0].name}: ' in printed
    assert f'training_set/{person.name}/{images[1].name}: zero bytes' in printed
    assert 'Face_Identification_Test_Set/Gallery: gallery is expected' in printed
    assert len(read_table(root / 'manifest.csv')) == 2709 - 2
