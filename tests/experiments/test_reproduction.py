"""The plan of a comparison and its execution, with scripts in place of train.py and score.py."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmvlr.experiments import (
    ABLATION,
    PRETRAINED,
    Executor,
    estimate_seconds,
    find_method_config,
    plan_runs,
)
from mmvlr.utils.locks import LOCK_FILE
from mmvlr.utils.schema import FileFormatError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
model = dict(type='FaceRecognizer', margin={margin})
train_dataloader = dict(dataset=dict(type='FaceFolder', data_root={faces!r}))
test_dataloader = dict(dataset=dict(type={data!r}, data_root='absent'))
test_evaluator = dict(type='TinyFaceMetric')
load_from = {weights!r}
"""
TYPES = dict(tinyface='TinyFace', scface='SCface')
# A training writes how often and how it was called; one of a work dir with 'slow' in its name waits
# for a file beside it, and one with 'broken' fails.
TRAIN = """
import os, sys, time
from pathlib import Path
folder = Path(sys.argv[sys.argv.index('--work-dir') + 1])
with open(folder / 'pids', 'a') as file:
    print(os.getpid(), file=file)
with open(folder / 'calls', 'a') as file:
    print(*sys.argv[1:], file=file)
(folder / 'epoch_1.pth').write_text('half')
(folder / 'last_checkpoint').write_text('epoch_1.pth')
while 'slow' in folder.name and not (folder.parents[3] / 'go').exists():
    time.sleep(0.02)
if 'broken' in folder.name:
    print('the reason of the failure')
    sys.exit(3)
(folder / 'epoch_2.pth').write_text('whole')
"""
SCORE = """
import sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index('--out') + 1])
out.write_text(sys.argv[2])
"""
DRIVER = """
import sys
from pathlib import Path
from mmvlr.experiments import Executor, plan_runs
here = Path(sys.argv[1])
runs = plan_runs(['tinyface'], sys.argv[2].split(','), [0], here / 'out', here / 'configs')
Executor(1, program=[sys.executable, str(here / 'program.py')]).execute(runs)
"""


#: Stands for mmvlr: the first argument names the script beside it.
PROGRAM = """
import runpy
import sys
from pathlib import Path

del sys.argv[0]
sys.argv[0] = str(Path(__file__).with_name(sys.argv[0] + '.py'))
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture
def here(tmp_path):
    (tmp_path / 'weights.pth').write_text('start')
    for method in ('arcface', 'softmax', 'slow', 'broken', 'riface'):
        for data in ('tinyface', 'scface'):
            path = tmp_path / 'configs' / method / f'mobilefacenet_{data}.py'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(write_config(tmp_path, data))
    for person in 'ab':
        (tmp_path / 'faces' / person).mkdir(parents=True)
        write_face(tmp_path / 'faces' / person / '0.png', 3)
    (tmp_path / 'train.py').write_text(TRAIN)
    (tmp_path / 'score.py').write_text(SCORE)
    (tmp_path / 'program.py').write_text(PROGRAM)
    yield tmp_path
    # Nothing waits behind a test that failed.
    (tmp_path / 'go').write_text('')


def write_face(path, level):
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


def write_config(here, data='tinyface', margin=0.4):
    weights, faces = str(here / 'weights.pth'), str(here / 'faces')
    return CONFIG.format(margin=margin, data=TYPES[data], weights=weights, faces=faces)


def executor_of(here, *arguments):
    return Executor(*arguments, program=[sys.executable, str(here / 'program.py')])


def plan_of(here, methods, seeds=(0,), data=('tinyface',), **options):
    return plan_runs(data, methods, seeds, here / 'out', here / 'configs', **options)


def calls(run):
    return (run.training.folder / 'calls').read_text().splitlines()


def test_plan_lists_every_method_data_set_and_seed(here):
    runs = plan_of(here, ['arcface', 'softmax'], (0, 3), ('tinyface', 'scface'))
    assert {(run.method, run.data, run.test, run.seed) for run in runs} == {
        (method, data, data, seed)
        for method in ('arcface', 'softmax')
        for data in ('tinyface', 'scface')
        for seed in (0, 3)
    }
    assert len({run.training.folder for run in runs}) == len(runs) == 8
    # Seed, budget and no choice by validation stand in the config itself.
    run = runs[1]
    assert run.training.config.randomness.seed == run.seed == 3
    assert run.training.config.train_cfg.val_interval == 2
    assert not any(run.finished for run in runs)


def test_a_training_is_scored_on_other_test_sets_too(here):
    runs = plan_of(here, ['arcface'], data=('tinyface',), also_test=['scface', 'tinyface'])
    assert [(run.data, run.test) for run in runs] == [
        ('tinyface', 'tinyface'),
        ('tinyface', 'scface'),
    ]
    assert runs[0].training.folder == runs[1].training.folder
    assert runs[0].scores != runs[1].scores
    assert [run.config.test_dataloader.dataset.type for run in runs] == ['TinyFace', 'SCface']
    assert runs[1].training.config.test_dataloader.dataset.type == 'TinyFace'


@pytest.mark.parametrize(
    'change',
    [
        dict(epochs=1),
        dict(options={'model.margin': 0.5}),
        dict(seeds=(1,)),
        'weights',
        'config',
        'image',
        'more images',
        'source',
    ],
)
def test_whatever_changes_the_outcome_changes_the_folder(here, change, monkeypatch):
    before = plan_of(here, ['arcface'])[0]
    again = plan_of(here, ['arcface'])[0]
    assert before.training.folder == again.training.folder and before.scores == again.scores
    if change == 'weights':
        (here / 'weights.pth').write_text('others')
    elif change == 'config':
        path = here / 'configs' / 'arcface' / 'mobilefacenet_tinyface.py'
        path.write_text(path.read_text().replace('0.4', '0.41'))
    elif change == 'image':
        write_face(here / 'faces' / 'a' / '0.png', 4)
    elif change == 'more images':
        write_face(here / 'faces' / 'b' / '1.png', 3)
    elif change == 'source':
        monkeypatch.setattr('mmvlr.engine.sources.find_own_sources', dict)
    after = plan_of(here, ['arcface'], **(change if isinstance(change, dict) else {}))[0]
    assert after.training.folder != before.training.folder


def test_an_edited_loss_trains_again(here, monkeypatch):
    """A loss of one's own, and a module beside it that it imports: one character each."""
    monkeypatch.syspath_prepend(here)
    loss, helper = here / 'own_loss.py', here / 'own_helper.py'
    loss.write_text('from own_helper import SCALE\nMARGIN = 0.4\n')
    helper.write_text('SCALE = 64\n')
    path = here / 'configs' / 'arcface' / 'mobilefacenet_tinyface.py'
    path.write_text(path.read_text() + "custom_imports = dict(imports=['own_loss'])\n")
    runs = plan_of(here, ['arcface'])
    assert executor_of(here).execute(runs) == []
    assert plan_of(here, ['arcface'])[0].finished
    for file, old, new in ((loss, '0.4', '0.5'), (helper, '64', '65')):
        text = file.read_text()
        file.write_text(text.replace(old, new))
        changed = plan_of(here, ['arcface'])
        assert not changed[0].training.finished and not changed[0].finished
        assert executor_of(here).execute(changed) == []
        assert calls(changed[0]) and changed[0].finished
        file.write_text(text)
    assert plan_of(here, ['arcface'])[0].training.folder == runs[0].training.folder


def test_pretrained_is_not_trained(here):
    (run,) = plan_of(here, [PRETRAINED], (0, 1))
    assert run.training is None and run.seed is None
    assert run.checkpoint() == here / 'weights.pth'
    assert executor_of(here).execute([run]) == []
    assert run.scores.read_text() == str(here / 'weights.pth')
    (here / 'weights.pth').unlink()
    with pytest.raises(FileNotFoundError, match=r'weights.pth.*PRETRAINED'):
        run.checkpoint()


def test_config_of(here):
    configs = here / 'configs'
    own = here / 'mine'
    own.mkdir()
    (own / 'mobilefacenet_tinyface.py').write_text('')
    assert find_method_config('softmax', 'mobilefacenet', 'tinyface', configs) == (
        'softmax',
        configs / 'softmax' / 'mobilefacenet_tinyface.py',
    )
    assert find_method_config(str(own), 'mobilefacenet', 'tinyface', configs) == (
        'mine',
        own / 'mobilefacenet_tinyface.py',
    )
    file = own / 'mobilefacenet_tinyface.py'
    assert find_method_config(f'better={file}', 'r50', 'scface', configs) == ('better', file)
    with pytest.raises(FileNotFoundError, match=r"'nonsense'.*arcface, broken, riface, slow, soft"):
        find_method_config('nonsense', 'mobilefacenet', 'tinyface', configs)


def test_two_methods_of_one_name_are_refused(here):
    own = here / 'softmax'
    own.mkdir()
    (own / 'mobilefacenet_tinyface.py').write_text(write_config(here, margin=1))
    with pytest.raises(ValueError, match="two methods are called 'softmax'"):
        plan_of(here, ['softmax', str(own)])


@pytest.mark.parametrize('data', ['tinyface', 'scface', 'survface'])
def test_rows_of_the_ablation_change_the_real_config(data, tmp_path):
    runs = plan_runs([data], ['riface'], [0], tmp_path, ROOT / 'configs', ablation=[data])
    rows = {run.method: run for run in runs if run.group == 'ablation'}
    assert list(rows) == [name for name, *_ in ABLATION]
    full = rows['+ PAM (RI-Face)']
    assert full.training.folder == runs[0].training.folder
    folders = {run.training.folder for run in rows.values()}
    only_tested = [name for name, _, _, test in ABLATION if test]
    assert len(only_tested) == 2
    assert len(folders) == len(ABLATION) - len(only_tested)
    # Of a shared training, what is tested differs.
    assert len({run.scores for run in rows.values()}) == len(ABLATION)
    assert rows['+ PRM'].training.config.model.loss_diversion is None
    assert rows['tau = 3'].training.config.model.loss_diversion.tau == 3
    assert rows['embedding of PAM'].config.model.inference_embedding == 'attention'


def test_executes_each_training_once_and_is_done(here):
    runs = plan_of(here, ['arcface', 'softmax'], (0, 1), also_test=['scface'])
    seen = []
    executor = executor_of(here, 2, lambda run, state: seen.append((run, state)))
    assert executor.execute(runs) == []
    assert all(run.finished for run in runs)
    assert [len(calls(run)) for run in runs] == [1] * len(runs)
    assert '--seed 1' in calls(runs[2])[0] and '--resume' not in calls(runs[2])[0]
    assert runs[0].checkpoint().read_text() == 'whole'
    # What is scored is the last epoch, by the config that stands beside the scores.
    assert runs[0].scores.read_text() == str(runs[0].training.folder / 'epoch_2.pth')
    assert runs[0].scores.with_suffix('.py').is_file()
    assert sum(state == 'trains' for _, state in seen) == 4
    assert sum(state == 'finished' for _, state in seen) == 8
    seen.clear()
    assert (
        executor.execute(plan_of(here, ['arcface', 'softmax'], (0, 1), also_test=['scface'])) == []
    )
    assert seen == [] and all(len(calls(run)) == 1 for run in runs)


def test_a_failure_is_told_and_the_others_go_on(here):
    runs = plan_of(here, ['broken', 'arcface'])
    (failure,) = executor_of(here).execute(runs)
    assert failure.run is runs[0]
    assert 'train ended with code 3' in failure.message
    assert 'the reason of the failure' in failure.message
    assert not runs[0].finished and not runs[0].training.finished and runs[1].finished
    with pytest.raises(FileNotFoundError, match='no finished training'):
        runs[0].checkpoint()
    # It goes on from its checkpoint the next time.
    executor_of(here).execute(runs)
    assert '--resume' in calls(runs[0])[1]


def test_a_training_that_fails_is_tried_once_for_all_its_tests(here):
    runs = plan_of(here, ['broken', 'arcface'], also_test=['scface'])
    failures = executor_of(here).execute(runs)
    assert [failure.run for failure in failures] == runs[:2]
    assert len({failure.message for failure in failures}) == 1
    assert len(calls(runs[0])) == 1 and runs[2].finished and runs[3].finished


def test_a_training_without_its_last_epoch_is_not_finished(here):
    (here / 'train.py').write_text(TRAIN.replace('epoch_2.pth', 'epoch_7.pth'))
    runs = plan_of(here, ['arcface'])
    (failure,) = executor_of(here).execute(runs)
    assert 'no epoch_2.pth' in failure.message and not runs[0].training.finished


def wait_for(condition, seconds=120):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, 'waited in vain'
        time.sleep(0.02)


def test_the_lock_that_a_killed_executor_left_on_a_finished_run_goes(here):
    runs = plan_of(here, ['arcface'])
    executor_of(here).execute(runs)
    lock = runs[0].scores.parent / f'.run{LOCK_FILE}'
    assert runs[0].finished and not lock.exists()
    for content, left in (('mmvlr run\n', False), ('notes of mine', True)):
        lock.write_text(content)
        assert executor_of(here).execute(runs) == []
        assert lock.exists() == left
    # Its last process has written the result, and has not ended yet.
    lock.write_text('mmvlr run\n')
    held = 'import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX);'
    with subprocess.Popen(
        [sys.executable, '-c', f'{held} print(flush=True); time.sleep(1)', str(lock)],
        stdout=subprocess.PIPE,
    ) as process:
        process.stdout.readline()
        executor_of(here).execute(runs)
    assert not lock.exists() and len(calls(runs[0])) == 1


@pytest.mark.slow
@pytest.mark.parametrize('orphan', [True, False], ids=['child lives on', 'child dies too'])
def test_killed_and_started_again_loses_no_finished_run(here, orphan):
    methods = 'arcface,slow,softmax'
    command = [sys.executable, '-c', DRIVER, str(here), methods]
    # A group of its own, so that the child can be killed along or spared.
    process = subprocess.Popen(command, preexec_fn=os.setpgrp)
    first, slow, last = plan_of(here, methods.split(','))
    wait_for(lambda: (slow.training.folder / 'last_checkpoint').is_file())
    if orphan:
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert first.finished and not slow.training.finished and not last.training.begun
    kept = {path: path.stat().st_mtime_ns for path in first.training.folder.iterdir()}

    again = subprocess.Popen(command, preexec_fn=os.setpgrp)
    if orphan:
        # The child still holds the folder: a second training of it must not begin.
        time.sleep(3)
        assert len(calls(slow)) == 1
    (here / 'go').write_text('')
    assert again.wait(300) == 0
    assert all(run.finished for run in (first, slow, last))
    assert len(calls(first)) == len(calls(last)) == 1
    assert len(calls(slow)) == 2 and '--resume' in calls(slow)[1]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_estimate_seconds(here):
    runs = plan_of(here, ['arcface', 'softmax', 'slow'], (0, 1), ('tinyface', 'scface'))
    assert estimate_seconds(runs, 2) == (0, ['tinyface', 'scface'])

    def finish(run, seconds, resumed=False):
        run.training.folder.mkdir(parents=True)
        facts = dict(checkpoint='epoch_2.pth', seconds=seconds, resumed=resumed)
        run.training.record.write_text(json.dumps(facts))

    tiny = [run for run in runs if run.data == 'tinyface']
    finish(tiny[0], 100)
    finish(tiny[1], 200)
    # Of a resumed one only the last part is known.
    finish(tiny[2], 1, resumed=True)
    assert estimate_seconds(runs, 2) == (3 * 150 / 2, ['scface'])


@pytest.mark.parametrize('content', ['{', '[]', '{"checkpoint": 3}', '{"checkpoint": "a.pth"}'])
def test_damaged_record_is_named(here, content):
    (run,) = plan_of(here, ['arcface'])
    run.training.folder.mkdir(parents=True)
    run.training.record.write_text(content)
    with pytest.raises(FileFormatError, match=re.escape(str(run.training.record))):
        run.training.facts()
