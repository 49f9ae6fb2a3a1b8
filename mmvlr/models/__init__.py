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
    CosineDistillationLoss,
    CurricularFaceLoss,
    FeatureSimilarityDistillationLoss,
    IndexDiversionLoss,
    IndexRegressionLoss,
    MagFaceLoss,
    NormFaceLoss,
    RelationalDistillationLoss,
    SoftmaxLoss,
)
from .recognizers import FaceRecognizer, RIFace

__all__ = [
    'AdaFaceLoss',
    'ArcFaceLoss',
    'AttentionLoss',
    'CosFaceLoss',
    'CosineDistillationLoss',
    'CurricularFaceLoss',
    'FaceBackbone',
    'FaceDataPreprocessor',
    'FaceRecognizer',
    'FeatureSimilarityDistillationLoss',
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
    'RelationalDistillationLoss',
    'SFaceNet',
    'SoftmaxLoss',
    'TimmBackbone',
]
