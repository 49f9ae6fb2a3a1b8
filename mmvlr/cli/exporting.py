"""``mmvlr export``."""

import argparse

from mmvlr.utils.shipped import find_config

from .arguments import existing_model, output_file
from .common import Outcome, UsageError, model_config

SUFFIXES = ('.onnx', '.safetensors')


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add the command of this module."""
    export = commands.add_parser(
        'export',
        help='a checkpoint as ONNX file or as weights to publish',
        description='Write a checkpoint in a form that others can use.\n\n'
        '  mmvlr export epoch_15.pth riface.onnx --license CC-BY-NC-4.0\n'
        '  mmvlr export epoch_15.pth riface.safetensors --license CC-BY-NC-4.0\n\n'
        '.onnx         network with preprocessing inside: uint8 faces in, embedding and RI out;\n'
        "              checked against PyTorch. Needs pip install 'mmvlr[export]'\n"
        '.safetensors  weights with model config, preprocessing contract and license',
    )
    export.add_argument(
        'checkpoint', type=existing_model, help='checkpoint (.pth) or published weights'
    )
    export.add_argument('out', type=output_file, help='file to write: .onnx or .safetensors')
    export.add_argument(
        '--license',
        required=True,
        help='SPDX name of the license of the weights; that of the training data counts too',
    )
    export.add_argument('--name', help='name of the model (default: that of the file)')
    export.add_argument(
        '--adapter',
        type=existing_model,
        metavar='FILE',
        help='adapter (.safetensors) to merge into the checkpoint, which is its base',
    )
    export.add_argument(
        '--adapter-only',
        action='store_true',
        help='write the adapter of the checkpoint without its backbone (.safetensors)',
    )
    export.add_argument(
        '--config', type=find_config, metavar='FILE', help='config, for checkpoints without one'
    )
    export.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> Outcome:
    """Write a checkpoint as ONNX file or published weights."""
    if args.out.suffix not in SUFFIXES:
        raise UsageError(f'OUT must end in {" or ".join(SUFFIXES)}, not {args.out.name}')
    if args.adapter_only and (args.out.suffix == '.onnx' or args.adapter):
        raise UsageError('--adapter-only writes .safetensors, and takes no --adapter')
    from mmvlr.apis.export import export_onnx, publish
    from mmvlr.apis.network import load_model
    from mmvlr.utils.io import sha256_of

    model = load_model(
        args.checkpoint, model_config(args), args.adapter, merge=not args.adapter_only
    )
    facts = dict(license=args.license, name=args.name or args.out.stem)
    if args.out.suffix == '.onnx':
        export_onnx(model, args.out, **facts)
    else:
        publish(model, args.out, **facts, adapter_only=args.adapter_only)
    document = dict(out=str(args.out), sha256=sha256_of(args.out), license=args.license)
    document['bytes'] = args.out.stat().st_size
    text = f'{args.out}: {document["bytes"] / 1e6:.1f} MB, SHA-256 {document["sha256"]}'
    return Outcome(document, text)
