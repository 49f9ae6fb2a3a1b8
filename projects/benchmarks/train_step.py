"""Time a training step of the Runner against the same model in a bare PyTorch loop.

``python projects/benchmarks/train_step.py configs/riface/mobilefacenet_tinyface.py`` needs no data:
both ways see the same random faces, and nothing is loaded while the clock runs. A GPU is used where
there is one, unless ``--device cpu`` says otherwise.

- ``runner``: ``train_step`` with all hooks of every iteration, logging included, and the UI hook's
  pass over ``--ui-faces`` divided by the iterations of an epoch (``--epoch-length``);
- ``bare``: forward, losses, backward and the same optimizer.

The ways take turns in one process. The table gives medians and ranges over the turns, of wall and
of processor time; on a busy machine the latter is steadier. ``--memory`` measures instead the peak
memory of the bare loop as it is, with gradient checkpointing, with bfloat16 and with both, in
processes of their own. The last line is one JSON object; ``overhead`` is runner / bare.
"""

import mmvlr  # noqa: F401  # isort: skip
import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.profiler import profile
from torch.utils.data import Dataset

from mmvlr.apis import load_config, resolve_num_classes
from mmvlr.engine.building import name_compile_hook, prepare
from mmvlr.registry import DATASETS, LOOPS, MODELS
from mmvlr.structures import FaceDataSample
from mmvlr.utils.io import write_atomic

AMP_TYPES = {'bf16': 'bfloat16', 'fp16': 'float16'}
#: Iterations of each way before the clock runs: graphs and memory pools are made in them.
WARM_UP = 2


@DATASETS.register_module()
class RandomFaces(Dataset):
    """Noise in the shape of faces; face i depends on i alone.

    Args:
        num: Number of faces.
        num_classes: Number of people.
        size: (height, width).
    """

    metainfo = dict(dataset_type='RandomFaces')

    def __init__(self, num: int, num_classes: int, size: tuple[int, int]):
        self.num = num
        self.num_classes = num_classes
        self.size = tuple(size)

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> dict:
        """Return a packed face."""
        generator = torch.Generator().manual_seed(index)
        face = torch.randint(0, 256, (3, *self.size), dtype=torch.uint8, generator=generator)
        sample = FaceDataSample(metainfo=dict(sample_idx=index, role='train'))
        sample.gt_label = torch.tensor(index % self.num_classes)
        return dict(inputs=face, data_samples=sample)


@LOOPS.register_module()
class PairedLoop(EpochBasedTrainLoop):
    """Let the Runner and the bare loop take turns.

    Args:
        runner: The Runner.
        dataloader: Loader of :class:`RandomFaces`.
        rounds: Turns of each way.
        iters: Iterations a turn.
        trace: File for a profile of one more turn of the Runner.

    Attributes:
        bare: Takes a batch and does a step; set from outside.
        times: ``(wall, processor)`` seconds an iteration, of each turn of each way.
    """

    def __init__(self, runner: Runner, dataloader, rounds: int, iters: int, trace: str | None):
        super().__init__(runner, dataloader, max_epochs=1)
        self.rounds, self.iters, self.trace = rounds, iters, trace
        self.bare: Callable[[dict], None] | None = None
        self.times: dict[str, list[tuple[float, float]]] = {'runner': [], 'bare': []}

    def run(self) -> nn.Module:
        """Take the times."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        # Twice: the first time also builds the loader.
        self.ui_time = timed(lambda: self.runner.call_hook('before_train_epoch'), 1)
        self.runner.model.train()
        # The UI center and its statistics switch losses on: in both ways or in none.
        self.bare.model.load_state_dict(self.runner.model.state_dict())
        batches = [batch for batch, _ in zip(self.dataloader, range(self.iters), strict=False)]
        self._turn('runner', batches[:WARM_UP])
        self._turn('bare', batches[:WARM_UP])
        for number in range(self.rounds):
            # Who goes first changes: the second finds warm caches.
            ways = ('runner', 'bare') if number % 2 else ('bare', 'runner')
            for way in ways:
                self.times[way].append(timed(lambda way=way: self._turn(way, batches), self.iters))
        if self.trace:
            with profile() as profiler:
                self._turn('runner', batches)
            write_atomic(self.trace, lambda path: profiler.export_chrome_trace(str(path)))
        self.runner.call_hook('after_train')
        return self.runner.model

    def _turn(self, way: str, batches: list[dict]) -> None:
        for batch in batches:
            if way == 'bare':
                self.bare(batch)
            else:
                self.run_iter(self._iter % len(self.dataloader), batch)


def timed(work: Callable[[], None], parts: int) -> tuple[float, float]:
    """Return wall and processor seconds of ``work``, divided by ``parts``."""
    synchronize()
    wall, processor = time.perf_counter(), time.process_time()
    work()
    synchronize()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return wall / parts, processor / parts


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class BareLoop:
    """Forward, losses, backward, optimizer, and nothing else.

    Args:
        model: The recognizer, on its device.
        optim_wrapper: Config of the optimizer wrapper, of which only the optimizer is used.
        dtype: Autocast type, or None.
    """

    def __init__(self, model: nn.Module, optim_wrapper: dict, dtype: torch.dtype | None):
        self.model = model.train()
        self.optimizer = build_optim_wrapper(model, copy.deepcopy(optim_wrapper)).optimizer
        self.device = next(model.parameters()).device
        self.dtype = dtype
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype is torch.float16)

    def __call__(self, batch: dict) -> None:
        """Do a step."""
        preprocessor = self.model.data_preprocessor
        inputs = batch['inputs'].to(self.device).float()
        inputs = (inputs - preprocessor.mean) / preprocessor.std
        context = torch.autocast(self.device.type, self.dtype) if self.dtype else nullcontext()
        with context:
            losses = self.model.loss(inputs, batch['data_samples'])
        self.scaler.scale(sum(v for name, v in losses.items() if 'loss' in name)).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


def make_config(args: argparse.Namespace, work_dir: str) -> Config:
    """Return the config with random faces and the switches that were asked for."""
    config = load_config(args.config)
    resolve_num_classes(config, args.num_classes)
    config.work_dir = work_dir
    config.load_from = None
    size = tuple(config.model.data_preprocessor.size)
    faces = dict(type='RandomFaces', num_classes=args.num_classes, size=size)
    loading = dict(
        batch_size=args.batch_size,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='mmvlr.face_collate'),
    )
    config.train_dataloader = dict(
        **loading, dataset=dict(**faces, num=args.batch_size * args.epoch_length)
    )
    config.train_cfg = dict(
        type='PairedLoop', rounds=args.rounds, iters=args.iters, trace=args.trace
    )
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    config.default_hooks.checkpoint = None
    # What runs once in a training is no part of a step.
    config.custom_hooks = [
        dict(
            hook,
            dataloader=dict(**loading, dataset=dict(**faces, num=args.ui_faces)),
            diversion_begin=0,
        )
        for hook in config.get('custom_hooks') or []
        if hook['type'] == 'UICenterHook'
    ]
    config.model.backbone.with_cp = args.with_cp
    if args.amp:
        config.optim_wrapper.type = 'FaceAmpOptimWrapper'
        config.optim_wrapper.dtype = AMP_TYPES[args.amp]
    if args.compile:
        config.compile = True
    config.log_level = 'WARNING'
    config.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    return config


def cast_type(amp: str | None) -> torch.dtype | None:
    """Return the autocast type of a name, or None."""
    return getattr(torch, AMP_TYPES[amp]) if amp else None


def time_ways(args: argparse.Namespace) -> dict:
    """Time both ways; print the table; return what the JSON line says."""
    with tempfile.TemporaryDirectory() as work_dir:
        config = make_config(args, work_dir)
        prepare(config)
        name_compile_hook(config)
        runner = Runner.from_cfg(config)
        # mmengine takes a GPU where there is one; Runner has moved the model.
        twin = copy.deepcopy(runner.model)
        if args.compile:
            twin.backbone.compile()
        runner.train_loop.bare = BareLoop(twin, config.optim_wrapper, cast_type(args.amp))
        runner.train()
        loop = runner.train_loop
    result = dict(config=args.config, batch_size=args.batch_size, threads=torch.get_num_threads())
    result.update(device=str(next(twin.parameters()).device), amp=args.amp, compile=args.compile)
    result.update(with_cp=args.with_cp, iters=args.iters, rounds=args.rounds)
    print(f'{"":10}{"way":8}{"median":>10}{"lowest":>10}{"highest":>10}   seconds an iteration')
    for index, clock in enumerate(('wall', 'processor')):
        hook = loop.ui_time[index] / args.epoch_length
        times = {way: [turn[index] for turn in turns] for way, turns in loop.times.items()}
        times['runner'] = [seconds + hook for seconds in times['runner']]
        for way, seconds in times.items():
            print(
                f'{clock:10}{way:8}{statistics.median(seconds):10.4f}{min(seconds):10.4f}'
                f'{max(seconds):10.4f}'
            )
        ratios = [one / two for one, two in zip(times['runner'], times['bare'], strict=True)]
        print(
            f'{clock:10}{"ratio":8}{statistics.median(ratios):10.3f}{min(ratios):10.3f}'
            f'{max(ratios):10.3f}   of each turn; {hook:.4f} of it the UI hook'
        )
        key = 'overhead' if clock == 'wall' else 'overhead_processor'
        result[key] = round(statistics.median(ratios), 4)
        result[f'{key}_range'] = [round(min(ratios), 4), round(max(ratios), 4)]
    result['peak_mib'] = round(peak_memory())
    print(f'peak memory of both together: {result["peak_mib"]:,} MiB')
    return result


def peak_memory() -> float:
    """Return the peak memory in MiB: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def memory_of_one(args: argparse.Namespace) -> dict:
    """Run the bare loop alone; return its peak memory and what was there before."""
    with tempfile.TemporaryDirectory() as work_dir:
        config = make_config(args, work_dir)
    model = MODELS.build(config.model)
    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    model.set_ui_center(torch.ones(model.embed_dims))
    bare = BareLoop(model, config.optim_wrapper, cast_type(args.amp))
    before = peak_memory()
    faces = RandomFaces(args.batch_size, args.num_classes, config.model.data_preprocessor.size)
    items = [faces[index] for index in range(args.batch_size)]
    batch = dict(
        inputs=torch.stack([item['inputs'] for item in items]),
        data_samples=[item['data_samples'] for item in items],
    )
    for _ in range(WARM_UP):
        bare(batch)
    return dict(peak_mib=round(peak_memory()), before_mib=round(before))


def memory_table(args: argparse.Namespace, argv: list[str]) -> dict:
    """Measure the variants, each in a process of its own; print the table."""
    variants = {
        'plain': [],
        'with_cp': ['--with-cp'],
        'bf16': ['--amp', 'bf16'],
        'both': ['--with-cp', '--amp', 'bf16'],
    }
    print(f'{"variant":10}{"peak MiB":>10}{"of it before the first step":>30}')
    found = {}
    for name, options in variants.items():
        done = subprocess.run(
            [sys.executable, __file__, *argv, '--one', *options],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f'variant {name!r} ended with exit code {done.returncode}')
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f'{name:10}{found[name]["peak_mib"]:10,}{found[name]["before_mib"]:30,}', flush=True)
    return dict(config=args.config, batch_size=args.batch_size, memory=found)


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='config file of a training')
    parser.add_argument('--num-classes', type=int, default=2570, help='people of the head')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--iters', type=int, default=10, help='iterations a turn')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each way')
    parser.add_argument('--epoch-length', type=int, default=121, help='iterations of an epoch')
    parser.add_argument('--ui-faces', type=int, default=1000, help='images of the UI set')
    parser.add_argument('--amp', choices=sorted(AMP_TYPES), help='mixed precision')
    parser.add_argument('--with-cp', action='store_true', help='gradient checkpointing')
    parser.add_argument('--compile', action='store_true', help='torch.compile of the backbone')
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: a GPU if there is one')
    parser.add_argument('--threads', type=int, help='threads of PyTorch')
    parser.add_argument('--trace', help='write a profile of one more turn of the Runner here')
    parser.add_argument('--memory', action='store_true', help='measure peak memory instead')
    parser.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for name in ('batch_size', 'iters', 'rounds', 'epoch_length', 'ui_faces'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: PyTorch sees no GPU')
    if args.memory and (args.with_cp or args.amp or args.trace or args.compile):
        parser.error('--memory goes through the variants itself; leave the switches out')
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure; return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    if args.device == 'cpu' and torch.cuda.is_available():
        # mmengine has chosen its device when it was imported.
        environment = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
        os.execve(sys.executable, [sys.executable, __file__, *argv], environment)
    init_default_scope('mmvlr')
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.one:
        result = memory_of_one(args)
    elif args.memory:
        result = memory_table(args, [word for word in argv if word != '--memory'])
    else:
        result = time_ways(args)
    print(json.dumps(result))
    return 0


if __name__ == '__main__':
    sys.exit(main())
