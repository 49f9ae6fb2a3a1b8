"""What makes faces of raw material: archives, alignment, UI sets, videos; fits of degradation."""

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
from .frames import UnreadableVideoError, open_frames
from .track_folder import TrackReport, track_faces
from .track_settings import Judge, TrackSettings, make_judge

__all__ = [
    'AlignedFace',
    'Aligner',
    'Detection',
    'FaceDetector',
    'Judge',
    'MTCNNDetector',
    'TrackReport',
    'TrackSettings',
    'UnreadableVideoError',
    'YuNetDetector',
    'align_face',
    'align_tree',
    'build_detector',
    'configure_detector',
    'make_judge',
    'make_recipe',
    'open_frames',
    'track_faces',
]
