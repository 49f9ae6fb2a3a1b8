"""Common parts of the commands: options, output, exit codes."""

import argparse
import difflib
import glob
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmvlr.utils.io import is_written_through
from mmvlr.utils.shipped import find_config
from mmvlr.utils.text import printable

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmvlr.apis import FaceInferencer
    from mmvlr.structures import FaceTable

#: Exit codes. 2 is argparse's: wrong usage.
DONE, FAILED, LEFT_OUT, NO_MATCH, NO_FACE, INTERRUPTED = 0, 1, 3, 4, 5, 130
MODEL_VARIABLE = 'MMVLR_MODEL'
EXAMPLE = 'riface/mobilefacenet_tinyface'

CODES = """exit codes:
  0  done
  1  it failed; the message says what and how to mend it
  2  wrong usage
  3  done, but some images could not be used; they are listed
  4  verify --threshold: the faces are less alike than that
  5  --align mtcnn: no face was found in some of the images, which were left out as well
  130  interrupted by Ctrl-C
MMVLR_DEBUG=1 in the environment shows where an error comes from"""


class UsageError(ValueError):
    """The options do not go together."""


@dataclass(frozen=True)
class Outcome:
    """What a command has to say.

    Attributes:
        document: Plain values, for ``--json``.
        text: The same for a reader.
        code: Exit code.
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    text: str = ''
    code: int = DONE


def tell_errors(verb: str, work: Callable[[], int], as_json: bool = False) -> int:
    """Run a command; whatever a user can mend is one line and an exit code, no traceback.

    With ``MMVLR_DEBUG`` set, and where several ranks run (torchrun shows the traceback of the one
    that failed first), errors are raised as they are.

    Args:
        verb: Name of the command, for the line.
        work: Does the work and returns the exit code.
        as_json: Print the error as a JSON document too.

    Raises:
        SystemExit: Wrong usage; its code is 2.
    """
    try:
        return work()
    except KeyboardInterrupt:
        hint = ': --resume goes on where it was' if verb == 'train' else ''
        print(f'\nmmvlr {verb}: interrupted{hint}', file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        kind, told, code = 'UsageError', str(error), 2
    except (OSError, ValueError, RuntimeError, ImportError, LookupError, SyntaxError) as error:
        if os.environ.get('MMVLR_DEBUG') or 'TORCHELASTIC_RUN_ID' in os.environ:
            raise
        kind, told = type(error).__name__, str(error) or type(error).__name__
        code = NO_FACE if kind == 'NoFaceError' else FAILED
    if as_json:
        print(json.dumps(dict(error=told, kind=kind)))
    text = '\n'.join(map(printable, told.split('\n')))
    print(f'mmvlr {verb}: {text}', file=sys.stderr)
    if code == 2:
        raise SystemExit(code)
    return code


class Parser(argparse.ArgumentParser):
    """A parser of one verb: its complaints are one line, its help gives the defaults."""

    def __init__(self, **options: Any):
        super().__init__(**{'formatter_class': _Help, **options})

    def error(self, message: str) -> None:
        """Say what is wrong; exit code 2."""
        self.exit(2, f'{self.prog}: {message} ({self.prog} --help lists what can be given)\n')


class _Help(argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        told, default = action.help or '', action.default
        named = isinstance(default, (int, float, str)) and not isinstance(default, bool)
        if not action.option_strings or not named or 'default' in told or default == '==SUPPRESS==':
            return action.help
        return f'{told} (default: %(default)s)'.lstrip()


# What options and arguments may be: each is a ``type=`` of argparse. A file or folder that does not
# do raises OSError, which argparse lets through: exit code 1. Wrong usage is ArgumentTypeError.


def existing_path(text: str) -> Path:
    """Return the path of a file or folder to read, also of one inside a pack."""
    path = Path(os.path.expanduser(text))
    if os.path.lexists(path) or any(parent.is_file() for parent in path.parents):
        return path
    siblings = os.listdir(path.parent) if path.parent.is_dir() else []
    # A folder of many thousand images would take seconds.
    near = difflib.get_close_matches(path.name, siblings[:1000], 1, 0.75)
    told = f'; did you mean {path.with_name(near[0])}?' if near else ''
    raise FileNotFoundError(f'{path} does not exist{told}')


def existing_file(text: str) -> Path:
    """Return the path of a file to read."""
    path = existing_path(text)
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; name a file')
    if not path.exists():
        raise FileNotFoundError(f'{path} is not a file, or a link that leads nowhere')
    if not os.access(path, os.R_OK):
        raise PermissionError(f'there is no right to read {path}')
    return path


def existing_folder(text: str) -> Path:
    """Return the path of a folder to read."""
    path = existing_path(text)
    if path.is_file():
        raise NotADirectoryError(f'{path} is a file; name a folder')
    return path


def face_source(text: str) -> str:
    """Return what names images: a file, a folder, or a pattern that something matches."""
    pattern = os.path.expanduser(text)
    # Addresses are reported by the code that reads images.
    if os.path.lexists(pattern) or '://' in text:
        return text
    if not glob.has_magic(pattern):
        return str(existing_path(text))
    # Patterns with ** may run through loops of links.
    if '**' not in pattern and not glob.glob(pattern):
        raise FileNotFoundError(f'no file matches {text}')
    return text


def output_file(text: str) -> Path:
    """Return the path of a file that is to be written."""
    path = Path(os.path.expanduser(text))
    if path.is_dir():
        raise IsADirectoryError(f'{path} is a folder; name a file to write')
    # What is renamed needs the right to its folder.
    _check_writable(path if is_written_through(path) else Path(os.path.realpath(path)).parent)
    return path


def output_folder(text: str) -> Path:
    """Return the path of a folder that is to be filled."""
    path = Path(os.path.expanduser(text))
    _check_writable(path / 'file' if path.is_file() else path)
    return path


def _check_writable(place: Path) -> None:
    while not os.path.lexists(place):
        place = place.parent
    if place.is_file():
        raise NotADirectoryError(f'{place} is a file, not a folder to write to')
    if not os.access(place, os.W_OK):
        raise PermissionError(f'there is no right to write to {place}')
    if place.is_dir():
        try:
            # Some file systems say no only now, such as /proc.
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            raise OSError(f'{place} cannot be written to: {error.strerror}') from error


def preset(text: str) -> str:
    """Return the name of a preset, or the .json file of one."""
    return str(existing_file(text)) if text.lower().endswith('.json') else text


def positive(text: str) -> int:
    """Return a whole number above 0."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f'expected a whole number above 0, not {text!r}')
    return int(text)


def natural(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'expected 0 or a whole number above it, not {text!r}')
    return int(text)


def key_value(text: str) -> str:
    """Return a text of the form KEY=VALUE."""
    if '=' not in text[1:]:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, not {text!r}')
    return text


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument CONFIG, a file or a short name, and ``--cfg-options``."""
    parser.add_argument('config', type=find_config, help=f'a file, or a name such as {EXAMPLE}')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``; see :func:`read_options`."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        type=key_value,
        metavar='KEY=VALUE',
        help='override entries of the config, such as load_from=None train_dataloader.batch_size=8',
    )


def read_options(texts: Sequence[str] | None) -> dict[str, Any] | None:
    """Return the values of ``--cfg-options``.

    Raises:
        UsageError: Brackets are not closed.
    """
    if not texts:
        return None
    from mmengine.config import DictAction

    read = argparse.Namespace()
    for text in texts:
        try:
            DictAction([], 'options')(None, read, [text])
        except AssertionError as error:
            raise UsageError(f'--cfg-options {text}: {error}') from error
    return read.options


def read_config(args: argparse.Namespace) -> 'Config':
    """Return the config that :func:`add_config` describes."""
    from mmvlr.apis import load_config

    try:
        return load_config(args.config, read_options(args.cfg_options))
    except UnboundLocalError as error:
        # mmengine's: it could make no temporary folder.
        raise error.__context__ from None
    except OSError as error:
        # A config is copied to be read; where to is not said.
        if error.errno is not None and error.filename is None:
            error.filename = os.environ.get('TMPDIR', '/tmp')
        raise


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which model looks at the images, and how."""
    group = parser.add_argument_group('model')
    group.add_argument(
        '--model',
        type=existing_file,
        metavar='FILE',
        help='checkpoint (.pth), published weights (.safetensors) or export (.onnx); '
        f'default: ${MODEL_VARIABLE}',
    )
    group.add_argument(
        '--config',
        type=find_config,
        metavar='FILE',
        help='config of the model, for checkpoints that hold none',
    )
    group.add_argument(
        '--align',
        choices=('none', 'mtcnn'),
        default='none',
        help='none: images are face crops, as the model knows them; mtcnn: find and align the '
        "face in each image first (needs pip install 'mmvlr[align]')",
    )
    group.add_argument('--device', help='such as cpu or cuda (default: the GPU if there is one)')
    group.add_argument(
        '--batch-size', type=positive, default=64, metavar='N', help='faces at a time'
    )


def inferencer_of(args: argparse.Namespace) -> 'FaceInferencer':
    """Return the inferencer that :func:`add_model_options` describe."""
    model = model_file(args)
    from mmvlr.apis import FaceInferencer
    from mmvlr.utils.compat import keep_freed_memory

    keep_freed_memory()
    return FaceInferencer(
        model,
        device=args.device,
        batch_size=args.batch_size,
        align=args.align,
        config=model_config(args),
    )


def model_file(args: argparse.Namespace) -> Path:
    """Return the model: that of ``--model``, else that of the environment."""
    if args.model:
        return args.model
    if not os.environ.get(MODEL_VARIABLE):
        raise UsageError(f'name the model: --model FILE, or set {MODEL_VARIABLE}')
    return existing_file(os.environ[MODEL_VARIABLE])


def model_config(args: argparse.Namespace) -> Mapping[str, Any] | None:
    """Return the model's part of the config that the options name."""
    if not args.config:
        return None
    from mmvlr.apis import load_config

    try:
        config = load_config(args.config)
    except SyntaxError as error:
        raise ValueError(f'{args.config} is no readable config ({error})') from error
    if 'model' not in config:
        raise ValueError(f'{args.config} has no model: name a whole config, not a part of one')
    return config.model.to_dict()


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a plain table: text to the left, numbers to the right."""
    shown = [[_cell(row.get(column, '')) for column in columns] for row in rows]
    widths = [
        max([len(name), *(len(line[place]) for line in shown)])
        for place, name in enumerate(columns)
    ]
    right = [
        bool(rows) and all(isinstance(row.get(column), (int, float)) for row in rows)
        for column in columns
    ]
    lines = [list(columns), *shown]
    return '\n'.join(
        '  '.join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _cell(value: Any) -> str:
    return f'{value:.3f}' if isinstance(value, float) else printable(str(value))


def left_out(*results: 'FaceTable') -> tuple[dict[str, Any], str, int]:
    """Return what could not be used: for the document, as text, and the exit code."""
    failures = [dict(name=n, reason=r) for part in results for n, r in part.failures]
    unaligned = [name for part in results for name in part.unaligned]
    lines = []
    if failures:
        total = len(failures) + sum(map(len, results))
        verb = 'was' if len(failures) == 1 else 'were'
        lines.append(f'{len(failures)} of {count(total, "image")} {verb} left out:')
        lines += [f'  {printable(failure["reason"])}' for failure in failures[:10]]
        if len(failures) > 10:
            lines.append(f'  ... and {len(failures) - 10} more (--json lists all)')
    code = NO_FACE if unaligned else LEFT_OUT if failures else DONE
    return dict(failures=failures, unaligned=unaligned), '\n'.join(lines), code


def count(number: int, thing: str) -> str:
    """Return a number of things, such as ``1 image`` and ``2 images``."""
    return f'{number:,} {thing}{"" if number == 1 else "s"}'


def paragraphs(*parts: str) -> str:
    """Put the parts that are not empty behind each other, an empty line between them."""
    return '\n\n'.join(part for part in parts if part)
