"""Collate packed faces into a batch."""

from collections.abc import Sequence

import torch

from mmvlr.registry import FUNCTIONS
from mmvlr.utils.loading import prepare_worker


@FUNCTIONS.register_module()
def face_collate(batch: Sequence[dict]) -> dict:
    """Stack packed faces: ``inputs`` (B, 3, H, W) uint8 and the list of ``data_samples``.

    mmengine's default (``pseudo_collate``) leaves a list of images for the main process to stack;
    this function stacks in the workers.
    """
    prepare_worker()
    return dict(
        inputs=torch.stack([face['inputs'] for face in batch]),
        data_samples=[face['data_samples'] for face in batch],
    )
