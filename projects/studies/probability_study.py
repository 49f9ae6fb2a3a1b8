"""Study the probability of a match: ``python projects/studies/probability_study.py FACES.npz``.

The file holds embeddings as ``mmvlr embed`` writes them; the person of a face is what ``--person``
finds in the name of its file. In each of many random splits some people are enrolled. The other
images of half of them, and all images of half of the others, calibrate a decision; those of the
other halves are the test. Printed are

1. how far the probability is right on the test people, with and without quality: Brier score,
   expected calibration error over ten bins, and the reliability diagram of the former as a table;
2. the operating table: rates by native size and by quarter of RI, with the middle 95 % of splits.
"""

import argparse
import re
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmvlr.cli.common import tell_errors
from mmvlr.evaluation import FaceTable
from mmvlr.identification import Gallery, SearchedFaces, calibrate
from mmvlr.identification.conformal import find_bins, quality_edges
from mmvlr.identification.operating import SIZES, fit_probability

BINS = 10


def search_split(
    faces: FaceTable, args: argparse.Namespace, seed: int
) -> tuple[SearchedFaces, SearchedFaces]:
    """Return the calibration and the test faces of a split."""
    rng = np.random.default_rng(seed)
    found = [re.search(args.person, Path(name).name) for name in faces.names]
    who = np.array([match[1] or match[0] for match in found])
    names, counts = np.unique(who, return_counts=True)
    enrolled = rng.permutation(names[counts > args.images])[: args.enroll]
    gallery, used = Gallery(faces.fingerprint), np.zeros(len(faces), bool)
    for person in enrolled.tolist():
        rows = rng.permutation(np.flatnonzero(who == person))[: args.images]
        gallery.enroll(person, faces.embedding[rows])
        used[rows] = True
    others = rng.permutation(np.setdiff1d(names, enrolled))
    first = [*enrolled[::2], *others[::2]]
    matches = gallery.search(faces.embedding, k=1)
    mated = np.isin(who, enrolled)
    searched = SearchedFaces(
        matches.similarity[:, 0],
        mated,
        mated & (matches.person[:, 0] == who.astype(object)),
        who,
        faces.qualities,
    )
    inside = np.isin(who, first)
    return searched.take(~used & inside), searched.take(~used & ~inside)


def main(argv: list[str] | None = None) -> int:
    """Run the study; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('file', type=Path, help='faces, a file of mmvlr embed')
    parser.add_argument('--person', default=r'^(\d+)_|^.+', help='finds the person in a file name')
    parser.add_argument('--enroll', type=int, default=60, help='people to enroll')
    parser.add_argument('--images', type=int, default=2, help='images of each')
    parser.add_argument('--quality', default='ri')
    parser.add_argument('--fpir', type=float, default=0.1)
    parser.add_argument('--splits', type=int, default=20)
    args = parser.parse_args(argv)
    faces = FaceTable.load(args.file)
    told, right, rates = defaultdict(list), [], defaultdict(list)
    for seed in track(range(args.splits), 'splits', console=Console(stderr=True)):
        first, second = search_split(faces, args, seed)
        decision = calibrate(first, faces.fingerprint, target_fpir=args.fpir)
        for name in (args.quality, None):
            fitted = fit_probability(first, decision, name)
            chances = fitted(decision, second.similarity, second.qualities)
            told[name].append(chances[:, 0])
        right.append(second.correct)
        accepted = second.similarity > decision.thresholds.thresholds[0].threshold
        quarters = quality_edges(first.quality(args.quality)[first.mated], 4)
        groups = [
            (
                'size',
                [f'{low:g} to {high:g} px' for low, high in pairwise((0, *SIZES, 999))],
                SIZES,
            ),
            (args.quality, ['lowest quarter', '2nd', '3rd', 'highest'], quarters),
        ]
        for name, labels, edges in groups:
            place = find_bins(second.quality(name), edges)
            for number, label in enumerate(labels[: len(edges) + 1]):
                mated, others = (place == number) & second.mated, (place == number) & ~second.mated
                if mated.sum() >= 5 and others.sum() >= 5:
                    key = f'{name}: {label}'
                    rates[key].append(
                        [
                            (accepted & second.correct)[mated].mean(),
                            accepted[others].mean(),
                            (place == number).mean(),
                        ]
                    )
    every = np.concatenate(right)
    print(
        f'{args.file.name}: {args.splits} splits, {len(every)} test faces, {every.mean():.1%} right'
    )
    print('\n| probability by | Brier score | of the constant | calibration error |')
    print('|---|---:|---:|---:|')
    for name, parts in told.items():
        chances = np.concatenate(parts)
        place = np.minimum((chances * BINS).astype(int), BINS - 1)
        share = np.bincount(place, minlength=BINS) / len(place)
        gap = [
            abs(chances[place == b].mean() - every[place == b].mean()) if share[b] else 0
            for b in range(BINS)
        ]
        label = 'similarity' if name is None else f'similarity and {name}'
        constant = every.mean() * (1 - every.mean())
        brier = ((chances - every) ** 2).mean()
        print(f'| {label} | {brier:.4f} | {constant:.4f} | {share @ np.array(gap):.4f} |')
    chances = np.concatenate(told[args.quality])
    print('\n| told, % | faces | mean told, % | right, % |\n|---|---:|---:|---:|')
    place = np.minimum((chances * BINS).astype(int), BINS - 1)
    for number in range(BINS):
        inside = place == number
        if inside.any():
            cells = [f'{10 * number} to {10 * number + 10}', f'{inside.sum()}']
            cells += [f'{100 * values[inside].mean():.1f}' for values in (chances, every)]
            print('| ' + ' | '.join(cells) + ' |')
    print(f'\n| FPIR {args.fpir:g} | share of faces, % | TPIR, % | FPIR, % |\n|---|---:|---:|---:|')
    for key, values in rates.items():
        tpir, fpir, share = 100 * np.array(values).T
        cells = [key, f'{share.mean():.0f}']
        for column in (tpir, fpir):
            low, high = np.percentile(column, [2.5, 97.5])
            cells.append(f'{column.mean():.1f} [{low:.0f}, {high:.0f}]')
        print('| ' + ' | '.join(cells) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('probability_study.py', main))
