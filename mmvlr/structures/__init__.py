"""What travels between data set, model, metric and gallery."""

from .face_data_sample import FaceDataSample
from .face_table import NO_IDENTITY, FaceTable

__all__ = ['NO_IDENTITY', 'FaceDataSample', 'FaceTable']
