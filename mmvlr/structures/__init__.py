"""What travels between data set, model and metric."""

from .face_data_sample import FaceDataSample

__all__ = ['FaceDataSample']
