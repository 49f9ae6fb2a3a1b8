"""Study probes of several faces: ``python projects/studies/track_study.py FACES.npz``.

The file holds embeddings of faces as ``mmvlr embed`` writes them; the person of a face is what
``--person`` finds in the name of its file. In each of many random splits some people are enrolled
with a few images, and the others are calibration or test people. Everybody gives one track of N
random other faces. Thresholds come from the tracks of the calibration people by each rule for
itself. Printed are, as Markdown tables, by number of faces and rule,

1. the error of tracks of enrolled people: not accepted as who they are;
2. the realized false positive rate of tracks of test people, which the target bounds.

Brackets hold the middle 95 % of the splits. With ``--smears`` some faces of every track are
replaced by faces of another file that show nobody, as a detector or tracker that errs delivers.
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmvlr.cli.common import tell_errors
from mmvlr.evaluation import FaceTable
from mmvlr.identification import Gallery, TrackRule
from mmvlr.identification.conformal import conformal_threshold

#: Share of the calibration faces of lowest quality that ``least`` leaves out.
LEFT_OUT = 0.2


def first_face(faces: FaceTable) -> np.ndarray:
    """Keep one face of each track: the tracks are random, so it is a random one."""
    kept = np.zeros(len(faces), bool)
    kept[np.unique(faces.columns['track'], return_index=True)[1]] = True
    return kept


def make_rules(faces: FaceTable) -> dict[str, TrackRule]:
    """Return the rules by name, with levels from calibration faces."""
    rules = {'one face': TrackRule(keep=first_face), 'mean': TrackRule('mean')}
    for quality in ('ri', 'norm'):
        if quality in faces.qualities:
            best = dict(type='BestTemplate', k=1, quality=quality)
            level = float(np.quantile(faces.columns[quality], LEFT_OUT))
            rules |= {
                f'weighted by {quality}': TrackRule(quality),
                f'best shot by {quality}': TrackRule(best),
                f'better half by {quality}': TrackRule(keep=best_half(quality)),
                f'without the poorest fifth by {quality}': TrackRule(least={quality: level}),
            }
            # RI judges better than the norm wherever there is one.
            break
    return rules


def best_half(quality: str) -> Callable[[FaceTable], np.ndarray]:
    """Return the function that keeps the better half of each track."""

    def keep(faces: FaceTable) -> np.ndarray:
        _, number = np.unique(faces.columns['track'], return_inverse=True)
        order = np.lexsort((-faces.columns[quality], number))
        count = np.bincount(number)
        place = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
        kept = np.zeros(len(faces), bool)
        kept[order[place < np.repeat((count + 1) // 2, count)]] = True
        return kept

    return keep


def compose(
    people: dict[str, np.ndarray], num_faces: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and people of one track of so many faces for each person who has them."""
    chosen = {who: rows for who, rows in people.items() if len(rows) >= num_faces}
    rows = [rng.choice(own, num_faces, replace=False) for own in chosen.values()]
    return np.concatenate(rows), np.repeat(list(chosen), num_faces)


def run_split(
    faces: FaceTable, smears: FaceTable | None, args: argparse.Namespace, seed: int
) -> dict[tuple, float]:
    """Return rates by (number of faces, share of smears, rule, FPIR, name)."""
    rng = np.random.default_rng(seed)
    names = np.array([Path(name).name for name in faces.names])
    matches = [re.search(args.person, name) for name in names]
    who = np.array([match[1] or match[0] for match in matches])
    own = {person: np.flatnonzero(who == person) for person in np.unique(who).tolist()}
    most = max(args.faces)
    barred = {p for p, rows in own.items() if re.search(args.bar, faces.names[rows[0]])}
    able = [p for p, rows in own.items() if len(rows) >= args.images + most and p not in barred]
    enrolled = rng.permutation(sorted(able))[: args.enroll].tolist()
    gallery, mated = Gallery(faces.fingerprint), {}
    for person in enrolled:
        rows = rng.permutation(own[person])
        gallery.enroll(person, faces.embedding[rows[: args.images]])
        mated[person] = rows[args.images :]
    others = sorted(p for p in own if p not in mated and len(own[p]) >= most)
    others = rng.permutation(others).tolist()
    groups = [mated, *({p: own[p] for p in part} for part in np.split(others, [args.calibrate]))]
    found = {}
    for count in args.faces:
        tracks = [compose(group, count, rng) for group in groups]
        for share in (0.0, *([args.share] if smears is not None else [])):
            tables = [spoil(faces, smears, rows, person, share, rng) for rows, person in tracks]
            for name, rule in make_rules(tables[1]).items():
                rates = judge(gallery, rule, tables, args.fpir)
                found |= {(count, share, name, *key): rate for key, rate in rates.items()}
    return found


def spoil(
    faces: FaceTable,
    smears: FaceTable | None,
    rows: np.ndarray,
    person: np.ndarray,
    share: float,
    rng: np.random.Generator,
) -> FaceTable:
    """Return the faces of tracks, of which a share are smears."""
    table = faces.take(rows)
    if share:
        replaced = np.flatnonzero(rng.random(len(rows)) < share)
        drawn = smears.take(rng.integers(len(smears), size=len(replaced)))
        embedding, columns = table.embedding.copy(), dict(table.columns)
        embedding[replaced] = drawn.embedding
        for name in table.qualities:
            columns[name] = columns[name].copy()
            columns[name][replaced] = drawn.columns[name]
        table = replace(table, embedding=embedding, columns=columns)
    return replace(table, columns=dict(table.columns, track=person.astype(str)))


def judge(
    gallery: Gallery, rule: TrackRule, tables: list[FaceTable], fpirs: list[float]
) -> dict[tuple[float, str], float]:
    """Return error and realized rate of a rule by target; an unused track gets no answer."""
    made = [rule(table) for table in tables]
    matches = [gallery.search(one.probes.embedding, k=1) for one in made]
    totals = [len(one.probes) + len(one.empty) for one in made]
    rates = {}
    for fpir in fpirs:
        level = conformal_threshold(matches[1].similarity[:, 0], fpir).threshold
        accepted = [found.similarity[:, 0] > level for found in matches]
        right = accepted[0] & (matches[0].person[:, 0] == np.array(made[0].probes.names))
        rates[fpir, 'error'] = 1 - right.sum() / totals[0]
        rates[fpir, 'fpir'] = accepted[2].sum() / totals[2]
    return rates


def describe(values: np.ndarray) -> str:
    """Return mean and middle 95 % of the splits, in percent."""
    low, high = 100 * np.percentile(values, [2.5, 97.5])
    return f'{100 * values.mean():.1f} [{low:.0f}, {high:.0f}]'


def report(found: dict[tuple, np.ndarray], args: argparse.Namespace) -> None:
    """Print the tables."""
    rules = list(dict.fromkeys(key[2] for key in found))
    for share in dict.fromkeys(key[1] for key in found):
        for fpir in args.fpir:
            print(f'\n{100 * share:.0f} % smears, FPIR {100 * fpir:g} %: error | FPIR, %\n')
            header = ['rule', *(f'{count} faces' for count in args.faces)]
            header += ['minus mean', *(f'FPIR, {count}' for count in args.faces)]
            print('| ' + ' | '.join(header) + ' |\n|' + '---|' * len(header))
            for rule in rules:
                errors = [found[count, share, rule, fpir, 'error'] for count in args.faces]
                rates = [found[count, share, rule, fpir, 'fpir'] for count in args.faces]
                minus = errors[-1] - found[args.faces[-1], share, 'mean', fpir, 'error']
                # The standard error of the mean over the splits.
                spread = [100 * rate.std() / len(rate) ** 0.5 for rate in rates]
                realized = zip(rates, spread, strict=True)
                cells = [rule, *map(describe, errors), describe(minus)]
                cells += [f'{100 * rate.mean():.2f} ± {error:.2f}' for rate, error in realized]
                print('| ' + ' | '.join(cells) + ' |')


def main(argv: list[str] | None = None) -> int:
    """Run the study; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('file', type=Path, help='faces, a file of mmvlr embed')
    parser.add_argument('--smears', type=Path, help='faces that show nobody, of the same model')
    parser.add_argument('--share', type=float, default=0.25, help='share of smears')
    parser.add_argument('--person', default=r'^(\d+)_|^.+', help='finds the person in a file name')
    parser.add_argument(
        '--bar', default='(?!)', metavar='REGEX', help='people of such paths are not enrolled'
    )
    parser.add_argument('--faces', type=int, nargs='+', default=[1, 2, 4, 8])
    parser.add_argument('--enroll', type=int, default=40, help='people to enroll')
    parser.add_argument('--images', type=int, default=2, help='images of each')
    parser.add_argument('--calibrate', type=int, default=100, help='calibration people')
    parser.add_argument('--fpir', type=float, nargs='+', default=[0.1, 0.01])
    parser.add_argument('--splits', type=int, default=200)
    args = parser.parse_args(argv)
    faces = FaceTable.load(args.file)
    smears = None if args.smears is None else FaceTable.load(args.smears)
    console = Console(stderr=True)
    parts = [
        run_split(faces, smears, args, seed)
        for seed in track(range(args.splits), 'splits', console=console)
    ]
    print(f'{args.file.name}: {len(faces)} faces; {args.splits} splits')
    report({key: np.array([part[key] for part in parts]) for key in parts[0]}, args)
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('track_study.py', main))
