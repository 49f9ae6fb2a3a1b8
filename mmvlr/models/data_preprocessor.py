"""Convert uint8 faces to the input of a backbone, as the preprocessing contract states."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor

from mmvlr.registry import MODELS
from mmvlr.structures import FaceDataSample

from .resampling import STEPS, resize_native, to_device


@MODELS.register_module()
class FaceDataPreprocessor(BaseDataPreprocessor):
    """Stack, reorder and normalize faces.

    The transforms return uint8 RGB faces of the final size. Everything that determines the
    network's input is an argument here, so that one object, the :attr:`contract`, can be written
    into a checkpoint and compared at the next use.

    Batches of ``PackNativeFace`` are the exception: their faces have native sizes, and are resized
    and augmented here, all at once and on the device of the model.

    Args:
        size: (height, width) of the faces in pixels. Other sizes are an error.
        interpolation: Interpolation by which the transforms resized the face; only its name is
            checked.
        color_order: ``'RGB'`` or ``'BGR'``, the order that the network was trained on.
        mean: Subtracted from every channel, in gray levels.
        std: Divided by, in gray levels.
        alignment: Name of the alignment recipe the images went through.
        non_blocking: Copy to the device without waiting.

    Example:
        >>> import torch
        >>> preprocessor = FaceDataPreprocessor(size=(2, 2), std=128)
        >>> face = torch.full((3, 2, 2), 255, dtype=torch.uint8)
        >>> preprocessor(dict(inputs=[face], data_samples=None))['inputs'].max().item()
        0.99609375
    """

    def __init__(
        self,
        size: Sequence[int] = (112, 112),
        interpolation: str = 'bicubic',
        color_order: str = 'RGB',
        mean: float | Sequence[float] = 127.5,
        std: float | Sequence[float] = 127.5,
        alignment: str = 'none',
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking=non_blocking)
        if color_order not in ('RGB', 'BGR'):
            raise ValueError(f"color_order must be 'RGB' or 'BGR', not {color_order!r}")
        self.size = tuple(int(side) for side in size)
        self.interpolation = interpolation
        self.color_order = color_order
        self.alignment = alignment
        self.mean_values = self._three(mean)
        self.std_values = self._three(std)
        # Not persistent: the checkpoint holds the same numbers in the contract.
        self.register_buffer('mean', torch.tensor(self.mean_values).view(3, 1, 1), False)
        self.register_buffer('std', torch.tensor(self.std_values).view(3, 1, 1), False)

    @staticmethod
    def _three(values: float | Sequence[float]) -> list[float]:
        values = [values] if isinstance(values, (int, float)) else list(values)
        if len(values) not in (1, 3):
            raise ValueError(f'mean and std take one value or three, not {len(values)}')
        return [float(value) for value in (values * 3 if len(values) == 1 else values)]

    @property
    def contract(self) -> dict[str, Any]:
        """The preprocessing contract: plain values only, comparable with ``==``."""
        return dict(
            size=list(self.size),
            interpolation=self.interpolation,
            color_order=self.color_order,
            mean=self.mean_values,
            std=self.std_values,
            alignment=self.alignment,
        )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Turn a batch of faces into network input.

        Args:
            data: ``inputs``, a list of uint8 RGB tensors (3, H, W) or one (B, 3, H, W), and
                ``data_samples``; or what ``native_collate`` returns.
            training: Unused; the transforms decide about augmentation.

        Returns:
            dict: ``inputs`` float32 (B, 3, H, W) and the untouched ``data_samples``; of a native
            batch, records with ``sample_idx`` and ``gt_label``.

        Raises:
            ValueError: A face has another size than the contract states, or a native batch needs
                an operation that is only available for single images.
        """
        return dict(
            inputs=self.images(data['inputs']), data_samples=self.records(data.get('data_samples'))
        )

    def images(self, inputs: Any) -> torch.Tensor:
        """Return the network input (B, 3, H, W), float32; see :meth:`forward`."""
        if isinstance(inputs, Mapping):
            return self._normalized(self.resampled(inputs))
        if not isinstance(inputs, torch.Tensor):
            wrong = [tuple(face.shape) for face in inputs if face.shape[-2:] != self.size]
            if wrong:
                raise ValueError(
                    f'the preprocessing contract states faces of {self.size}, got {wrong[0]}; '
                    'resize them in the pipeline (ResizeFace) or change data_preprocessor.size'
                )
            inputs = torch.stack(list(inputs))
        elif tuple(inputs.shape[-2:]) != self.size:
            raise ValueError(
                f'the preprocessing contract states faces of {self.size}, '
                f'got {tuple(inputs.shape[-2:])}'
            )
        return self._normalized(self.cast_data(inputs).float())

    def records(self, data_samples: Any) -> Any:
        """Return the data samples; the model copies their labels to the device at once."""
        if not isinstance(data_samples, Mapping):
            return data_samples
        labels = to_device(torch.from_numpy(data_samples['gt_label']), self.device).unbind()
        return [
            FaceDataSample(gt_label=label, metainfo=dict(sample_idx=index))
            for label, index in zip(labels, data_samples['sample_idx'].tolist(), strict=True)
        ]

    @torch.no_grad()
    def resampled(self, native: Mapping[str, Any]) -> torch.Tensor:
        """Resize and augment the ``inputs`` of a native batch.

        Returns:
            Faces (B, 3, H, W), float32 RGB in whole gray levels, on the device.

        Raises:
            ValueError: The contract's interpolation is not bicubic.
        """
        if self.interpolation != 'bicubic':
            raise ValueError(
                f'data_preprocessor.interpolation is {self.interpolation!r}, native faces are '
                "resized 'bicubic' only; resize images one by one (ResizeFace, ..., PackFace)"
            )
        pixels, sizes = (
            to_device(torch.from_numpy(native[key]), self.device) for key in ('pixels', 'sizes')
        )
        # Autocast would round gray levels to bfloat16 (8 bits) in matrix products.
        with torch.autocast(self.device.type, enabled=False):
            images = resize_native(pixels, sizes, int(native['sizes'][:, 0].sum()), self.size)
            for step, draws in zip(native['steps'], native['draws'].T, strict=True):
                images = STEPS[step](images, torch.from_numpy(draws))
        return images

    def restore(self, inputs: torch.Tensor) -> list[np.ndarray]:
        """Return the uint8 RGB faces (H, W, 3) that a network input was made of."""
        images = inputs.detach().float() * self.std + self.mean
        if self.color_order == 'BGR':
            images = images.flip(1)
        images = images.round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        return list(images.cpu().numpy())

    def _normalized(self, images: torch.Tensor) -> torch.Tensor:
        if self.color_order == 'BGR':
            images = images.flip(1)
        return (images - self.mean) / self.std
