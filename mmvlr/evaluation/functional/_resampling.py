"""Resamples of identities, the draws of the bootstrap."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ._blocks import ArrayLike, as_vector

Statistic = Callable[[np.ndarray], Any]


class Resamples:
    """Reproducible resamples of identities: every iteration draws the same ones."""

    def __init__(
        self,
        groups: ArrayLike,
        length: int,
        num_resamples: int,
        seed: int,
        strata: ArrayLike | None = None,
    ) -> None:
        if num_resamples < 1:
            raise ValueError(f'num_resamples must be at least 1, got {num_resamples}')
        self.num_resamples, self.seed = num_resamples, seed
        pair = np.ndim(groups) == 2
        if pair:
            groups = np.asarray(groups)
            if groups.shape != (length, 2):
                raise ValueError(f'groups must have shape ({length}, 2), got {groups.shape}')
            if strata is not None:
                raise ValueError('strata need one identity an observation, groups of shape (N,)')
            _, group = np.unique(groups, return_inverse=True)
            self.group = group.reshape(length, 2)
        else:
            groups = as_vector(groups, 'groups', length)
            _, self.group = np.unique(groups, return_inverse=True)
        self.stratum = np.zeros(int(self.group.max()) + 1, np.int64)
        if strata is not None:
            _, kind = np.unique(as_vector(strata, 'strata', length), return_inverse=True)
            # An identity in two strata counts as two.
            both = np.stack([kind, self.group], axis=1)
            unique, self.group = np.unique(both, axis=0, return_inverse=True)
            self.group, self.stratum = self.group.reshape(-1), unique[:, 0]
        if (np.bincount(self.stratum) < 2).any():
            where = '' if strata is None else ' of each of the strata'
            raise ValueError(f'groups: needs at least two identities{where} to resample')

    def statistics(self, values: np.ndarray, statistic: Statistic) -> np.ndarray:
        """Return the statistic in every resample, float64 (num_resamples, ...)."""
        if statistic is np.mean and values.ndim == 1 and self.group.ndim == 1:
            total, size = np.bincount(self.group, values), np.bincount(self.group)
            means = (total @ count / (size @ count) for count in self._counts())
            return np.fromiter(means, np.float64, self.num_resamples)
        observation = np.arange(len(values))
        found = []
        for count in self._counts():
            drawn = count[self.group]
            if drawn.ndim == 2:
                one_person = self.group[:, 0] == self.group[:, 1]
                drawn = np.where(one_person, drawn[:, 0], drawn[:, 0] * drawn[:, 1])
            found.append(np.asarray(statistic(values[np.repeat(observation, drawn)]), np.float64))
        return np.stack(found)

    def _counts(self) -> Iterator[np.ndarray]:
        """Yield how often each identity is drawn, for every resample."""
        rng = np.random.default_rng(self.seed)
        members = [np.flatnonzero(self.stratum == s) for s in np.unique(self.stratum)]
        for _ in range(self.num_resamples):
            drawn = [own[rng.integers(len(own), size=len(own))] for own in members]
            yield np.bincount(np.concatenate(drawn), minlength=len(self.stratum))
