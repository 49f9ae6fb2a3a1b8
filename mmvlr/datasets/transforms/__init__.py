"""Transforms of one face, from file to tensor."""

from .degradation import (
    BlurFace,
    DegradeFace,
    DownUpFace,
    JPEGFace,
    MisalignFace,
    MotionBlurFace,
    NoiseFace,
    ShrinkFace,
    ToneFace,
    VLRDegradation,
)
from .formatting import PackFace
from .geometric import DownsampleFace, FlipFace, RescaleFace, ResizeFace, RotateFace, resize
from .loading import LoadFace, PictureError, read_picture

__all__ = [
    'BlurFace',
    'DegradeFace',
    'DownUpFace',
    'DownsampleFace',
    'FlipFace',
    'JPEGFace',
    'LoadFace',
    'MisalignFace',
    'MotionBlurFace',
    'NoiseFace',
    'PackFace',
    'PictureError',
    'RescaleFace',
    'ResizeFace',
    'RotateFace',
    'ShrinkFace',
    'ToneFace',
    'VLRDegradation',
    'read_picture',
    'resize',
]
