"""Models: preprocessor, backbones, heads, losses, and the recognizers composed of them."""

from .adapters import FixedGate, LoRA, QualityGate
from .backbones import (
    FaceBackbone,
    InceptionResnetV1,
    IResNet,
    MobileFaceNet,
    SFaceNet,
    TimmBackbone,
)
from .data_preprocessor import FaceDataPreprocessor
from .heads import (
    PartialRecognitionModule,
    PerceptibilityAttention,
    PerceptibilityRegression,
    RecognitionModule,
)
from .losses import (
    AdaFaceLoss,
    ArcFaceLoss,
    AttentionLoss,
    CosFaceLoss,
    CurricularFaceLoss,
    IndexDiversionLoss,
    IndexRegressionLoss,
    MagFaceLoss,
    NormFaceLoss,
    SoftmaxLoss,
)
from .recognizers import FaceRecognizer, RIFace

__all__ = [
    'AdaFaceLoss',
    'ArcFaceLoss',
    'AttentionLoss',
    'CosFaceLoss',
    'CurricularFaceLoss',
    'FaceBackbone',
    'FaceDataPreprocessor',
    'FaceRecognizer',
    'FixedGate',
    'IResNet',
    'InceptionResnetV1',
    'IndexDiversionLoss',
    'IndexRegressionLoss',
    'LoRA',
    'MagFaceLoss',
    'MobileFaceNet',
    'NormFaceLoss',
    'PartialRecognitionModule',
    'PerceptibilityAttention',
    'PerceptibilityRegression',
    'QualityGate',
    'RIFace',
    'RecognitionModule',
    'SFaceNet',
    'SoftmaxLoss',
    'TimmBackbone',
]
