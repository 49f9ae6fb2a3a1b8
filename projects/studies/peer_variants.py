"""Measure how much the variants of other projects change numbers and gradients.

``projects/studies/peer_variants.py TABLE.npz`` evaluates the faces of a test of QMUL-SurvFace, as
``mmvlr test --cache`` keeps them, by every variant, and compares the losses' gradients on random
cosines, as early in a training (0 to 0.4 to the own class, some below 0). One line a variant.
"""

import argparse
import sys
from pathlib import Path

import mmvlr  # noqa: F401  # isort: skip

import torch

from mmvlr.evaluation import FaceTable
from mmvlr.evaluation.metrics import ClosedSetMetric, OpenSetMetric, VerificationMetric
from mmvlr.models.losses import AdaFaceLoss, ArcFaceLoss, MagFaceLoss


def measure_gradient(kind: type, peer: str, faces: int = 512, classes: int = 100) -> float:
    """Return the norm of the gradient's difference over that of the gradient."""
    torch.manual_seed(0)
    own = torch.randn(classes, 64)
    labels = torch.arange(faces) % classes
    cosines = torch.nn.functional.cosine_similarity(
        (own[labels] + 6 * torch.randn(faces, 64))[:, None], own[None], dim=2
    )
    norms = torch.empty(faces).uniform_(5, 120)
    found = []
    for options in ({}, dict(as_in=peer)):
        leaf = cosines.clone().requires_grad_()
        kind(**options).eval()(leaf, labels, norms).backward()
        found.append(leaf.grad)
    return float((found[0] - found[1]).norm() / found[0].norm())


def main(argv: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('table', type=Path)
    faces = FaceTable.load(parser.parse_args(argv).table)
    for kind, peer in (
        (ArcFaceLoss, 'insightface'),
        (AdaFaceLoss, 'cvlface'),
        (AdaFaceLoss, 'adaface'),
        (MagFaceLoss, 'magface'),
    ):
        print(f'{kind.__name__}, as_in={peer}: gradient {measure_gradient(kind, peer):.1%} off')
    identification = faces.only('gallery', 'probe')
    for rule in ('trapezoid', 'torchmetrics', 'pml'):
        found = ClosedSetMetric(map_rule=rule, prefix='x').report(identification)
        print(f'mAP, {rule}: {100 * found["x/mAP"]:.2f} %')
    for rule in ('exact', 'grid', 'insightface'):
        found = OpenSetMetric(threshold_rule=rule, prefix='x').report(faces)
        rates = ', '.join(
            f'{f}: {100 * found[f"x/tpir20@fpir{f}"]:.2f} %' for f in (0.3, 0.1, 0.01)
        )
        print(f'TPIR20 at FPIR, {rule}: {rates}')
    found = VerificationMetric(insightface=True, prefix='x').report(faces)
    for rule in ('', '_insightface'):
        print(f'accuracy{rule}: {100 * found[f"x/verification_accuracy{rule}"]:.2f} %')
    return 0


if __name__ == '__main__':
    sys.exit(main())
