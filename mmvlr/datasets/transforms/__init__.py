"""Transform one face, from file to tensor."""

from ..storage import ImageError
from .base import BaseTransform
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
)
from .formatting import PackFace, PackNativeFace, native_collate
from .geometric import DownsampleFace, FlipFace, RescaleFace, ResizeFace, RotateFace, resize
from .loading import LoadFace, read_image
from .presets import VLRDegradation

__all__ = [
    'BaseTransform',
    'BlurFace',
    'DegradeFace',
    'DownUpFace',
    'DownsampleFace',
    'FlipFace',
    'ImageError',
    'JPEGFace',
    'LoadFace',
    'MisalignFace',
    'MotionBlurFace',
    'NoiseFace',
    'PackFace',
    'PackNativeFace',
    'RescaleFace',
    'ResizeFace',
    'RotateFace',
    'ShrinkFace',
    'ToneFace',
    'VLRDegradation',
    'native_collate',
    'read_image',
    'resize',
]
