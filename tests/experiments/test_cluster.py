"""Runs of a comparison as jobs, on this machine in place of a cluster."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from mmvlr.experiments import ClusterExecutor
from mmvlr.utils.jobs import Command

from .test_reproduction import calls, here, plan_of  # noqa: F401 - a fixture

pytest.importorskip('submitit')


def executor_for(here, **options):  # noqa: F811
    program = [sys.executable, str(here / 'program.py')]
    return ClusterExecutor(here / 'out' / 'jobs', 'local', program=program, **options)


def wait_for(ready):
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_runs_are_finished_and_a_failure_is_reported(here):  # noqa: F811
    runs = plan_of(here, ['arcface', 'broken'])
    failures = executor_for(here, jobs=2).execute(runs)
    assert [run.finished for run in runs] == [True, False]
    assert len(calls(runs[0])) == 1
    (failure,) = failures
    assert failure.run is runs[1]
    assert 'the reason of the failure' in failure.message
    assert not list((here / 'out' / 'runs').rglob('*.job'))


def test_a_job_that_is_killed_is_queued_again_and_resumes(here):  # noqa: F811
    (run,) = plan_of(here, ['slow'])
    executor, failures = executor_for(here), []
    worker = threading.Thread(target=lambda: failures.extend(executor.execute([run])))
    worker.start()
    pids = run.training.folder / 'pids'
    wait_for(pids.is_file)
    wait_for(pids.read_text)
    os.kill(int(pids.read_text().split()[0]), signal.SIGKILL)
    wait_for(lambda: len(pids.read_text().split()) == 2)
    (here / 'go').write_text('')
    worker.join(60)
    assert run.finished
    assert not failures
    first, second = calls(run)
    assert '--resume' not in first
    assert '--resume' in second


def test_the_next_executor_waits_for_the_jobs_of_one_that_is_gone(here):  # noqa: F811
    (run,) = plan_of(here, ['slow'])
    gone = executor_for(here)
    worker = threading.Thread(target=lambda: gone.execute([run]), daemon=True)
    worker.start()
    note = run.training.folder / 'train.job'
    wait_for(note.is_file)
    gone._stopping = True
    worker.join(60)
    assert json.loads(note.read_text())['job'].isdecimal()
    threading.Timer(0.5, lambda: (here / 'go').write_text('')).start()
    assert not executor_for(here).execute([run])
    assert run.finished
    assert len(calls(run)) == 1


def test_a_job_gives_up_its_machine(tmp_path):
    script = 'import time; print("begun", flush=True); time.sleep(60)'
    command = Command([sys.executable, '-c', script], tmp_path / 'log', None)
    codes = []
    worker = threading.Thread(target=lambda: codes.append(command()))
    worker.start()
    wait_for(lambda: (tmp_path / 'log').is_file() and (tmp_path / 'log').read_text())
    again = command.checkpoint()
    worker.join(60)
    assert codes == [-signal.SIGTERM]
    assert again.function.words == command.words


@pytest.mark.parametrize(
    ('cluster', 'options'), [('nonsense', {}), ('local', dict(nodes=2))], ids=['cluster', 'option']
)
def test_wrong_options(tmp_path, cluster, options):
    with pytest.raises(ValueError, match='cluster'):
        ClusterExecutor(tmp_path, cluster, options)


def test_without_submitit(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'submitit', None)
    with pytest.raises(ImportError, match=r'mmvlr\[cluster\]'):
        ClusterExecutor(tmp_path)
