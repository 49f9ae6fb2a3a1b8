"""Study thresholds and abstention: ``python projects/studies/decision_study.py SCORES.npz ...``.

Each file holds the scored faces of an open-set test (roles ``gallery``, ``probe`` and ``unmated``)
as ``mmvlr score`` writes them; several files are the same faces under networks of
several seeds. A person's template is the mean of the unit embeddings. Enrolled and other people are
split at random into calibration and test, many times; the gallery is the same for both. Printed
are, as Markdown tables,

1. the false positive rate that thresholds realize on other people, as a whole and by RI, with the
   middle 95 % of the splits in brackets;
2. the error of the answered faces at equal coverage, and the area under it, by what decides on
   abstention, with 95 % intervals of the difference to RI (people resampled, seeds averaged);
3. which errors remain;
4. error and coverage on other people of levels that were chosen on the calibration people.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.progress import track

from mmvlr.cli.arguments import output_file
from mmvlr.cli.common import tell_errors
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import Resampled, open_set_scores, resample, risk_coverage
from mmvlr.evaluation.templates import MeanTemplate
from mmvlr.identification.abstention import abstention_level
from mmvlr.identification.calibrating import SearchedFaces
from mmvlr.identification.conformal import (
    binned_thresholds,
    conformal_threshold,
    find_bins,
    quality_edges,
)
from mmvlr.structures.face_table import MEASURES

RULES = ('plain', 'grouped', 'per RI bin')
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
NUM_BINS = 4
# Resampling repeats everything for each split: more of them move the means less than the people do.
RESAMPLED_SPLITS = 10


def search_templates(table: FaceTable) -> SearchedFaces:
    """Search the probes of a table among the mean templates of its gallery.

    Raises:
        ValueError: A role is missing, or a mated probe has no template.
    """
    for role in ('gallery', 'probe', 'unmated'):
        if not table.has(role):
            raise ValueError(f'there is no face of role {role!r}: an open-set test is needed')
    gallery, mated, unmated = map(table.only, ('gallery', 'probe', 'unmated'))
    known = gallery.unit, gallery.identity, mated.unit, mated.identity
    scores = open_set_scores(*known, unmated.unit, template=MeanTemplate(), top_k=1)
    rows = np.concatenate([np.flatnonzero(table.role == role) for role in ('probe', 'unmated')])
    is_mated = table.role[rows] == 'probe'
    return SearchedFaces(
        similarity=np.concatenate([scores.found.top_score[:, 0], scores.unmated_score]),
        mated=is_mated,
        correct=np.concatenate([scores.rank == 1, np.zeros(len(unmated), bool)]),
        people=table.groups[rows],
        qualities={name: values[rows] for name, values in table.qualities.items()},
    )


def calibration_half(faces: SearchedFaces, seed: int) -> np.ndarray:
    """Whether each face belongs to the calibration people of a split, bool (N,)."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(faces), bool)
    for kind in (faces.mated, ~faces.mated):
        people = rng.permutation(np.unique(faces.people[kind]))
        chosen |= kind & np.isin(faces.people, people[: len(people) // 2])
    return chosen


def thresholds_of(
    rule: str, faces: SearchedFaces, fpir: float
) -> Callable[[SearchedFaces], np.ndarray]:
    """Calibrate a rule; return the function from faces to their thresholds."""
    unmated = faces.take(~faces.mated)
    if rule == 'per RI bin':
        edges = quality_edges(faces.quality('ri')[faces.mated], NUM_BINS)
        found = binned_thresholds(
            unmated.similarity, unmated.quality('ri'), edges, fpir, unmated.people
        )
        return lambda others: found(others.quality('ri'))
    people = None if rule == 'plain' else unmated.people
    level = conformal_threshold(unmated.similarity, fpir, people).threshold
    return lambda others: np.full(len(others), level)


def by_person(values: np.ndarray, people: np.ndarray) -> float:
    """Mean over people of the mean over their faces."""
    _, person = np.unique(people, return_inverse=True)
    return float((np.bincount(person, values) / np.bincount(person)).mean())


def realized(
    sets: list[SearchedFaces], fpir: float, num_splits: int, console: Console
) -> dict[str, dict[str, np.ndarray]]:
    """Rates on the test people by rule and name, one a split and file."""
    found: dict[str, dict[str, list[float]]] = {rule: {} for rule in RULES}
    for split in track(range(num_splits), f'FPIR {fpir:g}', console=console):
        for faces in sets:
            chosen = calibration_half(faces, split)
            calibration, test = faces.take(chosen), faces.take(~chosen)
            edges = quality_edges(calibration.quality('ri')[calibration.mated], NUM_BINS)
            place = find_bins(test.quality('ri'), edges)
            for rule in RULES:
                accepted = test.similarity > thresholds_of(rule, calibration, fpir)(test)
                positive = accepted[~test.mated].astype(float)
                rates = dict(
                    people=by_person(positive, test.people[~test.mated]),
                    faces=positive.mean(),
                    tpir=(accepted & test.correct)[test.mated].mean(),
                )
                for number in range(NUM_BINS):
                    inside = ~test.mated & (place == number)
                    # Few faces of a bin may all be of calibration people.
                    rates[f'bin {number + 1}'] = (
                        by_person(accepted[inside].astype(float), test.people[inside])
                        if inside.any()
                        else np.nan
                    )
                for name, rate in rates.items():
                    found[rule].setdefault(name, []).append(rate)
    return {rule: {n: np.array(v) for n, v in rates.items()} for rule, rates in found.items()}


def confidences(
    faces: SearchedFaces, calibration: SearchedFaces, rule: Callable[[SearchedFaces], np.ndarray]
) -> dict[str, np.ndarray]:
    """What may decide on abstention, by name for a reader: (N,) of the faces."""
    found = {MEASURES[name]: values for name, values in faces.qualities.items()}
    found['similarity'] = faces.similarity
    distance, known = (np.abs(f.similarity - rule(f)) for f in (faces, calibration))
    found['distance to threshold'] = distance
    # Scales of different units meet as shares of the calibration faces below.
    both = (faces.quality('ri'), calibration.quality('ri')), (distance, known)
    found['RI + distance'] = sum(
        np.searchsorted(np.sort(reference), values) / len(reference) for values, reference in both
    )
    return found


def study_abstention(
    sets: list[SearchedFaces], rule: str, fpir: float, resamples: int, console: Console
) -> tuple[dict[str, Resampled], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Error at equal coverage by measure: resampled, kinds of errors, mean curves."""
    parts = []
    for split in range(RESAMPLED_SPLITS):
        for faces in sets:
            chosen = calibration_half(faces, split)
            calibration, test = faces.take(chosen), faces.take(~chosen)
            thresholds = thresholds_of(rule, calibration, fpir)
            threshold, trust = thresholds(test), confidences(test, calibration, thresholds)
            place = np.full(len(faces), -1)
            place[~chosen] = np.arange(len(test))
            parts.append((place, test, threshold, test.errors(threshold), trust))
    measures = list(parts[0][-1])

    def statistics(rows: np.ndarray) -> dict[str, float]:
        found = np.zeros((len(measures), 1 + len(COVERAGES)))
        for place, _, _, errors, trust in parts:
            own = place[rows]
            own = own[own >= 0]
            last = np.ceil(np.array(COVERAGES) * len(own) - 1e-9).astype(int) - 1
            for number, measure in enumerate(measures):
                curve = risk_coverage(errors[own], trust[measure][own])
                found[number] += [curve['aurc'], *curve['risk'][last]]
        return {str(n): value for n, value in enumerate(found.ravel() / len(parts))}

    faces = sets[0]
    with console.status(f'resampling people, {rule}, FPIR {fpir:g}'):
        drawn = resample(
            np.arange(len(faces)), faces.people, statistics, resamples, strata=faces.mated
        )
    names = ('aurc', *(f'{coverage:g}' for coverage in COVERAGES))
    split_up = {
        measure: Resampled(
            names,
            drawn.estimate.reshape(len(measures), -1)[number],
            drawn.draws.reshape(resamples, len(measures), -1)[:, number],
        )
        for number, measure in enumerate(measures)
    }
    kinds, curves = {}, {}
    grid = np.linspace(0.05, 1, 96)
    for measure in measures:
        counts, lines = [], []
        for _, test, threshold, errors, trust in parts:
            counts.append([kinds_of_errors(test, threshold, trust[measure], c) for c in COVERAGES])
            curve = risk_coverage(errors, trust[measure])
            lines.append(np.interp(grid, curve['coverage'], curve['risk']))
        kinds[measure] = np.nanmean(counts, axis=0)
        curves[measure] = (grid, np.mean(lines, axis=0))
    return split_up, kinds, curves


def kinds_of_errors(
    test: SearchedFaces, threshold: np.ndarray, trust: np.ndarray, coverage: float
) -> list[float]:
    """Rates among the most trusted faces.

    Enrolled among the answered; wrong person and unknown among the answered enrolled; accepted
    among the answered others.
    """
    count = int(np.ceil(coverage * len(test) - 1e-9))
    most_trusted = np.argsort(-trust, kind='stable')[:count]
    answered = test.take(most_trusted)
    accepted = answered.similarity > threshold[most_trusted]
    mated = answered.mated
    return [
        mated.mean(),
        (accepted & ~answered.correct)[mated].mean(),
        (~accepted)[mated].mean(),
        accepted[~mated].mean(),
    ]


def chosen_levels(
    sets: list[SearchedFaces], fpir: float, target: float, num_splits: int
) -> dict[str, list[tuple[bool, float, float]]]:
    """Reached, error and coverage on the test people of levels chosen on the calibration people."""
    found: dict[str, list[tuple[bool, float, float]]] = {}
    for split in range(num_splits):
        for faces in sets:
            chosen = calibration_half(faces, split)
            calibration, test = faces.take(chosen), faces.take(~chosen)
            rule = thresholds_of('grouped', calibration, fpir)
            if not np.isfinite(rule(test)).all():
                continue
            own, trust = (confidences(f, calibration, rule) for f in (calibration, test))
            errors, test_errors = (f.errors(rule(f)) for f in (calibration, test))
            for measure, values in own.items():
                level = abstention_level(values, errors, target)
                answered = trust[measure] >= level.level
                error = test_errors[answered].mean() if answered.any() else np.nan
                found.setdefault(measure, []).append((level.reached, error, answered.mean()))
    return found


def spread(values: np.ndarray) -> str:
    """Mean and middle 95 % of the splits, in per cent."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return f'{100 * np.nanmean(values):.2f} [{100 * low:.1f}, {100 * high:.1f}]'


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *rows]
    print(f'\n{title}\n')
    print('\n'.join('| ' + ' | '.join(line) + ' |' for line in lines))


def report_rates(fpir: float, rates: dict[str, dict[str, np.ndarray]], num_splits: int) -> None:
    """Print the realized rates of all rules."""
    names = ['people', 'faces', *(f'bin {n + 1}' for n in range(NUM_BINS)), 'tpir']
    rows = []
    for rule, found in rates.items():
        # The files of one split have the same people.
        by_split = found['people'].reshape(num_splits, -1).mean(axis=1)
        error = by_split.std() / np.sqrt(num_splits)
        mean = f'{spread(found["people"])} (mean ±{100 * error:.2f})'
        by_bin = [f'{100 * np.nanmean(found[name]):.2f}' for name in names[2:-1]]
        rows.append([rule, mean, spread(found['faces']), *by_bin, spread(found['tpir'])])
    bins = [f'RI bin {n + 1}' for n in range(NUM_BINS)]
    header = ['threshold', 'FPIR, people count once', 'FPIR of faces', *bins, 'TPIR, rank 1']
    table(f'Realized FPIR at target {100 * fpir:g} %, in %', header, rows)


def report_abstention(
    fpir: float, rule: str, found: dict[str, Resampled], kinds: dict[str, np.ndarray]
) -> None:
    """Print error at equal coverage, and what errors remain."""
    rows = []
    for measure, drawn in sorted(found.items(), key=lambda item: item[1].estimate[0]):
        against = drawn.minus(found['RI'])
        cells = [f'{drawn.estimate[0]:.4f}']
        if measure == 'RI':
            cells.append('')
        else:
            difference = against['aurc']
            cells.append(
                f'{difference.difference:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]'
            )
        for number, name in enumerate(drawn.names[1:], start=1):
            clear = against[name].low * against[name].high > 0
            cells.append(f'{100 * drawn.estimate[number]:.1f}{"*" if clear else ""}')
        rows.append([measure, *cells])
    table(
        f'Error of the answered faces (%), {rule} thresholds at FPIR {100 * fpir:g} %; * differs '
        'from RI',
        ['abstention by', 'AURC', 'minus RI', *(f'coverage {c:g}' for c in COVERAGES)],
        rows,
    )
    rows = []
    for measure in sorted(found, key=lambda name: found[name].estimate[0]):
        for place in (0, 3, 5):
            if place == 0 and rows:
                continue
            cells = [f'{100 * value:.1f}' for value in kinds[measure][place]]
            rows.append(['(all)' if place == 0 else measure, f'{COVERAGES[place]:g}', *cells])
    table(
        f'Which errors remain (%), {rule} thresholds at FPIR {100 * fpir:g} %',
        [
            'abstention by',
            'coverage',
            'enrolled among answered',
            'enrolled: wrong person',
            'enrolled: unknown',
            'others: accepted',
        ],
        rows,
    )


def report_levels(
    fpir: float, target: float, found: dict[str, list[tuple[bool, float, float]]]
) -> None:
    """Print what chosen levels bring on other people."""
    rows = []
    for measure, outcomes in found.items():
        reached, error, coverage = np.array(outcomes, dtype=float).T
        inside = reached == 1
        cells = [spread(values[inside]) if inside.any() else '-' for values in (error, coverage)]
        rows.append([measure, f'{100 * reached.mean():.0f}', *cells])
    table(
        f'Levels chosen for an error of {100 * target:g} % at FPIR {100 * fpir:g} %, on other '
        'people (%)',
        ['abstention by', 'splits that reach it', 'error where reached', 'coverage where reached'],
        rows,
    )


def draw(
    path: Path, fpir: float, rates: dict[str, dict[str, np.ndarray]], curves: dict[str, np.ndarray]
) -> None:
    """Write both figures side by side."""
    from mmvlr.reports import draw_realized_fpir, draw_risk_coverage, render_pixels
    from mmvlr.utils.io import write_atomic

    shown = {rule: found['people'] for rule, found in rates.items()}
    left = render_pixels(draw_realized_fpir(shown, fpir))
    right = render_pixels(draw_risk_coverage(curves))
    pixels = np.concatenate([left, right], axis=1)[..., ::-1]
    write_atomic(path, lambda file: cv2.imwrite(str(file), pixels))
    print(f'\n{path}')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command line's values."""
    parser = argparse.ArgumentParser(description=__doc__.split(':')[0])
    parser.add_argument('scores', nargs='+', help='files of mmvlr score', type=Path)
    parser.add_argument('--splits', type=int, default=200, help='random splits of the people')
    parser.add_argument('--fpir', type=float, nargs='+', default=[0.1, 0.01], help='targets')
    parser.add_argument('--resamples', type=int, default=500, help='resamples of the people')
    parser.add_argument(
        '--target-error', type=float, default=0.25, help='error that chosen levels aim at'
    )
    parser.add_argument(
        '--figure', type=output_file, metavar='FILE.png', help='for the first target'
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the study; return the exit code."""
    args = parse_args(argv)
    console = Console(stderr=True)
    sets = []
    for path in args.scores:
        try:
            sets.append(search_templates(FaceTable.load(path)))
            sets[-1].quality('ri')
        except (OSError, ValueError) as error:
            print(f'decision_study.py: {path}: {error}', file=sys.stderr)
            return 1
        first, last = sets[0], sets[-1]
        same = np.array_equal(first.people, last.people) and np.array_equal(first.mated, last.mated)
        if not same or first.qualities.keys() != last.qualities.keys():
            print(
                f'decision_study.py: {path} scores other faces or qualities than {args.scores[0]}',
                file=sys.stderr,
            )
            return 1
    faces = sets[0]
    counts = [len(np.unique(faces.people[kind])) for kind in (faces.mated, ~faces.mated)]
    print(
        f'{len(sets)} files; {faces.mated.sum()} mated probes of {counts[0]} people, '
        f'{(~faces.mated).sum()} unmated of {counts[1]}; {args.splits} splits'
    )
    for number, fpir in enumerate(args.fpir):
        rates = realized(sets, fpir, args.splits, console)
        report_rates(fpir, rates, args.splits)
        for rule in ('grouped', 'per RI bin'):
            if rule != 'grouped' and np.array_equal(
                rates[rule]['people'], rates['grouped']['people']
            ):
                print('\nAll RI bins were merged: there are too few people for more than one.')
                continue
            found, kinds, curves = study_abstention(sets, rule, fpir, args.resamples, console)
            report_abstention(fpir, rule, found, kinds)
            if number == 0 and rule == 'grouped' and args.figure:
                draw(args.figure, fpir, rates, curves)
        report_levels(
            fpir,
            args.target_error,
            chosen_levels(sets, fpir, args.target_error, args.splits),
        )
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('decision_study.py', main))
