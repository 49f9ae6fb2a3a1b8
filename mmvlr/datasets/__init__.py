"""Data sets, transforms and collation."""

from . import transforms
from .alignment import Alignment, AlignmentRecipe, find_alignment
from .base import NO_IDENTITY, FaceDataset, set_epoch
from .collate import face_collate
from .face_folder import FaceFolder
from .lfw_family import LFWFamily
from .scface import SCface
from .storage.faces import LFWBin, RecordIOFaces
from .survface import SurvFace
from .synthetic import SyntheticFaces, SyntheticUIFaces
from .tinyface import TinyFace
from .ui_faces import UIFaces, UnlabeledFaces
from .validation import PeopleSubset, ValidationSubset

__all__ = [
    'NO_IDENTITY',
    'Alignment',
    'AlignmentRecipe',
    'FaceDataset',
    'FaceFolder',
    'LFWBin',
    'LFWFamily',
    'PeopleSubset',
    'RecordIOFaces',
    'SCface',
    'SurvFace',
    'SyntheticFaces',
    'SyntheticUIFaces',
    'TinyFace',
    'UIFaces',
    'UnlabeledFaces',
    'ValidationSubset',
    'face_collate',
    'find_alignment',
    'set_epoch',
    'transforms',
]
