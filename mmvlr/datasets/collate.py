"""From packed faces to a batch."""

from collections.abc import Sequence

import torch

from mmvlr.registry import FUNCTIONS


@FUNCTIONS.register_module()
def face_collate(batch: Sequence[dict]) -> dict:
    """Stack packed faces: ``inputs`` (B, 3, H, W) uint8 and the list of ``data_samples``.

    mmengine's default (``pseudo_collate``) would leave a list of images to be stacked on the
    main process; stacking here happens in the workers.
    """
    return dict(
        inputs=torch.stack([face['inputs'] for face in batch]),
        data_samples=[face['data_samples'] for face in batch],
    )
