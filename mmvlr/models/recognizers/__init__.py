"""Recognizers: the complete models of a config."""

from .face_recognizer import FaceRecognizer, effective_rank, predict_in_full_batches
from .riface import RIFace

__all__ = ['FaceRecognizer', 'RIFace', 'effective_rank', 'predict_in_full_batches']
