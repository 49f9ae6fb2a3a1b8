"""How long commands take to their first word and to their end, as in a user's terminal.

  python projects/benchmarks/first_words.py docs/get_started.md --section 'The first hour'
  python projects/benchmarks/first_words.py --mistakes --path /path/to/old --path .

The commands are those of the page's section, run as printed in the current folder, or a list of a
user's mistakes. Each --path is a checkout to compare, whose mmvlr is run; without one it is the
installed one. On a machine that others use too, compare the processor time (user and system).
"""

import argparse
import os
import pty
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

#: Mistakes of a first hour; all end with an exit code other than 0.
MISTAKES = (
    'mmvlr trian',
    'mmvlr quality nowhere/ --model sface',
    'mmvlr quality . --model nowhere.pth',
    'mmvlr train riface/r50_tinyfac',
    'mmvlr train riface/sface_tinyface --no-such-option',
    'mmvlr train riface/sface_tinyface --show-dir out',
    'mmvlr train riface/sface_tinyface --cfg-options train_dataloader.batchsize=8',
    'mmvlr train riface/sface_tinyface --cfg-options model.typo=1 load_from=None',
    'TINYFACE_ROOT=nowhere mmvlr train riface/sface_tinyface --cfg-options load_from=None',
    'PRETRAINED=nowhere.pth mmvlr train riface/sface_tinyface',
    'mmvlr test nowhere.pth',
    'mmvlr report nowhere',
    'mkdir -p empty && mmvlr quality empty --model sface',
    'mkdir -p empty && mmvlr identify empty . --model sface',
    'echo no > text.pth && mmvlr quality . --model text.pth',
)


def read_commands(page: str, section: str) -> list[str]:
    """Return the commands of the ``bash`` blocks of a page's section."""
    _, found, rest = page.partition(f'## {section}\n')
    if not found:
        raise SystemExit(f'there is no section {section!r}')
    rest = re.split(r'^## ', rest, maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r'```bash\n(.*?)```', rest, flags=re.DOTALL)
    return [c for c in '\n'.join(blocks).replace('\\\n', ' ').splitlines() if c.strip()]


def run(command: str, environment: dict[str, str]) -> tuple[list[float], int, str]:
    """Run a command on a terminal.

    Returns:
        Seconds to the first word, to the end, and of processor time; exit code; text.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    master, slave = pty.openpty()
    begin, first, parts = time.perf_counter(), None, []
    # What a line of shell sets is kept for the next ones.
    line = f'{command}\ncode=$?; export -p > "$ENV_FILE"; exit $code'
    process = subprocess.Popen(
        ['bash', '-c', line], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    while True:
        ready, _, _ = select.select([master], [], [], 0.01)
        try:
            part = os.read(master, 65536) if ready else b''
        except OSError:  # the other end is closed
            break
        if part and first is None:
            first = time.perf_counter() - begin
        parts.append(part)
        if not ready and process.poll() is not None:
            break
    code = process.wait()
    end = time.perf_counter() - begin
    os.close(master)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    text = b''.join(parts).decode(errors='replace')
    return [first if first is not None else end, end, used], code, text


def main(argv: list[str] | None = None) -> int:
    """Run the commands; print a table, and what a command that failed has said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('page', nargs='?', type=Path)
    parser.add_argument('--section', default='The first hour')
    parser.add_argument('--mistakes', action='store_true')
    parser.add_argument('--path', action='append', default=[])
    args = parser.parse_args(argv)
    commands = MISTAKES if args.mistakes else read_commands(args.page.read_text(), args.section)
    failed = 0
    print('| command | first word, s | end, s | processor, s | exit code |\n|---|---|---|---|---|')
    for path in args.path or [None]:
        # The environment may hold secrets: a folder that its owner alone reads.
        own = dict(os.environ, ENV_FILE=f'{tempfile.mkdtemp()}/environment')
        if path:
            own['PYTHONPATH'] = str(Path(path).resolve())
            print(f'| in {path} | | | | |')
        for command in commands:
            line = command.replace('mmvlr ', f'{sys.executable} -m mmvlr ', 1) if path else command
            kept = Path(own['ENV_FILE'])
            line = f'[ -f "$ENV_FILE" ] && . "$ENV_FILE"\n{line}' if kept.exists() else line
            times, code, text = run(line, own)
            told = ' | '.join(f'{value:.2f}' for value in times)
            print(f'| `{command}` | {told} | {code} |', flush=True)
            if (code == 0) == args.mistakes:
                failed += 1
                print(text)
        Path(own['ENV_FILE']).unlink(missing_ok=True)
        Path(own['ENV_FILE']).parent.rmdir()
    return min(failed, 1)


if __name__ == '__main__':
    raise SystemExit(main())
