"""From uint8 faces to the tensor a backbone expects; the keeper of the preprocessing contract."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor

from mmvlr.registry import MODELS


@MODELS.register_module()
class FaceDataPreprocessor(BaseDataPreprocessor):
    """Stack, reorder and normalise faces.

    The transforms deliver uint8 RGB faces of the final size. Everything that decides which numbers
    the network sees is an argument here, so that one object, its :attr:`contract`, can be written
    into a checkpoint and compared at the next use.

    Args:
        size: (height, width) of the faces in pixels. Other sizes are an error.
        interpolation: How the transforms resized the face; checked by name only.
        colour_order: ``'RGB'`` or ``'BGR'``: what the network was trained on.
        mean: Subtracted from every channel, in grey levels.
        std: Divided by, in grey levels.
        alignment: Name of the alignment recipe the pictures went through.
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
        colour_order: str = 'RGB',
        mean: float | Sequence[float] = 127.5,
        std: float | Sequence[float] = 127.5,
        alignment: str = 'none',
        non_blocking: bool = False,
    ):
        super().__init__(non_blocking=non_blocking)
        if colour_order not in ('RGB', 'BGR'):
            raise ValueError(f"colour_order must be 'RGB' or 'BGR', not {colour_order!r}")
        self.size = tuple(int(side) for side in size)
        self.interpolation = interpolation
        self.colour_order = colour_order
        self.alignment = alignment
        self.mean_values = self._three(mean)
        self.std_values = self._three(std)
        # Not persistent: the contract, which holds the same numbers, is what travels.
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
            colour_order=self.colour_order,
            mean=self.mean_values,
            std=self.std_values,
            alignment=self.alignment,
        )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Turn a batch of faces into network input.

        Args:
            data: ``inputs``, a list of uint8 RGB tensors (3, H, W) or one (B, 3, H, W), and
                ``data_samples``.
            training: Unused; augmentation belongs to the transforms.

        Returns:
            dict: ``inputs`` float32 (B, 3, H, W) and the untouched ``data_samples``.

        Raises:
            ValueError: A face has another size than the contract states.
        """
        inputs = data['inputs']
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
        inputs = self.cast_data(inputs).float()
        if self.colour_order == 'BGR':
            inputs = inputs.flip(1)
        inputs = (inputs - self.mean) / self.std
        return dict(inputs=inputs, data_samples=self.cast_data(data.get('data_samples')))
