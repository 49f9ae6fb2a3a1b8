"""Study the audit: ``python projects/studies/audit_study.py COPIES.npz FACES.npz ...``.

The files hold embeddings as ``mmvlr embed`` writes them: faces of people, whom ``--person`` finds
in the names of the files of one table, and copies of some of these images that were compressed
again, under the same names in another folder. A gallery of ``--people`` people is made of them, in
which are planted: people under two names with different images, pairs of images that are exchanged
between two people, copies of an image of the same person, and of another person. Printed are
planted and found, precision, recall and seconds, as means over the draws.
"""

import argparse
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmvlr.cli.common import tell_errors
from mmvlr.evaluation import FaceTable
from mmvlr.identification import Finding, Gallery, audit

KINDS = ('collision', 'wrong person', 'duplicate', 'two names')


def join(tables: list[FaceTable], pattern: str) -> tuple[np.ndarray, list[str], list[str]]:
    """Return embeddings, names and people of several tables."""
    people = [
        f'{number}-{found[1] or found[0]}'
        for number, table in enumerate(tables)
        for name in table.names
        for found in [re.search(pattern, Path(name).name)]
    ]
    names = [name for table in tables for name in table.names]
    return np.concatenate([table.unit.numpy() for table in tables]), names, people


def plant(
    unit: np.ndarray,
    people: list[str],
    copies: dict[int, np.ndarray],
    args: argparse.Namespace,
    rng: np.random.Generator,
) -> tuple[list[tuple[str, str, np.ndarray]], dict[str, set]]:
    """Return (person, image, embedding) of a gallery, and what was planted by kind."""
    own = defaultdict(list)
    for row, person in enumerate(people):
        own[person].append(row)
    order = rng.permutation(sorted(own)).tolist()
    several = [one for one in order if len(own[one]) >= 4][: args.plants]
    chosen = [*several, *(one for one in order if one not in several)][: args.people]
    shown = {one: rng.permutation(own[one])[: args.images].tolist() for one in chosen}
    planted: dict[str, set] = {kind: set() for kind in KINDS}
    faces = []
    for one in several:
        half = len(shown[one]) // 2
        faces += [(f'{one} again', f'{row}', unit[row]) for row in shown[one][:half]]
        shown[one] = shown[one][half:]
        planted['collision'].add(frozenset((one, f'{one} again')))
    rest = [one for one in chosen if one not in several and len(shown[one]) >= 3]
    for first, second in zip(rest[: args.plants], rest[args.plants : 2 * args.plants], strict=True):
        a, b = shown[first][0], shown[second][0]
        shown[first][0], shown[second][0] = b, a
        planted['wrong person'] |= {(first, f'{b}'), (second, f'{a}')}
    faces += [(one, f'{row}', unit[row]) for one in chosen for row in shown[one]]
    holders = {row: one for one in chosen for row in shown[one]}
    able = rng.permutation([row for row in copies if row in holders]).tolist()
    for kind, rows in (
        ('duplicate', able[: args.plants]),
        ('two names', able[args.plants : 2 * args.plants]),
    ):
        for row in rows:
            others = [one for one in chosen if one != holders[row]]
            person = holders[row] if kind == 'duplicate' else rng.choice(others)
            faces.append((str(person), f'copy of {row}', copies[row]))
            planted[kind].add(frozenset((f'{row}', f'copy of {row}')))
    return faces, planted


def find_keys(kind: str, findings: list[Finding], planted: dict[str, set]) -> list:
    """Return what the findings of a kind name, as it was planted.

    An image of somebody under two names that resembles the other of these names finds the person,
    and a copy that resembles whom it was taken from finds the copy.
    """
    keys = []
    for one in findings:
        pair, names = (
            frozenset(both)
            for both in ((one.person, one.other_person), (one.image, one.other_image))
        )
        found = one.kind
        copied = one.image.startswith('copy of ')
        if found == 'wrong person' and pair in planted['collision']:
            found = 'collision'
        elif found in ('wrong person', 'stranger') and copied:
            names, found = frozenset((one.image.removeprefix('copy of '), one.image)), 'two names'
        if found == kind == 'collision' and pair not in keys:
            keys.append(pair)
        elif found == kind == 'wrong person':
            keys.append((one.person, one.image))
        elif found == kind and kind != 'collision' and names not in keys:
            keys.append(names)
    return keys


def main(argv: list[str] | None = None) -> int:
    """Run the study; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('copies', type=Path, help='copies of some of the images')
    parser.add_argument('faces', type=Path, nargs='+', help='faces of people, files of mmvlr embed')
    parser.add_argument('--person', default=r'^(\d+)_|^.+', help='finds the person in a file name')
    parser.add_argument('--people', type=int, default=1000)
    parser.add_argument('--images', type=int, default=6, help='most images of a person')
    parser.add_argument('--plants', type=int, default=20, help='of each kind')
    parser.add_argument('--wrong', type=float, default=0.01, help='see mmvlr.identification.audit')
    parser.add_argument('--draws', type=int, default=10)
    args = parser.parse_args(argv)
    tables = [FaceTable.load(file) for file in args.faces]
    unit, names, people = join(tables, args.person)
    known = {'/'.join(Path(name).parts[-3:]): row for row, name in enumerate(names)}
    copied = FaceTable.load(args.copies)
    copies = {
        known[key]: embedding
        for name, embedding in zip(copied.names, copied.unit.numpy(), strict=True)
        if (key := '/'.join(Path(name).parts[-3:])) in known
    }
    totals = defaultdict(list)
    for seed in track(range(args.draws), 'draws', console=Console(stderr=True)):
        faces, planted = plant(unit, people, copies, args, np.random.default_rng(seed))
        gallery = Gallery(tables[0].fingerprint)
        owners, images, embeddings = zip(*faces, strict=True)
        gallery.enroll_many(owners, np.stack(embeddings), names=images)
        start = time.perf_counter()
        done = audit(gallery, wrong=args.wrong)
        totals['seconds'].append(time.perf_counter() - start)
        totals['people'].append(len(gallery))
        totals['images'].append(gallery.num_images)
        for kind in KINDS:
            keys = find_keys(kind, done.findings, planted)
            right = len({*keys} & planted[kind])
            totals[kind].append((len(planted[kind]), len(keys), right))
    mean = {name: np.mean(totals[name]) for name in ('people', 'images', 'seconds')}
    print(
        f'{mean["people"]:.0f} people, {mean["images"]:.0f} images; {mean["seconds"]:.2f} s an '
        f'audit; {args.draws} draws\n'
    )
    print('| kind | planted | found | precision, % | recall, % |\n|---|---:|---:|---:|---:|')
    for kind in KINDS:
        there, found, right = np.array(totals[kind]).sum(axis=0)
        cells = f'{there / args.draws:.0f} | {found / args.draws:.1f}'
        print(
            f'| {kind} | {cells} | {100 * right / max(found, 1):.0f} | {100 * right / there:.0f} |'
        )
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('audit_study.py', main))
