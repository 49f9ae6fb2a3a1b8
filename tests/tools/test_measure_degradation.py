"""tools/analysis/measure_degradation.py on small folders."""

import json

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from mmvlr.datasets.transforms import VLRDegradation, read_image
from mmvlr.preparation.degradation_statistics import measure_faces


def write_faces(folder, count, size, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        values = scipy.ndimage.gaussian_filter(rng.normal(size=(*size, 3)), (3, 3, 0))
        values = 128 + 40 * values / values.std()
        pixels = np.clip(values, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f'{index}.png')
    return folder


@pytest.fixture
def run(tool, capsys):
    """Return a function: arguments -> (exit code, output, errors)."""

    def call(*arguments):
        code = tool('analysis/measure_degradation.py').main([*map(str, arguments)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def target(tmp_path):
    """4 faces of 20 x 16 and 2 of 24 x 18 in two folders."""
    write_faces(tmp_path / 'target' / 'a', 4, (20, 16))
    write_faces(tmp_path / 'target' / 'b', 2, (24, 18), seed=1)
    return tmp_path / 'target'


def test_statistics(run, target, tmp_path):
    (target / 'notes.txt').write_text('no image')
    (target / 'b' / 'torn.png').write_bytes((target / 'b' / '0.png').read_bytes()[:200])
    code, out, _ = run(target, '--out', tmp_path / 'new' / 'stats.json')
    assert code == 3
    record = json.loads((tmp_path / 'new' / 'stats.json').read_text())
    assert record['sizes'] == [[20, 16, 4], [24, 18, 2]]
    assert [len(record[key]) for key in ('damaged', 'no_images')] == [1, 1]
    paths = sorted(path for path in target.rglob('[0-9].png'))
    expected = measure_faces(read_image(str(path)) for path in paths).summary()
    assert {key: record[key] for key in expected} == expected
    assert f'{target}: 6 images' in out
    assert '1 damaged images' in out
    assert 'torn.png cannot be read' in out
    assert '1 files that are no images' in out


def test_fit_and_figure(run, target, tmp_path):
    source = write_faces(tmp_path / 'source', 3, (64, 64))
    write_faces(tmp_path / 'source' / 'small', 1, (24, 40))
    preset, figure = tmp_path / 'preset.json', tmp_path / 'figure.png'
    arguments = [target, '--out', tmp_path / 'stats.json', '--fit', preset, '--source', source]
    arguments += ['--start', 'scface_d1', '--samples', '2', '--figure', figure]
    code, out, _ = run(*arguments)
    assert code == 0
    assert '1 not larger than the largest measured face, 24 x 18' in out
    record = json.loads(preset.read_text())
    assert record['fit']['source_images'] == 3
    distances = record['fit']['distance_db']
    assert distances['after']['total'] < distances['before']['total']
    row = next(line for line in out.splitlines() if line.startswith('total'))
    assert row.split()[1:] == [f'{distances[name]["total"]:.2f}' for name in ('before', 'after')]
    degrade = VLRDegradation(str(preset))
    face = read_image(str(source / '0.png'))
    sizes = {
        degrade(dict(img=face, rng=np.random.default_rng(seed)))['img'].shape[:2]
        for seed in range(20)
    }
    assert sizes == {(20, 16), (24, 18)}
    with Image.open(figure) as image:
        assert image.format == 'PNG'
        assert len(set(image.convert('L').resize((50, 30)).tobytes())) > 20


def test_errors(run, target, tmp_path):
    out = ['--out', tmp_path / 'stats.json']
    (tmp_path / 'empty').mkdir()
    torn = tmp_path / 'torn'
    torn.mkdir()
    (torn / '1.jpg').write_bytes(b'no image')
    fit = ['--fit', tmp_path / 'p.json', '--source']
    for arguments, message in (
        ([tmp_path / 'absent'], 'absent does not exist'),
        ([tmp_path / 'empty'], 'empty: no image in this folder'),
        ([torn], '1 damaged images'),
        ([target, *fit, target], 'no image is left to degrade'),
        ([target, *fit, target, '--start', 'nothing'], "no preset 'nothing'"),
    ):
        code, _, errors = run(*arguments, *out)
        assert code == 1
        assert message in errors
    assert not (tmp_path / 'p.json').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--fit', 'p.json'], '--fit needs --source'),
        (['--source', '.'], '--fit needs --source'),
        (['--fit', 'p.txt', '--source', '.'], 'ends in .json'),
        (['--samples', '0'], '--samples'),
    ],
)
def test_options(run, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        run(tmp_path, '--out', 'stats.json', *options)
    assert message in capsys.readouterr().err
