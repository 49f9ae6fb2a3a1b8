"""Backbones: faces in, ``(feature_map, embedding)`` out."""

from .base import FaceBackbone
from .iresnet import IResNet
from .mobilefacenet import MobileFaceNet

__all__ = ['FaceBackbone', 'IResNet', 'MobileFaceNet']
