"""align.py on a small TinyFace of real faces: drop-in result, kill and resume, broken images."""

import csv
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mmvlr.datasets import TinyFace
from mmvlr.datasets.alignment import find_alignment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec('facenet_pytorch') is None,
        reason="facenet-pytorch is missing: pip install 'mmvlr[align]'",
    ),
]

# Kills itself with SIGKILL once the journal holds so many results, a torn line behind them.
KILLED = """
import multiprocessing, os, runpy, signal, sys
from mmvlr.utils.work import Journal

append, count, tool = Journal.append, int(sys.argv[1]), sys.argv[2]


def killed(self, entry):
    append(self, entry)
    if len(self.found) == count:
        self._file.write(b'{"file": "torn')
        self._file.flush()
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


Journal.append = killed
sys.argv = sys.argv[2:]
runpy.run_path(tool, run_name='__main__')
"""


def run_killed(root, tool, count, *args):
    """Run a tool that is killed; return the ids of its worker processes."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(root)}
    done = subprocess.run(
        [sys.executable, '-c', KILLED, str(count), str(root / 'tools' / tool), *map(str, args)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return [int(pid) for pid in done.stdout.split()]


def contents(folder):
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def source(shared, tmp_path_factory):
    """TinyFace of two training people, two gallery and two probe images, one distractor."""
    real, root = shared / 'data' / 'tinyface', tmp_path_factory.mktemp('source') / 'tinyface'

    def take(folder, count):
        names = []
        for path in sorted((real / folder).glob('*.jpg'))[:count]:
            target = root / folder / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            names.append(path.name)
        return names

    for person in sorted(path.name for path in (real / 'Training_Set').iterdir())[:2]:
        take(f'Training_Set/{person}', 2)
    take('Testing_Set/Gallery_Distractor', 1)
    for folder, file, key in (
        ('Gallery_Match', 'gallery_match', 'gallery'),
        ('Probe', 'probe', 'probe'),
    ):
        names = take(f'Testing_Set/{folder}', 2)
        cells = np.array(names, dtype=object)[:, None]
        ids = np.array([float(name.split('_')[0]) for name in names])[:, None]
        target = root / 'Testing_Set' / f'{file}_img_ID_pairs.mat'
        scipy.io.savemat(target, {f'{key}_set': cells, f'{key}_ids': ids})
    flat = np.full((14, 17, 3), 120, np.uint8)
    Image.fromarray(flat).save(root / 'Testing_Set' / 'Gallery_Distractor' / 'wall.PNG')
    return root


@pytest.fixture
def copied(source, tmp_path):
    return shutil.copytree(source, tmp_path / 'tinyface')


def test_the_result_stands_in_for_the_source(source, tmp_path, tool, capsys):
    out = tmp_path / 'out'
    assert tool('dataset_converters/align.py').main([str(source), str(out)]) == 0
    printed = capsys.readouterr().out
    assert '10 images aligned' in printed
    assert '2 other files copied' in printed
    for split in ('train', 'test'):
        before = [info['img_path'] for info in TinyFace(str(source), split).infos()]
        after = [info['img_path'] for info in TinyFace(str(out), split).infos()]
        assert [p.replace(str(source), '') for p in before] == [
            p.replace(str(out), '') for p in after
        ]
        for path in after:
            with Image.open(path) as image:
                assert (image.format, image.size, image.mode) == ('PNG', (112, 112), 'RGB')
    rows = list(csv.DictReader((out / 'alignment.csv').open()))
    coordinates = [f'{axis}{index}' for index in range(1, 6) for axis in 'xy']
    assert list(rows[0]) == ['file', 'fallback', 'confidence', *coordinates, 'sha256']
    assert [row['file'] for row in rows] == sorted(row['file'] for row in rows)
    for row in rows:
        assert row['sha256'] == hashlib.sha256((out / row['file']).read_bytes()).hexdigest()
        points = [row[name] for name in coordinates]
        if row['fallback'] == '1':
            assert float(row['confidence']) == 0
            assert set(points) == {''}
        else:
            assert 0.7 < float(row['confidence']) <= 1
            with Image.open(source / row['file']) as image:
                # Both eyes above the mouth, inside the image.
                assert 0 < float(row['y1']) < float(row['y4']) < image.size[1]
                assert 0 < float(row['x1']) < float(row['x2']) < image.size[0]
    fallbacks = {row['file'] for row in rows if row['fallback'] == '1'}
    assert 'Testing_Set/Gallery_Distractor/wall.PNG' in fallbacks
    assert len(fallbacks) <= 3
    facts = json.loads((out / 'alignment.json').read_text())
    found = find_alignment(out)
    assert (facts['images'], facts['fallbacks']) == (10, len(fallbacks))
    assert (found.recipe.digest, found.fallbacks) == (facts['digest'], len(fallbacks))
    assert f'{len(fallbacks)} without a detected face' in printed


def test_killed_and_started_again_it_gives_the_same(source, tmp_path, root, tool, capsys):
    main = tool('dataset_converters/align.py').main
    whole, out = tmp_path / 'whole', tmp_path / 'out'
    assert main([str(source), str(whole)]) == 0
    run_killed(root, 'dataset_converters/align.py', 4, source, out)
    assert not (out / 'alignment.json').exists()
    capsys.readouterr()
    assert main([str(source), str(out)]) == 0
    assert '10 images aligned' in (printed := capsys.readouterr().out)
    assert ', 4 of them before' in printed
    assert contents(out) == contents(whole)


def test_broken_images_are_named_and_tried_again(copied, tmp_path, tool, capsys):
    main, out = tool('dataset_converters/align.py').main, tmp_path / 'out'
    good = next((copied / 'Testing_Set' / 'Probe').iterdir())
    content = good.read_bytes()
    good.write_bytes(content[: len(content) // 2])
    (copied / 'Testing_Set' / 'empty.jpg').write_bytes(b'')
    assert main([str(copied), str(out)]) == 3
    error = capsys.readouterr().err
    assert '2 images cannot be read' in error
    assert str(good) in error and 'empty.jpg' in error
    names = [row['file'] for row in csv.DictReader((out / 'alignment.csv').open())]
    assert len(names) == 9
    assert not (out / good.relative_to(copied)).exists()
    # Mended; another one changed, and one is gone.
    good.write_bytes(content)
    (copied / 'Testing_Set' / 'empty.jpg').unlink()
    people = sorted((copied / 'Training_Set').glob('*/*.jpg'))
    shutil.copyfile(people[0], people[1])
    people[2].unlink()
    assert main([str(copied), str(out)]) == 0
    printed = capsys.readouterr().out
    assert '9 images aligned' in printed
    assert ', 7 of them before' in printed
    assert '1 files' in printed and people[2].relative_to(copied).as_posix() in printed
    pixels = [(out / path.relative_to(copied)).read_bytes() for path in people[:2]]
    assert pixels[0] == pixels[1]


def test_wrong_folders_are_refused(copied, tmp_path, tool, capsys):
    main = tool('dataset_converters/align.py').main

    def refused(*args):
        assert main([str(arg) for arg in args]) == 1
        return capsys.readouterr().err

    assert 'nowhere' in refused(tmp_path / 'nowhere', tmp_path / 'out')
    assert 'lies in' in refused(copied, copied / 'aligned')
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.txt').write_text('')
    assert 'other files' in refused(copied, tmp_path / 'full')
    assert 'no image' in refused(tmp_path / 'full', tmp_path / 'out')
    assert 'min_face' in refused(copied, tmp_path / 'out', '--min-face', '0.01')
    for path in list(copied.rglob('*'))[::-1]:
        if path.is_file() and path.name != 'wall.PNG':
            path.unlink()
    assert main([str(copied), str(tmp_path / 'out')]) == 0
    assert 'aligned already' in refused(tmp_path / 'out', tmp_path / 'twice')
    assert 'other settings' in refused(copied, tmp_path / 'out', '--padding', '0.5')


def test_only_what_was_aligned_and_is_gone_is_called_so(copied, tmp_path, tool, capsys):
    """Neither a user's own files, nor an image that is there and cannot be read any more."""
    main, out = tool('dataset_converters/align.py').main, tmp_path / 'out'
    images = [p for p in sorted(copied.rglob('*')) if p.suffix.lower() in ('.png', '.jpg')]
    (tmp_path / 'list').write_text(''.join(f'{p.name} 5 5 10 5 8 8 8 10\n' for p in images[:1]))
    arguments = [str(copied), str(out), '--landmarks', str(tmp_path / 'list')]
    assert main(arguments) == 0
    (out / 'mine.txt').write_text('notes')
    (out / 'mine.png').write_bytes(b'mine')
    gone, torn = (p.relative_to(copied) for p in images[-2:])
    (copied / gone).unlink()
    (copied / torn).write_bytes(b'torn')
    capsys.readouterr()
    assert main(arguments) == 3
    found = capsys.readouterr()
    listed = [line.strip() for line in found.out.splitlines() if line.startswith('  ')]
    assert listed == [str(gone)]
    assert str(torn) in found.err
