"""Training from the command line; killed in the middle, and gone on with."""

import logging
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mmvlr.apis import build_trainer, load_config
from mmvlr.cli.programs import train
from mmvlr.engine import FaceValLoop
from mmvlr.utils.compat import load_checkpoint_file
from mmvlr.utils.people import PeopleMismatchError

# mmengine names its loggers by the second; several runs in one process may share a name.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings('ignore:.*has been created:UserWarning'),
]


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


@pytest.fixture(scope='module')
def named(trained):
    """Name of the best checkpoint of the unbroken run, and its epoch."""
    (best,) = trained.glob('best_val_mAP_epoch_*.pth')
    return best.name, int(best.stem.rsplit('_', 1)[1])


@pytest.mark.parametrize('which', ['best', 'last'])
def test_killed_between_checkpoint_and_validation(
    project, config_file, trained, tool, named, monkeypatch, which
):
    """The epoch is validated when the run goes on, and becomes the best one if it is."""
    best, epoch = named
    epoch = epoch if which == 'best' else 3
    folder = project / f'unvalidated_{which}'
    run = FaceValLoop.run

    def killed(loop):
        if loop.runner.epoch == epoch:
            raise KeyboardInterrupt
        return run(loop)

    arguments = [config_file, '--work-dir', str(folder)]
    monkeypatch.setattr(FaceValLoop, 'run', killed)
    assert tool('train.py').main(arguments) == 130
    assert (folder / 'last_checkpoint').read_text().endswith(f'epoch_{epoch}.pth')
    monkeypatch.setattr(FaceValLoop, 'run', run)
    assert tool('train.py').main([*arguments, '--resume']) == 0
    for name in ('epoch_2.pth', 'epoch_3.pth', best):
        found, expected = (load_checkpoint_file(str(p / name)) for p in (folder, trained))
        assert not differences(tensors(found['state_dict']), tensors(expected['state_dict']))
        info, wanted = (c['message_hub']['runtime_info'] for c in (found, expected))
        assert info.get('best_score') == wanted.get('best_score')
        histories, others = (c['message_hub']['log_scalars'] for c in (found, expected))
        assert histories.keys() == others.keys()
        assert all(histories[key].data[0].shape == others[key].data[0].shape for key in histories)
    assert sorted(p.name for p in folder.glob('*.pth')) == sorted(
        p.name for p in trained.glob('*.pth')
    )


def test_failure_behind_the_last_epoch_loses_nothing(
    project, config_file, trained, tool, monkeypatch
):
    """The read-out is fitted behind the last checkpoint: a run goes on from there, and is whole."""
    folder = project / 'unfitted'
    arguments = [config_file, '--work-dir', str(folder)]

    def fail(hook, runner):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr('mmvlr.engine.RegressionFitHook.fit', fail)
        with pytest.raises(MemoryError):
            tool('train.py').raising(arguments)
    assert (folder / 'last_checkpoint').read_text().endswith('epoch_3.pth')
    name = '.state_dict.regression.layers.0.weight'
    assert name in differences(state(folder, 3), state(trained, 3))
    assert tool('train.py').main([*arguments, '--resume']) == 0
    assert not differences(state(folder, 3), state(trained, 3))


def test_resume_of_a_finished_run_elsewhere(config_file, trained, tool, named, tmp_path):
    """Nothing is left to train, which is no failure; the run that it comes from stays as it is."""
    start = load_checkpoint_file(str(trained / 'epoch_3.pth'))
    # Validated again, this epoch would take the place of the best one.
    start['meta']['validated'] = False
    start['message_hub']['runtime_info'].update(best_score=-1.0, best_ckpt=str(trained / named[0]))
    torch.save(start, tmp_path / 'epoch_3.pth')
    folder = tmp_path / 'new'
    arguments = [config_file, '--work-dir', str(folder)]
    arguments += ['--resume', str(tmp_path / 'epoch_3.pth')]
    assert tool('train.py').main(arguments) == 0
    (log,) = folder.glob('*/*.log')
    assert 'all 3 epochs were trained already' in log.read_text()
    assert not differences(state(folder, 3), state(trained, 3))
    assert list(folder.glob('best_val_mAP_epoch_3.pth'))
    assert (trained / named[0]).is_file()
    with pytest.raises(ValueError, match='training of 3 epochs, the config wants 2'):
        tool('train.py').raising([*arguments, '--cfg-options', 'train_cfg.max_epochs=2'])


#: More people, and as many others.
OTHERS = [('num_people', 7), ('first_person', 50)]


@pytest.mark.parametrize('head', ['RecognitionModule', 'PartialRecognitionModule'])
@pytest.mark.parametrize(('key', 'value'), [*OTHERS, ('num_people', 6)])
def test_fine_tuning_on_other_people(project, config_file, trained, head, key, value):
    """The network is taken; the prototypes only if the people are the same."""
    start = load_checkpoint_file(str(trained / 'epoch_3.pth'))['state_dict']
    config = load_config(
        config_file,
        {
            'load_from': str(trained / 'epoch_3.pth'),
            'work_dir': str(project / 'fine'),
            'experiment_name': f'fine_{head}_{key}_{value}',
            'custom_hooks': [],
            'model.head.type': head,
            f'train_dataloader.dataset.{key}': value,
        },
    )
    runner = build_trainer(config)
    first = runner.model.head.weight.clone()
    runner.load_or_resume()
    found = runner.model.state_dict()
    assert found['head.weight'].shape == (7 if value == 7 else 6, 16)
    same = (key, value) not in OTHERS
    assert torch.equal(found['head.weight'], start['head.weight'] if same else first)
    assert not differences(
        *({k: v for k, v in s.items() if not k.startswith('head.')} for s in (found, start))
    )


@pytest.mark.parametrize(('key', 'value'), OTHERS)
def test_resume_with_other_people(project, config_file, trained, tool, key, value):
    before = {path: path.stat().st_mtime_ns for path in trained.glob('*.pth')}
    with pytest.raises(PeopleMismatchError) as error:
        tool('train.py').raising(
            [
                config_file,
                *('--work-dir', str(trained), '--resume'),
                *('--cfg-options', f'train_dataloader.dataset.{key}={value}', 'custom_hooks=[]'),
            ]
        )
    told = f'6 people there, {7 if value == 7 else 6} here'
    first = "class 6: nobody there, '0/6' here" if value == 7 else "class 0: '0/0' there, '0/50'"
    assert 'epoch_3.pth' in str(error.value)
    assert told in str(error.value)
    assert first in str(error.value)
    assert before == {path: path.stat().st_mtime_ns for path in trained.glob('*.pth')}


@pytest.mark.parametrize(
    ('option', 'told'),
    [
        ('train_dataloader.batch_size=64', ['36 images', 'batch_size=64', 'drop_last']),
        ('train_cfg.max_epochs=0', ['max_epochs is 0']),
        ('val_dataloader.drop_last=True', [r'val_dataloader\.drop_last']),
    ],
)
def test_training_without_a_step(project, config_file, tool, option, told):
    folder = project / 'empty'
    with pytest.raises(ValueError, match='.*'.join(told)):
        tool('train.py').raising([config_file, '--work-dir', str(folder), '--cfg-options', option])
    assert not list(folder.glob('*.pth'))


@pytest.mark.parametrize('value', ['0', '-3', 'x'])
def test_max_iters_that_train_nothing(config_file, tool, value, capsys):
    with pytest.raises(SystemExit) as error:
        tool('train.py').main([config_file, '--max-iters', value])
    assert error.value.code == 2
    assert '--max-iters' in capsys.readouterr().err


def test_one_image_a_person_is_told_before_training(project, config_file, tool):
    """RI-Face compares an image with others of its person."""
    folder = project / 'single'
    loaders = ['train_dataloader', 'custom_hooks.0.dataloader', 'custom_hooks.2.dataloader']
    loaders.append('custom_hooks.2.degraded_dataloader')
    options = [f'{loader}.dataset.images_per_person=1' for loader in loaders]
    options.append('train_dataloader.batch_size=6')
    with pytest.raises(ValueError, match='0 people have two or more images'):
        tool('train.py').raising(
            [config_file, '--work-dir', str(folder), '--cfg-options', *options]
        )
    assert not (folder / 'last_checkpoint').exists()
    (log,) = folder.glob('*/*.log')
    assert 'Epoch(train)' not in log.read_text()


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
        tool('train.py').raising(
            [
                config_file,
                *('--work-dir', str(project / 'wrong')),
                *('--cfg-options', 'model.head.num_classes=5'),
            ]
        )


def test_resume_of_another_architecture_names_the_file(project, config_file, trained, tool):
    from mmvlr.utils.checkpoint import CheckpointMismatchError

    with pytest.raises(CheckpointMismatchError, match=r'epoch_3\.pth belongs to another'):
        tool('train.py').raising(
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
    arguments = [config_file, '--work-dir', str(folder), '--max-iters', '1', '--resume']
    with pytest.raises(FileNotFoundError, match=r'moved/last_checkpoint names /elsewhere/epoch_1'):
        tool('train.py').raising(arguments)


@pytest.mark.parametrize(('main', 'expected'), [(True, 'epoch_1.pth'), (False, 'epoch_2.pth')])
def test_ranks_resume_from_what_the_main_one_saw(tmp_path, monkeypatch, main, expected):
    for epoch in (1, 2):
        (tmp_path / f'epoch_{epoch}.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))

    def broadcast(seen):
        assert seen == [str(tmp_path / 'epoch_1.pth') if main else None]
        seen[0] = str(tmp_path / expected)

    monkeypatch.setattr('mmengine.dist.is_main_process', lambda: main)
    monkeypatch.setattr('mmengine.dist.broadcast_object_list', broadcast)
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
        tool('train.py').raising([config_file, '--launcher', 'pytorch', *options])


def test_missing_config(tool):
    with pytest.raises(FileNotFoundError, match=r'nowhere\.py'):
        tool('train.py').raising(['nowhere.py'])
