"""Backbones: faces in, ``(feature_map, embedding)`` out."""

from .base import BackboneTail, FaceBackbone
from .inception_resnet import InceptionResnetV1
from .iresnet import IResNet
from .mobilefacenet import MobileFaceNet
from .sface import SFaceNet
from .timm_backbone import TimmBackbone

__all__ = [
    'BackboneTail',
    'FaceBackbone',
    'IResNet',
    'InceptionResnetV1',
    'MobileFaceNet',
    'SFaceNet',
    'TimmBackbone',
]
