"""Fixtures of all tests: repeatable, on one thread, without a download."""

import logging
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parents[1]

# More threads than cores slow small tensors down, and sums depend on the number of threads.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeds():
    """Every test starts from the same generators, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def scope():
    """Names without a prefix are looked up in mmvlr, as under a config's ``default_scope``."""
    with DefaultScope.overwrite_default_scope('mmvlr'):
        yield


@pytest.fixture(scope='session')
def root():
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope='session')
def shared():
    """Folder of the real material: data in the official layouts and pretrained weights."""
    folder = Path(os.environ.get('MMVLR_SHARED', ROOT.parent / 'shared'))
    if not (folder / 'data').is_dir():
        pytest.skip(f'no real material at {folder}; set MMVLR_SHARED to its folder')
    return folder


@pytest.fixture
def messages():
    """List of (level, text) that goes to mmengine's current logger.

    Its loggers do not propagate, so pytest's ``caplog`` does not see them.
    """
    name = f'test-{len(MMLogger._instance_dict)}'
    logger = MMLogger.get_instance(name, logger_name='mmvlr', log_level='INFO')
    caught = []

    class Keeper(logging.Handler):
        def emit(self, record):
            caught.append((record.levelno, record.getMessage()))

    logger.handlers = [Keeper()]
    yield caught
    # Whoever comes next must not write into a list that nobody reads.
    del MMLogger._instance_dict[name]


@pytest.fixture
def warned(messages):
    """Return the warnings so far, as one text."""

    def text():
        return '\n'.join(message for level, message in messages if level == logging.WARNING)

    return text


@pytest.fixture(scope='session')
def tiny_backbone():
    """Config of a MobileFaceNet for 32 x 32 faces that takes a millisecond."""
    return dict(
        type='MobileFaceNet',
        input_size=32,
        embed_dims=16,
        stem_channels=8,
        stages=((16, 8, 1, 2), (16, 16, 1, 2)),
        last_channels=32,
    )


@pytest.fixture(scope='session')
def tiny_preprocessor():
    """Config of the preprocessor that goes with ``tiny_backbone``."""
    return dict(type='FaceDataPreprocessor', size=(32, 32))
