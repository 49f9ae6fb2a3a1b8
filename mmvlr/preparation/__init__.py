"""What runs before training: checks of archives, alignment, UI sets, fitting of degradation."""

from .align_tree import align_tree
from .alignment import AlignedFace, Aligner, align_face, make_recipe
from .detection import (
    Detection,
    FaceDetector,
    MTCNNDetector,
    YuNetDetector,
    build_detector,
    configure_detector,
)

__all__ = [
    'AlignedFace',
    'Aligner',
    'Detection',
    'FaceDetector',
    'MTCNNDetector',
    'YuNetDetector',
    'align_face',
    'align_tree',
    'build_detector',
    'configure_detector',
    'make_recipe',
]
