"""What a check of an archive has found."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mmvlr.utils.io import write_csv

MANIFEST = 'manifest.csv'
COLUMNS = ['file', 'part', 'person', 'width', 'height', 'bytes', 'sha256']
#: Upper ends of the bins of the histogram, in pixels; they are in the next bin.
SIDES = (8, 12, 16, 20, 24, 32, 48, 64, 112)
#: So many notes of a kind are printed; problems are printed all.
SHOWN_NOTES = 10


@dataclass
class ArchiveReport:
    """What :func:`check_archive` found.

    Attributes:
        dataset: ``'tinyface'``, ``'scface'`` or ``'survface'``.
        root: The folder that was given.
        base: The folder that holds the archive: ``root``, or a folder in it.
        problems: Kind -> lines, each with the name of a file or folder relative to ``root``.
        notes: The same, for what does no harm.
        rows: One dict a readable image, by :data:`COLUMNS`, in the order of the names.
        found: Part -> number of its images, readable or not.
    """

    dataset: str
    root: Path
    base: Path
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    rows: list[dict] = field(default_factory=list)
    found: dict[str, int] = field(default_factory=dict)

    @property
    def num_problems(self) -> int:
        """Number of problems of all kinds."""
        return sum(map(len, self.problems.values()))

    def describe(self) -> str:
        """Return people, images and native sizes by part, notes, and every problem."""
        lines = [f'{self.dataset} in {shown(self.base)}', *self._statistics()]
        for title, findings in (('notes', self.notes), ('problems', self.problems)):
            lines += ['', f'{title}: {sum(map(len, findings.values())):,}']
            for kind, found in findings.items():
                listed = found[:SHOWN_NOTES] if findings is self.notes else found
                lines += [f'  {kind} ({len(found):,})', *(f'    {line}' for line in listed)]
                if len(listed) < len(found):
                    lines.append(f'    and {len(found) - len(listed):,} more')
        return '\n'.join(lines)

    def _statistics(self) -> list[str]:
        rows = {part: [row for row in self.rows if row['part'] == part] for part in self.found}
        sides = {
            part: np.array([min(row['width'], row['height']) for row in of_part])
            for part, of_part in rows.items()
        }
        width = max([len(part) for part in self.found], default=0) + 2
        lines = [f'  {"":{width}}{"people":>9}{"images":>10}{"readable":>10}   shorter side (px)']
        for part, count in self.found.items():
            people = len({row['person'] for row in rows[part]} - {''})
            line = f'  {part:{width}}{people or "-":>9}{count:>10,}{len(rows[part]):>10,}'
            if len(sides[part]):
                low, middle, high = np.quantile(sides[part], (0, 0.5, 1))
                line += f'   {low:.0f} to {high:.0f}, median {middle:g}'
            lines.append(line)
        lines += ['', f'  {"shorter side":{width + 6}}' + ''.join(f'{p:>14}' for p in self.found)]
        for low, high in zip((0, *SIDES), (*SIDES, np.inf), strict=True):
            counts = [int(((s >= low) & (s < high)).sum()) for s in sides.values()]
            if any(counts):
                name = f'{low} to {high - 1}' if high < np.inf else f'{low} and more'
                lines.append(f'  {name:{width + 6}}' + ''.join(f'{c:>14,}' for c in counts))
        return lines

    def write_manifest(self, path: str | Path) -> None:
        """Write the readable images as a table, atomically."""
        write_csv(Path(path), COLUMNS, self.rows)


def shown(text: object) -> str:
    r"""Return text that can be printed: bytes of names that are no UTF-8 become ``\udcNN``."""
    return str(text).encode('utf-8', 'backslashreplace').decode()
