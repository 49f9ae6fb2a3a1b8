"""What the commands share: options, how results are shown, exit codes."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mmvlr.utils.text import printable

if TYPE_CHECKING:
    from mmvlr.apis import FaceInferencer
    from mmvlr.structures import FaceTable

#: Exit codes. 2 is argparse's: wrong usage.
DONE, FAILED, LEFT_OUT, NO_MATCH, NO_FACE, INTERRUPTED = 0, 1, 3, 4, 5, 130
MODEL_VARIABLE = 'MMVLR_MODEL'

CODES = """exit codes:
  0  done
  1  it failed; the message says what and how to mend it
  2  wrong usage
  3  done, but some images could not be used; they are listed
  4  verify --threshold: the faces are less alike than that
  5  --align mtcnn: no face was found in some of the images, which were left out as well
  130  interrupted by Ctrl-C"""


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


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which model looks at the images, and how."""
    group = parser.add_argument_group('model')
    group.add_argument(
        '--model',
        default=os.environ.get(MODEL_VARIABLE),
        metavar='FILE',
        help='checkpoint (.pth), published weights (.safetensors) or export (.onnx); '
        f'default: ${MODEL_VARIABLE}',
    )
    group.add_argument(
        '--config', metavar='FILE', help='config of the model, for checkpoints that hold none'
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
        '--batch-size', type=int, default=64, metavar='N', help='faces at a time (default: 64)'
    )


def inferencer_of(args: argparse.Namespace) -> 'FaceInferencer':
    """Return the inferencer that :func:`add_model_options` describe."""
    if not args.model:
        raise UsageError(f'name the model: --model FILE, or set {MODEL_VARIABLE}')
    from mmvlr.apis import FaceInferencer
    from mmvlr.utils.compat import keep_freed_memory

    keep_freed_memory()
    return FaceInferencer(
        args.model,
        device=args.device,
        batch_size=args.batch_size,
        align=args.align,
        config=model_config(args),
    )


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
        lines.append(f'{len(failures)} of {total} images were left out:')
        lines += [f'  {printable(failure["reason"])}' for failure in failures[:10]]
        if len(failures) > 10:
            lines.append(f'  ... and {len(failures) - 10} more (--json lists all)')
    code = NO_FACE if unaligned else LEFT_OUT if failures else DONE
    return dict(failures=failures, unaligned=unaligned), '\n'.join(lines), code


def paragraphs(*parts: str) -> str:
    """Put the parts that are not empty behind each other, an empty line between them."""
    return '\n\n'.join(part for part in parts if part)
