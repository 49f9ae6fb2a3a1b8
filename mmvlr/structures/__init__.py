"""Data structures passed between data sets, models, metrics and galleries."""

from .face_data_sample import FaceDataSample
from .face_table import NO_IDENTITY, FaceTable

__all__ = ['NO_IDENTITY', 'FaceDataSample', 'FaceTable']
