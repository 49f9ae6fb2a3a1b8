"""Study the gate at enrollment: ``python projects/studies/gate_study.py FACES.npz SMEARS.npz``.

Both files hold embeddings as ``mmvlr embed`` writes them: faces of people, whom ``--person`` finds
in the names of the files, and faces that nobody can recognize. In each of many random splits some
people are enrolled, and the others are strangers: half of them calibrate and are the strangers of
the gate, the other half are new. Then every smear is given as a person of its own. Printed are, by
percentile of the gate, the smears and the good images that are refused, and how many of the new
strangers are accepted as a person, and as a smear, all means with the middle 95 % of the splits.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmvlr.cli.common import tell_errors
from mmvlr.evaluation import FaceTable
from mmvlr.identification import Gallery, Gate, SearchedFaces, calibrate

NONE = 'no gate'


def run_split(
    faces: FaceTable, smears: FaceTable, args: argparse.Namespace, seed: int
) -> dict[tuple[str, str], float]:
    """Return the numbers of a split by (gate, name)."""
    rng = np.random.default_rng(seed)
    who = np.array([re.search(args.person, Path(name).name)[1] for name in faces.names])
    order = rng.permutation(np.unique(who))
    people, others = order[: args.enroll], order[args.enroll :]
    first, second = np.array_split(others, 2)
    known, strangers, new = (
        faces.take(np.flatnonzero(np.isin(who, part))) for part in (people, first, second)
    )
    owners = who[np.isin(who, people)]
    # Some images of each are enrolled.
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(owners == one))[: args.images] for one in people]
    )
    given, names = known.take(chosen), owners[chosen].tolist()
    gallery = Gallery(faces.fingerprint)
    gallery.enroll_many(names, given.embedding)
    found = gallery.search(strangers.embedding, k=1)
    none = np.zeros(len(strangers), bool)
    searched = SearchedFaces(found.similarity[:, 0], none, none, who[np.isin(who, first)], {})
    decision = calibrate(searched, faces.fingerprint, target_fpir=args.fpir)
    threshold = decision.thresholds.thresholds[0].threshold
    result = {}
    for percentile in (None, *args.percentiles):
        label = NONE if percentile is None else f'{percentile:g} %'
        good, bad = np.ones(len(given), bool), np.ones(len(smears), bool)
        if percentile is not None:
            gate = Gate(decision, strangers, searched.people.tolist(), percentile)
            good, bad = gate(given).passed, gate(smears).passed
        made = Gallery(faces.fingerprint)
        rows = np.flatnonzero(good)
        made.enroll_many([names[row] for row in rows], given.embedding[rows])
        rows = np.flatnonzero(bad)
        made.enroll_many([f'smear {row}' for row in rows], smears.embedding[rows])
        found = made.search(new.embedding, k=1)
        accepted = found.similarity[:, 0] > threshold
        fooled = np.array([name.startswith('smear') for name in found.person[:, 0]])
        stranger = who[np.isin(who, second)]
        numbers = dict(
            smears=1 - bad.mean(),
            good=1 - good.mean(),
            lost=1 - len({*made.people} & {*names}) / len(people),
            accepted=accepted.mean(),
            as_smear=(accepted & fooled).mean(),
            fooled=len(np.unique(stranger[accepted & fooled])) / len(second),
        )
        result |= {(label, name): value for name, value in numbers.items()}
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the study; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('faces', type=Path, help='faces of people, a file of mmvlr embed')
    parser.add_argument('smears', type=Path, help='faces that show nobody, of the same model')
    parser.add_argument('--person', default=r'^(\d+)_', help='finds the person in a file name')
    parser.add_argument('--enroll', type=int, default=40, help='people to enroll')
    parser.add_argument('--images', type=int, default=4, help='images of each')
    parser.add_argument('--percentiles', type=float, nargs='+', default=[0, 1, 5, 10])
    parser.add_argument('--fpir', type=float, default=0.1)
    parser.add_argument('--splits', type=int, default=50)
    args = parser.parse_args(argv)
    faces, smears = FaceTable.load(args.faces), FaceTable.load(args.smears)
    parts = [
        run_split(faces, smears, args, seed)
        for seed in track(range(args.splits), 'splits', console=Console(stderr=True))
    ]
    columns = dict(
        smears='smears refused',
        good='good images refused',
        lost='people without an image',
        accepted='new strangers: faces accepted',
        as_smear='as a smear',
        fooled='people accepted as a smear',
    )
    print(f'{args.faces.name}, {len(smears)} smears; FPIR {args.fpir:g}, {args.splits} splits\n')
    print('| gate, % | ' + ' | '.join(columns.values()) + ' |\n|---' + '|---:' * len(columns) + '|')
    for label in dict.fromkeys(gate for gate, _ in parts[0]):
        cells = [label]
        for name in columns:
            values = 100 * np.array([part[label, name] for part in parts])
            low, high = np.percentile(values, [2.5, 97.5])
            cells.append(f'{values.mean():.1f} [{low:.1f}, {high:.1f}]')
        print('| ' + ' | '.join(cells) + ' |')
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('gate_study.py', main))
