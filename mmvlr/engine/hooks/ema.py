"""The hook that averages the weights."""

import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner

from mmvlr.registry import HOOKS

from .resume import is_finished


@HOOKS.register_module()
class FaceEMAHook(EMAHook):
    """mmengine's ``EMAHook``, which also handles values that other hooks measure.

    The averaged weights are validated, saved and tested. Only trained weights are averaged.
    Measured values are copied: buffers (the UI center, mu_UI and sigma_UI, statistics of BN), and
    parameters that a hook sets between two epochs (prototypes, the read-out).

    After the last iteration the averaged weights *become* the model's, before
    :class:`RegressionFitHook`, so that the read-out is fitted to the network that will use it. The
    weights that were not averaged are discarded: a finished run has only the average.

    Args:
        **kwargs: Arguments of :class:`mmengine.hooks.EMAHook`: ``ema_type``, ``momentum`` (weight
            of the newest iteration), ``begin_epoch``, ``begin_iter``, ``interval``.

    Raises:
        ValueError: ``update_buffers`` is True.
    """

    def __init__(self, **kwargs):
        if kwargs.get('update_buffers'):
            raise ValueError(
                'FaceEMAHook: update_buffers=True would average the UI center with zeros and mu_UI '
                'with nan, their values before they are measured; leave it out'
            )
        super().__init__(**kwargs)
        self.between_epochs = False
        self.is_finished = False

    def before_train(self, runner: Runner) -> None:
        """Remember the weights as they were loaded."""
        super().before_train(runner)
        # After the last iteration the average is the model, also in a resumed training.
        self.is_finished = is_finished(runner)
        self._remember()

    def before_train_epoch(self, runner: Runner) -> None:
        """Note that hooks may set parameters until the first iteration."""
        self.between_epochs = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        """Copy the parameters that hooks have set since the last iteration."""
        if not self.between_epochs:
            return
        self.between_epochs = False
        averaged = self.ema_model.module.parameters()
        for source, average, version in zip(
            self.src_model.parameters(), averaged, self.versions, strict=True
        ):
            if source._version != version:
                average.data.copy_(source.data)

    def after_train_epoch(self, runner: Runner) -> None:
        """After the last epoch, make the average the model."""
        if self.is_last_train_epoch(runner):
            averaged = self.ema_model.module.parameters()
            with torch.no_grad():
                for source, average in zip(self.src_model.parameters(), averaged, strict=True):
                    source.copy_(average)
            self.is_finished = True
        self._remember()

    def before_val_epoch(self, runner: Runner) -> None:
        """Validate with the averaged weights."""
        self._follow_when_finished()
        super().before_val_epoch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the averaged weights as the model's, and the others in addition."""
        self._follow_when_finished()
        # Hooks may have set buffers since the last iteration: SyncBuffersHook does.
        buffers = zip(self.ema_model.module.buffers(), self.src_model.buffers(), strict=True)
        for average, source in buffers:
            average.data.copy_(source.data)
        super().before_save_checkpoint(runner, checkpoint)

    def _remember(self) -> None:
        """Note how often each parameter has been written to."""
        self.versions = [parameter._version for parameter in self.src_model.parameters()]

    def _follow_when_finished(self) -> None:
        """Copy the values fitted after the last iteration."""
        if self.is_finished:
            self.ema_model.module.load_state_dict(self.src_model.state_dict())
