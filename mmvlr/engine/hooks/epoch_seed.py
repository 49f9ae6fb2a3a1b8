"""The hook that makes every epoch a function of (seed, epoch)."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmvlr.datasets.base import set_epoch
from mmvlr.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed all generators at the start of each epoch, and set the epoch of the data set.

    Dropout, shuffling and augmentation of epoch e then depend on (seed, e) only, not on what ran
    before, and a run resumed at the start of an epoch equals the uninterrupted one bit for bit (on
    CPU; on GPU as far as its kernels are deterministic).

    Runs in ``before_train_epoch`` after all other hooks: extraction by :class:`UICenterHook` must
    not advance the generators.
    """

    priority = 'LOWEST'

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed for the epoch that begins."""
        seed = np.random.SeedSequence((runner.seed, runner.epoch, get_rank())).generate_state(1)[0]
        random.seed(int(seed))
        np.random.seed(int(seed))
        torch.manual_seed(int(seed))
        set_epoch(runner.train_dataloader.dataset, runner.epoch, runner.seed)
