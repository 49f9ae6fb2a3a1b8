"""Search galleries of up to ten million images that nobody holds in memory.

``projects/benchmarks/large_gallery.py`` generates the gallery block by block while the engine
asks for it, and prints time, processor time and peak memory for each size. Time should grow with
the gallery, memory hardly: what grows are the identities and the order of the rows, a few integers
an image. The last line is one JSON object.
"""

import mmvlr  # noqa: F401  # isort: skip
import argparse
import json
import subprocess
import sys
import time

import numpy as np
import torch
from evaluation import PeakMemory, bare_product, unit_rows

from mmvlr.evaluation.functional import closed_set_identification

SIZES = (1_000_000, 2_000_000, 5_000_000, 10_000_000)
CHUNK = 8192


class GeneratedRows:
    """Random unit vectors that are made when they are read: an array without memory.

    Row i depends on i alone. It has what the engine asks of an array: ``shape``, ``dtype``,
    length, and rows by slice or by integers.

    Args:
        num: Number of rows.
        dim: Embedding size.
        planted: Rows that are given instead of drawn, the first ones.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, num: int, dim: int, planted: np.ndarray):
        self.shape = (num, dim)
        self.planted = planted
        self.seconds = 0.0
        self._chunk = (-1, np.empty(0))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | np.ndarray) -> np.ndarray:
        """Return rows (n, dim)."""
        start = time.perf_counter()
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else index
        out = np.empty((len(rows), self.shape[1]), np.float32)
        number = rows // CHUNK
        for chunk in np.unique(number):
            here = number == chunk
            out[here] = self._drawn(int(chunk))[rows[here] % CHUNK]
        known = rows < len(self.planted)
        out[known] = self.planted[rows[known]]
        self.seconds += time.perf_counter() - start
        return out

    def _drawn(self, chunk: int) -> np.ndarray:
        # One chunk is kept: the engine reads rows in order, a block across two chunks at times.
        if self._chunk[0] != chunk:
            rng = np.random.default_rng((0, chunk))
            rows = rng.standard_normal((CHUNK, self.shape[1]), np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            self._chunk = (chunk, rows)
        return self._chunk[1]


def measure(num: int, num_probes: int, dim: int) -> dict[str, float]:
    """Search ``num_probes`` probes, each with one mate, in ``num`` images."""
    probe = unit_rows(num_probes, dim, 1, 'cpu')
    # A mate is its probe with noise: near enough to be found, not so near that all are.
    noise = unit_rows(num_probes, dim, 2, 'cpu')
    mates = torch.nn.functional.normalize(0.24 * probe + noise, dim=1).numpy()
    gallery = GeneratedRows(num, dim, mates)
    ids = np.full(num, -100)
    ids[:num_probes] = np.arange(num_probes)
    with PeakMemory('cpu') as memory:
        start, busy = time.perf_counter(), time.process_time()
        found = closed_set_identification(gallery, ids, probe, np.arange(num_probes))
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    # The same number of products over a block that is there.
    block = unit_rows(CHUNK, dim, 3, 'cpu')
    start = time.perf_counter()
    for _ in range(10):
        bare_product(probe, block)
    product = (time.perf_counter() - start) * num / (10 * CHUNK)
    return dict(
        gallery=num,
        seconds=seconds,
        cpu_seconds=busy,
        generating=gallery.seconds,
        product=product,
        peak_mib=memory.rise,
        rank1=found['rank1'],
    )


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--sizes', nargs='+', type=int, default=SIZES, help='gallery sizes')
    parser.add_argument('--probes', type=int, default=256)
    parser.add_argument('--dim', type=int, default=512, help='embedding size')
    parser.add_argument('--one', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        print(json.dumps(measure(args.one, args.probes, args.dim)))
        return 0
    rows = []
    print(
        f'{"gallery":>11} {"seconds":>8} {"cpu s":>8} {"generating":>11} {"product":>8} '
        f'{"peak MiB":>9} {"rank-1":>7}'
    )
    for size in args.sizes:
        command = [sys.executable, __file__, f'--one={size}', f'--probes={args.probes}']
        command += [f'--dim={args.dim}']
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row = json.loads(output)
        rows.append(row)
        print(
            f'{row["gallery"]:11,} {row["seconds"]:8.1f} {row["cpu_seconds"]:8.1f} '
            f'{row["generating"]:11.1f} '
            f'{row["product"]:8.1f} {row["peak_mib"]:9,.0f} {100 * row["rank1"]:5.1f} %',
            flush=True,
        )
    first, last = rows[0], rows[-1]
    growth = {
        f'{name}_growth_over_linear': round(
            (last[name] / first[name]) / (last['gallery'] / first['gallery']), 3
        )
        for name in ('seconds', 'cpu_seconds')
    }
    print(json.dumps(growth | dict(rows=rows)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
