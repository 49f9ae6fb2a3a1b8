"""The public interface: load models, embed faces, export models."""

from mmvlr.engine.building import build_tester, build_trainer, load_config, resolve_num_classes
from mmvlr.engine.scoring import score_faces
from mmvlr.engine.testing import evaluate_checkpoint
from mmvlr.evaluation.tables import (
    add_warnings,
    build_metrics,
    compare_faces,
    evaluate_faces,
    label_by_name,
    load_faces,
    mark_unmeasurable,
)
from mmvlr.models.activation import activation_maps
from mmvlr.structures import FaceTable

from .family import get_model, inference_model, init_model, list_models
from .inferencer import FaceInferencer, VerificationResult
from .network import fingerprint_model, load_model

__all__ = [
    'FaceInferencer',
    'FaceTable',
    'VerificationResult',
    'activation_maps',
    'add_warnings',
    'build_metrics',
    'build_tester',
    'build_trainer',
    'compare_faces',
    'evaluate_checkpoint',
    'evaluate_faces',
    'fingerprint_model',
    'get_model',
    'inference_model',
    'init_model',
    'label_by_name',
    'list_models',
    'load_config',
    'load_faces',
    'load_model',
    'mark_unmeasurable',
    'resolve_num_classes',
    'score_faces',
]
