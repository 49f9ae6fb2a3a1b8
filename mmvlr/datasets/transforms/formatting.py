"""From a record to what the model takes."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmvlr.registry import TRANSFORMS
from mmvlr.structures import FaceDataSample


@TRANSFORMS.register_module()
class PackFace(BaseTransform):
    """Pack a face as ``inputs`` (uint8 RGB (3, H, W)) and ``data_samples``.

    Args:
        meta_keys: Keys copied into the sample's meta information where they exist.
    """

    DEFAULT_KEYS = (
        'sample_idx',
        'img_path',
        'role',
        'identity',
        'ori_shape',
        'template',
        'camera',
        'distance',
    )

    def __init__(self, meta_keys: tuple[str, ...] = DEFAULT_KEYS):
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack one face."""
        sample = FaceDataSample(metainfo={k: results[k] for k in self.meta_keys if k in results})
        if 'gt_label' in results:
            sample.gt_label = torch.tensor(results['gt_label'], dtype=torch.int64)
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=sample)
