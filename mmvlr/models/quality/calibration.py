"""Calibrate a quality, whose scale is arbitrary, to the probability of correct identification."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from sklearn.isotonic import IsotonicRegression

from mmvlr.structures import NO_IDENTITY
from mmvlr.utils.io import write_atomic
from mmvlr.utils.schema import load_json

_FORMAT, _VERSION = 'mmvlr isotonic calibration', 2


class IsotonicCalibration:
    """Map a quality to the probability that the face is identified correctly.

    The map is the non-decreasing function nearest to the observations in least squares (pool
    adjacent violators), linear between the observed qualities and constant beyond them. The order
    of faces is kept, except that neighbors may become equal. Zadrozny and Elkan, *Transforming
    classifier scores into accurate multiclass probability estimates*, KDD 2002.

    It must be fitted on other people than those it is used on; this is checked if ``identities``
    are given to both.

    Args:
        measure: Name of the quality measure, stored in the file for information.

    Attributes:
        quality: (K,) qualities of the function's corners, rising, or None before the fit.
        probability: (K,) their probabilities, non-decreasing.
        identities: The people it was fitted on, sorted, or None where they were not given.

    Example:
        >>> calibration = IsotonicCalibration('norm').fit([1, 2, 3, 4], [0, 1, 0, 1])
        >>> calibration([0, 2, 3, 3.5, 9])
        array([0.  , 0.5 , 0.5 , 0.75, 1.  ])
    """

    def __init__(self, measure: str = ''):
        self.measure = measure
        self.quality: np.ndarray | None = None
        self.probability: np.ndarray | None = None
        self.identities: np.ndarray | None = None

    def fit(
        self, quality: ArrayLike, correct: ArrayLike, identities: ArrayLike | None = None
    ) -> 'IsotonicCalibration':
        """Fit to held-out faces.

        Args:
            quality: (N,) qualities, higher is better.
            correct: (N,) bool, whether each face was identified correctly.
            identities: (N,) integers or text, the person of each face, in the numbering of the data
                set. -100 (no identity) is left out.

        Raises:
            ValueError: Lengths differ, there is no face, a quality is not finite, or ``correct``
                holds anything but 0 and 1.
        """
        quality, correct = _qualities(quality), np.asarray(correct)
        if len(quality) == 0 or correct.shape != quality.shape:
            raise ValueError(
                f'quality and correct must be (N,) of the same faces, got {quality.shape} and '
                f'{correct.shape}'
            )
        if not np.isin(correct, (0, 1)).all():
            raise ValueError('correct must be True or False for every face')
        people = None if identities is None else _people(identities, len(quality))
        model = IsotonicRegression(y_min=0, y_max=1, increasing=True, out_of_bounds='clip')
        model.fit(quality, correct.astype(np.float64))
        self.quality, self.probability = model.X_thresholds_, model.y_thresholds_
        self.identities = people
        return self

    def __call__(self, quality: ArrayLike, identities: ArrayLike | None = None) -> np.ndarray:
        """Return the probabilities, float64 (N,) in [0, 1].

        Args:
            quality: (N,) qualities.
            identities: (N,), the person of each face, in the numbering of the fit; compared with
                the people of the fit if both are given.

        Raises:
            RuntimeError: There was no fit.
            ValueError: A quality is not finite, or a person was in the fit.
        """
        if self.quality is None:
            raise RuntimeError('call fit or load before the calibration is used')
        quality = _qualities(quality)
        if identities is not None and self.identities is not None:
            people = _people(identities, len(quality))
            if (people.dtype.kind == 'U') != (self.identities.dtype.kind == 'U'):
                raise ValueError(
                    'identities are text in one of fit and use and numbers in the other'
                )
            both = sorted(set(people.tolist()) & set(self.identities.tolist()))
            if both:
                raise ValueError(
                    f'{len(both)} of {len(people)} people were in the fit of the calibration, such '
                    f'as {both[0]}: it would know their answers; fit it on other people'
                )
        return np.interp(quality, self.quality, self.probability)

    def save(self, path: str | Path) -> Path:
        """Write a JSON file, atomically; read it with :meth:`load`."""
        if self.quality is None:
            raise RuntimeError('call fit before the calibration is saved')
        content = dict(
            format=_FORMAT,
            version=_VERSION,
            measure=self.measure,
            quality=self.quality.tolist(),
            probability=self.probability.tolist(),
            identities=None if self.identities is None else self.identities.tolist(),
        )
        text = json.dumps(content, allow_nan=False, indent=1)
        return write_atomic(path, lambda file: file.write_text(text + '\n', encoding='utf-8'))

    @classmethod
    def load(cls, path: str | Path) -> 'IsotonicCalibration':
        """Read a JSON file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no calibration, of a later version, or damaged.
        """
        try:
            content = load_json(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f'{path} is {error}') from error
        if not isinstance(content, dict) or content.get('format') != _FORMAT:
            raise ValueError(f'{path} holds no calibration of mmvlr')
        version = content.get('version')
        if version not in (1, _VERSION):
            raise ValueError(f'{path} has version {version}; this mmvlr reads 1 and {_VERSION}')
        if version == 1 and content.get('measure') == 'ri':
            raise ValueError(
                f"{path} is of version 1, when the measure 'ri' had another scale: fit the "
                'calibration again'
            )
        try:
            calibration = cls(content['measure'])
            calibration.quality = _qualities(content['quality'])
            calibration.probability = _qualities(content['probability'])
            people = content['identities']
            calibration.identities = None if people is None else _people(people, len(people))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{path} is damaged ({error!r})') from error
        corners, values = calibration.quality, calibration.probability
        rises = (np.diff(corners) > 0).all() and (np.diff(values) >= 0).all()
        if len(corners) != len(values) or not len(values) or not rises:
            raise ValueError(f'{path} is damaged: it holds no rising function')
        if values[0] < 0 or values[-1] > 1:
            raise ValueError(f'{path} is damaged: probabilities must lie in [0, 1]')
        return calibration


def _qualities(values: ArrayLike) -> np.ndarray:
    """Return finite float64 (N,)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError(f'qualities must be finite and (N,), got {values.shape}')
    return values


def _people(identities: ArrayLike, count: int) -> np.ndarray:
    """Return the distinct people among ``count`` identities, without -100."""
    identities = np.asarray(identities)
    if identities.shape != (count,) or (count and identities.dtype.kind not in 'iuU'):
        raise ValueError(
            f'identities must be {count} integers or texts, got {identities.dtype} '
            f'{identities.shape}'
        )
    people = np.unique(identities)
    return people if people.dtype.kind == 'U' else people[people != NO_IDENTITY]
