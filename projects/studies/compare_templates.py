"""Compare template rules: ``python projects/studies/compare_templates.py SCORES.npz ...``.

The files are scored test sets (``mmvlr score``) with several gallery images a person,
one file a training seed of one method. For every rule: rank-1 of the mated probes and, where there
are unmated ones, TPIR (own person within rank 20) at FPIR; means over the files with 95 % intervals
from resampling people, and the paired difference to the mean template. Ranks count people, a tie
counts against the probe, and every distractor is a person. A star marks differences whose interval
leaves out zero.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.progress import track

from mmvlr.cli.arguments import output_file
from mmvlr.cli.common import tell_errors
from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.functional import (
    OpenSetScores,
    Resampled,
    is_measurable,
    open_set_rates,
    open_set_scores,
    resample,
)
from mmvlr.evaluation.templates import TemplateRule, template_config
from mmvlr.registry import TEMPLATES
from mmvlr.utils.io import write_csv

#: Name in the tables -> rule; the others are compared with the first.
RULES = {
    'mean': 'mean',
    'norm': 'norm',
    'ri T=2': dict(type='RIWeightedTemplate', temperature=2.0),
    'ri T=1': dict(type='RIWeightedTemplate', temperature=1.0),
    'ri T=0.5': dict(type='RIWeightedTemplate', temperature=0.5),
    'ri T=0.25': dict(type='RIWeightedTemplate', temperature=0.25),
    'best 1 by ri': dict(type='BestTemplate', k=1),
    'best 2 by ri': dict(type='BestTemplate', k=2),
    'best 1 by norm': dict(type='BestTemplate', k=1, quality='norm'),
    'images': 'images',
}
RANK = 20


def search(faces: FaceTable, rule: TemplateRule, mated: np.ndarray) -> OpenSetScores:
    """Search the mated probes (rows) and all unmated ones among the templates of a rule."""
    gallery, unmated = faces.only('gallery', 'distractor'), faces.only('unmated')
    mated = faces.take(mated)
    return open_set_scores(
        gallery.unit,
        gallery.identity,
        mated.unit,
        mated.identity,
        unmated.unit if len(unmated) else None,
        rank=RANK,
        template=rule,
        qualities=gallery.columns,
    )


def statistics(found: OpenSetScores, groups: np.ndarray, args: argparse.Namespace) -> Resampled:
    """Return the statistics of a search in every resample of people."""
    num_mated, num_unmated = len(found.rank), len(found.unmated_score)
    kind = np.repeat([0, 1], [num_mated, num_unmated])
    score = np.concatenate([found.mated_score, found.unmated_score])
    rank = np.concatenate([found.rank, np.zeros(num_unmated)])

    def rates(kept: np.ndarray) -> dict[str, float]:
        mated = kept[:, 0] == 0
        result = {'rank1': (kept[mated, 2] == 1).mean()}
        if not num_unmated:
            return result | {f'rank{k}': (kept[mated, 2] <= k).mean() for k in (5, RANK)}
        found = open_set_rates(kept[mated, 1], kept[~mated, 1], args.fpirs)
        names = [*(f'tpir@fpir{fpir}' for fpir in args.fpirs), 'auc']
        return result | {name.replace('tpir', f'tpir{RANK}'): found[name] for name in names}

    values = np.stack([kind, score, rank], axis=1)
    return resample(values, groups, rates, args.resamples, args.seed, strata=kind)


def mean_of(parts: Sequence[Resampled]) -> Resampled:
    """Average over seeds, resample by resample: people vary, the trainings stay those they are."""
    return Resampled(
        parts[0].names,
        np.mean([part.estimate for part in parts], axis=0),
        np.mean([part.draws for part in parts], axis=0),
    )


def compare(tables: Mapping[str, FaceTable], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row for each rule and statistic.

    Raises:
        ValueError: The files are not of one test set, or lack roles or qualities.
    """
    first, faces = next(iter(tables.items()))
    for path, other in tables.items():
        if not (
            np.array_equal(other.role, faces.role)
            and np.array_equal(other.identity, faces.identity)
        ):
            raise ValueError(f'{path} is not of the same test set as {first}, face by face')
    if not faces.has('gallery', 'probe'):
        raise ValueError(f'{first} has no faces of role gallery and probe')
    gallery = faces.identity[faces.role == 'gallery']
    images = (gallery[None] == faces.identity[:, None]).sum(axis=1)
    mated = np.flatnonzero((faces.role == 'probe') & (images >= args.min_images))
    if not len(mated):
        raise ValueError(f'{first}: no probe has {args.min_images} gallery images')
    unmated = np.flatnonzero(faces.role == 'unmated')
    people, count = np.unique(gallery, return_counts=True)
    print(
        f'{len(tables)} files; gallery: {len(gallery):,} images of {len(people):,} people ('
        + ', '.join(f'{n} with {i}' for i, n in enumerate(np.bincount(count)) if n)
        + f'), {(faces.role == "distractor").sum():,} distractors; probes: {len(mated):,} mated of '
        f'{len(np.unique(faces.identity[mated])):,} people, {len(unmated):,} unmated'
    )
    for fpir in args.fpirs if len(unmated) else ():
        if not is_measurable(fpir, len(unmated)):
            print(f'FPIR {fpir:g}: too few trials to measure ({len(unmated):,} unmated probes)')
    groups = faces.groups[np.concatenate([mated, unmated])]
    found = {}
    for name, config in track(RULES.items(), 'rules', transient=True):
        rule = TEMPLATES.build(template_config(config))
        found[name] = []
        for path, table in tables.items():
            try:
                found[name].append(statistics(search(table, rule, mated), groups, args))
            except ValueError as error:
                raise ValueError(f'{path}: {error}') from error
    base = next(iter(RULES))
    rows = []
    for name, parts in found.items():
        together = mean_of(parts)
        differences = together.minus(mean_of(found[base]))
        for index, (statistic, interval) in enumerate(together.intervals().items()):
            difference = differences[statistic]
            by_file = [
                part.estimate[index] - other.estimate[index]
                for part, other in zip(parts, found[base], strict=True)
            ]
            rows.append(
                dict(
                    rule=name,
                    statistic=statistic,
                    value=interval.estimate,
                    low=interval.low,
                    high=interval.high,
                    difference=difference.difference,
                    difference_low=difference.low,
                    difference_high=difference.high,
                    p_value=difference.p_value,
                    difference_least=min(by_file),
                    difference_most=max(by_file),
                )
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as text, one block a statistic."""
    base = next(iter(RULES))
    lines = []
    for statistic in dict.fromkeys(row['statistic'] for row in rows):
        lines.append(
            f'\n{statistic:<16} {"%":>6}  {"95 % interval":<14} {"minus " + base:>10}  '
            f'{"95 % interval":<14} {"p":>6}  over the files'
        )
        for row in rows:
            if row['statistic'] != statistic:
                continue
            value, low, high = (100 * row[key] for key in ('value', 'low', 'high'))
            line = f'{row["rule"]:<16} {value:6.2f}  {f"{low:.1f} to {high:.1f}":<14}'
            if row['rule'] != base:
                low, high = 100 * row['difference_low'], 100 * row['difference_high']
                star = '*' if low > 0 or high < 0 else ' '
                line += (
                    f' {100 * row["difference"]:+9.2f}{star}  {f"{low:+.1f} to {high:+.1f}":<14} '
                    f'{row["p_value"]:6.3f}  {100 * row["difference_least"]:+.1f} to '
                    f'{100 * row["difference_most"]:+.1f}'
                )
            lines.append(line)
    return '\n'.join(lines)


def main(argv: list[str] | None = None) -> int:
    """Compare; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('scores', nargs='+', metavar='SCORES.npz', help='one file a seed')
    parser.add_argument(
        '--out', type=output_file, metavar='FILE.csv', help='write all figures here'
    )
    parser.add_argument(
        '--min-images',
        type=int,
        default=1,
        metavar='N',
        help='only mated probes of people with at least N gallery images',
    )
    parser.add_argument('--fpirs', nargs='+', type=float, default=(0.3, 0.1, 0.01))
    parser.add_argument('--resamples', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0, help='of the resampling')
    args = parser.parse_args(argv)
    try:
        rows = compare({path: FaceTable.load(path) for path in args.scores}, args)
    except (FileNotFoundError, ValueError) as error:
        print(f'compare_templates.py: {error}', file=sys.stderr)
        return 1
    print(table(rows))
    if args.out:
        write_csv(args.out, list(rows[0]), rows)
        print(f'\n{args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(tell_errors('compare_templates.py', main))
