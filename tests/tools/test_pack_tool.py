"""Packing folders and RecordIO files, checking packs, and the benchmark of reading."""

import json

import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets import FaceFolder
from mmvlr.datasets.storage import PackReader
from mmvlr.datasets.storage.faces import RecordIOFaces
from mmvlr.preparation import packing

from ..datasets.test_recordio import header, insightface_records, pixels, write_records


@pytest.fixture
def main(tool):
    return tool('dataset_converters/pack.py').main


@pytest.fixture
def people(tmp_path):
    """Faces of three people, label and hidden files, a folder without images."""
    for person in range(3):
        for number in range(2):
            path = tmp_path / 'people' / str(person) / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(10 * person + number)).save(path)
    (tmp_path / 'people' / 'labels.csv').write_text('a,b')
    (tmp_path / 'people' / 'nobody').mkdir()
    (tmp_path / 'people' / '.cache').mkdir()
    (tmp_path / 'people' / '.cache' / 'x.png').write_text('junk')
    (tmp_path / 'people' / '0' / '._0.png').write_text('junk')
    return tmp_path / 'people'


def test_folder(main, people, tmp_path, capsys):
    out = tmp_path / 'out' / 'people.pack'
    assert main([str(people), str(out)]) == 0
    reader = PackReader(out)
    assert reader.names == [f'{person}/{number}.png' for person in range(3) for number in (0, 1)]
    assert reader.files == ['labels.csv']
    assert sorted(reader.tree) == ['', '0', '1', '2', 'nobody']
    for person in range(3):
        for number in range(2):
            found = reader[f'{person}/{number}.png']
            np.testing.assert_array_equal(found, pixels(10 * person + number))
    text = capsys.readouterr().out
    size = out.stat().st_size / 2**20
    assert f'people.pack: 6 images, 1 other files, {size:.2f} MiB' in text
    assert 'left out (2): hidden files and folders (' in text
    assert 'broken' not in text
    expected, found = (FaceFolder(data_root=str(root)) for root in (people, out))
    assert [i['identity'] for i in found.infos()] == [i['identity'] for i in expected.infos()]


def break_two(people):
    (people / '0' / '1.png').write_bytes((people / '0' / '1.png').read_bytes()[:60])
    (people / '2' / '0.png').write_text('no image')


def test_broken_images_stop_it(main, people, tmp_path, capsys):
    break_two(people)
    out = tmp_path / 'people.pack'
    assert main([str(people), str(out)]) == 1
    found = capsys.readouterr()
    assert f'{out} is not written' in found.out
    assert '2 broken images' in found.out
    assert str(people / '0' / '1.png') in found.err
    assert str(people / '2' / '0.png') in found.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['people']
    out.write_text('old')
    assert main([str(people), str(out)]) == 1
    assert out.read_text() == 'old'


def test_skip_broken(main, people, tmp_path, capsys):
    break_two(people)
    out = tmp_path / 'people.pack'
    assert main([str(people), str(out), '--skip-broken']) == 3
    assert PackReader(out).names == ['0/0.png', '1/0.png', '1/1.png', '2/1.png']
    found = capsys.readouterr()
    assert '2 broken images left out' in found.out
    assert str(people / '2' / '0.png') in found.err


def test_pack_inside_the_folder_and_large_files(main, people, capsys, monkeypatch):
    monkeypatch.setattr(packing, 'MAX_FILE_BYTES', 100)
    (people / 'archive.tar').write_bytes(bytes(101))
    (people / 'small.tar').write_bytes(bytes(100))
    out = people / 'people.pack'
    for _ in range(2):
        assert main([str(people), str(out)]) == 0
        assert PackReader(out).files == ['labels.csv', 'small.tar']
        assert 'left out (1): large files that are no images (' in capsys.readouterr().out


def test_links(main, people, tmp_path, capsys):
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root' / 'set').symlink_to(people)
    out = tmp_path / 'x.pack'
    assert main([str(tmp_path / 'root'), str(out)]) == 0
    assert 'set/2/1.png' in PackReader(out)
    for inside in (people, people / '1'):
        (people / '1' / 'loop').symlink_to(inside)
        assert main([str(people), str(out)]) == 0
        assert len(PackReader(out)) == 6
        (people / '1' / 'loop').unlink()
    # Nothing in these is in the folder: they are named.
    for name, target in (('above', people.parent), ('gone', people / 'absent')):
        (people / name).symlink_to(target)
        assert main([str(people), str(out)]) == 1
        assert f'broken: {people / name} (' in capsys.readouterr().err
        assert main([str(people), str(out), '--skip-broken']) == 3
        assert len(PackReader(out)) == 6 and name not in PackReader(out).tree
        (people / name).unlink()


def test_recordio(main, tmp_path):
    # Records 8 to 10 are of one person: their names must sort as their numbers do.
    labels = [0, 0, 1, 2, 2, 2, 3, 10, 10, 10, 11]
    rec = write_records(tmp_path, insightface_records(labels))
    out = tmp_path / 'train.pack'
    assert main([str(rec), str(out)]) == 0
    load = [dict(type='LoadFace')]
    packed = FaceFolder(data_root=str(out), pipeline=load)
    source = RecordIOFaces(data_root=str(tmp_path), pipeline=load)
    assert len(packed) == len(source) == 11
    for one, other in zip(packed, source, strict=True):
        assert one['identity'] == other['identity']
        assert one['gt_label'] == other['gt_label']
        np.testing.assert_array_equal(one['img'], other['img'])


def test_broken_recordio(main, tmp_path, capsys):
    records = insightface_records([0, 1, 1])
    records[2] = header(1) + b'no image'
    records[3] = header(0.5) + records[3][-100:]
    out = tmp_path / 'train.pack'
    rec = write_records(tmp_path, records)
    assert main([str(rec), str(out)]) == 1
    assert not out.exists()
    assert 'record 2 cannot be read' in capsys.readouterr().err


def test_label_that_is_no_person(main, tmp_path, capsys):
    good = insightface_records([0, 0])[1][24:]
    rec = write_records(tmp_path, {n: header(v) + good for n, v in enumerate([0, 0.5, -1])})
    assert main([str(rec), str(tmp_path / 'x.pack'), '--skip-broken']) == 3
    assert PackReader(tmp_path / 'x.pack').names == ['0/0.jpg']
    found = capsys.readouterr().err
    assert 'record 1 has the label 0.5' in found
    assert 'record 2 has the label -1.0' in found


def test_verify(main, people, tmp_path, capsys):
    out = tmp_path / 'people.pack'
    main([str(people), str(out)])
    assert main(['--verify', str(out)]) == 0
    assert 'all checksums are right' in capsys.readouterr().out
    content = bytearray(out.read_bytes())
    # The label file, of 3 bytes, is in front; then come images of 216.
    for place in (39, 39 + 3 * 216):
        content[place] ^= 1
    out.write_bytes(content)
    assert main(['--verify', str(out)]) == 1
    found = capsys.readouterr()
    assert 'damaged: 0/0.png' in found.err
    assert 'damaged: 1/1.png' in found.err
    assert found.err.count('damaged:') == 2
    assert '2 damaged' in found.out
    out.write_bytes(content[:-5])
    assert main(['--verify', str(out)]) == 1
    assert 'truncated' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('code', 'args', 'message'),
    [
        (2, ['{people}'], 'SRC and OUT.pack are needed'),
        (2, ['{people}', 'out.bin'], r'must end in .pack'),
        (2, ['{people}', '--verify', '{people}/labels.csv'], 'nothing else'),
        (1, ['{people}/absent', 'out.pack'], 'absent does not exist'),
        (1, ['{people}/labels.csv', 'out.pack'], 'neither a folder nor a .rec file'),
        (1, ['{people}/nobody', 'out.pack'], 'holds nothing to pack'),
    ],
)
def test_wrong_arguments(main, people, code, args, message, capsys):
    arguments = [arg.format(people=people) for arg in args]
    if code == 2:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == code
    else:
        assert main(arguments) == code
    assert message in capsys.readouterr().err


def test_benchmark(tool, people, capsys):
    benchmark = tool('benchmarks/reading.py').main
    assert benchmark([str(people), '--rounds', '2']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('6 images')
    result = json.loads(lines[-1])
    assert result['pack_over_folder'] > 1
    assert set(result) == {
        *(f'{way}_per_second' for way in ('folder', 'first', 'pack')),
        *('pack_over_folder', 'first_over_folder'),
    }
