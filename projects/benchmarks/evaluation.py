"""Time the evaluation engine against the arithmetic it cannot do without.

``python projects/benchmarks/evaluation.py`` times, at the sizes of TinyFace and QMUL-SurvFace, on
random unit embeddings and in processes of their own:

- ``engine``: ``closed_set_identification`` with mAP, ``open_set_identification``;
- ``product``: the bare blocked matrix product, its scores thrown away;
- ``argsort`` (TinyFace only): product and argsort of the full score matrix, the usual way.

The ways take turns, ``--repeats`` times. The table gives medians, ratios of each turn, the peak
memory above that of the inputs, and that of the whole process. The last line is one JSON object:
``own_over_bare`` (engine over product) and ``peak_mib`` (engine, above the inputs) are those of the
worst size. ``--trace`` profiles one more, untimed turn of the engine.
"""

import mmvlr  # noqa: F401  # isort: skip
import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from mmvlr.cli.arguments import output_file
from mmvlr.evaluation.functional import closed_set_identification, open_set_identification
from mmvlr.utils.io import write_atomic

SIZES = {
    'tinyface': dict(gallery=157_871, mates=4_443, probes=3_728, people=2_569),
    'survface': dict(templates=3_000, mated=60_423, unmated=121_900),
}
WAYS = {'tinyface': ('product', 'engine', 'argsort'), 'survface': ('product', 'engine')}
BLOCK = 2048


def unit_rows(num: int, dim: int, seed: int, device: str) -> torch.Tensor:
    """Return random unit vectors (num, dim)."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num, dim, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1).to(device)


def bare_product(left: torch.Tensor, right: torch.Tensor) -> None:
    """Multiply block by block into one buffer, as any exact engine has to."""
    buffer = torch.empty(BLOCK * BLOCK, device=left.device)
    for start in range(0, len(right), BLOCK):
        columns = right[start : start + BLOCK]
        for first in range(0, len(left), BLOCK):
            rows = left[first : first + BLOCK]
            out = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
            torch.matmul(rows, columns.T, out=out)


def job(size: str, way: str, dim: int, device: str) -> Callable[[], object]:
    """Make the inputs of a size; return what is to be timed."""
    given = SIZES[size]
    rng = np.random.default_rng(0)
    if size == 'tinyface':
        gallery = unit_rows(given['gallery'], dim, 0, device)
        probe = unit_rows(given['probes'], dim, 1, device)
        ids = np.full(given['gallery'], -100)
        ids[: given['mates']] = np.arange(given['mates']) % given['people']
        probe_ids = rng.integers(0, given['people'], given['probes'])
        if way == 'product':
            return lambda: bare_product(probe, gallery)
        if way == 'argsort':
            return lambda: (probe @ gallery.T).cpu().numpy().argsort(axis=1)
        return lambda: closed_set_identification(gallery, ids, probe, probe_ids)
    templates = unit_rows(given['templates'], dim, 0, device)
    mated = unit_rows(given['mated'], dim, 1, device)
    unmated = unit_rows(given['unmated'], dim, 2, device)
    if way == 'product':
        return lambda: (bare_product(mated, templates), bare_product(unmated, templates))
    mated_ids = rng.integers(0, given['templates'], given['mated'])
    people = np.arange(given['templates'])
    return lambda: open_set_identification(templates, people, mated, mated_ids, unmated)


def resident_mib() -> float:
    """Return the memory of this process that is in RAM, in MiB (Linux)."""
    pages = int(Path('/proc/self/statm').read_text(encoding='ascii').split()[1])
    return pages * 4096 / 2**20


class PeakMemory:
    """Watches this process while a block runs; ``rise`` is its peak memory above the start."""

    def __init__(self, device: str):
        self.device = device

    def __enter__(self) -> 'PeakMemory':
        self.start = self.peak = resident_mib()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        if self.device != 'cpu':
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 2**20
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        if self.device != 'cpu':
            self.peak = torch.cuda.max_memory_allocated() / 2**20
        self.rise = self.peak - self.start

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            if self.device == 'cpu':
                self.peak = max(self.peak, resident_mib())


def measure(size: str, way: str, dim: int, device: str, threads: int) -> dict[str, float]:
    """Time one way in this process."""
    torch.set_num_threads(threads)
    run = job(size, way, dim, device)
    # The first product of a process makes the threads; it is nobody's cost.
    warm = unit_rows(BLOCK, dim, 3, device)
    bare_product(warm, warm)
    with PeakMemory(device) as memory:
        start = time.perf_counter()
        run()
        if device != 'cpu':
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return dict(seconds=seconds, peak_mib=memory.rise, process_mib=memory.peak)


def trace(size: str, dim: int, device: str, threads: int, out: Path) -> None:
    """Write a trace of the engine at a size, for chrome://tracing or https://ui.perfetto.dev."""
    torch.set_num_threads(threads)
    run = job(size, 'engine', dim, device)
    activities = [ProfilerActivity.CPU]
    if device != 'cpu':
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        run()
    write_atomic(out, lambda path: profiler.export_chrome_trace(str(path)))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--sizes', nargs='+', choices=tuple(SIZES), default=tuple(SIZES))
    parser.add_argument('--repeats', type=int, default=3, help='turns of each way')
    parser.add_argument('--dim', type=int, default=512, help='embedding size')
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument(
        '--trace',
        type=output_file,
        metavar='FILE.json',
        help='also write a trace of the engine at the first of the sizes',
    )
    parser.add_argument('--one', nargs=2, metavar=('SIZE', 'WAY'), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(*args.one, args.dim, args.device, args.threads)))
        return 0
    result: dict[str, float] = {}
    print(f'{"size":10} {"way":8} {"seconds":>8} {"peak MiB":>9} {"process":>8} over product')
    for size in args.sizes:
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS[size]}
        for _ in range(args.repeats):
            for way in WAYS[size]:
                command = [sys.executable, __file__, '--one', size, way]
                command += [f'--dim={args.dim}', f'--device={args.device}']
                command += [f'--threads={args.threads}']
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[way].append(json.loads(output))
        seconds = {way: [turn['seconds'] for turn in turns] for way, turns in found.items()}
        for way, turns in found.items():
            ratios = [a / b for a, b in zip(seconds[way], seconds['product'], strict=True)]
            peak, whole = (
                max(turn[f'{name}_mib'] for turn in turns) for name in ('peak', 'process')
            )
            ratio = f'{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})'
            row = f'{size:10} {way:8} {statistics.median(seconds[way]):8.2f}'
            print(f'{row} {peak:9,.0f} {whole:8,.0f} {ratio}', flush=True)
            result[f'{size}_{way}_seconds'] = statistics.median(seconds[way])
            result[f'{size}_{way}_peak_mib'] = peak
            result[f'{size}_{way}_process_mib'] = whole
            if way == 'engine':
                result[f'{size}_own_over_bare'] = statistics.median(ratios)
            if way == 'argsort':
                faster = [a / b for a, b in zip(seconds[way], seconds['engine'], strict=True)]
                result[f'{size}_speedup'] = statistics.median(faster)
    ratios = [value for name, value in result.items() if name.endswith('_own_over_bare')]
    result['own_over_bare'] = max(ratios)
    result['peak_mib'] = max(result[f'{size}_engine_peak_mib'] for size in args.sizes)
    if 'tinyface_speedup' in result:
        result['speedup'] = result['tinyface_speedup']
    if args.trace:
        trace(args.sizes[0], args.dim, args.device, args.threads, args.trace)
    name = 'cpu' if args.device == 'cpu' else torch.cuda.get_device_name(args.device)
    facts = dict(device=name, threads=args.threads, dim=args.dim)
    print(json.dumps(facts | {key: round(value, 3) for key, value in result.items()}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
