"""Base of all quality measures: the batch of faces and the common interface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mmvlr.models.recognizers import FaceRecognizer

#: ``extract(loader, predict, copy=0, key=None)``: runs ``predict`` over a loader that the config
#: names, whose random draws depend on ``copy``; returns its tensors in index order and ``samples``.
#: What measures extract with one ``key`` (not None) is extracted once.
Extract = Callable[..., dict[str, Any]]


@dataclass(frozen=True, eq=False)
class FaceBatch:
    """A batch of B faces for quality measures; the backbone runs once, at first use.

    Attributes:
        model: A recognizer in eval mode, not wrapped; None where no measure needs one.
        inputs: (B, 3, H, W), as the model's data preprocessor makes them.
        images: B uint8 RGB arrays (h, w, 3) in native size, before any resizing.
        passed: Result of ``model.extract_feat(inputs)``, if it was computed already.
    """

    model: FaceRecognizer | None = None
    inputs: torch.Tensor | None = None
    images: Sequence[np.ndarray] | None = None
    passed: tuple[torch.Tensor, torch.Tensor] | None = None

    def __len__(self) -> int:
        faces = self.images if self.inputs is None else self.inputs
        return 0 if faces is None else len(faces)

    @cached_property
    def features(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Feature map (B, C, h, w) and embedding (B, D) of the backbone, without gradient.

        Raises:
            ValueError: The model is in training mode, where BN and dropout would make the quality
                of a face depend on the other faces of the batch.
        """
        if self.passed is not None:
            return self.passed
        if self.model.training:
            raise ValueError('the model is in training mode; call model.eval() first')
        with torch.no_grad():
            return self.model.extract_feat(self.inputs)

    @property
    def feature_map(self) -> torch.Tensor:
        """Feature map (B, C, h, w)."""
        return self.features[0]

    @property
    def embedding(self) -> torch.Tensor:
        """Raw embedding (B, D)."""
        return self.features[1]


class QualityMeasure:
    """Base of the quality measures, which return one number per face; higher is better.

    A subclass sets ``name`` and implements :meth:`measure`. The quality of a face must not depend
    on the other faces of the batch; :func:`measure_quality` relies on that.

    Args:
        name: Name in results; by default that of the class. Two measures of one class, for example
            with different rates, need different names.

    Attributes:
        name: Name in results.
        needs_model: Whether ``model`` and ``inputs`` are used.
        needs_images: Whether ``images`` are used.
        needs_training_faces: Whether :meth:`prepare` must be called before faces are measured.
        is_prepared: Whether it was.

    Example:
        >>> class BrightnessQuality(QualityMeasure):
        ...     name, needs_model, needs_images = 'brightness', False, True
        ...
        ...     def measure(self, faces):
        ...         return torch.tensor([image.mean() for image in faces.images])
        >>> BrightnessQuality()(FaceBatch(images=[np.full((9, 9, 3), 7, np.uint8)]))
        tensor([7.])
    """

    name: str
    needs_model: bool = True
    needs_images: bool = False
    needs_training_faces: bool = False
    is_prepared: bool = False

    def __init__(self, name: str | None = None):
        if name is not None:
            self.name = name

    def prepare(self, model: FaceRecognizer, extract: Extract) -> None:
        """Fit the measure to training faces of the config, where it needs that.

        Args:
            model: The recognizer, in eval mode.
            extract: Runs a function over training faces.
        """

    def measure(self, faces: FaceBatch) -> torch.Tensor:
        """Return the quality (B,) of a batch of faces."""
        raise NotImplementedError

    @torch.no_grad()
    def measure_inputs(self, model: FaceRecognizer, inputs: torch.Tensor) -> torch.Tensor:
        """Return the quality of faces of which only the network's input is known.

        Args:
            model: A recognizer in eval mode.
            inputs: (B, 3, H, W), as its data preprocessor makes them. A measure that needs images
                sees them in this size.
        """
        passed = model.backbone(inputs) if self.needs_model else None
        images = model.data_preprocessor.restore(inputs) if self.needs_images else None
        return self(FaceBatch(model, inputs, images, passed))

    @torch.no_grad()
    def __call__(self, faces: FaceBatch) -> torch.Tensor:
        """Return the quality of each face, float32 (B,), higher is better.

        Raises:
            ValueError: The batch or its model lacks what the measure needs, or the measure did not
                return one number per face.
        """
        if self.needs_model and (faces.model is None or faces.inputs is None):
            raise ValueError(f'the quality measure {self.name!r} needs a model and its inputs')
        if self.needs_training_faces and not self.is_prepared:
            raise ValueError(
                f'the quality measure {self.name!r} has to be fitted to training faces first: '
                'mmvlr score and mmvlr report do so with those of the config; in Python call '
                'mmvlr.engine.scoring.prepare_measures'
            )
        if self.needs_images and faces.images is None:
            raise ValueError(f'the quality measure {self.name!r} needs images in native size')
        quality = self.measure(faces).float()
        if quality.shape != (len(faces),):
            raise ValueError(
                f'the quality measure {self.name!r} returned {tuple(quality.shape)} '
                f'for {len(faces)} faces'
            )
        return quality
