"""Break the commands of mmvlr on purpose and count what is lost.

  python projects/reliability/faults.py OUT                       everything, about an hour
  python projects/reliability/faults.py OUT --faults kill --commands train,pack --kills 20

Every command first runs unbroken, twice. Then each fault hits it, and afterwards the same command
runs once more. A try holds if that run succeeds, its result is the unbroken one (files byte for
byte, of checkpoints every tensor and number), inputs and files that mmvlr did not write are as
before, and no temporary file, lock or journal is left. Commands run in processes forked from this
one, in which everything is imported already, so that a random moment lies in the work and not in
the imports. Small file systems are mounted in a mount namespace of their own, which takes root.

OUT/faults.json holds every row, and a later call with the same OUT replaces those that it makes
anew; OUT/faults.md is the table.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mmvlr  # noqa: F401  # isort: skip

import cv2
import matplotlib  # noqa: F401 - imported once for all forks, as are some below
import mmengine.runner
import torch
import torch.utils.tensorboard
from commands import COMMANDS, Command
from loads import Loads
from sandbox import differences, isolate, mount, snapshot, wait

from mmvlr.utils.io import write_atomic


class Faults(Loads):
    """What befalls commands: each fault returns tries, what is wrong, and a note."""

    def signal(self, name: str, number: int, part: int = 1, patch: Any = None) -> tuple:
        """Send a signal at random moments, to one run of ``part`` that are to be killed."""
        tries = -(-self.kills // part)
        command, wrong, done, begun, late = COMMANDS[name], [], 0, 0, 0
        while done < tries and late < 10 * tries:
            out, problems = self.new(command), []
            pid = self.start(command.words, out)
            time.sleep(self.random.uniform(0, self.seconds[name]))
            os.kill(pid, number)
            code = wait(pid)
            if code == 0:
                late += 1
            else:
                done += 1
                begun += any(path.is_file() for path in out.rglob('*') if '.log' not in path.name)
                if code not in (-number, 128 + number):
                    problems.append(f'ended with {code}')
                if patch is not None:
                    for path in out.rglob('*'):
                        os.utime(path, (time.time() + 86_400,) * 2)
                if number == signal.SIGINT and 'Traceback' in self.log(out).read_text():
                    problems.append('a traceback instead of one line')
                shutil.copy(self.log(out), out.with_suffix('.first'))
                problems += self.check_second_run(name, out, patch)
                wrong += [f'{name}: {problem}' for problem in problems]
            self.remove(out, problems)
        wrong += [f'{name}: {done} of {tries} signals came in time'] if done < tries else []
        return done, wrong, f'{begun} with files written'

    def clock(self, name: str) -> tuple:
        """Kill; then the clock is a day behind, and what is there is from tomorrow."""
        now = time.time

        def set_back() -> None:
            time.time = lambda: now() - 86_400

        return self.signal(name, signal.SIGKILL, 2, set_back)

    def disk(self, name: str) -> tuple:
        """Write to file systems too small for the result; then there is room."""
        command, wrong, full = COMMANDS[name], [], 0
        size = max(self.measure(command), 16_384)
        for share in (0.1, 0.5, 0.9):

            def attempt(share: float = share) -> list:
                place = self.work / 'small'
                mount(place, f'size={max(int(size * share) // 4096, 2) * 4096}')
                out = place / 'out'
                out.mkdir()
                if command.start:
                    with open(os.devnull, 'w') as null:
                        subprocess.run(
                            ['cp', '-r', f'{self.base / command.start}/.', out], stderr=null
                        )
                    # The gallery that is there must fit.
                    if self.read(command, out) != self.read(command, self.base / command.start):
                        return [0, []]
                code = wait(self.start(command.words, out))
                problems = [] if code == 0 else self.told(out, code)
                subprocess.run(['mount', '-o', 'remount,size=256m', place], check=True)
                return [int(code != 0), problems + self.check_second_run(name, out)]

            was_full, problems = isolate(attempt, self.work)
            full += was_full
            wrong += [f'{name}, {share:.0%} of the room: {problem}' for problem in problems]
        return full, wrong, 'and then with room'

    def measure(self, command: Command) -> int:
        """Return how many bytes a command writes."""
        out = self.new(command)
        self._call(command.words, out)
        size = sum(-(-path.stat().st_size // 4096) * 4096 for path in out.rglob('*'))
        shutil.rmtree(out)
        return size

    def told(self, out: Path, code: int) -> list[str]:
        """Say what is wrong with how a command failed."""
        text = self.log(out).read_text(errors='replace')
        wrong = [] if code == 1 else [f'ended with {code}']
        wrong += ['a traceback'] if 'Traceback' in text else []
        return wrong + ([] if re.search('^mmvlr .+: ', text, re.MULTILINE) else ['not a line'])

    def read_only(self, name: str) -> tuple:
        """Write to a folder that may be read only."""
        command = COMMANDS[name]

        def attempt() -> list:
            out = mount(self.work / 'small', 'size=64m')
            self.new(command, out)
            subprocess.run(['mount', '-o', 'remount,ro', out], check=True)
            before, begun = snapshot(out), time.monotonic()
            problems = self.told(out, wait(self.start(command.words, out)))
            problems += [f'{file} changed' for file in differences(before, snapshot(out))]
            return [time.monotonic() - begun, problems]

        seconds, problems = isolate(attempt, self.work)
        return 1, [f'{name}: {problem}' for problem in problems], f'told after {seconds:.1f} s'

    def writers(self, name: str) -> tuple:
        """Run a command twice at once into one folder."""
        command, wrong, refused = COMMANDS[name], [], 0
        for _ in range(min(self.kills, 3)):
            out = self.new(command)
            pids = [self.start(command.words, out)]
            time.sleep(self.random.uniform(0, self.seconds[name] / 2))
            log = self.log(out)
            log.rename(log.with_suffix('.first'))
            pids.append(self.start(command.words, out))
            codes = [wait(pid) for pid in pids]
            refused += codes != [0, 0]
            problems = [] if 0 in codes else [f'both failed: {codes}']
            if codes[1]:
                problems += self.told(out, codes[1])
            problems += self.check_second_run(name, out)
            wrong += [f'{name}: {problem}' for problem in problems]
            self.remove(out, problems)
        return min(self.kills, 3), wrong, f'{refused} times one was told to wait'

    def remove(self, out: Path, wrong: list[str]) -> None:
        """Remove what a try has written, unless it is wanted to see what is wrong."""
        if not wrong:
            shutil.rmtree(out)


# Table --------------------------------------------------------------------------------------------

FAULTS: dict[str, tuple[str, Callable]] = {
    'kill': ('SIGKILL', lambda faults, name: faults.signal(name, signal.SIGKILL)),
    'term': ('SIGTERM', lambda faults, name: faults.signal(name, signal.SIGTERM, 2)),
    'int': ('SIGINT', lambda faults, name: faults.signal(name, signal.SIGINT, 2)),
    'disk': ('full disk', Faults.disk),
    'read-only': ('read-only folder', Faults.read_only),
    'writers': ('two writers', Faults.writers),
    'clock': ('clock set back', Faults.clock),
}
OTHERS: dict[str, tuple[str, Callable]] = {
    'enroll-at-once': ('8 writers, one gallery', Faults.enroll_at_once),
    'shm': ('small /dev/shm, 2 workers', Faults.shared_memory),
    'many-files': ('100,000 files in a folder', Faults.many_files),
    'threads': ('8 threads, one inferencer and gallery', Faults.threads),
    'memory': ('memory over mixed input', Faults.memory),
}


def write_table(rows: dict[str, dict], folder: Path) -> None:
    """Write the rows as JSON, and as Markdown tables: of commands, and of the other faults."""

    def cell(key: str) -> str:
        row = rows.get(key)
        if row is None or 'skipped' in row:
            return '-' if row is None else 'skipped'
        wrong, begun = len(row['wrong']), re.match(r'\d+ with', row['note'])
        return f'{row["tries"]:,}{f" ({begun[0][:-5]})" if begun else ""}, {wrong} wrong'

    lines = ['| command |' + ''.join(f' {title} |' for title, _ in FAULTS.values())]
    lines += ['|---' * (len(FAULTS) + 1) + '|']
    for name in (name for name in COMMANDS if any(row['command'] == name for row in rows.values())):
        lines.append(f'| `{name}` |' + ''.join(f' {cell(f"{fault} {name}")} |' for fault in FAULTS))
    lines += ['', '| fault | tries | |', '|---|---|---|']
    for key, (title, _) in OTHERS.items():
        if key in rows:
            lines.append(f'| {title} | {cell(key)} | {rows[key]["note"]} |')
    lines += [''] + [f'- {each}' for row in rows.values() for each in row['wrong'][:3]]
    for name, text in (('json', json.dumps(rows, indent=1)), ('md', '\n'.join(lines))):
        write_atomic(
            folder / f'faults.{name}', lambda path, text=text: path.write_text(text + '\n')
        )


@contextmanager
def stage(text: str) -> Iterator[None]:
    """Show what is being done and how long it took."""
    begun = time.monotonic()
    print(f'{time.strftime("%H:%M:%S")}  {text} ', end='', flush=True)
    yield
    print(f' ({time.monotonic() - begun:.0f} s)', flush=True)


def main() -> int:
    """Make the table; return 1 where something was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    split = dict(type=lambda text: text.split(','))
    parser.add_argument('out', type=Path, help='folder of the table and of what is tried')
    parser.add_argument('--commands', **split, default=[*COMMANDS])
    parser.add_argument('--faults', **split, default=[*FAULTS, *OTHERS])
    parser.add_argument(
        '--kills',
        type=int,
        default=5,
        help='SIGKILLs a command; half as many of others',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument(
        '--seconds', type=float, default=300, help='of mixed input, in which memory is watched'
    )
    args = parser.parse_args()
    # What a shell starts in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A child cannot use the threads of its parent.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # It takes most of the time of a tiny run, and writes nothing.
    mmengine.runner.runner.collect_env = dict
    record = args.out.resolve() / 'faults.json'
    rows = json.loads(record.read_text()) if record.is_file() else {}
    # A folder of its own each time, which stays: nothing that was there before is touched.
    record.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix='work-', dir=record.parent))
    (work / 'tmp').mkdir()
    os.environ['TMPDIR'] = str(work / 'tmp')
    faults, bad = Faults(work, args.kills, args.seed), False
    faults.mixed_seconds = args.seconds
    with stage('inputs'):
        faults.prepare()
    if {*args.faults} & {*OTHERS}:
        faults.make_model()
    todo = [(f, c) for c in args.commands for f in args.faults if f in FAULTS]
    todo += [(f, '') for f in args.faults if f in OTHERS]
    for fault, command in todo:
        title, work_on = {**FAULTS, **OTHERS}[fault]
        row = dict(fault=title, command=command, tries=0, wrong=[], note='')
        with stage(f'{title} {command}'):
            if fault in ('disk', 'read-only', 'shm') and os.geteuid():
                row['skipped'] = 'mounting takes root'
            else:
                if command and command not in faults.expected:
                    faults.run_unbroken(command)
                names = [command] if command else []
                found = partial(work_on, faults, *names)
                row['tries'], row['wrong'], row['note'] = isolate(found, work)
            print(row['tries'], row['wrong'][:3] or 'held', row['note'], end='')
        bad |= bool(row['wrong'])
        rows[f'{fault} {command}'.strip()] = row
        write_table(rows, record.parent)
    print((record.parent / 'faults.md').read_text())
    return int(bad)


if __name__ == '__main__':
    sys.exit(main())
