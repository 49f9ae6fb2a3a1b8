"""Degrade faces as a whole camera does: steps, presets of their parameters, preset files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmvlr.registry import TRANSFORMS
from mmvlr.utils.schema import FileFormatError, FileModel, read_json

from .degradation import (
    BlurFace,
    DownUpFace,
    FaceDegradation,
    JPEGFace,
    MisalignFace,
    MotionBlurFace,
    NoiseFace,
    ShrinkFace,
    ToneFace,
)
from .kernels import crop_to_shape

#: Steps of a preset, in the order in which they occur in a camera.
STEPS = dict(
    misalign=MisalignFace,
    blur=BlurFace,
    motion=MotionBlurFace,
    native=ShrinkFace,
    noise=NoiseFace,
    tone=ToneFace,
    down_up=DownUpFace,
    jpeg=JPEGFace,
)


def even_sizes(low: int, high: int, aspect: float = 0.8) -> list[tuple[int, int, float]]:
    """Return ``sizes`` for :class:`ShrinkFace`: heights ``low`` to ``high``, equally likely.

    Args:
        low: Smallest height in pixels.
        high: Largest height in pixels, included.
        aspect: Width over height.
    """
    return [(height, round(height * aspect), 1.0) for height in range(low, high + 1)]


# All numbers are chosen by hand: they span faces of 8 to 40 pixels and are not fitted to a data
# set, as none of the three sets states blur, noise or compression. To match given images, fit a
# preset to them with mmvlr fit-degradation. Lengths are in native pixels, noise in gray levels.
_DETECTOR = dict(shift=0.05, scale=(1.0, 1.2), rotation=6.0)
_TONE = dict(gamma=(0.7, 1.4), contrast=(0.7, 1.1))
_KERNELS = ('area', 'bilinear', 'bicubic', 'lanczos', 'nearest')

#: Name -> step -> arguments of its class in ``STEPS``.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # Faces of web images: many cameras, scaled by software of all kinds, good light.
    'tinyface': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.2, 0.8), defocus=0.3),
        motion=dict(length=(0.5, 1.5), prob=0.2),
        native=dict(sizes=even_sizes(12, 28), kernels=_KERNELS),
        noise=dict(shot=(0.0, 0.15), read=(0.0, 4.0)),
        tone=_TONE,
        down_up=dict(factor=(0.6, 0.95), prob=0.3),
        jpeg=dict(quality=(50, 95)),
    ),
    # Indoor surveillance, one scene, still subjects: smaller and noisier at a greater distance.
    'scface_d1': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.4, 1.0), defocus=0.3),
        native=dict(sizes=even_sizes(10, 18), kernels=('area',)),
        noise=dict(shot=(0.05, 0.3), read=(2.0, 6.0)),
        tone=_TONE,
        jpeg=dict(quality=(60, 90)),
    ),
    'scface_d2': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.3, 0.9), defocus=0.3),
        native=dict(sizes=even_sizes(16, 26), kernels=('area',)),
        noise=dict(shot=(0.05, 0.3), read=(2.0, 5.0)),
        tone=_TONE,
        jpeg=dict(quality=(60, 90)),
    ),
    'scface_d3': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.3, 0.8), defocus=0.3),
        native=dict(sizes=even_sizes(26, 40), kernels=('area',)),
        noise=dict(shot=(0.05, 0.3), read=(2.0, 5.0)),
        tone=_TONE,
        jpeg=dict(quality=(60, 90)),
    ),
    # Outdoor surveillance: people walk, compression is strong.
    'survface': dict(
        misalign=_DETECTOR,
        blur=dict(sigma=(0.3, 1.2), defocus=0.4),
        motion=dict(length=(0.5, 3.0), prob=0.4),
        native=dict(sizes=even_sizes(8, 32), kernels=('area', 'bilinear')),
        noise=dict(shot=(0.0, 0.4), read=(1.0, 8.0)),
        tone=dict(gamma=(0.6, 1.6), contrast=(0.6, 1.1)),
        down_up=dict(factor=(0.5, 0.95), prob=0.3),
        jpeg=dict(quality=(30, 85)),
    ),
}


_REMEDY = 'correct the preset, or fit one (mmvlr fit-degradation --fit)'


class _Preset(FileModel, extra='ignore'):
    parameters: dict[str, dict[str, Any]]


def read_preset(preset: str | Path | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read the parameters of a preset: step -> arguments.

    Args:
        preset: A name of ``PRESETS``, a JSON file with them under ``parameters`` (as
            ``mmvlr fit-degradation --fit`` writes it), or the parameters.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: No preset has this name.
        FileFormatError: The file is no preset.
    """
    if isinstance(preset, Mapping):
        return {step: dict(arguments) for step, arguments in preset.items()}
    if str(preset) in PRESETS:
        return read_preset(PRESETS[str(preset)])
    path = Path(preset)
    if path.suffix.lower() != '.json':
        raise ValueError(
            f'no preset {str(preset)!r}: expected one of {sorted(PRESETS)} or a .json file'
        )
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such preset file')
    return read_json(path, _Preset, _REMEDY).parameters


@TRANSFORMS.register_module()
class VLRDegradation(FaceDegradation):
    """Turn a high-resolution face into one of very low resolution, at its native size.

    The steps follow the order of a camera: misalignment, crop to the native aspect ratio, optical
    and motion blur (lengths in native pixels, whatever the size of the source), sampling, sensor
    noise, tone curve, rescaling, JPEG. Place it before ``ResizeFace``.

    Every step has its own generator, drawn from ``results['rng']``: changing one step does not
    change the random draws of the others.

    Args:
        preset: Name of a preset, JSON file, or the parameters themselves; see :func:`read_preset`.
            A missing step is not applied; ``native`` is required.
        prob: Probability of degrading a face.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The preset is unknown.
        FileFormatError: A step or argument in it is unknown or invalid; the message names it.

    Example:
        >>> import numpy as np
        >>> face = np.full((112, 112, 3), 128, np.uint8)
        >>> degrade = VLRDegradation('scface_d1')
        >>> results = degrade(dict(img=face, rng=np.random.default_rng(0)))
        >>> 10 <= results['img'].shape[0] <= 18
        True
    """

    def __init__(self, preset: str | Path | Mapping[str, Any] = 'tinyface', prob: float = 1.0):
        super().__init__(prob)
        self.parameters = read_preset(preset)
        name = 'the preset' if isinstance(preset, Mapping) else str(preset)
        unknown = sorted(set(self.parameters) - set(STEPS))
        if unknown or 'native' not in self.parameters:
            problem = f'unknown steps {unknown}' if unknown else "the step 'native' is missing"
            raise FileFormatError(name, f'{problem}; steps are {list(STEPS)}', _REMEDY)
        self.steps: dict[str, FaceDegradation] = {}
        for step, arguments in self.parameters.items():
            try:
                self.steps[step] = STEPS[step](**arguments)
            except (TypeError, ValueError, OverflowError) as error:
                raise FileFormatError(name, f'step {step!r}: {error}', _REMEDY) from error

    def degrade(
        self, image: np.ndarray, rng: np.random.Generator, pixel: float = 1.0
    ) -> np.ndarray:
        """See :class:`FaceDegradation`; ``pixel`` follows from the drawn size."""
        seeds = rng.integers(2**63, size=len(STEPS))
        rngs = {step: np.random.default_rng(seed) for step, seed in zip(STEPS, seeds, strict=True)}
        native = self.steps['native']
        size = native.draw_size(rngs['native'])
        if 'misalign' in self.steps:
            image = self.steps['misalign'].apply(image, rngs['misalign'])
        image = crop_to_shape(image, size)
        pixel = max(1.0, (image.shape[0] / size[0] + image.shape[1] / size[1]) / 2)
        for step in ('blur', 'motion'):
            if step in self.steps:
                image = self.steps[step].apply(image, rngs[step], pixel)
        image = native.shrink(image, size, rngs['native'])
        for step in ('noise', 'tone', 'down_up', 'jpeg'):
            if step in self.steps:
                image = self.steps[step].apply(image, rngs[step])
        return image
