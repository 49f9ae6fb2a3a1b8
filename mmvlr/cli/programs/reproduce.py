"""Compare methods: train what is missing, score, and write one report.

  mmvlr reproduce --data tinyface,scface --methods softmax,arcface,riface --seeds 0,1,2 --out DIR

trains every method on every data set from every seed with the configs' own recipes (or --epochs),
scores the faces of the test sets, and writes DIR/report.html and CSV files. Started again it goes
on where it stopped. --dry-run prints the plan.
"""

import argparse
import contextlib
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmvlr.utils.shipped import find_configs

from ..arguments import key_value, natural, output_folder, positive
from ..common import add_cfg_options, read_options

if TYPE_CHECKING:
    from rich.console import Console

    from mmvlr.experiments import Failure, Run

#: That of ``mmvlr.experiments``, which needs PyTorch.
PRETRAINED = 'pretrained'
METHODS = (
    f'{PRETRAINED},softmax,normface,cosface,arcface,curricularface,magface,adaface,crfiqa,riface'
)


def names(text: str) -> list[str]:
    """Split a list with commas; ``none`` is the empty one."""
    return [] if text == 'none' else [name.strip() for name in text.split(',') if name.strip()]


def seeds(text: str) -> list[int]:
    """Split a list of seeds with commas."""
    return [natural(name) for name in names(text)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('--data', type=names, default='tinyface,scface,survface')
    parser.add_argument(
        '--methods',
        type=names,
        default=METHODS,
        help='names of folders of configs/, folders of your own, or NAME=config.py; '
        f'{PRETRAINED}: the starting weights as they are (default: all of mmvlr)',
    )
    parser.add_argument('--seeds', type=seeds, default='0,1,2')
    parser.add_argument('--out', type=output_folder, required=True, metavar='DIR')
    parser.add_argument('--backbone', default='mobilefacenet')
    parser.add_argument(
        '--ablation',
        type=names,
        metavar='DATA',
        help='data sets on which the parts of RI-Face are switched off one by one; none for no '
        'ablation (default: those of --data)',
    )
    parser.add_argument(
        '--also-test',
        type=names,
        default='none',
        metavar='DATA',
        help='data sets on whose test sets every training is scored, beside its own',
    )
    parser.add_argument(
        '--epochs', type=positive, help="of every training (default: each config's own)"
    )
    parser.add_argument(
        '--jobs', type=positive, default=1, help='trainings at once, which share the cores'
    )
    parser.add_argument(
        '--cluster',
        choices=('slurm', 'local'),
        help='submit each training and test as a job of SLURM, or of this machine',
    )
    parser.add_argument(
        '--cluster-options',
        type=key_value,
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='of submitit: slurm_partition=gpu gpus_per_node=1 cpus_per_task=6 timeout_min=600',
    )
    parser.add_argument('--dry-run', action='store_true', help='print the plan and stop')
    parser.add_argument(
        '--report-only', action='store_true', help='of what is finished; no training'
    )
    add_cfg_options(parser)


def run(args: argparse.Namespace) -> int:
    """Compare; return the exit code."""
    from mmengine.logging import MMLogger
    from rich.console import Console

    from mmvlr.experiments import plan_runs
    from mmvlr.reports.from_runs import write_comparison

    # The configs of all runs are read here; what mmengine says of each would bury the plan.
    MMLogger.get_instance('mmengine', log_level='WARNING')
    console = Console(soft_wrap=True)
    runs = plan_runs(
        args.data,
        args.methods,
        args.seeds,
        args.out,
        find_configs(),
        args.backbone,
        args.data if args.ablation is None else args.ablation,
        args.also_test,
        args.epochs,
        read_options(args.cfg_options),
    )
    if not args.dry_run:
        with hold(args.out):
            pass
    print_plan(runs, args.jobs, console)
    if args.dry_run:
        return 0
    failures = [] if args.report_only else execute(runs, args, console)
    for failure in failures:
        run = failure.run
        console.print(
            f'{run.method} on {run.data}, seed {run.seed}: {failure.message}', markup=False
        )
    command = 'mmvlr reproduce ' + shlex.join(args.argv)
    with hold(args.out), console.status('report') as status:
        page = write_comparison(runs, args.out, failures, command, status.update)
    console.print(f'{page}, scores.csv and runs.csv beside it')
    missing = sum(not run.finished for run in runs)
    if missing:
        console.print(f'{missing} of {len(runs)} runs are not in it: start the command again')
    return 1 if missing else 0


@contextlib.contextmanager
def hold(out: Path) -> Iterator[None]:
    """Be the only writer of the comparison's report; refuse to overwrite files of others."""
    from mmvlr.utils.outputs import OutputFolder

    with OutputFolder(out, 'reproduce', wait=60) as output:
        output.claim(['report.html', 'scores.csv', 'runs.csv'])
        yield


def print_plan(runs: list['Run'], jobs: int, console: 'Console') -> None:
    """Print what there is to do, by method and data set, and how long it will take."""
    from rich.table import Table

    from mmvlr.experiments import estimate_seconds

    table = Table(title='runs: trained and scored, of all')
    table.add_column('method')
    columns = list(dict.fromkeys((run.data, run.test) for run in runs))
    for data, test in columns:
        table.add_column(test if data == test else f'{data} \u2192 {test}', justify='right')
    for group, method in dict.fromkeys((run.group, run.method) for run in runs):
        cells = []
        for column in columns:
            own = [
                run
                for run in runs
                if (run.group, run.method, run.data, run.test) == (group, method, *column)
            ]
            trained = sum(run.training is None or run.training.finished for run in own)
            scored = sum(run.finished for run in own)
            cells.append(f'{trained}, {scored} of {len(own)}' if own else '-')
        table.add_row(method if group == 'method' else f'  {method}', *cells)
    console.print(table)
    trainings = {run.training.folder: run.training for run in runs if run.training}
    left = sum(not training.finished for training in trainings.values())
    seconds, unknown = estimate_seconds(runs, jobs)
    text = f'{left} of {len(trainings)} trainings are to be done'
    if seconds:
        text += f', about {duration(seconds)}'
    if unknown:
        text += f'; how long on {", ".join(unknown)} is known when one of them is done'
    console.print(text)


def execute(runs: list['Run'], args: argparse.Namespace, console: 'Console') -> list['Failure']:
    """Carry out the runs with a bar of progress; return what failed."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    from mmvlr.experiments import ClusterExecutor, Executor, estimate_seconds

    todo = [run for run in runs if not run.finished]
    # All methods from the first seed before any from the second: an early report compares.
    todo.sort(key=lambda run: (run.group != 'method', run.seed or 0))
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('{task.fields[left]}'),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task('runs', total=len(todo), left='')

        def report(run: 'Run', state: str) -> None:
            name = f'{run.method} on {run.data}, seed {run.seed}'
            if run.test != run.data and state not in ('trains', 'waits'):
                name += f', test on {run.test}'
            seconds, unknown = estimate_seconds(runs, args.jobs)
            left = f'{duration(seconds)} left' if seconds and not unknown else ''
            done = int(state in ('finished', 'failed'))
            progress.update(task, advance=done, left=left)
            progress.console.print(f'{time.strftime("%H:%M:%S")}  {name}: {state}  {left}')

        if args.cluster is None:
            executor = Executor(args.jobs, report)
        else:
            executor = ClusterExecutor(
                args.out / 'jobs',
                args.cluster,
                read_options(args.cluster_options),
                jobs=args.jobs,
                report=report,
            )
        return executor.execute([*todo, *(run for run in runs if run.finished)])


def duration(seconds: float) -> str:
    """Return a time as hours and minutes."""
    minutes = round(seconds / 60)
    return f'{minutes // 60} h {minutes % 60:02d} min' if minutes >= 60 else f'{minutes} min'
