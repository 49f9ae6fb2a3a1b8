"""Parse the command line, run a command, show what it has to say."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence

from mmvlr.utils.text import printable
from mmvlr.version import __version__

from . import embedding, exporting, health, identification, page
from .common import CODES, FAILED, NO_FACE, UsageError

DESCRIPTION = """\
Recognition and quality estimation of very-low-resolution faces.

A first look at a folder of face crops:
  mmvlr quality crops/ --model riface.safetensors
Who is it, or is it too poor to tell?
  mmvlr enroll gallery/ people/        --model riface.safetensors
  mmvlr calibrate gallery/ decision.json --unmated strangers/ --mated known/ --model ...
  mmvlr identify gallery/ crops/ --decision decision.json     --model ...
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog='mmvlr',
        description=DESCRIPTION,
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'mmvlr {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for module in (embedding, identification, exporting, page, health):
        module.add_commands(commands)
    for command in commands.choices.values():
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.add_argument(
            '--json', action='store_true', help='print one JSON document instead of text'
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    parser = build_parser()
    args, more = parser.parse_known_args(argv)
    # argparse gives up on images behind an option that follows images.
    if more and (any(word.startswith('-') for word in more) or not hasattr(args, 'faces')):
        parser.error(f'unrecognized arguments: {" ".join(more)}')
    if more:
        args.faces = [*args.faces, *more]
    # Where the output is read by a program, nothing but the document may stand in it.
    to_stderr = contextlib.redirect_stdout(sys.stderr)
    try:
        with to_stderr:
            outcome = args.run(args)
    except UsageError as error:
        if args.json:
            print(json.dumps(dict(error=str(error), kind='UsageError')))
        parser.exit(2, f'mmvlr {args.command}: {error}\n')
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        if os.environ.get('MMVLR_DEBUG'):
            raise
        if args.json:
            print(json.dumps(dict(error=str(error), kind=type(error).__name__)))
        text = '\n'.join(map(printable, str(error).split('\n')))
        print(f'mmvlr {args.command}: {text}', file=sys.stderr)
        return NO_FACE if type(error).__name__ == 'NoFaceError' else FAILED
    if hasattr(sys.stdout, 'reconfigure'):
        # Names of files may hold what the terminal cannot show.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        if args.json:
            print(json.dumps(outcome.document, indent=1))
        elif outcome.text:
            print(outcome.text)
        sys.stdout.flush()
    except BrokenPipeError:
        # As with `| head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return outcome.code
