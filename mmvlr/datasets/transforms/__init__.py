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
from .formatting import PackFace, PackNativeFace, native_collate
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
    'PackNativeFace',
    'PictureError',
    'RescaleFace',
    'ResizeFace',
    'RotateFace',
    'ShrinkFace',
    'ToneFace',
    'VLRDegradation',
    'native_collate',
    'read_picture',
    'resize',
]
