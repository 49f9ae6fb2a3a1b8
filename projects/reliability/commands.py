"""The commands that are broken, what they read, and what they write when nothing breaks them."""

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mmvlr  # noqa: F401  # isort: skip

import numpy as np
import torch
from PIL import Image
from sandbox import differences, digest, find_leftovers, fork, isolate, snapshot, wait

from mmvlr.apis import load_config
from mmvlr.cli import main as call_mmvlr
from mmvlr.datasets.synthesis import synthesize_face
from mmvlr.utils.outputs import NOTES_FILE

#: What a user may have put into a folder: names like those of mmvlr, and others.
FOREIGN = ('thesis.tex', '.mmvlr-notes', '.x.abcdefgh.png', 'epoch_last.pth', 'gallery.json.bak')
SMALL = {
    'train_dataloader.dataset': dict(num_people=6, images_per_person=6),
    'train_dataloader.batch_size': 9,
    'val_dataloader.dataset.dataset': dict(num_people=6, images_per_person=6),
    'test_dataloader.dataset': dict(
        num_people=8, images_per_person=4, num_distractors=10, num_ui=8, first_person=20
    ),
    'custom_hooks.0.dataloader.dataset.num_images': 8,
    'custom_hooks.0.diversion_begin': 1,
    'custom_hooks.1.dataloader.dataset': dict(num_people=6, images_per_person=6),
    'custom_hooks.1.degraded_dataloader.dataset': dict(num_people=6, images_per_person=6),
    'train_cfg': dict(max_epochs=3, val_interval=1),
}


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        words: How it is called.
        again: What the second run adds.
        result: Which of its files are its result.
        start: The folder that it changes.
        empty: It wants an empty folder the first time.
    """

    words: str
    again: str = ''
    result: str = '**/*'
    start: str = ''
    empty: bool = False


COMMANDS = {
    'train': Command('train {base}/tiny.py --work-dir {out}', '--resume', '*.pth'),
    'pack': Command('pack {base}/people {out}/a.pack'),
    'align': Command('align {base}/people {out}', empty=True),
    'build-ui-set': Command(
        'build-ui-set {base}/persons {out} --layout folder --max-size 64 --max-correlation 1.1',
        empty=True,
    ),
    'degrade': Command('degrade {base}/people {out} --preset tinyface', empty=True),
    'enroll': Command('enroll {out} {base}/people --model {model} --device cpu', start='gallery'),
    'embed': Command('embed {base}/people --out {out}/a.npz --model {model} --device cpu'),
    'test --cache': Command(
        'test {base}/tiny.py {model} --work-dir {out}/logs --cache {out}/cache --out {out}/a.json',
        result='a.json',
    ),
    'reproduce': Command(
        'reproduce --data synthetic --methods tiny={base}/tiny.py --seeds 0 --epochs 2 '
        '--ablation none --out {out}',
        result='scores.csv',
    ),
}
SECOND = 'second run'


class Commands:
    """The commands, what they read, and what they write unbroken."""

    def __init__(self, work: Path, kills: int, seed: int = 0):
        self.work, self.kills, self.random = work, kills, random.Random(seed)
        self.base = work / 'base'
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, str]] = {}

    # Inputs ---------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Write images and a config."""
        isolate(self._write_inputs, self.work)

    def make_model(self) -> None:
        """Train a model that tells faces apart, and enroll people with it."""
        if not self.model.is_file():
            self._call('train {base}/tiny.py --work-dir {base}/run', self.base)
            isolate(self._write_model, self.work)
            self._call('enroll {base}/gallery {base}/others --model {model}', self.base)

    def _write_inputs(self) -> None:
        for person in range(12):
            for image in range(4):
                self._face(f'people/p{person}/{image}.png', person, image)
                self._face(f'others/o{person}/{image}.png', 100 + person, image)
        rng = np.random.default_rng(0)
        for track in range(12):
            # A person in front of a wall, with a face of 40 pixels that MTCNN can find.
            canvas = rng.normal(120, 3, (256, 128, 3)).clip(0, 255).astype(np.uint8)
            face = Image.fromarray(synthesize_face(track, 0, seed=0).image).resize((48, 48))
            canvas[20:68, 40:88] = np.asarray(face)
            path = self.base / f'persons/{track}/0.png'
            path.parent.mkdir(parents=True)
            Image.fromarray(canvas).save(path)
        options = {}
        for key, value in SMALL.items():
            nested = value.items() if isinstance(value, dict) else [(None, value)]
            options |= {f'{key}.{name}' if name else key: each for name, each in nested}
        load_config('demo/riface_synthetic', options).dump(str(self.base / 'tiny.py'))

    def _write_model(self) -> None:
        # To a network of twelve steps all faces look the same, and mmvlr refuses it.
        content = torch.load(self.base / 'run' / 'epoch_3.pth', weights_only=False)
        for name, value in content['state_dict'].items():
            if name.startswith('backbone') and name.endswith(('weight', 'bias')):
                value.add_(0.3 * torch.randn(value.shape, generator=torch.manual_seed(0)))
        torch.save(content, self.model)

    def _face(self, name: str, person: int, image: int) -> None:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(synthesize_face(person, image, seed=0).image).save(path)

    @property
    def model(self) -> Path:
        """The model that commands use."""
        return self.base / 'model.pth'

    # Runs -----------------------------------------------------------------------------------------

    def start(self, words: str, out: Path, patch: Callable[[], Any] | None = None) -> int:
        """Run a command in a forked process; return its id."""
        argv = [w.format(base=self.base, out=out, model=self.model) for w in words.split()]
        return fork(lambda: call_mmvlr(argv), self.log(out), patch)

    def log(self, out: Path) -> Path:
        """What the last command that writes to a folder has said."""
        return self.work / f'{out.name}.log'

    def _call(self, words: str, out: Path, patch: Callable[[], Any] | None = None) -> None:
        code = wait(self.start(words, out, patch))
        if code:
            raise RuntimeError(f'{words} ended with code {code}, see {self.log(out)}')

    def new(self, command: Command, out: Path | None = None) -> Path:
        """Make a folder to write to."""
        out = out or Path(tempfile.mkdtemp(prefix='try-', dir=self.work))
        if '{model}' in command.words:
            self.make_model()
        if command.start:
            shutil.copytree(self.base / command.start, out, dirs_exist_ok=True)
        return out

    def run_unbroken(self, name: str) -> None:
        """Find out what a command writes, and how long it takes."""
        command, results = COMMANDS[name], []
        for _ in range(2):
            out, begun = self.new(command), time.monotonic()
            self._call(command.words, out)
            self.seconds[name] = time.monotonic() - begun
            results.append(self.read(command, out))
            shutil.rmtree(out)
        if results[0] != results[1] or not results[0]:
            raise RuntimeError(f'{name}: two unbroken runs differ: {differences(*results)}')
        self.expected[name] = results[0]

    def read(self, command: Command, out: Path) -> dict[str, str]:
        """Return name -> digest of the content of a command's result."""
        paths = [path for path in out.glob(command.result) if path.is_file()]
        names = {path: str(path.relative_to(out)) for path in paths if path.name[0] != '.'}
        return {name: digest(path) for path, name in names.items() if name not in FOREIGN}

    def check_second_run(self, name: str, out: Path, patch: Any = None) -> list[str]:
        """Add files of a user's, run a command once more; return what is wrong."""
        command = COMMANDS[name]
        inputs = snapshot(self.base)
        # Until they have written something these refuse a folder with files of others in it.
        notes = out / NOTES_FILE
        allowed = not command.empty or (notes.is_file() and notes.read_text().count('\n') > 1)
        foreign = {file: f'mine: {file}' for file in FOREIGN if allowed}
        for file, text in foreign.items():
            (out / file).write_text(text)
        code = wait(self.start(f'{command.words} {command.again}', out, patch))
        wrong = [f'{SECOND} ended with {code}'] if code else []
        wrong += [f'{name} changed' for name in differences(inputs, snapshot(self.base))]
        wrong += [f'{f} changed' for f, text in foreign.items() if (out / f).read_text() != text]
        found = self.read(command, out)
        wrong += [f'{file} differs' for file in differences(self.expected[name], found)]
        return wrong + [f'{file} is left' for file in find_leftovers(out)]
