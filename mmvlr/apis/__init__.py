"""What tools and users call."""

from mmvlr.engine.building import build_tester, build_trainer, load_config, resolve_num_classes
from mmvlr.models.activation import activation_maps

from .evaluation import (
    add_warnings,
    build_metrics,
    compare_faces,
    evaluate_checkpoint,
    evaluate_faces,
    label_by_name,
    load_faces,
    mark_unmeasurable,
)
from .inferencer import FaceInferencer, FaceResults, VerificationResult
from .network import identity_of, model_of

__all__ = [
    'FaceInferencer',
    'FaceResults',
    'VerificationResult',
    'activation_maps',
    'add_warnings',
    'build_metrics',
    'build_tester',
    'build_trainer',
    'compare_faces',
    'evaluate_checkpoint',
    'evaluate_faces',
    'identity_of',
    'label_by_name',
    'load_config',
    'load_faces',
    'mark_unmeasurable',
    'model_of',
    'resolve_num_classes',
]
