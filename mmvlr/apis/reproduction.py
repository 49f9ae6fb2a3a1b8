"""Train and score many methods with the same budget, resumably: the plan and who carries it out.

Each training has a folder of its own whose name holds a digest of everything that determines its
outcome: config, seed, the starting weights' content and mmvlr's version. Nothing is ever trained
over: another budget gives another folder, and what is finished stays finished.
"""

import fcntl
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmvlr.utils.io import sha256_of, write_atomic
from mmvlr.utils.threads import CHOSEN, count_cores
from mmvlr.version import __version__

from .evaluation import plain
from .runner import load_config

#: The method that is not trained: the starting weights as they are.
PRETRAINED = 'pretrained'
_WITHOUT_PAM = {'model.attention': None, 'optim_wrapper.paramwise_cfg.rates.attention': None}
#: What the ablation's rows change: (name, method, options of training, options of the test only).
ABLATION: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ('RM (ArcFace)', 'arcface', {}, {}),
    ('+ PRM', 'riface', {'model.loss_diversion': None, **_WITHOUT_PAM}, {}),
    ('+ index diversion', 'riface', _WITHOUT_PAM, {}),
    ('+ PAM (RI-Face)', 'riface', {}, {}),
    ('tau = 1', 'riface', {'model.loss_diversion.tau': 1.0}, {}),
    ('tau = 3', 'riface', {'model.loss_diversion.tau': 3.0}, {}),
    ('xi instead of log xi', 'riface', {'model.recognizability.log': False}, {}),
    ('xi without d_ui', 'riface', {'model.recognizability.factors': ['d_p', 'd_n']}, {}),
    ('xi without d_n', 'riface', {'model.recognizability.factors': ['d_p', 'd_ui']}, {}),
    ('xi without d_p', 'riface', {'model.recognizability.factors': ['d_n', 'd_ui']}, {}),
    (
        'index losses move PRM only',
        'riface',
        {'model.regression_moves_backbone': False, 'model.diversion_moves_backbone': False},
        {},
    ),
    ('embedding of PAM', 'riface', {}, {'model.inference_embedding': 'attention'}),
    ('embedding of both', 'riface', {}, {'model.inference_embedding': 'sum'}),
)


@dataclass(frozen=True, eq=False)
class Run:
    """A method, trained on a data set from a seed and scored on its test set.

    Attributes:
        data: Name of the data set that it is trained on.
        test: Name of the data set whose test set is scored.
        method: Name in the report.
        group: ``'method'`` or ``'ablation'``.
        seed: The seed; None for starting weights as they are.
        training: What it trains; None for starting weights as they are.
        config: Config of the test.
        scores: File of the scored faces.
    """

    data: str
    test: str
    method: str
    group: str
    seed: int | None
    training: 'Training | None'
    config: Config = field(repr=False)
    scores: Path

    @property
    def finished(self) -> bool:
        """Whether its faces are scored."""
        return self.scores.is_file()

    def checkpoint(self) -> Path:
        """Return the checkpoint to test.

        Raises:
            FileNotFoundError: It is not there (yet).
        """
        if self.training is not None:
            return self.training.checkpoint()
        path = Path(self.config.load_from or '')
        if not path.is_file():
            raise FileNotFoundError(
                f'the starting weights {path} of {self.config.filename} do not exist; say where '
                'they are by the environment variable PRETRAINED'
            )
        return path


@dataclass(frozen=True, eq=False)
class Training:
    """One training: several runs may share it.

    Attributes:
        config: Its config.
        seed: Its seed.
        folder: Its work dir.
    """

    config: Config = field(repr=False)
    seed: int
    folder: Path

    @property
    def record(self) -> Path:
        """The file that says it is finished."""
        return self.folder / 'finished.json'

    @property
    def finished(self) -> bool:
        """Whether the last epoch is trained."""
        return self.record.is_file()

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.folder / 'last_checkpoint').is_file()

    def facts(self) -> dict[str, Any]:
        """Return what the record says: checkpoint, seconds, date."""
        return json.loads(self.record.read_text(encoding='utf-8'))

    def checkpoint(self) -> Path:
        """Return the checkpoint of the last epoch.

        Raises:
            FileNotFoundError: The training is not finished.
        """
        if not self.finished:
            raise FileNotFoundError(f'{self.folder} holds no finished training')
        return self.folder / self.facts()['checkpoint']


def config_of(method: str, backbone: str, data: str, configs: Path) -> tuple[str, Path]:
    """Return a method's name and its config for a data set.

    Args:
        method: Name of a folder of ``configs``; or a folder of the user's that holds
            ``{backbone}_{data}.py``; or ``NAME=file.py``, one config file.
        backbone: Such as ``mobilefacenet``.
        data: Such as ``tinyface``.
        configs: mmvlr's configs.

    Raises:
        FileNotFoundError: There is no such config.
    """
    name, _, file = method.rpartition('=')
    if name:
        path = Path(file)
    else:
        known = configs / method
        folder = known if known.is_dir() else Path(method)
        name, path = folder.name, folder / f'{backbone}_{data}.py'
    if not path.is_file():
        methods = sorted(p.parent.name for p in configs.glob(f'[!_]*/{backbone}_{data}.py'))
        raise FileNotFoundError(
            f'method {method!r} has no config {path}; there are {", ".join(methods) or "none"} for '
            f'{backbone} on {data}, a folder of your own with {backbone}_{data}.py, or NAME=file.py'
        )
    return name, path


def plan(
    data: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    configs: Path,
    backbone: str = 'mobilefacenet',
    ablation: Sequence[str] = (),
    also_test: Sequence[str] = (),
    epochs: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Run]:
    """Return every run of a comparison, finished or not.

    Args:
        data: Data sets.
        methods: See :func:`config_of`; ``'pretrained'`` is the starting weights as they are.
        seeds: Seeds.
        out: Folder of everything.
        configs: mmvlr's configs.
        backbone: Backbone, as the config files are named by it.
        ablation: Data sets for which the parts of RI-Face are switched off one by one.
        also_test: Data sets on whose test sets every training is scored, beside its own.
        epochs: Epochs of every training, instead of the config's own.
        options: Entries of all configs to override.

    Raises:
        FileNotFoundError: A config is missing.
        ValueError: Two methods have the same name.
    """
    wanted = [(dataset, method, 'method', method, {}, {}) for dataset in data for method in methods]
    wanted += [
        (dataset, name, 'ablation', *rest) for dataset in ablation for name, *rest in ABLATION
    ]
    runs = []
    digests: dict[str, str] = {}
    loaded: dict[Path, Config] = {}

    def load(path: Path, *changes: Mapping[str, Any]) -> Config:
        # Reading a file and all it inherits takes longer than everything else here.
        if path not in loaded:
            loaded[path] = load_config(path)
        config = Config(loaded[path].to_dict(), filename=loaded[path].filename)
        for change in changes:
            config.merge_from_dict(dict(change))
        return config

    for dataset, shown, group, method, changes, test_changes in wanted:
        source = 'arcface' if method == PRETRAINED else method
        name, path = config_of(source, backbone, dataset, configs)
        if group == 'method':
            shown = PRETRAINED if method == PRETRAINED else name
        config = load(path, options or {}, changes)
        if epochs is not None:
            config.train_cfg.max_epochs = epochs
        # The last epoch is tested: nothing is chosen by validation, so it is not done in between.
        config.train_cfg.val_interval = config.train_cfg.max_epochs
        config.default_hooks.checkpoint.max_keep_ckpts = 1
        config.default_hooks.checkpoint.pop('save_best', None)
        weights = config.get('load_from')
        if weights and weights not in digests:
            digests[weights] = sha256_of(weights) if Path(weights).is_file() else 'missing'
        start = digests.get(weights, 'none')
        tests = {}
        for other in dict.fromkeys([dataset, *also_test]):
            test = load(path, options or {}, changes, test_changes)
            if other != dataset:
                its = load(config_of(source, backbone, other, configs)[1], options or {})
                test.test_dataloader, test.test_evaluator = its.test_dataloader, its.test_evaluator
            tests[other] = test
        where = out / 'runs' / f'{dataset}_{backbone}'
        for seed in [None] if method == PRETRAINED else seeds:
            folder, digest, training = where / PRETRAINED, start, None
            if seed is not None:
                own = Config(config.to_dict(), filename=config.filename)
                own.randomness = {**own.get('randomness', {}), 'seed': seed}
                digest = digest_of(own, start)
                folder = where / f'{name}-seed{seed}-{digest}'
                training = Training(own, seed, folder)
            for other, test in tests.items():
                file = folder / f'scores-{other}-{digest_of(test, digest)}.npz'
                runs.append(Run(dataset, other, shown, group, seed, training, test, file))
    keys = [(run.data, run.test, run.group, run.method, run.seed) for run in runs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f'two methods are called {key[3]!r}; call one of them NAME=file.py')
    return runs


def digest_of(config: Config, start: str) -> str:
    """Return eight hexadecimal digits for what determines a run: config, start and version."""
    content = {k: v for k, v in config.to_dict().items() if k not in ('work_dir', 'launcher')}
    text = json.dumps(plain(content), sort_keys=True) + start + __version__
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, eq=False)
class Failure:
    """A run that could not be finished.

    Attributes:
        run: The run.
        message: What went wrong, with the end of its log.
    """

    run: Run
    message: str


def expected_seconds(runs: Iterable[Run], jobs: int) -> tuple[float, list[str]]:
    """Return how long what is not finished will train, as far as that can be told.

    A training takes as long as the mean of those of its data set that are finished.

    Args:
        runs: A plan.
        jobs: Runs at once.

    Returns:
        Seconds, and the data sets of which no training is finished, whose time is not in it.
    """
    trainings = {run.training.folder: run for run in runs if run.training}
    known: dict[str, list[float]] = {}
    left: dict[str, int] = {}
    for run in trainings.values():
        if not run.training.finished:
            left[run.data] = left.get(run.data, 0) + 1
        elif not run.training.facts()['resumed']:
            known.setdefault(run.data, []).append(run.training.facts()['seconds'])
    unknown = [data for data in left if data not in known]
    total = sum(
        count * sum(known[data]) / len(known[data]) for data, count in left.items() if data in known
    )
    return total / jobs, unknown


class Executor:
    """Carry out runs, several at once, each in processes of its own.

    A run that fails is reported and the others go on. A process that is left from a killed
    executor keeps the lock of its folder; the run then waits for it instead of training twice.

    Args:
        tools: Folder of ``train.py`` and ``analysis/score.py``.
        jobs: Runs at once.
        report: Called with a run and what happens to it: ``'waits'``, ``'trains'``, ``'scores'``,
            ``'finished'`` or ``'failed'``, from several threads.
    """

    def __init__(
        self, tools: Path, jobs: int = 1, report: Callable[[Run, str], None] | None = None
    ):
        self.tools = tools
        self.jobs = jobs
        self.report = report or (lambda run, state: None)
        self._children: set[subprocess.Popen] = set()
        self._stopping = False

    def execute(self, runs: Iterable[Run]) -> list[Failure]:
        """Carry out what is not finished; return what failed.

        An interrupt stops the processes and is raised again.
        """
        # Runs that share a training go one after another.
        groups: dict[Path, list[Run]] = {}
        for run in runs:
            if not run.finished:
                groups.setdefault(run.scores.parent, []).append(run)
        waiting: queue.SimpleQueue = queue.SimpleQueue()
        for group in groups.values():
            waiting.put(group)
        failures: list[Failure] = []

        def work() -> None:
            while not self._stopping:
                try:
                    group = waiting.get_nowait()
                except queue.Empty:
                    return
                cause: Exception | None = None
                for run in group:
                    try:
                        # Runs that share a training fail with it: it is not tried once for each.
                        if cause is not None and not (run.training and run.training.finished):
                            raise cause
                        self._carry_out(run)
                    except Exception as error:
                        if self._stopping:
                            return
                        if run.training and not run.training.finished:
                            cause = error
                        failures.append(Failure(run, str(error)))
                        self.report(run, 'failed')

        workers = [threading.Thread(target=work, daemon=True) for _ in range(self.jobs)]
        for worker in workers:
            worker.start()
        try:
            while any(worker.is_alive() for worker in workers):
                time.sleep(0.2)
        except BaseException:
            self._stopping = True
            for child in list(self._children):
                child.terminate()
            raise
        return failures

    def _carry_out(self, run: Run) -> None:
        folder = run.scores.parent
        folder.mkdir(parents=True, exist_ok=True)
        # The processes inherit the lock: it outlives an executor that is killed.
        with open(folder / 'lock', 'w', encoding='utf-8') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.report(run, 'waits')
                fcntl.flock(lock, fcntl.LOCK_EX)
            if run.training and not run.training.finished:
                self.report(run, 'trains')
                self._train(run.training, lock.fileno())
            if not run.finished:
                self.report(run, 'scores')
                config = write_config(run.config, run.scores.with_suffix('.py'))
                script = self.tools / 'analysis' / 'score.py'
                command = [script, config, run.checkpoint(), '--out', run.scores]
                command += ['--work-dir', folder / 'test']
                self._call(command, folder / 'score.log', lock.fileno())
        self.report(run, 'finished')

    def _train(self, training: Training, lock: int) -> None:
        config = write_config(training.config, training.folder / 'run.py')
        begun = time.time()
        command = [self.tools / 'train.py', config, '--work-dir', training.folder]
        command += ['--seed', training.seed]
        if training.begun:
            command.append('--resume')
        self._call(command, training.folder / 'train.log', lock)
        checkpoint = f'epoch_{training.config.train_cfg.max_epochs}.pth'
        if not (training.folder / checkpoint).is_file():
            raise RuntimeError(f'{training.folder} has no {checkpoint} after its training')
        facts = dict(
            checkpoint=checkpoint,
            seed=training.seed,
            seconds=round(time.time() - begun, 1),
            resumed='--resume' in command,
            finished=time.strftime('%Y-%m-%d %H:%M:%S'),
        )
        text = json.dumps(facts, indent=2) + '\n'
        write_atomic(training.record, lambda path: path.write_text(text, encoding='utf-8'))

    def _call(self, command: Sequence[Any], log: Path, lock: int) -> None:
        command = [sys.executable, *map(str, command)]
        threads = max(count_cores()[1] // self.jobs, 1)
        stated = {name: value for name, value in os.environ.items() if name not in CHOSEN}
        environment = {'OMP_NUM_THREADS': str(threads), **stated}
        with open(log, 'a', encoding='utf-8') as file:
            child = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock,),
            )
            self._children.add(child)
            try:
                code = child.wait()
            finally:
                self._children.discard(child)
        if code:
            lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
            raise RuntimeError(
                f'{Path(command[1]).name} ended with code {code}; {log} ends with:\n  '
                + '\n  '.join(lines[-5:])
            )


def write_config(config: Config, path: Path) -> Path:
    """Write a config with everything it inherits, as a file of its own."""
    return write_atomic(path, lambda file: file.write_text(config.pretty_text, encoding='utf-8'))
