"""Compare quality measures on scored faces: ``python projects/studies/judges.py SCORES.npz ...``.

Each file is a table of ``mmvlr score`` with gallery and probes. Printed for each, as Markdown:

1. the area of rank-1 error over discarded share by each measure (lower is better), its difference
   from RI's with a 95 % interval (people resampled; below 0 the measure is better than RI), and the
   skewness of its histogram over the probes;
2. RI, ERS and native size of the probes of lowest RI.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from mmvlr.cli.common import tell_errors
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import (
    discard_auc_bounds,
    rank1_error_versus_discard,
    resample,
)
from mmvlr.evaluation.metrics import ClosedSetMetric
from mmvlr.reports.page import compute_skewness
from mmvlr.structures.face_table import MEASURES


def measure_area(columns: np.ndarray) -> dict[str, float]:
    """Return the area of (quality, correct), (N, 2)."""
    return dict(area=rank1_error_versus_discard(columns[:, 0], columns[:, 1])['auc'])


def judge(faces: FaceTable, correct: np.ndarray, num_resamples: int) -> list[dict]:
    """Return a row for each measure, the best first.

    Args:
        faces: The probes, with RI.
        correct: Whether each was identified correctly, (N,).
        num_resamples: Number of resamples.
    """
    drawn = {
        name: resample(
            np.stack([values, correct.astype(float)], axis=1),
            faces.groups,
            measure_area,
            num_resamples=num_resamples,
        )
        for name, values in faces.qualities.items()
    }
    rows = []
    for name, own in drawn.items():
        found = own.minus(drawn['ri'])['area']
        row = dict(name=name, area=float(own.estimate[0]), difference=found.difference)
        row |= dict(low=found.low, high=found.high)
        rows.append(row | dict(skewness=compute_skewness(faces.qualities[name])))
    return sorted(rows, key=lambda row: row['area'])


def find_hardest(faces: FaceTable, correct: np.ndarray, count: int) -> list[dict]:
    """Return a row for each of the ``count`` probes of lowest RI, the lowest first."""
    columns = faces.columns
    rows = np.argsort(columns['ri'], kind='stable')[:count]
    names = faces.names or [f'row {row}' for row in range(len(faces))]
    return [
        dict(name=Path(names[row]).name, correct=bool(correct[row]))
        | {key: float(columns[key][row]) for key in ('ri', 'ers', 'size') if key in columns}
        for row in rows
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('scores', nargs='+', type=Path, help='tables of mmvlr score')
    parser.add_argument('--hardest', type=int, default=16, help='number of faces (default: 16)')
    parser.add_argument('--resamples', type=int, default=1000, help='number (default: 1000)')
    args = parser.parse_args(argv)
    for path in args.scores:
        table = FaceTable.load(path)
        if 'ri' not in table.qualities:
            raise ValueError(f'{path}: there is no RI; score a model of RI-Face')
        ranks = ClosedSetMetric().search(table)
        probes, correct = table.only('probe'), ranks.rank == 1
        bounds = discard_auc_bounds(correct)
        print(
            f'\n{path.name}: {len(probes):,} probes, rank-1 {correct.mean():.1%}; area random '
            f'{bounds["random"]:.3f}, perfect {bounds["perfect"]:.3f}\n'
        )
        print('| measure | area | minus RI | skewness |\n|---|---|---|---|')
        for row in judge(probes, correct, args.resamples):
            difference = '{difference:+.3f} ({low:+.3f} to {high:+.3f})'.format(**row)
            difference = '' if row['name'] == 'ri' else difference
            label = MEASURES[row['name']]
            print(f'| {label} | {row["area"]:.3f} | {difference} | {row["skewness"]:+.2f} |')
        hardest = find_hardest(probes, correct, args.hardest)
        keys = [key for key in ('ri', 'ers', 'size') if key in hardest[0]]
        heads = [MEASURES[key] for key in keys]
        print(f'\n| hardest by RI | {" | ".join(heads)} | identified |')
        print('|---' * (len(heads) + 2) + '|')
        for row in hardest:
            values = ' | '.join(f'{row[key]:.3g}' for key in keys)
            print(f'| {row["name"]} | {values} | {"yes" if row["correct"] else "no"} |')
        for key in keys:
            low, median, high = np.quantile(probes.columns[key], [0, 0.5, 1])
            print(f'\n{MEASURES[key]} of all probes: {low:.2f} to {high:.2f}, median {median:.2f}')
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('judges.py', main))
