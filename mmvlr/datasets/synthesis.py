"""Generate synthetic faces of surveillance quality.

All images are **synthetic**: none shows a real person, and figures measured on them do not transfer
to a real data set. They let training, evaluation and every example run at once, without a license
agreement or a download.

How an image is generated: ``skimage.data.lfw_subset`` (part of the scikit-image wheel) holds 100
real 25x25 faces. Their eigenfaces (Turk and Pentland, *Eigenfaces for Recognition*, 1991) span a
:class:`FaceSpace`. A person is a random point of that space. An image is that point plus a small
change of expression, a background, pose, light, blur, downsampling to 8-24 pixels, noise and JPEG
compression. The strength of these degradations varies widely from image to image, so that quality
estimates can be evaluated.

Every image depends on ``(seed, person, image)`` alone, never on the number of people or images
generated. Bytes are reproducible on one machine; another build of LAPACK or OpenCV may round a gray
level differently. The module needs NumPy, OpenCV and scikit-image (``pip install "mmvlr[demo]"``),
but not mmengine.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .face_space import CANVAS, FaceSpace, enlarge

__all__ = [
    'MAX_NATIVE_SIZE',
    'MIN_NATIVE_SIZE',
    'FaceSpace',
    'SyntheticFace',
    'pixel_correlation_embedding',
    'synthesize_face',
]

MIN_NATIVE_SIZE = 8
MAX_NATIVE_SIZE = 24

_V, _U = np.float32(np.mgrid[-1 : 1 : CANVAS * 1j, -1 : 1 : CANVAS * 1j])

# Streams of random numbers. The two of images share the identities, so that a test can compare
# a recognizable and an unrecognizable image of one and the same person.
_IDENTITY_STREAM, _IMAGE_STREAM, _UNRECOGNIZABLE_STREAM = range(3)

# The strengths below are calibrated together: comparing plain pixels finds 38-46 % of the probes of
# 100 people among 700 images, and a network of 0.1 M parameters twice as many. Light, pose and
# background mislead pixels but not a network; blur, noise and size remove the identity itself.
_CONTRAST = 0.16  # of the face around its tone; black is 0, white is 1
_EXPRESSION = 0.3  # relative to 1 between people
_TURN_OF_PERSON, _TURN = 0.5, 0.5
_BACKDROP_LEVEL, _BACKDROP = 0.55, 0.05
_SIDE_LIGHT, _SHADOW = 0.1, 0.13
# Standard deviations of rotation (radians), shear, zoom in x and y, and shift in x and y, yaw and
# nod (all four in half images).
_POSE = np.array([0.04, 0.02, 0.025, 0.025, 0.025, 0.025, 0.025, 0.025])
_DIFFICULTY = (1.0, 2.1)  # Beta distribution: mostly fair, with a tail of very hard images
_BLUR, _NOISE, _SHRINK = 2.0, 15.0, 14.0  # added at difficulty 1 compared with difficulty 0


@dataclass(frozen=True, eq=False)
class SyntheticFace:
    """One synthetic face and the truth about its quality.

    Attributes:
        image: (h, w, 3) uint8 RGB image with h = w = ``native_size``.
        person: Number of the person.
        shot: Number of the image among those of the person.
        native_size: Side of the image in pixels, 8 to 24.
        detail_size: Side in pixels at which the face was actually sampled. The same as
            ``native_size``, except for unrecognizable faces enlarged from 3 to 6 pixels.
        blur: Standard deviation of the Gaussian blur, in pixels of a 24-pixel face.
        noise: Standard deviation of the sensor noise, in gray levels of 255.
        brightness: Factor on all gray levels; below one is a darker image.
        jpeg_quality: Quality it was compressed with, 40 to 95, or 100 if it was not.
        difficulty: Center of the distribution of the degradations' strength, 0 (clean) to 1 (hard);
            the extra degradation of an unrecognizable face is not included.
        unrecognizable: Whether the face was degraded beyond recognition on purpose.
    """

    image: np.ndarray
    person: int
    shot: int
    native_size: int
    detail_size: int
    blur: float
    noise: float
    brightness: float
    jpeg_quality: int
    difficulty: float
    unrecognizable: bool = False


@dataclass(frozen=True, eq=False)
class _Person:
    coefficients: np.ndarray
    turn: np.ndarray
    tone: float
    tint: np.ndarray


@functools.lru_cache(maxsize=1024)
def _person(seed: int, person: int) -> _Person:
    space = FaceSpace.from_lfw_subset()
    rng = np.random.default_rng(np.random.SeedSequence([seed, _IDENTITY_STREAM, person]))
    return _Person(
        # Beyond two standard deviations faces of the linear space look distorted.
        coefficients=np.clip(rng.normal(size=len(space.components)), -2, 2),
        turn=_TURN_OF_PERSON * rng.normal(size=len(space.turns)),
        tone=rng.uniform(0.42, 0.58),
        tint=np.array([rng.uniform(1.0, 1.06), 1.0, rng.uniform(0.92, 1.0)], dtype=np.float32),
    )


def synthesize_face(
    person: int,
    image: int,
    *,
    seed: int = 0,
    unrecognizable: bool = False,
    difficulty: float | None = None,
) -> SyntheticFace:
    """Draw one synthetic image of one synthetic person.

    The result depends on the arguments alone. The same ``person`` of the same ``seed`` is the
    same person whether ``unrecognizable`` or not, so a set of unrecognizable identities (UI) must
    use numbers that training and test do not use.

    Args:
        person: Number of the person, any non-negative integer.
        image: Number of the image of that person, any non-negative integer.
        seed: Seed of the whole population, a non-negative integer.
        unrecognizable: Degrade the face beyond recognition.
        difficulty: Strength of the degradations, 0 to 1, instead of the one drawn for the
            image. All other random draws are the same for any difficulty.

    Returns:
        The image and the truth about its quality.

    Raises:
        ImportError: If scikit-image is not installed.
        ValueError: If a number is negative or ``difficulty`` is outside of [0, 1].

    Example:
        >>> face = synthesize_face(person=7, image=0)
        >>> face.image.dtype.name, face.image.shape == (face.native_size, face.native_size, 3)
        ('uint8', True)
    """
    person, image, seed = map(operator.index, (person, image, seed))
    if min(person, image, seed) < 0:
        raise ValueError(
            f'person, image and seed must not be negative, got {person}, {image}, {seed}'
        )
    if difficulty is not None and not 0 <= difficulty <= 1:
        raise ValueError(f'difficulty must be in [0, 1], got {difficulty}')
    space = FaceSpace.from_lfw_subset()
    who = _person(seed, person)
    stream = _UNRECOGNIZABLE_STREAM if unrecognizable else _IMAGE_STREAM
    rng = np.random.default_rng(np.random.SeedSequence([seed, stream, person, image]))
    drawn = rng.beta(*_DIFFICULTY)
    hard = drawn if difficulty is None else float(difficulty)

    # Variation within a person: expression along the symmetric eigenfaces, pose along the others.
    coefficients = who.coefficients + _EXPRESSION * rng.normal(size=len(space.components))
    turn = who.turn + _TURN * rng.normal(size=len(space.turns))
    canvas = who.tone + _CONTRAST * space.render(coefficients, turn)
    backdrop = _BACKDROP_LEVEL * who.tone + _BACKDROP * (
        rng.normal() + 0.5 * rng.normal(size=(4, 4))
    )
    canvas = space.mask * canvas + (1 - space.mask) * enlarge(backdrop, CANVAS)

    canvas = _pose(canvas, rng, hard)
    canvas, brightness = _light(canvas, rng, hard)
    native_size = np.rint(23.5 - _SHRINK * hard + rng.normal(0, 2.5))
    native_size = int(np.clip(native_size, MIN_NATIVE_SIZE, MAX_NATIVE_SIZE))
    quality = {
        'native_size': native_size,
        'detail_size': native_size,
        'blur': (0.25 + _BLUR * hard) * rng.uniform(0.3, 1.0),
        'noise': (1.5 + _NOISE * hard) * rng.uniform(0.3, 1.0),
        'brightness': brightness,
        'jpeg_quality': round(95 - 55 * hard * rng.uniform()) if rng.uniform() < 0.6 else 100,
    }
    if unrecognizable:
        canvas, quality = _ruin(canvas, rng, quality)
    return SyntheticFace(
        image=_shoot(canvas, rng, who.tint, **quality),
        person=person,
        shot=image,
        difficulty=float(hard),
        unrecognizable=bool(unrecognizable),
        **quality,
    )


def _pose(canvas: np.ndarray, rng: np.random.Generator, hard: float) -> np.ndarray:
    """Shift, rotate, scale and shear the face, and turn the head (yaw, pitch)."""
    strength = _POSE * (0.7 + 0.6 * hard)
    draws = np.clip(rng.normal(size=8), -2, 2) * strength
    angle, shear, zoom_x, zoom_y, shift_x, shift_y, yaw, nod = np.float32(draws)
    u, v = _U, _V
    x = (np.cos(angle) * u - np.sin(angle) * v) * (1 + zoom_x) + shear * v + shift_x
    y = (np.sin(angle) * u + np.cos(angle) * v) * (1 + zoom_y) + shift_y
    # A turned head moves its middle more than its edges.
    x = x + yaw * (1 - u * u)
    y = y + nod * (1 - v * v)
    half = np.float32((CANVAS - 1) / 2)
    return cv2.remap(
        canvas, (x + 1) * half, (y + 1) * half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def _light(canvas: np.ndarray, rng: np.random.Generator, hard: float) -> tuple[np.ndarray, float]:
    """Light the face from a side and draw the exposure."""
    angle = rng.uniform(0, 2 * np.pi)
    side = np.float32(np.cos(angle)) * _U + np.float32(np.sin(angle)) * _V
    gradient = np.float32(abs(rng.normal(0, _SIDE_LIGHT)))
    shadow = np.float32(rng.uniform(0, _SHADOW))
    edge = np.float32(rng.uniform(-0.6, 0.6))
    canvas = canvas * (1 + gradient * side) * (1 - shadow / (1 + np.exp((side - edge) / 0.15)))
    brightness = float(np.exp(rng.normal(0.05 - 0.55 * hard, 0.2)))
    gamma = np.exp(rng.normal(0, 0.25))
    return np.power(np.clip(canvas, 0.01, 1.5), np.float32(gamma)), brightness


def _ruin(canvas: np.ndarray, rng: np.random.Generator, quality: dict) -> tuple[np.ndarray, dict]:
    """Make a face unrecognizable, in one of four ways."""
    native_size = int(rng.integers(MIN_NATIVE_SIZE, MAX_NATIVE_SIZE + 1))
    ruined = {**quality, 'native_size': native_size, 'detail_size': native_size}
    way = ('far', 'blurred', 'dark', 'covered')[rng.integers(4)]
    if way == 'far':
        ruined['detail_size'] = int(rng.integers(3, 6))
    elif way == 'blurred':
        ruined['blur'] = rng.uniform(2.8, 4.2)
    elif way == 'dark':
        ruined['detail_size'] = int(rng.integers(4, 7))
        ruined['noise'] = rng.uniform(20, 40)
        ruined['brightness'] *= rng.uniform(0.5, 0.9)
    else:
        ruined['detail_size'] = int(rng.integers(4, 7))
        across = (_U, -_U, _V, -_V)[rng.integers(4)]
        edge = np.float32(rng.uniform(0.15, 0.5))
        cover = 1 / (1 + np.exp((across - edge) / 0.08))
        canvas = cover * rng.uniform(0.05, 0.8) + (1 - cover) * canvas
    return canvas, ruined


def _shoot(
    canvas: np.ndarray,
    rng: np.random.Generator,
    tint: np.ndarray,
    *,
    native_size: int,
    detail_size: int,
    blur: float,
    noise: float,
    brightness: float,
    jpeg_quality: int,
) -> np.ndarray:
    """Simulate lens, sensor and recorder."""
    scene = cv2.GaussianBlur(canvas * brightness, (0, 0), blur * CANVAS / MAX_NATIVE_SIZE)
    gray = cv2.resize(scene, (detail_size, detail_size), interpolation=cv2.INTER_AREA)
    if detail_size != native_size:
        gray = enlarge(gray, native_size)
    # White balance belongs to the camera, so it drifts from image to image.
    image = gray[..., None] * (255 * tint * rng.uniform(0.96, 1.04, size=3))
    # Behind a demosaicing filter, most of the noise is shared by the colors.
    image = image + noise * (
        0.87 * rng.normal(size=(native_size, native_size, 1))
        + 0.5 * rng.normal(size=(native_size, native_size, 3))
    )
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if jpeg_quality < 100:
        code = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])[1]
        image = np.ascontiguousarray(cv2.imdecode(code, cv2.IMREAD_COLOR)[..., ::-1])
    return image


def pixel_correlation_embedding(
    images: Sequence[np.ndarray], size: tuple[int, int] = (24, 24)
) -> np.ndarray:
    """Embed images by their plain pixels, the baseline that a network must beat.

    The cosine of two of these vectors is the correlation of the gray pixels.

    Args:
        images: N images of any sizes, each (h, w, 3) RGB or (h, w) gray.
        size: Height and width that all images are resized to.

    Returns:
        (N, D) float32 unit vectors with D = height x width; zero for an image of a single gray.

    Example:
        >>> faces = [synthesize_face(3, image, difficulty=0.1).image for image in range(2)]
        >>> vectors = pixel_correlation_embedding(faces)
        >>> vectors.shape, bool(vectors[0] @ vectors[1] > 0.5)
        ((2, 576), True)
    """
    height, width = size
    vectors = np.zeros((len(images), height * width), dtype=np.float32)
    for vector, image in zip(vectors, images, strict=True):
        gray = image.astype(np.float32)
        if gray.ndim == 3:
            gray = cv2.cvtColor(gray, cv2.COLOR_RGB2GRAY)
        pixels = cv2.resize(gray, (width, height), interpolation=cv2.INTER_CUBIC).ravel()
        centered = pixels - pixels.mean()
        length = np.linalg.norm(centered)
        # For an image of a single gray only rounding errors remain, which have no direction.
        if length > 1e-5 * np.linalg.norm(pixels):
            vector[:] = centered / length
    return vectors
