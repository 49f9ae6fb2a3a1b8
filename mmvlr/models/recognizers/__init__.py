"""Recognizers: the models that a config names."""

from .face_recognizer import FaceRecognizer, effective_rank
from .riface import RIFace

__all__ = ['FaceRecognizer', 'RIFace', 'effective_rank']
