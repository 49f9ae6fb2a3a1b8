"""Fixtures of the tests of identification."""

import numpy as np
import pytest

from .galleries import make_gallery


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def gallery(rng):
    return make_gallery(rng)
