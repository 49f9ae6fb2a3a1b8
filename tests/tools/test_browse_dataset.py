"""browse_dataset.py: the sheet shows what each transform and the preprocessor really make."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mmvlr.apis import load_config
from mmvlr.registry import MODELS
from mmvlr.reports import transform_sheet

CONFIG = """
load, pack = dict(type='LoadFace'), dict(type='PackFace')
resize = dict(type='ResizeFace', size=(32, 32))
plain = [load, resize, pack]
faces = dict(type='FaceFolder', data_root={root!r})
train_dataloader = dict(dataset=dict(
    **faces, pipeline=[load, resize, dict(type='FlipFace'), dict(type='RotateFace'), pack]))
val_dataloader = dict(dataset=dict(type='ValidationSubset', dataset=faces, pipeline=plain))
test_dataloader = dict(dataset=dict(**faces, split='test', pipeline=plain))
odd_dataloader = dict(dataset=dict(**faces, pipeline=[load, resize]))
turned = [load, resize, dict(type='FlipFace', prob=1.0), pack]
turned_dataloader = dict(dataset=dict(**faces, pipeline=turned))
native = dict(type='PackNativeFace', transforms=[dict(type='FlipFace', prob=1.0)])
native_dataloader = dict(dataset=dict(**faces, pipeline=[load, native]))
prototype_dataloader = None
model = dict(data_preprocessor=dict(
    type='FaceDataPreprocessor', size=(32, 32), mean=[110, 120, 130], std=64, color_order='BGR'))
"""


@pytest.fixture(scope='module')
def browse(tool):
    return tool('misc/browse_dataset.py')


@pytest.fixture
def people(tmp_path):
    rng = np.random.default_rng(0)
    for person in range(3):
        for number in range(4):
            path = tmp_path / 'people' / str(person) / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(path)
    return tmp_path / 'people'


@pytest.fixture
def config(tmp_path, people):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG.format(root=str(people)))
    return str(path)


@pytest.fixture
def cards(monkeypatch):
    """Rows of cards of the last sheet."""
    kept, draw = [], transform_sheet.contact_sheet

    def keep(found, columns, **kwargs):
        kept[:] = [found[i : i + columns] for i in range(0, len(found), columns)]
        return draw(found, columns=columns, **kwargs)

    monkeypatch.setattr(transform_sheet, 'contact_sheet', keep)
    return kept


def test_every_step(browse, config, people, cards, tmp_path, capsys):
    out = tmp_path / 'new' / 'sheet.png'
    args = [config, '--num', '5', '--repeat', '2', '--seed', '3', '--out', str(out)]
    assert browse.main(args) == 0
    assert capsys.readouterr().out.strip().endswith(str(out))
    assert len(cards) == 10
    flips, angles = set(), set()
    for number, row in enumerate(cards):
        captions = [card.caption[:2] for card in row]
        steps = ['LoadFace', 'ResizeFace', 'FlipFace', 'RotateFace', 'PackFace', 'network input']
        assert captions == [(s, '16 x 20' if i == 0 else '32 x 32') for i, s in enumerate(steps)]
        native, resized, flipped, rotated, packed, fed = (card.image for card in row)
        assert row[0].caption[3] == f'train, draw {number % 2 + 1}'
        files = [p for p in people.rglob(row[0].caption[2]) if same(native, p)]
        assert len(files) == 1
        assert (flipped == resized).all() or (flipped == resized[:, ::-1]).all()
        assert (packed == rotated).all() and (fed == packed).all()
        flips.add((flipped == resized).all())
        angles.add(rotated.tobytes())
    assert flips == {True, False}
    # Another draw of a face is another one; the native image stays.
    assert len(angles) == 10
    assert len({row[0].image.tobytes() for row in cards}) == 5
    first = Image.open(out)
    assert first.format == 'PNG'
    assert browse.main(args) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out)), np.asarray(first))


def same(image, path):
    with Image.open(path) as still:
        return (np.asarray(still) == image).all()


def test_draws_are_those_of_training(browse, config, cards, tmp_path):
    """Draw r of a face is what the data set gives in epoch r."""
    out = str(tmp_path / 's.png')
    assert browse.main([config, '--num', '12', '--repeat', '3', '--seed', '7', '--out', out]) == 0
    dataset = transform_sheet.build_dataset(load_config(config), 'train_dataloader')
    for index in range(12):
        for epoch in range(3):
            dataset.set_epoch(epoch, 7)
            expected = dataset[index]['inputs'].numpy().transpose(1, 2, 0)
            np.testing.assert_array_equal(cards[3 * index + epoch][-1].image, expected)


def test_changes_by_the_data_set_are_shown(browse, config, cards, tmp_path):
    out = str(tmp_path / 's.png')
    assert browse.main([config, '--split', 'val', '--num', '20', '--out', out]) == 0
    # A fifth of 12 images, each as gallery and as probe.
    assert len(cards) == 4
    for row in cards:
        steps = [card.caption[0] for card in row]
        assert steps == ['LoadFace', 'the data set', 'ResizeFace', 'PackFace', 'network input']
        is_probe = row[0].caption[3] == 'probe'
        assert row[1].image.shape == ((16, 16, 3) if is_probe else (20, 16, 3))
        if not is_probe:
            assert (row[1].image == row[0].image[:, ::-1]).all()


def test_batched_augmentation_shows_what_the_network_sees(browse, config, cards, tmp_path):
    sheets = {}
    for split in ('turned', 'native'):
        assert browse.main([config, '--split', split, '--out', str(tmp_path / 'a.png')]) == 0
        shown = [card for row in cards for card in row if 'network input' in card.caption]
        sheets[split] = [card.image for card in shown]
    assert len(sheets['native']) == 8
    for found, expected in zip(sheets['native'], sheets['turned'], strict=True):
        assert abs(found.astype(int) - expected).max() <= 2


def test_pack_and_options(browse, tool, config, people, cards, tmp_path):
    out, pack = str(tmp_path / 's.png'), tmp_path / 'people.pack'
    assert browse.main([config, '--split', 'test', '--out', out]) == 0
    from_folder = [[card.image.copy() for card in row] for row in cards]
    assert tool('dataset_converters/pack.py').main([str(people), str(pack)]) == 0
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={pack}']
    assert browse.main([config, '--split', 'test', '--out', out, *options]) == 0
    assert len(cards) == 8
    for row, images in zip(cards, from_folder, strict=True):
        for card, image in zip(row, images, strict=True):
            np.testing.assert_array_equal(card.image, image)


def test_transforms_that_work_in_place():
    def brighten(results):
        results['img'] += 1
        return results

    dataset = SimpleNamespace(pipeline=SimpleNamespace(transforms=[brighten, brighten]))
    recorder = transform_sheet.Recorder(dataset)
    results = dict(img=np.zeros((2, 2, 3), np.uint8))
    for transform in dataset.pipeline.transforms:
        results = transform(results)
    assert [image.max() for _, image in recorder.steps] == [1, 2]


@pytest.mark.parametrize('order', ['RGB', 'BGR'])
def test_network_input(order):
    stated = dict(mean=[10.0, 120.0, 230.0], std=[50.0, 60.0, 70.0], color_order=order)
    preprocessor = MODELS.build(dict(type='FaceDataPreprocessor', size=(4, 5), **stated))
    face = torch.randint(0, 256, (3, 4, 5), dtype=torch.uint8)
    shown = transform_sheet.network_input(preprocessor, [face])
    np.testing.assert_array_equal(shown, face.numpy().transpose(1, 2, 0))
    # What it shows is what is fed, not the face that went in.
    preprocessor.forward = lambda data: dict(inputs=torch.zeros(1, 3, 4, 5))
    mean = stated['mean'][::-1] if order == 'BGR' else stated['mean']
    assert transform_sheet.network_input(preprocessor, [face])[0, 0].tolist() == mean


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (
            ['--split', 'ui'],
            'no ui_dataloader; it has native_dataloader, odd_dataloader, test_dataloader',
        ),
        (['--split', 'prototype'], 'no prototype_dataloader'),
        (['--split', 'odd'], 'does not end with PackFace'),
        (['--cfg-options', 'train_dataloader.dataset.data_root=gone'], 'gone does not exist'),
        (['--cfg-options', 'model=None'], 'no model.data_preprocessor'),
        (['--cfg-options', 'model.data_preprocessor.size=(8,8)'], 'states faces of (8, 8)'),
    ],
)
def test_errors(browse, config, tmp_path, args, message, capsys):
    out = tmp_path / 's.png'
    assert browse.main([config, '--out', str(out), *args]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_damaged_image(browse, config, people, tmp_path, capsys):
    (people / '1' / '2.png').write_text('no image')
    assert browse.main([config, '--num', '12', '--out', str(tmp_path / 's.png')]) == 1
    assert str(people / '1' / '2.png') in capsys.readouterr().err


@pytest.mark.parametrize('args', [['--num', '0'], ['--repeat', '0'], ['--seed', '-1']])
def test_wrong_numbers(browse, config, args):
    with pytest.raises(SystemExit) as stopped:
        browse.main([config, *args])
    assert stopped.value.code == 2


def test_wrong_name_of_the_sheet(browse, config):
    with pytest.raises(SystemExit):
        browse.main([config, '--out', 'sheet.jpg'])
    with pytest.raises(SystemExit):
        browse.main(['--split', 'train'])


@pytest.mark.parametrize('split', ['train', 'degraded', 'ui'])
def test_real(browse, root, shared, monkeypatch, cards, tmp_path, split):
    monkeypatch.setenv('TINYFACE_ROOT', str(shared / 'data' / 'tinyface'))
    monkeypatch.setenv('UI_ROOT', str(shared / 'data' / 'ui'))
    config = str(root / 'configs' / 'riface' / 'mobilefacenet_tinyface.py')
    out = str(tmp_path / 's.png')
    assert browse.main([config, '--split', split, '--num', '2', '--out', out]) == 0
    assert [row[-1].caption for row in cards] == [('network input', '112 x 112')] * 2
    for row in cards:
        assert max(row[0].image.shape) < 112
