"""Parse the command line, run a command, show what it has to say."""

import argparse
import contextlib
import difflib
import importlib
import json
import os
import sys
from collections.abc import Sequence

from mmvlr.utils.text import printable
from mmvlr.version import __version__

from . import embedding, exporting, health, identification, page
from .common import CODES, DONE, FAILED, INTERRUPTED, NO_FACE, UsageError

DESCRIPTION = """\
Recognition and quality estimation of very-low-resolution faces.

A first look at a folder of face crops:
  mmvlr quality crops/ --model riface.safetensors
Who is it, or is it too poor to tell?
  mmvlr enroll gallery/ people/        --model riface.safetensors
  mmvlr calibrate gallery/ decision.json --unmated strangers/ --mated known/ --model ...
  mmvlr identify gallery/ crops/ --decision decision.json     --model ...
"""


#: Command -> (module of ``programs``, what it does). Each has a ``main`` of its own, imported when
#: it is called for: most of them need PyTorch.
PROGRAMS = {
    'demo': ('demo', 'train, test and report on synthetic faces, without a download'),
    'train': ('train', 'train a model of a config'),
    'test': ('test', 'test a checkpoint on the test set of a config'),
    'report': ('report', 'the page about a training run'),
    'reproduce': ('reproduce', 'train and compare methods'),
    'score': ('score', 'embed and judge the faces of a test set, into a file'),
    'evaluate': ('evaluate', 'evaluate embeddings of any model'),
    'summarize': ('summarize', 'result files of several seeds as a table'),
    'prepare': ('prepare', 'check an unpacked data set and list its images'),
    'align': ('align', 'align the images below a folder'),
    'pack': ('pack', 'pack a data set into one file'),
    'degrade': ('degrade', 'make a face set very low-resolution'),
    'fit-degradation': ('fit_degradation', 'measure what faces have lost; fit a degradation'),
    'build-ui-set': ('build_ui_set', 'collect unrecognizable faces'),
    'browse': ('browse', 'draw faces after every transform of a config'),
    'convert': ('convert', 'convert a public checkpoint'),
    'convert-sface': ('convert_sface', "convert SFace's network of OpenCV's model zoo"),
    'convert-mobilefacenet': ('convert_mobilefacenet', 'convert the TensorFlow.js MobileFaceNet'),
}


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
    own = list(commands.choices.values())
    for name, (_, text) in PROGRAMS.items():
        commands.add_parser(name, help=text, add_help=False)
    for command in own:
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        command.add_argument(
            '--json', action='store_true', help='print one JSON document instead of text'
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in PROGRAMS:
        return run_program(argv[0], argv[1:])
    parser = build_parser()
    if not argv:
        parser.print_help()
        return DONE
    known = next(a.choices for a in parser._actions if a.dest == 'command')
    if not argv[0].startswith('-') and argv[0] not in known:
        near = difflib.get_close_matches(argv[0], known, 2)
        told = f'; did you mean {" or ".join(near)}?' if near else '; mmvlr --help lists them'
        parser.error(f'there is no command {argv[0]!r}{told}')
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


def run_program(name: str, argv: Sequence[str]) -> int:
    """Run a command of :data:`PROGRAMS`; errors are one line, as those of all commands.

    A rank of several raises them: torchrun shows the traceback of the rank that failed first.
    """
    run = importlib.import_module(f'mmvlr.cli.programs.{PROGRAMS[name][0]}').main
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        return record(run)(list(argv))
    try:
        return run(list(argv))
    except KeyboardInterrupt:
        hint = ': --resume goes on where it was' if name == 'train' else ''
        print(f'\nmmvlr {name}: interrupted{hint}', file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, RuntimeError, ImportError, LookupError, SyntaxError) as error:
        if os.environ.get('MMVLR_DEBUG'):
            raise
        told = str(error) or type(error).__name__
        print(f'mmvlr {name}: {told} (MMVLR_DEBUG=1 shows where)', file=sys.stderr)
        return FAILED
