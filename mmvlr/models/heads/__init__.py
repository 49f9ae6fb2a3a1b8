"""Heads: modules that use the backbone's two outputs."""

from .partial_recognition_module import PartialRecognitionModule
from .perceptibility_attention import PerceptibilityAttention
from .perceptibility_regression import PerceptibilityRegression
from .recognition_module import RecognitionModule

__all__ = [
    'PartialRecognitionModule',
    'PerceptibilityAttention',
    'PerceptibilityRegression',
    'RecognitionModule',
]
