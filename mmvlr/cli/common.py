"""Common parts of the commands: options, output, exit codes."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmvlr.utils.shipped import find_config, find_configs, find_run_config
from mmvlr.utils.text import printable

from .arguments import existing_file, existing_model, key_value, positive

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
  5  --align: some of the images show no face, or several of which none stands out; they were
     left out as well; track: there is no face in the video
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


def announce(what: str) -> None:
    """Say on a terminal what runs before there is anything else to say: PyTorch takes seconds."""
    if sys.stderr.isatty():
        print(f'{what} ...', file=sys.stderr, flush=True)


_FAILURES = (OSError, ValueError, RuntimeError, ImportError, LookupError, SyntaxError, TypeError)


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
        try:
            return work()
        except Exception as error:
            # mmengine makes a SyntaxError of a Ctrl-C that comes while it formats a config.
            if _was_interrupted(error):
                raise KeyboardInterrupt from error
            raise
    except KeyboardInterrupt:
        hint = (
            ': --resume goes on from the last checkpoint, if there is one'
            if verb == 'train'
            else ''
        )
        print(f'\nmmvlr {verb}: interrupted{hint}', file=sys.stderr)
        return INTERRUPTED
    except UsageError as error:
        kind, told, code = 'UsageError', str(error), 2
    except _FAILURES as error:
        # A class of another package that a config gives what it does not take; others are bugs.
        is_bug = isinstance(error, TypeError) and 'unexpected keyword argument' not in str(error)
        if is_bug or os.environ.get('MMVLR_DEBUG') or 'TORCHELASTIC_RUN_ID' in os.environ:
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


def _was_interrupted(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument CONFIG, a file or a short name, and ``--cfg-options``."""
    parser.add_argument('config', type=find_config, help=f'a file, or a name such as {EXAMPLE}')
    add_cfg_options(parser)


def add_config_and_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the arguments CONFIG and CHECKPOINT; the first may be left out."""
    parser.add_argument(
        'config',
        nargs='?',
        type=find_config,
        help=f'a file, or a name such as {EXAMPLE} (default: the one beside the checkpoint, where '
        'mmvlr train has written it)',
    )
    parser.add_argument('checkpoint', type=existing_model, help='checkpoint file')
    add_cfg_options(parser)


def require_config(args: argparse.Namespace) -> None:
    """Set the config that :func:`add_config_and_checkpoint` may leave out, before PyTorch loads."""
    if args.config is None:
        args.config = find_run_config(args.checkpoint.absolute().parent)


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
    announce(f'loading {args.config.name}')
    from mmvlr.apis import load_config

    try:
        return load_config(args.config, read_options(args.cfg_options))
    except AssertionError as error:
        # mmengine's: it inherits by package::name from packages of a table of its own alone.
        if 'does not support to load' not in str(error):
            raise
        told = f'inherit by path; the configs of mmvlr are in {find_configs()}'
        raise ValueError(f'{args.config}: {error} In _base_ {told}') from error
    except UnboundLocalError as error:
        # mmengine's: it could make no temporary folder.
        raise error.__context__ from None
    except OSError as error:
        # A config is copied to be read; where to is not said.
        if error.errno is not None and error.filename is None:
            error.filename = os.environ.get('TMPDIR', '/tmp')
        raise


def add_model(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add what names a model and how it runs; return the group of these options."""
    group = parser.add_argument_group('model')
    group.add_argument(
        '--model',
        type=existing_model,
        metavar='FILE',
        help='checkpoint (.pth), published weights (.safetensors), export (.onnx), or a name of '
        '`mmvlr models`; '
        f'default: ${MODEL_VARIABLE}',
    )
    group.add_argument(
        '--config',
        type=find_config,
        metavar='FILE',
        help='config of the model, for checkpoints that hold none',
    )
    group.add_argument('--device', help='such as cpu or cuda (default: the GPU if there is one)')
    group.add_argument(
        '--batch-size', type=positive, default=64, metavar='N', help='faces at a time'
    )
    return group


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which model looks at the images, and how."""
    group = add_model(parser)
    group.add_argument(
        '--align',
        choices=('none', 'mtcnn', 'yunet'),
        default='none',
        help='none: images are face crops, as the model knows them; mtcnn, yunet: find and align '
        "the face in each image first (mtcnn needs pip install 'mmvlr[align]', yunet "
        '--detector-file)',
    )
    add_detector_file(group)
    group.add_argument(
        '--min-size',
        type=float,
        metavar='PIXELS',
        help='with --align: smallest face sought in whole frames (default: 12)',
    )


def add_detector_file(group: argparse._ActionsContainer) -> None:
    """Add ``--detector-file``; see :func:`read_detector`."""
    group.add_argument(
        '--detector-file',
        type=existing_file,
        metavar='FILE',
        help="weights of the detector yunet: face_detection_yunet of OpenCV's model zoo (.onnx)",
    )


def read_detector(name: str, file: Path | None, **settings: Any) -> dict[str, Any]:
    """Return the config of the detector that the options describe.

    Args:
        name: ``'mtcnn'`` or ``'yunet'``.
        file: What ``--detector-file`` gives.
        settings: Arguments of the detector; None leaves the default.

    Raises:
        UsageError: The file does not go with the detector.
    """
    from mmvlr.preparation import configure_detector

    try:
        config = configure_detector(name, file)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return config | {key: value for key, value in settings.items() if value is not None}


def load_inferencer(args: argparse.Namespace) -> 'FaceInferencer':
    """Return the inferencer that :func:`add_model_options` describe."""
    model_file(args)  # A mistake in it is told before PyTorch is imported.
    align = args.align
    if align != 'none':
        align = read_detector(align, args.detector_file, min_size=args.min_size)
    elif args.detector_file or args.min_size is not None:
        raise UsageError('--detector-file and --min-size go with --align mtcnn or yunet')
    return open_model(args, align)


def open_model(
    args: argparse.Namespace, align: str | Mapping[str, Any] = 'none'
) -> 'FaceInferencer':
    """Return the inferencer that :func:`add_model` describes."""
    model = model_file(args)
    announce(f'loading {model.name}')
    from mmvlr.apis import FaceInferencer
    from mmvlr.utils.compat import keep_freed_memory
    from mmvlr.utils.contract import tell_training

    keep_freed_memory()
    inferencer = FaceInferencer(
        model,
        device=args.device,
        batch_size=args.batch_size,
        align=align,
        config=model_config(args),
    )
    if told := tell_training(inferencer.training_note, str(model)):
        print(f'Warning: {told}', file=sys.stderr)
    return inferencer


def model_file(args: argparse.Namespace) -> Path:
    """Return the model: that of ``--model``, else that of the environment."""
    if args.model:
        return args.model
    if not os.environ.get(MODEL_VARIABLE):
        raise UsageError(
            f'name the model: --model FILE, or set {MODEL_VARIABLE}; mmvlr models lists public '
            'ones, mmvlr demo trains one'
        )
    return existing_model(os.environ[MODEL_VARIABLE])


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
    """Return what could not be used, or not all of it: document, text and exit code."""
    failures = [dict(name=n, reason=r) for part in results for n, r in part.failures]
    unaligned = [name for part in results for name in part.unaligned]
    several = [
        dict(name=name, faces=int(faces))
        for part in results
        for name, faces in zip(part.names, part.columns.get('faces', ()), strict=False)
        if faces > 1
    ]
    total = len(failures) + sum(map(len, results))
    verb = 'was' if len(failures) == 1 else 'were'
    lines = _list(
        f'{len(failures)} of {count(total, "image")} {verb} left out:',
        [each['reason'] for each in failures],
    )
    lines += _list(
        f'{len(several)} images show several faces; the main one of each was taken:',
        [f'{each["name"]}: {each["faces"]} faces' for each in several],
    )
    code = NO_FACE if unaligned else LEFT_OUT if failures else DONE
    document = dict(failures=failures, unaligned=unaligned, several_faces=several)
    return document, '\n'.join(lines), code


def _list(title: str, items: Sequence[str]) -> list[str]:
    more = [f'  ... and {len(items) - 10} more (--json lists all)'] if len(items) > 10 else []
    return [title, *(f'  {printable(item)}' for item in items[:10]), *more] if items else []


def count(number: int, thing: str) -> str:
    """Return a number of things, such as ``1 image`` and ``2 images``."""
    return f'{number:,} {thing}{"" if number == 1 else "s"}'


def paragraphs(*parts: str) -> str:
    """Put the parts that are not empty behind each other, an empty line between them."""
    return '\n\n'.join(part for part in parts if part)
