"""Time what other libraries are compared with, against them, also of another version of mmvlr.

``projects/benchmarks/peers.py [--before TREE]`` prints, for each case, processor time over that of
the peer on the same input: ``verification_rates`` over scikit-learn's ``roc_curve`` at a million
scores; one probe among 100,000 templates of 512 numbers and a million of 128, over NumPy's
product with ``argpartition`` and over faiss' flat index; ``align_face`` over the calls that
insightface's ``norm_crop`` makes, on faces in a frame and on crops. Versions take turns, each
round in a process of its own; ratios are of one process, and the median of rounds is given.
"""

import mmvlr  # isort: skip
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np


def compare(own: Callable, peers: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Return the median ratio of processor times to every peer; calls take turns."""
    calls = [own, *peers.values()]
    for call in calls:
        call()
    rows = []
    for _ in range(repeats):
        row = []
        for call in calls:
            start = time.process_time()
            call()
            row.append(time.process_time() - start)
        rows.append(row)
    return {
        name: statistics.median(row[0] / row[number] for row in rows)
        for number, name in enumerate(peers, start=1)
    }


def compare_verification() -> dict[str, float]:
    """Compare rates of a million scores."""
    from sklearn.metrics import roc_curve

    from mmvlr.evaluation.functional import verification_rates

    same = np.arange(1_000_000) % 10 < 1
    score = np.random.default_rng(0).standard_normal(len(same)) * 0.15 + np.where(same, 0.4, 0)
    own = lambda: verification_rates(score, same)  # noqa: E731
    found = compare(own, {'roc_curve': lambda: roc_curve(same, score)}, 3)
    return {f'verification_rates, 1 M / {name}': ratio for name, ratio in found.items()}


def compare_search() -> dict[str, float]:
    """Compare the search of one probe."""
    from mmvlr.identification.search import ExactSearch

    found = {}
    for num, dim in ((100_000, 512), (1_000_000, 128)):
        rng = np.random.default_rng(0)
        templates = rng.standard_normal((num, dim), np.float32)
        templates /= np.linalg.norm(templates, axis=1, keepdims=True)
        probe = rng.standard_normal((1, dim), np.float32)
        probe /= np.linalg.norm(probe)
        search = ExactSearch(templates, np.arange(num))

        def plain(templates: np.ndarray = templates, probe: np.ndarray = probe) -> np.ndarray:
            scores = templates @ probe[0]
            best = np.argpartition(scores, -5)[-5:]
            return best[np.argsort(-scores[best])]

        peers = {'numpy': plain}
        try:
            import faiss

            faiss.omp_set_num_threads(1)
            index = faiss.IndexFlatIP(dim)
            index.add(templates)
            peers['faiss'] = lambda index=index, probe=probe: index.search(probe, 5)
        except ImportError:
            print('faiss is not installed: not compared', file=sys.stderr)
        ratios = compare(lambda s=search, p=probe: s(p, 5), peers, 15)
        found |= {f'one probe, {num:,} x {dim} / {n}': r for n, r in ratios.items()}
    return found


def compare_alignment() -> dict[str, float]:
    """Compare aligning one face."""
    from skimage.transform import SimilarityTransform

    from mmvlr.datasets.alignment import TEMPLATE
    from mmvlr.preparation import align_face

    found = {}
    cases = {'frame 1600, face 112': (1600, 1), 'frame 1600, face 448': (1600, 4)}
    for name, (side, scale) in (cases | {'crop 112': (112, 1), 'crop 40': (40, 0.3)}).items():
        rng = np.random.default_rng(0)
        image = rng.integers(0, 255, (side, side, 3), np.uint8)
        points = (TEMPLATE - 56) * scale + side / 2 + rng.standard_normal((5, 2)) * scale

        def crop(image: np.ndarray = image, points: np.ndarray = points) -> np.ndarray:
            matrix = SimilarityTransform.from_estimate(points, TEMPLATE).params[:2]
            return cv2.warpAffine(image, matrix, (112, 112), borderValue=0.0)

        ratios = compare(lambda i=image, p=points: align_face(i, p), {'norm_crop': crop}, 60)
        found[f'align_face, {name} / norm_crop'] = ratios['norm_crop']
    return found


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--before', type=Path, help='checkout of another version of mmvlr')
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        cv2.setNumThreads(1)
        found = compare_verification() | compare_search() | compare_alignment()
        print(json.dumps(found))
        return 0
    trees = ([args.before] if args.before else []) + [Path(mmvlr.__file__).parents[1]]
    rounds: list[list[dict[str, float]]] = [[] for _ in trees]
    for _ in range(args.rounds):
        for tree, results in zip(trees, rounds, strict=True):
            threads = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1')
            out = subprocess.run(
                [sys.executable, __file__, '--one'],
                env=os.environ | threads | {'PYTHONPATH': str(tree)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            results.append(json.loads(out.stdout.splitlines()[-1]))
    print('| case / peer |' + (' before |' if args.before else '') + ' now |')
    print('|---' * (len(trees) + 1) + '|')
    for case in rounds[-1][0]:
        ratios = [statistics.median(found[case] for found in results) for results in rounds]
        print(f'| {case} | ' + ' | '.join(f'{ratio:.2f}' for ratio in ratios) + ' |', flush=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())
