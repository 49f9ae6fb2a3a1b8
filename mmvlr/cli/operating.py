"""Tell what a decision is worth, and what it left without an answer."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .common import table

if TYPE_CHECKING:
    from mmvlr.identification.abstention import AbstentionLevel


def tell_operation(operating: Mapping[str, Any] | None) -> str:
    """Return the operating table of a decision as text; '' if there is none."""
    if operating is None:
        return ''

    def rate(row: Mapping[str, Any], name: str) -> str:
        if row[name] is None:
            return '-'
        return f'{row[name]:.1%} ({row[f"{name}_low"]:.0%} to {row[f"{name}_high"]:.0%})'

    lines = []
    for row in operating['rows']:
        low, high = (None if row[end] is None else f'{row[end]:.3g}' for end in ('low', 'high'))
        limits = f'{low or ""} to {high or ""}' if low and high else f'from {low}' if low else ''
        faces = f'{row["by"]} {limits or (f"below {high}" if high else "")}'.strip()
        lines.append(
            dict(faces=faces, mated=row['mated_faces'], unmated=row['unmated_faces'])
            | {name: rate(row, name) for name in ('tpir', 'fpir', 'answered')}
        )
    judged = (
        'people who did not choose them'
        if operating['held_out']
        else ('the calibration people themselves, so optimistic')
    )
    return f'What to expect, thresholds judged on {judged}:\n' + table(list(lines[0]), lines)


def tell_level(name: str, found: 'AbstentionLevel') -> str:
    """Return below which value of a measure no answer is given, and what that brings, as text."""
    told = f'No answer below {name} {found.level:.3f}'
    return f'{told if found.level > -math.inf else "Every face is answered"}: {found.summary}'


def count_abstentions(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, int], str]:
    """Return how many rows were not answered for which measure, and the same as text."""
    open_rows = [row for row in rows if row['outcome'] == 'abstain']
    first = [next(iter(row['changes']), dict(measure='other'))['measure'] for row in open_rows]
    counts = dict(Counter(first))
    return counts, ''.join(f'; {n} abstain for {name}' for name, n in counts.items())
