"""Training from the command line; killed in the middle, and gone on with."""

import os
import signal
import subprocess
import sys

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


def test_missing_config(tool):
    with pytest.raises(FileNotFoundError, match='see the files under configs'):
        tool('train.py').main(['nowhere.py'])
