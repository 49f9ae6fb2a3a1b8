"""What runs before training: checks of archives, alignment, UI sets, fitting of degradation."""

from .align_tree import align_tree
from .alignment import AlignedFace, Aligner, align_face
from .detection import Detection, FaceDetector

__all__ = ['AlignedFace', 'Aligner', 'Detection', 'FaceDetector', 'align_face', 'align_tree']
