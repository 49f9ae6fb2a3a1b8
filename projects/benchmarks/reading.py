"""Time reading images out of a pack against reading them from their folder.

``projects/benchmarks/reading.py FOLDER`` packs a folder tree into a temporary file, then reads
all images in one random order, from the folder and from the pack, in turns, as data sets do,
without transforms. Every image is copied, so that its pixels are touched either way. All images
are read and compared once before, so the system's caches are warm. Each round reads the pack twice:
``first`` with a fresh reader, which opens the file and compares every checksum, as in the first
epoch, and ``pack`` as in all later ones. The table gives images a second, the last line is one
JSON object with the medians and the median ratios over the rounds.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mmvlr.datasets.base import IMAGE_SUFFIXES
from mmvlr.datasets.storage import open_stored, write_pack
from mmvlr.datasets.transforms import read_image


def rate(paths: list[str]) -> float:
    """Read all images; return images a second."""
    start = time.perf_counter()
    for path in paths:
        read_image(path).copy()
    return len(paths) / (time.perf_counter() - start)


def first_rate(paths: list[str], pack: Path) -> float:
    """Open the pack and read all images; return images a second."""
    # A changed time makes the next call open the file again.
    os.utime(pack)
    start = time.perf_counter()
    open_stored(pack)
    seconds = time.perf_counter() - start
    return 1 / (1 / rate(paths) + seconds / len(paths))


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('folder', type=Path)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--seed', type=int, default=0, help='of the order of the images')
    args = parser.parse_args(argv)
    names = sorted(
        path.as_posix()
        for path in (file.relative_to(args.folder) for file in args.folder.rglob('*'))
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith('.') for part in path.parts)
    )
    if not names:
        parser.error(f'no image under {args.folder}')
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / 'faces.pack'
        write_pack(pack, ((name, read_image(str(args.folder / name))) for name in names))
        order = np.random.default_rng(args.seed).permutation(len(names))
        in_folder, in_pack = (
            [str(root / names[index]) for index in order] for root in (args.folder, pack)
        )
        different = sum(
            not np.array_equal(read_image(a), read_image(b))
            for a, b in zip(in_folder, in_pack, strict=True)
        )
        if different:
            print(f'{different:,} of {len(names):,} images differ', file=sys.stderr)
            return 1
        print(f'{len(names):,} images, {pack.stat().st_size / 2**20:.1f} MiB packed')
        print(f'{"round":>5} {"folder/s":>10} {"first/s":>10} {"pack/s":>10} pack over folder')
        found: dict[str, list[float]] = {'folder': [], 'first': [], 'pack': []}
        for turn in range(args.rounds):
            found['folder'].append(rate(in_folder))
            found['first'].append(first_rate(in_pack, pack))
            found['pack'].append(rate(in_pack))
            row = ' '.join(f'{rates[-1]:10,.0f}' for rates in found.values())
            print(f'{turn:5} {row} {found["pack"][-1] / found["folder"][-1]:.1f}', flush=True)
    result = {f'{way}_per_second': statistics.median(rates) for way, rates in found.items()}
    for way in ('pack', 'first'):
        ratios = [a / b for a, b in zip(found[way], found['folder'], strict=True)]
        result[f'{way}_over_folder'] = statistics.median(ratios)
    print(json.dumps({name: round(value, 2) for name, value in result.items()}))
    return 0


if __name__ == '__main__':
    sys.exit(main())
