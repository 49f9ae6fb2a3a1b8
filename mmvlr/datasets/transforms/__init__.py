"""Transforms of one face, from file to tensor."""

from .degradation import DegradeFace
from .formatting import PackFace
from .geometric import DownsampleFace, FlipFace, RescaleFace, ResizeFace, RotateFace, resize
from .loading import LoadFace, PictureError, read_picture

__all__ = [
    'DegradeFace',
    'DownsampleFace',
    'FlipFace',
    'LoadFace',
    'PackFace',
    'PictureError',
    'RescaleFace',
    'ResizeFace',
    'RotateFace',
    'read_picture',
    'resize',
]
