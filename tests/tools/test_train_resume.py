"""Training from the command line; killed in the middle, and gone on with."""

import logging
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mmvlr.utils.compat import load_checkpoint_file

# mmengine names its loggers by the second; several runs in one process may share a name.
pytestmark = pytest.mark.filterwarnings('ignore:.*has been created:UserWarning')


def tensors(value, name=''):
    """All tensors and numbers of a nested checkpoint, by their path."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {name: value} if isinstance(value, (torch.Tensor, int, float)) else {}
    found = {}
    for key, inner in items:
        found.update(tensors(inner, f'{name}.{key}'))
    return found


def state(folder, epoch):
    checkpoint = load_checkpoint_file(str(folder / f'epoch_{epoch}.pth'))
    parts = ('state_dict', 'optimizer', 'param_schedulers')
    return tensors({part: checkpoint[part] for part in parts})


def differences(one, other):
    assert one.keys() == other.keys()
    return [
        name
        for name in one
        if not torch.equal(
            torch.as_tensor(one[name]).nan_to_num(7.0), torch.as_tensor(other[name]).nan_to_num(7.0)
        )
    ]


def test_unbroken_run(trained):
    assert (trained / 'last_checkpoint').read_text().endswith('epoch_3.pth')
    # Two are kept, and the best one.
    assert sorted(path.name for path in trained.glob('epoch_*.pth')) == [
        'epoch_2.pth',
        'epoch_3.pth',
    ]
    assert len(list(trained.glob('best_val_mAP_epoch_*.pth'))) == 1
    checkpoint = load_checkpoint_file(str(trained / 'epoch_3.pth'))
    assert checkpoint['meta']['preprocessing']['size'] == [32, 32]
    weights = checkpoint['state_dict']
    assert weights['head.weight'].shape == (6, 16)
    assert weights['ui_center'].norm().item() == pytest.approx(1, abs=1e-5)
    assert weights['ui_mean'].isfinite()
    assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
    assert any('exp_avg' in name for name in state(trained, 3))


def test_killed_and_resumed_is_the_unbroken_run(project, config_file, trained, tool, root):
    folder = project / 'killed'
    # Four iterations an epoch: the tenth lies in the middle of the third.
    with open(project / 'killed.log', 'w') as log:
        killed = subprocess.run(
            [
                sys.executable,
                str(root / 'tools' / 'train.py'),
                config_file,
                '--work-dir',
                str(folder),
            ],
            env={
                **os.environ,
                'STOP_AT': '10',
                'PYTHONPATH': os.pathsep.join([str(root), str(project)]),
                'OMP_NUM_THREADS': '1',
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert killed.returncode == -signal.SIGKILL, (project / 'killed.log').read_text()[-2000:]
    assert (folder / 'last_checkpoint').read_text().endswith('epoch_2.pth')
    assert not (folder / 'epoch_3.pth').exists()
    # Up to there it is the same run, in another process.
    assert not differences(state(folder, 2), state(trained, 2))

    assert tool('train.py').main([config_file, '--work-dir', str(folder), '--resume']) == 0
    assert not differences(state(folder, 3), state(trained, 3))
    # The third epoch really happened: nothing of this compares a state with itself.
    assert len(differences(state(trained, 2), state(trained, 3))) > 50


def test_another_seed_is_another_run(project, config_file, trained, tool):
    folder = project / 'seed'
    arguments = [
        '--work-dir',
        str(folder),
        '--seed',
        '5',
        '--cfg-options',
        'train_cfg.max_epochs=1',
    ]
    assert tool('train.py').main([config_file, *arguments]) == 0
    found = load_checkpoint_file(str(folder / 'epoch_1.pth'))
    assert found['meta']['seed'] == 5
    other = load_checkpoint_file(str(trained / 'epoch_2.pth'))
    name = 'backbone.stem.conv.weight'
    assert not torch.allclose(found['state_dict'][name], other['state_dict'][name], atol=0.02)


def test_max_iters(project, config_file, tool):
    folder = project / 'short'
    arguments = ['--work-dir', str(folder), '--max-iters', '2']
    assert tool('train.py').main([config_file, *arguments]) == 0
    assert [path.name for path in folder.glob('*.pth')] == ['iter_2.pth']
    checkpoint = load_checkpoint_file(str(folder / 'iter_2.pth'))
    assert checkpoint['meta']['iter'] == 2


def test_contradicting_number_of_people(project, config_file, tool):
    with pytest.raises(ValueError, match=r'num_classes is 5, but the training set has 6 people'):
        tool('train.py').main(
            [
                config_file,
                *('--work-dir', str(project / 'wrong')),
                *('--cfg-options', 'model.head.num_classes=5'),
            ]
        )


def test_resume_of_another_architecture_names_the_file(project, config_file, trained, tool):
    from mmvlr.utils.checkpoint import CheckpointMismatchError

    with pytest.raises(CheckpointMismatchError, match=r'epoch_3\.pth belongs to another'):
        tool('train.py').main(
            [
                config_file,
                *('--work-dir', str(project / 'other')),
                *('--resume', str(trained / 'epoch_3.pth')),
                *('--cfg-options', 'model.backbone.last_channels=24'),
            ]
        )


def one_iteration(tool, config_file, folder, *options):
    """Weights after one iteration, and the log."""
    # mmengine names a log by experiment and second: two runs of one second would share it.
    name = f'experiment_name={folder.name}'
    arguments = [config_file, '--work-dir', str(folder), '--max-iters', '1', *options]
    if '--cfg-options' in arguments:
        arguments.insert(arguments.index('--cfg-options') + 1, name)
    else:
        arguments += ['--cfg-options', name]
    assert tool('train.py').main(arguments) == 0
    (log,) = folder.glob('*/*.log')
    return load_checkpoint_file(str(folder / 'iter_1.pth'))['state_dict'], log.read_text()


def test_first_start_with_resume_keeps_load_from(project, config_file, trained, tool):
    start = str(trained / 'epoch_3.pth')
    options = ['--cfg-options', f'load_from={start}']
    expected, log = one_iteration(tool, config_file, project / 'plain', *options)
    assert '--resume' not in log
    folder = project / 'first'
    found, log = one_iteration(tool, config_file, folder, '--resume', *options)
    assert not differences(found, expected)
    assert f'--resume: no checkpoint in {folder} yet; start from {start}' in log
    # It matters where a training starts.
    random, log = one_iteration(tool, config_file, project / 'random', '--resume')
    assert 'yet; start from random weights' in log
    assert differences(random, expected)


def test_resume_of_a_moved_work_dir(project, config_file, tool):
    folder = project / 'moved'
    folder.mkdir()
    (folder / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    with pytest.raises(FileNotFoundError, match=r'moved/last_checkpoint names /elsewhere/epoch_1'):
        one_iteration(tool, config_file, folder, '--resume')


@pytest.mark.parametrize(('main', 'expected'), [(True, 'epoch_1.pth'), (False, 'epoch_2.pth')])
def test_ranks_resume_from_what_the_main_one_saw(tool, tmp_path, monkeypatch, main, expected):
    for epoch in (1, 2):
        (tmp_path / f'epoch_{epoch}.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    train = tool('train.py')

    def broadcast(seen):
        assert seen == [str(tmp_path / 'epoch_1.pth') if main else None]
        seen[0] = str(tmp_path / expected)

    monkeypatch.setattr(train, 'is_main_process', lambda: main)
    monkeypatch.setattr(train, 'broadcast_object_list', broadcast)
    runner = SimpleNamespace(
        work_dir=str(tmp_path), logger=logging.getLogger('ranks'), _resume=False, _load_from='other'
    )
    train.resume_from_last(runner)
    assert runner._resume
    assert runner._load_from == str(tmp_path / expected)


def test_restart_without_resume_warns(project, config_file, tool, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    log = one_iteration(tool, config_file, project / 'anew')[1]
    assert 'restarted without --resume: training begins from its start' in log


def test_ranks_with_sync_bn_and_frozen_bn(config_file, tool):
    options = ['--cfg-options', 'sync_bn=torch', 'model.backbone.frozen_bn=True']
    with pytest.raises(ValueError, match=r'sync_bn and .*frozen_bn exclude each other'):
        tool('train.py').main([config_file, '--launcher', 'pytorch', *options])


def test_missing_config(tool):
    with pytest.raises(FileNotFoundError, match='see the files under configs'):
        tool('train.py').main(['nowhere.py'])
