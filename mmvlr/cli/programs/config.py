"""List the configs that come with mmvlr, print one with all it inherits, or copy it to edit.

  mmvlr config                                              names of all configs
  mmvlr config riface/mobilefacenet_tinyface                the whole config
  mmvlr config riface/mobilefacenet_tinyface --write my.py  a copy that inherits nothing
  mmvlr train my.py
  mmvlr config riface/mobilefacenet_tinyface --flops        size and cost of the network
  mmvlr config riface/mobilefacenet_tinyface --rates        learning rates by epoch

In what is printed and written, folders and weights that the environment names (TINYFACE_ROOT,
PRETRAINED, ...) are those of now.
"""

import argparse
from pathlib import Path

from mmvlr.utils.shipped import find_config, list_configs

from ..arguments import output_file
from ..common import UsageError, add_cfg_options, read_config, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('config', nargs='?', type=find_config, metavar='NAME', help='name or file')
    action = parser.add_mutually_exclusive_group()
    action.add_argument('--write', type=new_file, metavar='FILE.py', help='write it to a new file')
    action.add_argument(
        '--flops', action='store_true', help='parameters and operations of the network instead'
    )
    action.add_argument(
        '--rates', action='store_true', help='learning rates of the parts by epoch instead'
    )
    add_cfg_options(parser)


def new_file(text: str) -> Path:
    """Return the path of a Python file that is not there yet."""
    path = output_file(text)
    if path.exists():
        raise FileExistsError(f'{path} exists; name a new file')
    if path.suffix != '.py':
        raise argparse.ArgumentTypeError(f'the name of a config ends in .py, not {path.name}')
    return path


def run(args: argparse.Namespace) -> int:
    """List, print or write; return the exit code."""
    if args.config is None:
        if args.write or args.cfg_options or args.flops or args.rates:
            raise UsageError('name the config; mmvlr config lists those of mmvlr')
        print(*list_configs(), sep='\n')
        return 0
    from mmvlr.utils.io import write_atomic

    config = read_config(args)
    if args.flops or args.rates:
        from mmvlr.engine.preview import count_flops, list_rates

        if args.flops:
            print(*(f'{name}: {value:,}' for name, value in count_flops(config).items()), sep='\n')
        else:
            rows = [{k: f'{v:g}' for k, v in row.items()} for row in list_rates(config)]
            print(table(list(rows[0]), rows))
        return 0
    # The default belongs to the name of this file, not to that of a copy.
    if config.work_dir == str(Path('work_dirs') / args.config.parent.name / args.config.stem):
        config.pop('work_dir')
    text = config.pretty_text
    if args.write is None:
        print(text)
    else:
        head = f'# A copy of {args.config.parent.name}/{args.config.name} that inherits nothing.\n'
        write_atomic(args.write, lambda path: path.write_text(head + text, encoding='utf-8'))
        print(f'{args.write}: edit it, then mmvlr train {args.write}')
    return 0
