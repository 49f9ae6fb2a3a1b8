"""tools/dataset_converters/degrade.py on a small set."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from mmvlr.datasets.transforms import read_image
from mmvlr.datasets.transforms.presets import PRESETS
from mmvlr.utils.outputs import NOTES_FILE


@pytest.fixture
def source(tmp_path):
    """Two people with two faces each, 64 x 64."""
    rng = np.random.default_rng(0)
    for name in ('1/1_1.jpg', '1/1_2.jpg', '2/2_1.png', '2/2_2.JPG'):
        path = tmp_path / 'hr' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        small.resize((64, 64)).save(path)
    return tmp_path / 'hr'


@pytest.fixture
def run(tool, capsys):
    """Return a function: arguments -> (exit code, output, errors)."""

    def call(*arguments):
        code = tool('dataset_converters/degrade.py').main([*map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file() and path.name not in ('degradation.json', NOTES_FILE)
    }


def test_folders_and_names_are_kept(run, source, tmp_path):
    out = tmp_path / 'lr'
    code, text, _ = run(source, out, '--preset', 'scface_d1')
    assert code == 0
    assert '4 images written, 0 kept' in text
    assert list(contents(out)) == ['1/1_1.png', '1/1_2.png', '2/2_1.png', '2/2_2.png']
    sizes = [read_image(str(path)).shape[:2] for path in out.rglob('*.png')]
    assert set(sizes) <= {(h, w) for h, w, _ in PRESETS['scface_d1']['native']['sizes']}
    record = json.loads((out / 'degradation.json').read_text())
    assert record['settings']['seed'] == 0
    assert record['settings']['parameters']['jpeg']['quality'] == [60, 90]


def test_an_image_depends_on_seed_and_name_alone(run, source, tmp_path):
    preset = ['--preset', 'tinyface']
    run(source, tmp_path / 'all', *preset)
    everything = contents(tmp_path / 'all')
    assert len(set(everything.values())) == 4
    # Alone, with the same pixels elsewhere, under another name, with another seed.
    part = tmp_path / 'part'
    (part / '2').mkdir(parents=True)
    (part / '2' / '2_1.png').write_bytes((source / '2' / '2_1.png').read_bytes())
    (part / '2' / '2_9.png').write_bytes((source / '2' / '2_1.png').read_bytes())
    run(part, tmp_path / 'again', *preset)
    again = contents(tmp_path / 'again')
    assert again['2/2_1.png'] == everything['2/2_1.png']
    assert again['2/2_9.png'] != everything['2/2_1.png']
    run(source, tmp_path / 'other', *preset, '--seed', 1)
    other = contents(tmp_path / 'other')
    assert all(other[name] != everything[name] for name in everything)


def test_copies(run, source, tmp_path):
    run(source, tmp_path / 'one', '--preset', 'tinyface')
    code, text, _ = run(source, tmp_path / 'three', '--preset', 'tinyface', '--copies', 3)
    assert code == 0
    assert '12 images written' in text
    one, three = contents(tmp_path / 'one'), contents(tmp_path / 'three')
    assert {'1/1_1.png', '1/1_1-2.png', '1/1_1-3.png'} <= set(three)
    assert len(set(three.values())) == 12
    assert all(three[name] == one[name] for name in one)


def test_an_interrupted_run_goes_on(run, source, tmp_path):
    out = tmp_path / 'lr'
    run(source, out, '--preset', 'tinyface')
    whole = contents(out)
    (out / '2' / '2_1.png').unlink()
    kept = (out / '1' / '1_1.png').stat()
    code, text, _ = run(source, out, '--preset', 'tinyface')
    assert code == 0
    assert '1 images written, 3 kept' in text
    assert contents(out) == whole
    assert (out / '1' / '1_1.png').stat().st_mtime_ns == kept.st_mtime_ns
    assert (out / '1' / '1_1.png').stat().st_ino == kept.st_ino


def test_no_half_written_image(run, source, tmp_path, monkeypatch):
    replace, done = os.replace, []

    def stop(old, new):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(new)
        replace(old, new)

    monkeypatch.setattr(os, 'replace', stop)
    assert run(source, tmp_path / 'lr', '--preset', 'tinyface')[0] == 130
    monkeypatch.undo()
    # Notes, record and two images; nothing else, hidden or not.
    assert sorted(p.name for p in (tmp_path / 'lr').rglob('*') if p.is_file()) == [
        NOTES_FILE,
        '1_1.png',
        '1_2.png',
        'degradation.json',
    ]


@pytest.mark.parametrize(
    ('options', 'key'),
    [
        (['--preset', 'survface'], 'parameters'),
        (['--preset', 'tinyface', '--seed', '1'], 'seed'),
        (['--preset', 'tinyface', '--copies', '2'], 'copies'),
        (['--preset', 'tinyface', '--suffix', 'bmp'], 'suffix'),
    ],
)
def test_other_settings_are_refused(run, source, tmp_path, options, key):
    out = tmp_path / 'lr'
    run(source, out, '--preset', 'tinyface')
    before = contents(out)
    code, _, errors = run(source, out, *options)
    assert code == 1
    assert f'made with other settings ({key})' in errors
    assert contents(out) == before


def test_another_source_is_refused(run, source, tmp_path):
    run(source, tmp_path / 'lr', '--preset', 'tinyface')
    code, _, errors = run(source / '1', tmp_path / 'lr', '--preset', 'tinyface')
    assert code == 1
    assert 'other settings (source)' in errors


def test_preset_of_a_file_and_jpeg(run, source, tmp_path):
    preset = tmp_path / 'mine.json'
    preset.write_text(json.dumps(dict(parameters=dict(native=dict(sizes=[[8, 8, 1]])))))
    code, _, _ = run(source, tmp_path / 'lr', '--preset', preset, '--suffix', 'jpg')
    assert code == 0
    for name in contents(tmp_path / 'lr'):
        with Image.open(tmp_path / 'lr' / name) as image:
            assert image.format == 'JPEG'
            found = np.asarray(image).astype(float)
        stem = (source / name).with_suffix('')
        original = next(path for path in stem.parent.iterdir() if path.stem == stem.name)
        expected = read_image(str(original)).reshape(8, 8, 8, 8, 3).mean((1, 3))
        assert np.abs(found - expected).mean() < 2


def test_what_is_left_out_is_counted(run, source, tmp_path):
    (source / 'pairs.mat').write_bytes(b'x')
    (source / '1' / '1_3.jpg').write_bytes((source / '1' / '1_1.jpg').read_bytes()[:300])
    Image.new('RGB', (6, 6)).save(source / '2' / '2_3.png')
    code, text, _ = run(source, tmp_path / 'lr', '--preset', 'tinyface', '--copies', 2)
    assert code == 3
    assert '10 images written' in text
    assert '2 not smaller than their source' in text
    assert '1 files that are no images (pairs.mat)' in text
    assert '1 damaged images' in text
    assert '1_3.jpg cannot be read' in text


def test_errors(run, source, tmp_path):
    preset = ['--preset', 'tinyface']
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'x.txt').touch()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'torn').mkdir()
    (tmp_path / 'torn' / '1.png').write_bytes(b'no image')
    (tmp_path / 'foreign').mkdir()
    (tmp_path / 'foreign' / 'degradation.json').write_text('{')
    run(source, tmp_path / 'broken', *preset)
    (tmp_path / 'broken' / 'degradation.json').write_text('{')
    run(source, tmp_path / 'odd', *preset)
    record = json.loads((tmp_path / 'odd' / 'degradation.json').read_text())
    record['settings']['seed'] = 'zero'
    (tmp_path / 'odd' / 'degradation.json').write_text(json.dumps(record))
    for arguments, message in (
        ([source, source, *preset], 'must not lie in one another'),
        ([source, source / 'lr', *preset], 'must not lie in one another'),
        ([source / '1', source, *preset], 'must not lie in one another'),
        ([tmp_path / 'absent', tmp_path / 'lr', *preset], 'absent does not exist'),
        ([tmp_path / 'empty', tmp_path / 'lr', *preset], 'empty: no image'),
        ([source, tmp_path / 'lr', '--preset', 'tiny'], "no preset 'tiny'"),
        ([source, tmp_path / 'full', *preset], 'full holds other files'),
        ([source, tmp_path / 'foreign', *preset], 'foreign holds other files'),
        ([source, tmp_path / 'broken', *preset], 'degradation.json: '),
        ([source, tmp_path / 'odd', *preset], 'degradation.json: settings.seed: '),
        ([tmp_path / 'torn', tmp_path / 'lr', *preset], 'all images are damaged'),
    ):
        code, _, errors = run(*arguments)
        assert code == 1
        assert message in errors
    (source / '2' / '2_1.jpg').write_bytes((source / '2' / '2_2.JPG').read_bytes())
    code, _, errors = run(source, tmp_path / 'lr2', *preset)
    assert code == 1
    assert '2_1.png' in errors
    assert 'would both become 2/2_1.png' in errors
    assert not (tmp_path / 'lr2').exists()


@pytest.mark.parametrize('option', [['--copies', '0'], ['--seed', '-1'], ['--suffix', 'gif']])
def test_options(run, tmp_path, option):
    with pytest.raises(SystemExit):
        run(tmp_path, tmp_path / 'lr', '--preset', 'tinyface', *option)
