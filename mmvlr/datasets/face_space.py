"""The linear space from which synthetic faces are drawn; see :mod:`.synthesis`."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

#: Side of the image on which pose, light and blur are applied, before it is sampled down: twice the
#: source faces, so that a shift of half a pixel and a blur below one pixel still mean something.
CANVAS = 50
_NUM_COMPONENTS = 50
_NUM_TURNS = 12


@dataclass(frozen=True, eq=False)
class FaceSpace:
    """Linear space in which every point is a synthetic face.

    A face is split into its mirror-symmetric and its antisymmetric half, and each half has its
    own eigenfaces. The symmetric ones carry the differences between people; the antisymmetric ones
    carry mostly head pose and the direction of the light, so images of one person may vary freely
    along them.

    Attributes:
        mean: (S, S) float32 mean face. Faces have mean 0 and standard deviation about 1.
        components: (K, S, S) float32 symmetric eigenfaces, strongest first, each times the
            standard deviation of a face along it.
        turns: (T, S, S) float32 antisymmetric eigenfaces, in the same way.
        mask: (S, S) float32 in [0, 1], where the face is; the rest is background.
    """

    mean: np.ndarray
    components: np.ndarray
    turns: np.ndarray
    mask: np.ndarray

    @classmethod
    def from_faces(
        cls,
        faces: np.ndarray,
        num_components: int = _NUM_COMPONENTS,
        num_turns: int = _NUM_TURNS,
        size: int = CANVAS,
    ) -> FaceSpace:
        """Build the space from gray images of faces that lie in the same place.

        Args:
            faces: (N, h, w) images, any range.
            num_components: How many symmetric eigenfaces to keep, at most N - 1.
            num_turns: How many antisymmetric eigenfaces to keep, at most N - 1.
            size: Side S in pixels at which faces are drawn.

        Returns:
            The space.

        Raises:
            ValueError: If ``faces`` is not (N, h, w) or a number of eigenfaces is out of range.
        """
        faces = np.asarray(faces, dtype=np.float64)
        if faces.ndim != 3:
            raise ValueError(f'faces must be (N, h, w), got shape {faces.shape}')
        for name, number in (('num_components', num_components), ('num_turns', num_turns)):
            if not 1 <= number < len(faces):
                raise ValueError(f'{name} must be in [1, {len(faces) - 1}], got {number}')
        height, width = faces.shape[1:]
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        mask = _oval(x, y)
        # The first eigenfaces of raw images are brightness and direction of the light, which carry
        # no identity: subtract a plane of light from every face first.
        plane = np.stack([np.ones_like(x), x, y], axis=-1).reshape(-1, 3)
        weight = mask.reshape(-1, 1)
        flat = faces.reshape(len(faces), -1).T
        flat = flat - plane @ np.linalg.lstsq(plane * weight, flat * weight, rcond=None)[0]
        deviation = np.sqrt((flat**2 * weight).sum(axis=0) / weight.sum())
        faces = (flat / np.maximum(deviation, 1e-12)).T.reshape(faces.shape)
        mirrored = faces[:, :, ::-1]
        symmetric = (faces + mirrored) / 2
        mean = symmetric.mean(axis=0)
        components = _eigenfaces((symmetric - mean) * mask, num_components)
        turns = _eigenfaces((faces - mirrored) / 2 * mask, num_turns)
        return cls(
            mean=enlarge(mean, size),
            components=np.stack([enlarge(component, size) for component in components]),
            turns=np.stack([enlarge(turn, size) for turn in turns]),
            mask=np.clip(enlarge(mask, size), 0, 1),
        )

    @classmethod
    def from_lfw_subset(
        cls, num_components: int = _NUM_COMPONENTS, num_turns: int = _NUM_TURNS
    ) -> FaceSpace:
        """Return the space of the 100 faces inside scikit-image, built once per process.

        Args:
            num_components: How many symmetric eigenfaces to keep, at most 99.
            num_turns: How many antisymmetric eigenfaces to keep, at most 99.

        Returns:
            The space, with faces of 50 x 50 pixels.

        Raises:
            ImportError: If scikit-image is not installed.
        """
        return build_lfw_space(num_components, num_turns)

    def render(self, coefficients: np.ndarray, turn: np.ndarray | None = None) -> np.ndarray:
        """Draw a face.

        Args:
            coefficients: (K,) coordinates along ``components``, standard normal for people.
            turn: (T,) coordinates along ``turns``, zero if not given.

        Returns:
            (S, S) float32 gray face with mean about 0 and standard deviation about 1.
        """
        face = self.mean + np.tensordot(np.float32(coefficients), self.components, axes=1)
        if turn is not None:
            face = face + np.tensordot(np.float32(turn), self.turns, axes=1)
        return face


def _oval(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Hair and chin are inside, the corners are not; the edge is soft.
    radius = np.sqrt((x / 0.84) ** 2 + ((y + 0.05) / 1.05) ** 2)
    return 1 / (1 + np.exp((radius - 1) / 0.06))


def _eigenfaces(images: np.ndarray, number: int) -> np.ndarray:
    _, singular, vectors = np.linalg.svd(images.reshape(len(images), -1), full_matrices=False)
    vectors = vectors[:number] * (singular[:number, None] / np.sqrt(len(images)))
    # The sign of an eigenvector is free and differs between LAPACK builds.
    strongest = np.abs(vectors).argmax(axis=1, keepdims=True)
    vectors = vectors * np.sign(np.take_along_axis(vectors, strongest, axis=1))
    return vectors.reshape(number, *images.shape[1:])


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Enlarge a gray image bicubically to a square of ``size`` pixels."""
    return cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=4)
def build_lfw_space(num_components: int, num_turns: int) -> FaceSpace:
    """Build :meth:`FaceSpace.from_lfw_subset`."""
    try:
        from skimage.data import lfw_subset
    except ImportError as error:
        raise ImportError(
            'The synthetic faces are made from the 100 faces inside scikit-image, which is not '
            'installed. Install it with: pip install "mmvlr[demo]"'
        ) from error
    # The second half of the 200 patches shows no faces.
    space = FaceSpace.from_faces(lfw_subset()[:100], num_components, num_turns)
    # The space is cached and shared by all callers in the process.
    for array in (space.mean, space.components, space.turns, space.mask):
        array.flags.writeable = False
    return space
