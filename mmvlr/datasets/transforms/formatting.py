"""Pack records into the input of the model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mmvlr.registry import FUNCTIONS, TRANSFORMS
from mmvlr.structures import FaceDataSample

from .base import BaseTransform
from .geometric import FlipFace, RescaleFace, RotateFace


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


@TRANSFORMS.register_module()
class PackNativeFace(BaseTransform):
    """Pack a training face in its native size, with the random parameters of its augmentation.

    Use it to let ``FaceDataPreprocessor`` resize and augment whole batches on the device. The
    parameters are those that the transforms themselves would draw, so both ways give the same
    images. It requires ``native_collate`` and follows ``LoadFace`` directly. Instead of::

        [LoadFace, ResizeFace, FlipFace, RotateFace, RescaleFace, PackFace]

    write::

        [LoadFace, dict(type='PackNativeFace', transforms=[FlipFace, RotateFace, RescaleFace])]

    Args:
        transforms: Configs of ``FlipFace``, ``RotateFace`` and ``RescaleFace``, bicubic, in the
            order in which they come after the resize to the size of the contract.

    Raises:
        ValueError: Another transform or interpolation.
    """

    def __init__(self, transforms: Sequence[Any] = ()):
        self.transforms = [TRANSFORMS.build(t) if isinstance(t, dict) else t for t in transforms]
        for transform in self.transforms:
            if type(transform) not in (FlipFace, RotateFace, RescaleFace):
                raise ValueError(
                    'PackNativeFace supports FlipFace, RotateFace and RescaleFace, not '
                    f'{type(transform).__name__}; transform images one by one (ResizeFace, ..., '
                    'PackFace) to use it'
                )
            if getattr(transform, 'interpolation', 'bicubic') != 'bicubic':
                raise ValueError(
                    f'PackNativeFace: {type(transform).__name__} has interpolation '
                    f"{transform.interpolation!r}, batches are resampled 'bicubic' only; leave it "
                    'out, or transform images one by one (ResizeFace, ..., PackFace)'
                )
        self.steps = tuple(type(transform).__name__ for transform in self.transforms)

    def transform(self, results: dict) -> dict:
        """Pack one face.

        Raises:
            ValueError: It has no class label.
        """
        if 'gt_label' not in results:
            raise ValueError(
                f'{results.get("img_path", "a face")} has no gt_label: PackNativeFace is for '
                'training; use ResizeFace and PackFace otherwise'
            )
        rng = results.get('rng')
        return dict(
            img=results['img'],
            draws=[float(transform.draw(rng)) for transform in self.transforms],
            steps=self.steps,
            gt_label=results['gt_label'],
            sample_idx=results.get('sample_idx', -1),
        )


@FUNCTIONS.register_module()
def native_collate(batch: Sequence[dict]) -> dict:
    """Collate faces of ``PackNativeFace`` without padding.

    Arrays rather than tensors, and columns rather than a record per face, are the cheapest to send
    from a worker to the main process.

    Returns:
        dict: ``inputs`` with ``pixels`` (uint8, the faces (h, w, 3) one after the other),
        ``sizes`` (int64 (B, 2), height and width), ``draws`` (float64 (B, T)) and ``steps``, the
        names of the T transforms; ``data_samples`` with ``gt_label`` and ``sample_idx`` (int64
        (B,)).
    """
    if 'draws' not in batch[0]:
        raise ValueError('native_collate joins faces of PackNativeFace; use face_collate')
    images = [face['img'] for face in batch]
    return dict(
        inputs=dict(
            pixels=np.concatenate([image.reshape(-1) for image in images]),
            sizes=np.array([image.shape[:2] for image in images], np.int64),
            draws=np.array([face['draws'] for face in batch], np.float64),
            steps=batch[0]['steps'],
        ),
        data_samples={
            name: np.array([face[name] for face in batch], np.int64)
            for name in ('gt_label', 'sample_idx')
        },
    )
