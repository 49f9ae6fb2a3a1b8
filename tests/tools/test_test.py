"""tools/test.py on a checkpoint of the short training."""

import json
import os
import shutil

import pytest
import torch
from PIL import Image

from mmvlr.apis import FaceInferencer, load_config
from mmvlr.utils.checkpoint import CheckpointMismatchError
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.contract import ContractMismatchError

from ..people import people_folders

# mmengine names its loggers by the second; several runs in one process may share a name.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created:UserWarning')


@pytest.fixture
def run(tool, config_file, tmp_path):
    """Return a function: checkpoint and further arguments -> metrics."""

    def test(checkpoint, *arguments, config=config_file):
        out = tmp_path / 'inner' / 'result.json'
        code = tool('test.py').raising(
            [
                config,
                str(checkpoint),
                *('--out', str(out), '--work-dir', str(tmp_path / 'work')),
                *arguments,
            ]
        )
        assert code == 0
        return json.loads(out.read_text())

    return test


def test_names(run, trained):
    metrics = run(trained / 'epoch_3.pth')
    qualities = [f'{kind}_auc_{q}' for kind in ('discard', 'ui') for q in ('ri', 'ers', 'norm')]
    names = ['rank1', 'rank5', 'mAP', *qualities]
    assert set(metrics) == {f'tinyface/{name}' for name in names}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert metrics['tinyface/rank1'] <= metrics['tinyface/rank5']


@pytest.mark.slow
@pytest.mark.parametrize('behind', [[], ['--intervals']])
def test_config_beside_the_checkpoint(run, tool, trained, tmp_path, behind):
    """As with the config named, wherever options stand; without one, the line says so."""
    checkpoint, out = trained / 'epoch_3.pth', tmp_path / 'own.json'
    options = ['--out', str(out), '--work-dir', str(tmp_path / 'w'), *behind]
    assert tool('test.py').main([*options, str(checkpoint)]) == 0
    assert json.loads(out.read_text()) == run(checkpoint, *behind)
    config = str(trained / 'tiny.py')
    assert tool('test.py').main([config, *options, str(checkpoint)]) == 0


def test_no_config_beside_the_checkpoint(tool, trained, tmp_path, capsys):
    alone = tmp_path / 'alone.pth'
    alone.write_bytes(b'PK')
    assert tool('test.py').main([str(alone)]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def test_intervals_may_stand_in_the_config(run, trained):
    options = ('--cfg-options', 'test_evaluator.intervals=True', 'test_evaluator.num_resamples=10')
    assert 'tinyface/rank1_low' in run(trained / 'epoch_3.pth', *options)


def test_repeats(run, trained):
    assert run(trained / 'epoch_3.pth') == run(trained / 'epoch_3.pth')


def test_flip_fusion_is_another_result(run, trained, tool):
    plain = run(trained / 'epoch_3.pth')
    fused = run(trained / 'epoch_3.pth', '--flip-fusion', 'sum')
    assert plain['tinyface/mAP'] != fused['tinyface/mAP']
    # Qualities are of the face as it is.
    assert plain['tinyface/ui_auc_norm'] == fused['tinyface/ui_auc_norm']


def test_training_data_need_not_be_there(run, trained):
    options = ['train_dataloader.dataset.type=TinyFace', 'train_dataloader.dataset.data_root=gone']
    run(trained / 'epoch_3.pth', '--cfg-options', *options)


def test_bare_backbone(run, trained, tmp_path):
    """A pretrained backbone is tested without a head; its UI center is measured first."""
    state = load_checkpoint_file(str(trained / 'epoch_3.pth'))['state_dict']
    bare = {name: value for name, value in state.items() if name.startswith('backbone.')}
    torch.save(dict(state_dict=bare), tmp_path / 'bare.pth')
    found = run(tmp_path / 'bare.pth')
    full = run(trained / 'epoch_3.pth')
    assert found['tinyface/mAP'] == pytest.approx(full['tinyface/mAP'])
    assert 'tinyface/discard_auc_ers' in found


def test_another_contract(run, trained):
    with pytest.raises(ContractMismatchError, match=r"epoch_3\.pth .*color_order: .*'RGB'.*'BGR'"):
        run(
            trained / 'epoch_3.pth',
            *('--cfg-options', 'model.data_preprocessor.color_order=BGR'),
        )


def test_another_architecture(run, trained):
    with pytest.raises(CheckpointMismatchError, match=r'epoch_3\.pth belongs to another'):
        run(trained / 'epoch_3.pth', '--cfg-options', 'model.backbone.embed_dims=8')


def test_plain_model_without_a_ui_set(run, trained, tmp_path):
    """ERS is left out; nothing else needs it. The cache does not, either."""
    state = load_checkpoint_file(str(trained / 'epoch_3.pth'))['state_dict']
    parts = ('backbone.', 'head.')
    plain = {name: value for name, value in state.items() if name.startswith(parts)}
    torch.save(dict(state_dict=plain), tmp_path / 'plain.pth')
    options = ['custom_hooks.1.dataloader.dataset._delete_=True']
    options += ['custom_hooks.1.dataloader.dataset.type=UIFaces']
    options += ['custom_hooks.1.dataloader.dataset.data_root=gone']
    found = run(
        tmp_path / 'plain.pth', '--cache', str(tmp_path / 'cache'), '--cfg-options', *options
    )
    assert 'tinyface/discard_auc_norm' in found
    assert 'tinyface/discard_auc_ers' not in found


@pytest.mark.parametrize(
    ('option', 'place'),
    [
        ('--out', 'folder'),
        ('--out', 'file/result.json'),
        ('--out', 'locked/deeper/result.json'),
        ('--curves', 'file'),
        ('--cache', 'file/deeper'),
        ('--work-dir', 'locked/work'),
    ],
)
def test_outputs_are_checked_first(tool, config_file, tmp_path, monkeypatch, capsys, option, place):
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'locked').mkdir()
    (tmp_path / 'file').write_text('mine')
    # As root everything may be written to.
    access = os.access
    monkeypatch.setattr(
        os, 'access', lambda path, mode: 'locked' not in str(path) and access(path, mode)
    )
    # The checkpoint, which is not there either, is looked for behind them.
    arguments = [config_file, option, str(tmp_path / place), 'gone.pth']
    assert tool('test.py').main(arguments) == 1
    told = capsys.readouterr().err
    assert place.split('/')[0] in told
    assert (tmp_path / 'file').read_text() == 'mine'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder', 'locked']


def test_folder_without_room_for_a_log(tool, config_file, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'work_dirs').write_text('no folder')
    assert tool('test.py').main([config_file, str(trained / 'epoch_3.pth')]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ['work_dirs']


def test_weights_that_are_not_finite_are_not_the_image(run, trained, tmp_path):
    checkpoint = load_checkpoint_file(str(trained / 'epoch_3.pth'))
    checkpoint['state_dict']['backbone.stem.conv.weight'][0] = float('nan')
    torch.save(checkpoint, tmp_path / 'nan.pth')
    with pytest.raises(CheckpointMismatchError, match=r'nan\.pth.*backbone\.stem\.conv\.weight'):
        run(tmp_path / 'nan.pth')
    with pytest.raises(CheckpointMismatchError, match=r'nan\.pth.*backbone\.stem\.conv\.weight'):
        FaceInferencer(str(tmp_path / 'nan.pth'))


def test_failure_writes_no_result(run, trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'gone\.pth does not exist'):
        run(tmp_path / 'gone.pth')
    assert not (tmp_path / 'inner').exists()


@pytest.mark.parametrize('cached', [False, True])
def test_what_is_odd_about_the_test_set_is_in_the_result(
    run, trained, config_file, tmp_path, cached
):
    """Also where the embeddings come from a cache; the numbers are those without."""
    faces = tmp_path / 'faces'
    people_folders(faces, range(4), 3)
    for path in faces.rglob('*.png'):
        with Image.open(path) as image:
            image.resize((75, 100)).save(path)
    shutil.copy(next(faces.glob('*/0.png')), next(faces.glob('*/1.png')))
    config = load_config(config_file)
    pipeline = config.test_dataloader.dataset.pipeline
    config.test_dataloader.dataset = dict(
        type='FaceFolder', data_root=str(faces), split='test', pipeline=pipeline
    )
    config.test_evaluator = dict(type='ClosedSetMetric', prefix='folder', ranks=(1,))
    config.dump(tmp_path / 'folder.py')
    cache = ['--cache', str(tmp_path / 'cache')] if cached else []
    first = run(trained / 'epoch_3.pth', *cache, config=str(tmp_path / 'folder.py'))
    assert first == run(trained / 'epoch_3.pth', *cache, config=str(tmp_path / 'folder.py'))
    warnings = first.pop('warnings')
    assert len([line for line in warnings if 'have another shape' in line]) == 2
    assert len([line for line in warnings if 'byte for byte in gallery' in line]) == 1
    assert all(isinstance(value, float) for value in first.values())
