"""Summarize result files of several seeds as a table.

  mmvlr summarize NAME=FILE[,FILE...] ...

with the files that mmvlr test --out writes. Prints a Markdown table: mean over the files of a name
and, where there are several, the lowest and highest value in round brackets. Where the files hold
intervals (--intervals), their ends stand in square brackets, averaged over the files: how far
another draw of test people would move the number, not how far another seed would.
"""

import argparse

from ..arguments import existing_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('groups', nargs='+', metavar='NAME=FILE[,FILE...]')
    parser.add_argument('--metrics', nargs='+', help='rows of the table (default: all metrics)')


def run(args: argparse.Namespace) -> int:
    """Print the table; return the exit code."""
    print(table([read_group(text) for text in args.groups], args.metrics))
    return 0


def read_group(text: str) -> tuple[str, list[dict[str, float]]]:
    """Parse ``NAME=FILE[,FILE...]`` and read the files.

    Raises:
        ValueError: The text has another form, or a file is no result file.
    """
    from mmvlr.utils.schema import load_json

    name, _, files = text.partition('=')
    if not name or not files:
        raise ValueError(f'{text!r}: expected NAME=FILE[,FILE...]')
    results = []
    for file in files.split(','):
        try:
            results.append(dict(load_json(existing_file(file).read_bytes())))
        except (ValueError, TypeError) as error:
            raise ValueError(f'{file} is not a result file of mmvlr test: {error}') from error
    return name, results


def cell(values: list[float], rate: bool, ends: tuple[list[float], list[float]] | None) -> str:
    """Return mean, range and interval of a metric's values as text."""
    factor, digits = (100, 2) if rate else (1, 3)

    def mean(numbers: list[float]) -> str:
        return f'{factor * sum(numbers) / len(numbers):.{digits}f}'

    text = mean(values)
    if len(values) > 1:
        text += f' ({factor * min(values):.{digits}f} to {factor * max(values):.{digits}f})'
    if ends is not None:
        text += f' [{mean(ends[0])}, {mean(ends[1])}]'
    return text


def table(groups: list[tuple[str, list[dict[str, float]]]], metrics: list[str] | None) -> str:
    """Return a Markdown table, a row for each metric and a column for each group."""
    # Warnings about the test set stand among the numbers.
    found = list(
        dict.fromkeys(
            key
            for _, results in groups
            for result in results
            for key, value in result.items()
            if isinstance(value, int | float)
        )
    )
    of_intervals = {f'{name}_{end}' for name in found for end in ('low', 'high')}
    names = metrics or [name for name in found if name not in of_intervals]
    rows = [
        '| metric | ' + ' | '.join(f'{name} ({len(results)})' for name, results in groups) + ' |',
        '|---|' + '---:|' * len(groups),
    ]
    for metric in names:
        rate = 'discard' not in metric and 'threshold@' not in metric
        cells = []
        for _, results in groups:
            values = [result[metric] for result in results if metric in result]
            low, high = (
                [result[f'{metric}_{end}'] for result in results if f'{metric}_{end}' in result]
                for end in ('low', 'high')
            )
            complete = len(low) == len(high) == len(values)
            cells.append(cell(values, rate, (low, high) if complete else None) if values else '-')
        rows.append(f'| {metric}{" (%)" if rate else ""} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(rows)
