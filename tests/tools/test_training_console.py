"""What a training tells: little on the console, all in the log file, true times."""

import contextlib
import io
import re
import time

import pytest
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvlr.apis import load_config
from mmvlr.engine.building import FaceRunner
from mmvlr.registry import HOOKS, RUNNERS

pytestmark = pytest.mark.slow


@HOOKS.register_module(force=True)
class SlowSetUpHook(Hook):
    def before_train_epoch(self, runner):
        time.sleep(2)


@pytest.fixture(scope='module')
def told(project, config_file, tool):
    """Console and log file of a short training with a slow set-up."""
    folder, console = project / 'console', io.StringIO()
    slow = project / 'slow.py'
    slow.write_text(
        f'_base_ = {config_file!r}\n'
        "custom_hooks = [*_base_.custom_hooks, dict(type='SlowSetUpHook')]\n"
    )
    argv = [str(slow), '--work-dir', str(folder), '--max-iters', '2']
    with contextlib.redirect_stdout(console):
        assert tool('train.py').main(argv) == 0
    (log,) = folder.glob('*/*.log')
    return console.getvalue(), log.read_text()


def test_console_is_short_and_the_file_has_all(told):
    console, log = told
    before = console[: console.index('[1/2]')].splitlines()
    assert len(before) < 25
    assert all('mmengine - ' in line for line in before[:-1])
    assert 'will be deprecated' not in console
    for name in ('System environment', 'Config:', 'Hooks will be executed', 'SlowSetUpHook'):
        assert name in log and name not in console
    # Each is said once, although data sets are built several times.
    texts = [line.split(' - ', 3)[-1] for line in before]
    assert len(set(texts)) == len(texts)
    summary = ''.join(before)
    assert all(name in summary for name in ('RIFace', 'MobileFaceNet', '36 images', '6 people'))
    assert 'measuring the prototypes: 36 images' in summary


def test_set_up_is_no_data_time(told):
    times = [float(each) for each in re.findall(r'data_time: ([\d.]+)', told[0])]
    assert times and max(times) < 1.5


@pytest.mark.parametrize('build', [FaceRunner.from_cfg, RUNNERS.build])
def test_a_tool_of_the_family_builds_the_runner(build, project, config_file):
    """No num_classes in the config: the training set says it, and the config stays."""
    config = load_config(config_file)
    config.work_dir = str(project / 'family')
    runner = build(config)
    assert isinstance(runner, FaceRunner) and runner.model.head.num_classes == 6
    assert 'num_classes' not in config.model.head


def test_mmengines_own_runner_names_the_way(project, config_file):
    config = load_config(config_file)
    config.work_dir = str(project / 'plain')
    with pytest.raises(ValueError, match=r'num_classes.*build_trainer'):
        Runner.from_cfg(config)
