"""Backbones: faces in, ``(feature_map, embedding)`` out."""

from .base import FaceBackbone
from .inception_resnet import InceptionResnetV1
from .iresnet import IResNet
from .mobilefacenet import MobileFaceNet

__all__ = ['FaceBackbone', 'IResNet', 'InceptionResnetV1', 'MobileFaceNet']
