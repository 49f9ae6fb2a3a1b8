"""Models: preprocessor, backbones, heads, losses and the recognizers made of them."""

from .backbones import FaceBackbone, IResNet, MobileFaceNet
from .data_preprocessor import FaceDataPreprocessor
from .heads import PerceptibilityAttention, PerceptibilityRegression, RecognitionModule
from .losses import ArcFaceLoss, AttentionLoss, IndexDiversionLoss, IndexRegressionLoss
from .recognizers import FaceRecognizer, RIFace

__all__ = [
    'ArcFaceLoss',
    'AttentionLoss',
    'FaceBackbone',
    'FaceDataPreprocessor',
    'FaceRecognizer',
    'IResNet',
    'IndexDiversionLoss',
    'IndexRegressionLoss',
    'MobileFaceNet',
    'PerceptibilityAttention',
    'PerceptibilityRegression',
    'RIFace',
    'RecognitionModule',
]
