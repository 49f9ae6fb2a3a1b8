"""Plan an experiment: which methods are trained on which data with which seeds, and scored.

Each training has its own folder whose name holds a digest of everything that determines its
outcome: config, seed, the starting weights' content, the source of mmvlr and of the modules that
the config names, and names, sizes and times of the images. No training is ever overwritten: another
budget or another loss gives another folder, and finished trainings are kept.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmvlr.engine.building import load_config
from mmvlr.engine.sources import digest_images, digest_sources, make_plain
from mmvlr.structures.face_table import VERSION as TABLE_VERSION
from mmvlr.utils.config_keys import check_options
from mmvlr.utils.io import sha256_of
from mmvlr.utils.schema import FileModel, Text, read_json
from mmvlr.version import __version__

#: The method that is not trained: the starting weights as they are.
PRETRAINED = 'pretrained'
_WITHOUT_PAM = {'model.attention': None, 'optim_wrapper.paramwise_cfg.rates.attention': None}
#: Rows of the ablation: (name, method, options of the training, options of the test only).
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
        training: The training; None for starting weights as they are.
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
            FileNotFoundError: It does not exist (yet).
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


class _Record(FileModel):
    """What is noted of a finished training."""

    checkpoint: Text
    seconds: float
    resumed: bool
    seed: int | None = None
    finished: Text = ''


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
        """The file that marks it as finished."""
        return self.folder / 'finished.json'

    @property
    def finished(self) -> bool:
        """Whether the last epoch is trained."""
        return self.record.is_file()

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return (self.folder / 'last_checkpoint').is_file()

    def facts(self) -> dict[str, Any]:
        """Return the content of the record: checkpoint, seconds, date.

        Raises:
            FileFormatError: It is damaged.
        """
        remedy = 'remove it, and the training goes on from its last checkpoint'
        return read_json(self.record, _Record, remedy).model_dump()

    def checkpoint(self) -> Path:
        """Return the checkpoint of the last epoch.

        Raises:
            FileNotFoundError: The training is not finished.
        """
        if not self.finished:
            raise FileNotFoundError(f'{self.folder} holds no finished training')
        return self.folder / self.facts()['checkpoint']


def find_method_config(method: str, backbone: str, data: str, configs: Path) -> tuple[str, Path]:
    """Return a method's name and its config for a data set.

    Args:
        method: Name of a folder of ``configs``; or another folder that holds
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


def plan_runs(
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
        methods: See :func:`find_method_config`; ``'pretrained'`` is the starting weights as they
            are.
        seeds: Seeds.
        out: Output folder.
        configs: mmvlr's configs.
        backbone: Backbone, as in the names of the config files.
        ablation: Data sets for which the parts of RI-Face are switched off one by one.
        also_test: Data sets on whose test sets every training is scored too, including those of
            ``configs/_base_/datasets`` without a training set, such as ``cfp``.
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
    known_images: dict[str, str] = {}
    loaded: dict[Path, Config] = {}

    def load(path: Path, *changes: Mapping[str, Any]) -> Config:
        # Cached, as reading a file and all it inherits takes most of the time here.
        if path not in loaded:
            loaded[path] = load_config(path)
        config = Config(loaded[path].to_dict(), filename=loaded[path].filename)
        for change in changes:
            check_options(config, change, loaded[path].text)
            config.merge_from_dict(dict(change))
        return config

    def load_test(method: str, other: str) -> Config:
        # A data set without training people has no method's config, only its own.
        path = configs / '_base_' / 'datasets' / f'{other}.py'
        if path.is_file() and not list(configs.glob(f'[!_]*/{backbone}_{other}.py')):
            return load(path)
        return load(find_method_config(method, backbone, other, configs)[1], options or {})

    for dataset, shown, group, method, changes, test_changes in wanted:
        source = 'arcface' if method == PRETRAINED else method
        name, path = find_method_config(source, backbone, dataset, configs)
        if group == 'method':
            shown = PRETRAINED if method == PRETRAINED else name
        config = load(path, options or {}, changes)
        if epochs is not None:
            config.train_cfg.max_epochs = epochs
        # The last epoch is tested, so validation, which would select a checkpoint, is skipped.
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
                its = load_test(source, other)
                test.test_dataloader, test.test_evaluator = its.test_dataloader, its.test_evaluator
            tests[other] = test
        where = out / 'runs' / f'{dataset}_{backbone}'
        for seed in [None] if method == PRETRAINED else seeds:
            folder, digest, training = where / PRETRAINED, start, None
            if seed is not None:
                own = Config(config.to_dict(), filename=config.filename)
                own.randomness = {**own.get('randomness', {}), 'seed': seed}
                loaders = [name for name in own if name.endswith('dataloader')]
                read = digest_images(own, sorted({*loaders} - {'test_dataloader'}), known_images)
                digest = compute_digest(own, start, read)
                folder = where / f'{name}-seed{seed}-{digest}'
                training = Training(own, seed, folder)
            for other, test in tests.items():
                read = digest_images(test, ['test_dataloader', 'ui_dataloader'], known_images)
                made = compute_digest(test, f'{digest} {TABLE_VERSION}', read)
                file = folder / f'scores-{other}-{made}.npz'
                runs.append(Run(dataset, other, shown, group, seed, training, test, file))
    keys = [(run.data, run.test, run.group, run.method, run.seed) for run in runs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f'two methods are called {key[3]!r}; call one of them NAME=file.py')
    return runs


def compute_digest(config: Config, start: str, images: Mapping[str, str]) -> str:
    """Return eight hexadecimal digits for what determines a run.

    Args:
        config: Config of the training or test.
        start: Digest of the weights that it starts from.
        images: Digests of the images that it reads, by data loader.
    """
    content = {k: v for k, v in config.to_dict().items() if k not in ('work_dir', 'launcher')}
    facts = [make_plain(content), start, __version__, digest_sources(config), dict(images)]
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
