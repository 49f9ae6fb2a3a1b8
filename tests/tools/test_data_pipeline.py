"""The benchmark of the training loaders on a few small images."""

import json

import pytest

pytestmark = pytest.mark.slow

CONFIGS = {
    'folder.py': """
_base_ = './tiny.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='FaceFolder',
        data_root='{data}',
        pipeline=[
            dict(type='LoadFace'),
            dict(type='ResizeFace', size=(32, 32)),
            dict(type='RotateFace'),
            dict(type='PackFace'),
        ],
    )
)
""",
    'batched.py': """
_base_ = './folder.py'
train_dataloader = dict(
    collate_fn=dict(type='mmvlr.native_collate'),
    dataset=dict(
        pipeline=[
            dict(type='LoadFace'),
            dict(type='PackNativeFace', transforms=[dict(type='RotateFace')]),
        ]
    ),
)
""",
}


@pytest.fixture(scope='module')
def configs(project, tmp_path_factory):
    from PIL import Image

    from mmvlr.datasets.synthesis import synthesize_face

    data = tmp_path_factory.mktemp('people')
    for person in range(3):
        (data / str(person)).mkdir()
        for shot in range(5):
            image = Image.fromarray(synthesize_face(person, shot).image)
            image.save(data / str(person) / f'{shot}.png')
    for name, text in CONFIGS.items():
        (project / 'method' / name).write_text(text.format(data=data))
    return [
        '--config', str(project / 'method' / 'folder.py'),
        '--batched-config', str(project / 'method' / 'batched.py'),
    ]  # fmt: skip


@pytest.fixture
def main(tool):
    return tool('benchmarks/data_pipeline.py').main


@pytest.mark.parametrize('workers', [0, 1])
def test_loading(main, configs, workers, capsys):
    assert main([*configs, '--rounds', '2', '--workers', str(workers), '--batch-size', '7']) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert '15 images packed' in out
    assert '14 images a round, batches of 7' in out
    assert result['workers'] == workers
    for way in ('folder', 'batched'):
        assert result[f'{way}_host'] > 0
        assert result[f'{way}_device'] > 0
        assert result[f'{way}_wall'] > 0
    assert 0 < result['host_ratio'] < 1


def test_training_steps_and_trace(main, configs, tmp_path, capsys):
    file = tmp_path / 'new' / 'trace.json'
    arguments = ['--rounds', '1', '--batch-size', '7', '--steps', '2', '--trace', str(file)]
    assert main([*configs, *arguments]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    real, synthetic = result['batched_per_second'], result['synthetic_per_second']
    assert result['real_over_synthetic'] == pytest.approx(real / synthetic, rel=1e-2)
    names = {event.get('name') for event in json.loads(file.read_text())['traceEvents']}
    assert {'folder', 'batched', 'aten::grid_sampler'} <= names


def test_processor_time_counts_other_processes(tool):
    import subprocess
    import sys
    import time

    module = tool('benchmarks/data_pipeline.py')
    busy = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        start, own = module.processor_seconds([busy.pid]), module.processor_seconds([])
        time.sleep(0.5)
        spent = module.processor_seconds([busy.pid]) - start
        assert spent - (module.processor_seconds([]) - own) > 0.02
    finally:
        busy.kill()
        busy.wait()


def test_an_absent_folder(main, configs, capsys):
    assert main([*configs, '--data-root', 'absent']) == 1
    assert 'data root absent is no folder' in capsys.readouterr().err


BATCHED_TRAINING = """
_base_ = './tiny.py'
train_dataloader = dict(
    collate_fn=dict(type='mmvlr.native_collate'),
    dataset=dict(
        pipeline=[
            dict(type='LoadFace'),
            dict(
                type='PackNativeFace',
                transforms=[dict(type='FlipFace'), dict(type='RotateFace')],
            ),
        ]
    ),
)
"""


def first_epoch(work_dir):
    (file,) = work_dir.rglob('scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line for line in lines if line.get('epoch') == 1 and 'loss' in line]


def test_training_sees_the_same_images(project, trained, tool, tmp_path):
    """All hooks run, and the losses of the first epoch are those of images one by one."""
    config = project / 'method' / 'batched_training.py'
    config.write_text(BATCHED_TRAINING)
    arguments = [
        str(config),
        '--work-dir',
        str(tmp_path),
        '--cfg-options',
        'train_cfg.max_epochs=1',
    ]
    assert tool('train.py').main(arguments) == 0
    expected, found = first_epoch(trained), first_epoch(tmp_path)
    assert len(found) == len(expected) > 1
    for a, b in zip(found, expected, strict=True):
        for name in ('loss_cls', 'loss_regression', 'loss_attention'):
            assert a[name] == pytest.approx(b[name], rel=5e-3, abs=1e-3), (name, b['step'])
    assert (tmp_path / 'epoch_1.pth').is_file()
