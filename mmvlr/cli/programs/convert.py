"""Convert a public PyTorch checkpoint into an mmvlr checkpoint.

  mmvlr convert FAMILY SRC DST [--depth DEPTH]

FAMILY says who published SRC; it decides the names of the weights and the preprocessing contract:

- insightface-iresnet: backbone.pth of r18, r34, r50, r100 (insightface, arcface_torch);
- insightface-mbf: backbone.pth of mbf;
- adaface: IR-18 to IR-101 .ckpt files, keys behind model.;
- cvlface: IR-18 to IR-101 of CVLface, keys behind net.;
- faceevolve: IR-50 of face.evoLVe;
- facexzoo, facexzoo-mbf: IR and MobileFaceNet of FaceX-Zoo, keys behind backbone.;
- magface: iResNet of MagFace, keys behind module.features. or features.module.;
- facenet: InceptionResnetV1 of facenet-pytorch.

SRC is a PyTorch or a safetensors file, read without running code that may be hidden in it. The
network is found behind any prefix and in any dict, and it is said where. SFace and the
TensorFlow.js MobileFaceNet have commands of their own: convert-sface, convert-mobilefacenet.
"""

import argparse

from ..arguments import existing_file, output_file

#: Those of ``mmvlr.models.conversion``, which needs PyTorch.
FAMILIES = (
    *('insightface-iresnet', 'insightface-mbf', 'adaface', 'cvlface', 'faceevolve'),
    *('facexzoo', 'facexzoo-mbf', 'magface', 'facenet'),
)
DEPTHS = (18, 34, 50, 100)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument('family', metavar='FAMILY', choices=FAMILIES, help='who published SRC')
    parser.add_argument('source', type=existing_file, metavar='SRC', help='the public checkpoint')
    parser.add_argument(
        'out', type=output_file, metavar='DST', help='the mmvlr checkpoint to write'
    )
    parser.add_argument(
        '--depth',
        type=int,
        choices=DEPTHS,
        help='depth the network must have; otherwise it is told from SRC',
    )


def run(args: argparse.Namespace) -> int:
    """Convert; return the exit code."""
    from mmvlr.models.conversion import convert_checkpoint

    print(convert_checkpoint(args.source, args.out, args.family, args.depth))
    return 0
