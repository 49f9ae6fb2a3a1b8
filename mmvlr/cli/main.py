"""Parse the command line, run a command, print its result."""

import argparse
import contextlib
import difflib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mmvlr.utils.config_outline import check_early
from mmvlr.version import __version__

from . import auditing, embedding, exporting, health, identification, page
from .arguments import face_source
from .common import CODES, DONE, Outcome, tell_errors
from .parsing import Parser

DESCRIPTION = """\
Recognition and quality estimation of very-low-resolution faces.

A first look at a folder of face crops:
  mmvlr quality crops/ --model riface.safetensors
Who is it, or is it too poor to tell?
  mmvlr enroll gallery/ people/        --model riface.safetensors
  mmvlr calibrate gallery/ decision.json --unmated strangers/ --mated known/ --model ...
  mmvlr identify gallery/ crops/ --decision decision.json     --model ...
"""


#: Command -> (module of ``programs``, what it does). A module has ``add_arguments``, which needs no
#: PyTorch, and ``run``, which returns the exit code.
PROGRAMS = {
    'demo': ('demo', 'train, test and report on synthetic faces, without a download'),
    'train': ('train', 'train a model of a config'),
    'config': ('config', 'the configs that come with mmvlr: list, print, copy one to edit'),
    'test': ('test', 'test a checkpoint on the test set of a config'),
    'report': ('report', 'the page about a training run'),
    'reproduce': ('reproduce', 'train and compare methods'),
    'score': ('score', 'embed and judge the faces of a test set, into a file'),
    'evaluate': ('evaluate', 'evaluate embeddings of any model'),
    'summarize': ('summarize', 'result files of several seeds as a table'),
    'models': ('models', 'public networks by name: list them, fetch one'),
    'prepare': ('prepare', 'check an unpacked data set and list its images'),
    'align': ('align', 'align the images below a folder'),
    'track': ('track', 'cut the faces of a video out, a folder a track'),
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
    parser = Parser(prog='mmvlr', description=DESCRIPTION, epilog=CODES)
    parser.add_argument('--version', action='version', version=f'mmvlr {__version__}')
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for module in (embedding, identification, auditing, exporting, page, health):
        module.add_commands(commands)
    for command in commands.choices.values():
        command.add_argument(
            '--json', action='store_true', help='print one JSON document instead of text'
        )
    for name, (_, text) in PROGRAMS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv:
        build_parser().print_help()
        return DONE
    verb = argv[0]
    if verb in PROGRAMS:
        return tell_errors(verb, lambda: run_program(verb, argv[1:]))
    return tell_errors(verb, lambda: show(*run_command(argv)), '--json' in argv)


def run_command(argv: Sequence[str]) -> tuple[Outcome, bool]:
    """Run a command that is no program; return its result, and whether to print it as JSON."""
    parser = build_parser()
    known = next(a.choices for a in parser._actions if a.dest == 'command')
    if not argv[0].startswith('-') and argv[0] not in known:
        near = difflib.get_close_matches(argv[0], known, 2)
        told = f'; did you mean {" or ".join(near)}?' if near else ''
        parser.error(f'there is no command {argv[0]!r}{told}')
    args, more = parser.parse_known_args(argv)
    # argparse gives up on images behind an option that follows images.
    if more and (any(word.startswith('-') for word in more) or not hasattr(args, 'faces')):
        known[args.command].error(f'unrecognized arguments: {" ".join(more)}')
    if more:
        args.faces = [*args.faces, *map(face_source, more)]
    # Programs read the output, so it must contain nothing but the document.
    with contextlib.redirect_stdout(sys.stderr):
        return args.run(args), args.json


def show(outcome: Outcome, as_json: bool) -> int:
    """Print the result of a command; return its exit code."""
    if hasattr(sys.stdout, 'reconfigure'):
        # Names of files may hold what the terminal cannot show.
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        if as_json:
            print(json.dumps(outcome.document, indent=1))
        elif outcome.text:
            print(outcome.text)
        sys.stdout.flush()
    except BrokenPipeError:
        # As with `| head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return outcome.code


def run_program(name: str, argv: Sequence[str]) -> int:
    """Run a command of :data:`PROGRAMS`; return the exit code."""
    program = importlib.import_module(f'mmvlr.cli.programs.{PROGRAMS[name][0]}')
    parser = Parser(prog=f'mmvlr {name}', description=program.__doc__)
    program.add_arguments(parser)
    # Intermixed: of CONFIG and CHECKPOINT one may be left out, with options in between.
    args = parser.parse_intermixed_args(argv, argparse.Namespace(argv=list(argv)))
    if isinstance(config := getattr(args, 'config', None), Path):
        check_early(config, getattr(args, 'cfg_options', None) or ())
    if 'TORCHELASTIC_RUN_ID' in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        return record(program.run)(args)
    return program.run(args)
