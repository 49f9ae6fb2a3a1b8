"""Time a gallery of a million people: enroll, save, load, search exactly and with faiss.

``projects/benchmarks/gallery.py --people 1000000 --dims 192`` enrolls random unit embeddings,
one image a person, and searches probes that are noisy images of some of them. Each step runs in
a process of its own and reports its time and its peak memory. ``ivf16`` and ``ivf4`` search a
sixteenth and a quarter of the cells; ``found`` is the share of probes for which the person that the
exact search puts first is put first. Random embeddings have no clusters; where there are some, an
approximate search finds more. ``OMP_NUM_THREADS`` sets the threads. The last line is one JSON
object.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mmvlr.identification import Gallery

#: Step -> search that it times.
SEARCHES = {
    'exact': 'exact',
    'flat': dict(type='faiss'),
    'ivf16': dict(type='faiss', kind='ivf'),
    'ivf4': dict(type='faiss', kind='ivf', probed=0.25),
}
CHUNK = 65_536


def embeddings(num: int, dims: int) -> np.ndarray:
    """Return random embeddings (num, dims), float32."""
    made = np.empty((num, dims), np.float32)
    for start in range(0, num, CHUNK):
        rng = np.random.default_rng((0, start))
        made[start : start + CHUNK] = rng.standard_normal(
            (min(CHUNK, num - start), dims), np.float32
        )
    return made


def probes_of(gallery: Gallery, num: int, cosine: float) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy images of people of the gallery (num, D), and which people, (num,)."""
    templates, _ = gallery.templates()
    rng = np.random.default_rng(1)
    people = rng.choice(len(gallery), min(num, len(gallery)), replace=False)
    noise = rng.standard_normal((len(people), templates.shape[1])).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return cosine * templates[people] + (1 - cosine**2) ** 0.5 * noise, people


def enroll(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Enroll everybody and save."""
    made = embeddings(args.people, args.dims)
    people = [f'person {i}' for i in range(args.people)]
    names = [f'{i}.png' for i in range(args.people)]
    ri = np.zeros(args.people, np.float32)
    gallery = Gallery(dict(embedding=dict(dims=args.dims)))
    times = {}
    start = time.perf_counter()
    gallery.enroll_many(people, made, dict(ri=ri), names)
    times['enroll'] = time.perf_counter() - start
    del made
    start = time.perf_counter()
    gallery.save(folder)
    times['save'] = time.perf_counter() - start
    return times | dict(disk_mib=sum(file.stat().st_size for file in folder.iterdir()) / 2**20)


def search(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Load and search."""
    start = time.perf_counter()
    gallery = Gallery.load(folder, search=SEARCHES[args.step])
    times = dict(load=time.perf_counter() - start)
    probes, people = probes_of(gallery, args.probes, args.cosine)
    start = time.perf_counter()
    gallery.search(probes[:1], k=args.k)
    times['index'] = time.perf_counter() - start
    start = time.perf_counter()
    for probe in probes[:5]:
        gallery.search(probe[None], k=args.k)
    times['one'] = (time.perf_counter() - start) / 5
    times['index'] = max(0.0, times['index'] - times['one'])
    start = time.perf_counter()
    found = gallery.search(probes, k=args.k)
    times['all'] = time.perf_counter() - start
    first = [int(name.split()[1]) for name in found.person[:, 0]]
    return times | dict(rank1=float((np.array(first) == people).mean()), first=first)


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--people', type=int, default=100_000)
    parser.add_argument('--dims', type=int, default=192, help='embedding size')
    parser.add_argument('--probes', type=int, default=1000)
    parser.add_argument('--cosine', type=float, default=0.4, help='of a probe and its mate')
    parser.add_argument('--k', type=int, default=5, help='people a probe')
    parser.add_argument('--searches', nargs='+', choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument(
        '--folder', type=Path, help='where the gallery is saved; default: temporary'
    )
    parser.add_argument('--step', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.step:
        result = (enroll if args.step == 'enroll' else search)(args.folder, args)
        # Linux counts in KiB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result | dict(peak_mib=peak)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        done = run('enroll', folder, args)
        embeddings_mib = args.people * args.dims * 4 / 2**20
        print(
            f'{args.people:,} people, {args.dims} dimensions, '
            f'embeddings {embeddings_mib:,.0f} MiB\n'
            f'enroll {done["enroll"]:.1f} s, save {done["save"]:.1f} s, on disk '
            f'{done["disk_mib"]:,.0f} MiB, peak {done["peak_mib"]:,.0f} MiB'
        )
        print(
            f'{"search":>8} {"load s":>7} {"index s":>8} {"1 probe ms":>11} '
            f'{f"{args.probes} probes s":>14} {"peak MiB":>9} {"rank-1":>8} {"found":>8}'
        )
        rows = {}
        for step in args.searches:
            row = rows[step] = run(step, folder, args)
            exact = rows.get('exact', {}).get('first')
            if exact is not None:
                row['found'] = float(np.mean(np.array(row['first']) == np.array(exact)))
            print(
                f'{step:>8} {row["load"]:7.1f} {row["index"]:8.1f} {1000 * row["one"]:11.1f} '
                f'{row["all"]:14.2f} {row["peak_mib"]:9,.0f} {100 * row["rank1"]:6.1f} % '
                f'{100 * row.get("found", float("nan")):6.1f} %',
                flush=True,
            )
    for row in rows.values():
        del row['first']
    print(json.dumps(dict(people=args.people, dims=args.dims, enroll=done, searches=rows)))
    return 0


def run(step: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Run a step in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, __file__, f'--step={step}', f'--folder={folder}']
    command += [f'--{name}={getattr(args, name)}' for name in ('people', 'dims', 'probes', 'k')]
    command += [f'--cosine={args.cosine}']
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)


if __name__ == '__main__':
    sys.exit(main())
