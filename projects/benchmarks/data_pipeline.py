"""Time what a training loader costs: batches transformed on the device against images one by one.

Usage::

    python projects/benchmarks/data_pipeline.py [--data-root data/tinyface] [--device cuda]
        [--steps 50] [--trace trace.json]

``folder`` is the training loader of --config: images are decoded, resized and augmented one by
one. ``batched`` is that of --batched-config over a pack of the same folder, made for the occasion.
Both run in turns, an epoch each a round, after one epoch to warm up.

- host: processor time an image of the main process and all workers, from the file to the batch
  that the model takes, without what runs on the device. The target is a tenth.
- device: the data preprocessor's work on the images. On a GPU the host's part of it, starting
  kernels, is counted as host and shown as ``launch``; on a CPU all of it is device.
- wall: seconds an image of the loader alone.

With --steps, training steps of the config's model are timed too, in turns with the same steps on a
batch that already lies on the device (``synthetic``): ``real_over_synthetic`` is the share of that
rate which real data reach, 1 if loading hides behind the network.

The table gives medians and ranges over the rounds. The last line is one JSON object; times in it
are microseconds an image. Needs Linux, whose clocks tell the processor time of workers.
"""

import mmvlr  # noqa: F401  # isort: skip
import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmvlr.apis import load_config
from mmvlr.cli.arguments import output_file
from mmvlr.datasets import set_epoch
from mmvlr.datasets.base import IMAGE_SUFFIXES
from mmvlr.datasets.storage import write_pack
from mmvlr.datasets.transforms import read_image
from mmvlr.engine.building import resolve_num_classes
from mmvlr.registry import MODELS

CONFIG = 'configs/riface/mobilefacenet_tinyface.py'
BATCHED = 'configs/riface/mobilefacenet_tinyface_batched.py'
#: Batches an epoch that are preprocessed; keeping all would fill the workers' shared memory.
KEPT = 16


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--config', default=CONFIG, help='images one by one')
    parser.add_argument('--batched-config', default=BATCHED, help='PackNativeFace, native_collate')
    parser.add_argument('--data-root', type=Path, help='folder (default: that of the config)')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--workers', type=int, help='of each loader (default: as in the configs)')
    parser.add_argument('--batch-size', type=int, help='(default: as in the configs)')
    parser.add_argument('--device', default='cpu', help='of the preprocessor and the model')
    parser.add_argument('--steps', type=int, default=0, help='training steps a round')
    parser.add_argument('--trace', type=output_file, metavar='FILE', help="torch profiler's trace")
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.steps < 0:
        parser.error('--rounds must be at least 1, --steps at least 0')
    return args


def make_pack(folder: Path, pack: Path) -> int:
    """Pack all images and .mat files of a folder; return the number of images."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f'data root {folder} is no folder; name one of images with --data-root'
        )
    paths = sorted(
        path
        for path in folder.rglob('*')
        if not any(part.startswith('.') for part in path.relative_to(folder).parts)
    )
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    labels = [path for path in paths if path.suffix == '.mat']
    items = [(path, read_image(str(path))) for path in images]
    items += [(path, path.read_bytes()) for path in labels]
    write_pack(pack, ((path.relative_to(folder).as_posix(), content) for path, content in items))
    return len(images)


def processor_seconds(pids: list[int]) -> float:
    """Return the processor time of this process and others so far."""
    # Linux: number of the clock of a process, CPUCLOCK_SCHED of MAKE_PROCESS_CPUCLOCK.
    return time.process_time() + sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


class Way:
    """A training loader with its preprocessor.

    Args:
        config: A config whose ``train_dataloader`` is to be measured; changed in place.
        root: Its data.
        args: The command line's values.
    """

    def __init__(self, config: Config, root: Path, args: argparse.Namespace):
        options = config.train_dataloader
        options.dataset.data_root = str(root)
        stated = options.get('num_workers', 0)
        options.num_workers = stated if args.workers is None else args.workers
        options.batch_size = args.batch_size or options.batch_size
        options.drop_last = True
        # Workers that stay are measured without their start.
        options.persistent_workers = options.num_workers > 0
        self.config = config
        self.device = torch.device(args.device)
        self.loader: DataLoader = Runner.build_dataloader(options, seed=0)
        self.preprocessor = MODELS.build(config.model.data_preprocessor).to(self.device)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @property
    def pids(self) -> list[int]:
        """Process numbers of the workers that run."""
        iterator = self.loader._iterator
        return [] if iterator is None else [worker.pid for worker in iterator._workers]

    def epoch(self, number: int, keep: bool = True) -> None:
        """Load an epoch, then preprocess its first batches; keep the seconds an image."""
        set_epoch(self.loader.dataset, number)
        start, wall = processor_seconds(self.pids), time.perf_counter()
        batches = []
        for batch in self.loader:
            if len(batches) < KEPT:
                batches.append(batch)
        host = processor_seconds(self.pids) - start
        wall = time.perf_counter() - wall
        start = time.process_time()
        for batch in batches:
            self.preprocessor.records(batch['data_samples'])
        records = time.process_time() - start
        launch, device = self.device_seconds(batches)
        size = self.loader.batch_size
        loaded, kept = len(self.loader) * size, len(batches) * size
        found = dict(
            host=host / loaded + (records + launch) / kept,
            launch=launch / kept,
            device=device / kept,
            wall=wall / loaded,
        )
        for name, seconds in found.items() if keep else ():
            self.seconds[name].append(seconds)

    def device_seconds(self, batches: list[dict]) -> tuple[float, float]:
        """Return the host's and the device's seconds for the images of batches."""
        synchronize(self.device)
        start = time.process_time()
        if self.device.type != 'cuda':
            for batch in batches:
                self.preprocessor.images(batch['inputs'])
            return 0.0, time.process_time() - start
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for batch in batches:
            self.preprocessor.images(batch['inputs'])
        last.record()
        launch = time.process_time() - start
        last.synchronize()
        return launch, first.elapsed_time(last) / 1000


class Fixed(nn.Module):
    """A preprocessor that returns the same batch each time."""

    def __init__(self, batch: dict):
        super().__init__()
        self.batch = batch

    def forward(self, data: Any, training: bool = False) -> dict:
        """Return the batch."""
        return self.batch


class Trainer:
    """Training steps of the config's model, on real batches and on one that is there already."""

    def __init__(self, ways: dict[str, Way], device: torch.device):
        self.ways, self.device = ways, device
        config = ways['folder'].config
        torch.backends.cudnn.benchmark = config.get('env_cfg', {}).get('cudnn_benchmark', False)
        resolve_num_classes(config, ways['folder'].loader.dataset.num_classes)
        self.model = MODELS.build(config.model).to(device)
        self.model.train()
        self.optimizer = build_optim_wrapper(self.model, config.optim_wrapper)
        self._batches: dict[str, Any] = {}
        way = ways['batched']
        self._fixed = Fixed(way.preprocessor(next(iter(way.loader))))

    def rate(self, name: str, steps: int) -> float:
        """Train for ``steps`` steps; return images a second."""
        real = self.ways.get(name)
        self.model.data_preprocessor = self._fixed if real is None else real.preprocessor
        # The first batch is not timed: starting an epoch is no part of a step.
        self._next(name)
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(steps):
            self.model.train_step(self._next(name), self.optimizer)
        synchronize(self.device)
        size = self.ways['batched'].loader.batch_size
        return steps * size / (time.perf_counter() - start)

    def _next(self, name: str) -> Any:
        if name not in self.ways:
            return {}
        try:
            return next(self._batches[name])
        except (KeyError, StopIteration):
            self._batches[name] = iter(self.ways[name].loader)
            return next(self._batches[name])


def trace(file: Path, ways: dict[str, Way], trainer: Trainer | None) -> None:
    """Write the torch profiler's trace of a batch of each way, or of three training steps."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        for name, way in ways.items():
            with torch.profiler.record_function(name):
                if trainer is None:
                    way.preprocessor(next(iter(way.loader)))
                    synchronize(way.device)
                else:
                    trainer.rate(name, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    profiler.export_chrome_trace(str(file))


def told(values: list[float], scale: float = 1.0, digits: int = 1) -> str:
    """Return median and range as text."""
    low, middle, high = (f(values) * scale for f in (min, statistics.median, max))
    return f'{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})'


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure and print; return the JSON object."""
    configs = dict(folder=load_config(args.config), batched=load_config(args.batched_config))
    root = args.data_root or Path(configs['folder'].train_dataloader.dataset.data_root)
    pack = folder / 'faces.pack'
    print(f'{make_pack(root, pack):,} images packed: {pack.stat().st_size / 2**20:.1f} MiB')
    roots = dict(folder=root, batched=pack)
    ways = {name: Way(config, roots[name], args) for name, config in configs.items()}
    for turn in range(args.rounds + 1):
        for way in ways.values():
            way.epoch(turn, keep=turn > 0)
    loader = ways['batched'].loader
    batch_size, workers = loader.batch_size, loader.num_workers
    print(
        f'{len(loader) * batch_size:,} images a round, batches of {batch_size}, {workers} '
        f'workers, {args.device}; microseconds an image, median (range) of {args.rounds} rounds'
    )
    print(f'{"":8} {"folder":>28} {"batched":>28}  batched / folder')
    result: dict[str, Any] = dict(device=args.device, workers=workers, batch_size=batch_size)
    for part in ('host', 'launch', 'device', 'wall'):
        old, new = (ways[name].seconds[part] for name in ('folder', 'batched'))
        if part == 'launch' and ways['folder'].device.type != 'cuda':
            continue
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        print(f'{part:8} {told(old, 1e6):>28} {told(new, 1e6):>28}  {told(ratios, digits=3)}')
        for name, values in (('folder', old), ('batched', new)):
            result[f'{name}_{part}'] = round(1e6 * statistics.median(values), 2)
        result[f'{part}_ratio'] = round(statistics.median(ratios), 4)
    trainer = None
    if args.steps:
        trainer = Trainer(ways, torch.device(args.device))
        result |= train(trainer, args)
    if args.trace:
        trace(args.trace, ways, trainer)
    if args.device.startswith('cuda'):
        result['device_peak_mib'] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return dict(**result, peak_mib=round(peak, 1))


def train(trainer: Trainer, args: argparse.Namespace) -> dict[str, float]:
    """Time training steps in turns; return rates and their ratios."""
    rates: dict[str, list[float]] = defaultdict(list)
    for turn in range(args.rounds + 1):
        for name in ('synthetic', 'batched', 'folder'):
            rate = trainer.rate(name, args.steps)
            if turn:
                rates[name].append(rate)
    print(f'images a second in training steps, {args.steps} a round')
    result = {}
    for name, values in rates.items():
        print(f'{name:9} {told(values)}')
        result[f'{name}_per_second'] = round(statistics.median(values), 1)
    for name, key in (('batched', 'real_over_synthetic'), ('folder', 'folder_over_synthetic')):
        shares = [a / b for a, b in zip(rates[name], rates['synthetic'], strict=True)]
        result[key] = round(statistics.median(shares), 4)
    return result


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    args = parse_args(argv)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            DefaultScope.overwrite_default_scope('mmvlr'),
        ):
            result = measure(args, Path(folder))
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
