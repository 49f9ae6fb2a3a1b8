"""Data sets, transforms and collation."""

from . import transforms
from .base import NO_IDENTITY, FaceDataset, set_epoch
from .collate import face_collate
from .face_folder import FaceFolder
from .scface import SCface
from .survface import SurvFace
from .synthetic import SyntheticFaces, SyntheticUIFaces
from .tinyface import TinyFace
from .ui_faces import UIFaces
from .validation import PeopleSubset, ValidationSubset

__all__ = [
    'NO_IDENTITY',
    'FaceDataset',
    'FaceFolder',
    'PeopleSubset',
    'SCface',
    'SurvFace',
    'SyntheticFaces',
    'SyntheticUIFaces',
    'TinyFace',
    'UIFaces',
    'ValidationSubset',
    'face_collate',
    'set_epoch',
    'transforms',
]
