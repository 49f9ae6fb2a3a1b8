"""Heads: what is read off the backbone's two outputs."""

from .perceptibility_attention import PerceptibilityAttention
from .perceptibility_regression import PerceptibilityRegression
from .recognition_module import RecognitionModule

__all__ = ['PerceptibilityAttention', 'PerceptibilityRegression', 'RecognitionModule']
