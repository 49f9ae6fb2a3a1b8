"""The hook that completes the interrupted validation of a killed run."""

import os

from mmengine.hooks import CheckpointHook, Hook, SyncBuffersHook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmvlr.registry import HOOKS


def is_finished(runner: Runner) -> bool:
    """Return whether every epoch, or every iteration, of a training is done."""
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        return loop.iter >= loop.max_iters
    return loop.epoch >= loop.max_epochs


def save_again(runner: Runner) -> None:
    """Write the last checkpoint of a training again, with the current weights."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.last_ckpt is not None:
            step = runner.epoch if hook.by_epoch else runner.iter
            hook._save_checkpoint_with_step(
                runner, step, meta=dict(epoch=runner.epoch, iter=runner.iter)
            )


@HOOKS.register_module()
class ResumeHook(Hook):
    """Make a resumed run equal to the uninterrupted one, whenever it was killed.

    A checkpoint is saved before its validation. It records whether the validation was done; if not,
    a resumed run validates before it continues, as that epoch may be the best one.

    Runs in ``before_train`` after all other hooks. If a checkpoint is resumed in another work dir,
    the files of its original work dir are not changed.

    Raises:
        ValueError: The checkpoint is of a later epoch than the last one of the config.
    """

    priority = 'LOWEST'

    def __init__(self):
        self.validated_iter: int | None = None
        self.is_pending = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Read whether the checkpoint was validated."""
        self.is_pending = bool(runner._resume) and not checkpoint['meta'].get('validated', False)

    def before_train(self, runner: Runner) -> None:
        """Validate a checkpoint that was not validated; log if nothing is left to train."""
        if not runner._resume or runner.iter == 0:
            return
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            done, last, unit = loop.iter, loop.max_iters, 'iterations'
        else:
            done, last, unit = loop.epoch, loop.max_epochs, 'epochs'
        if done > last:
            raise ValueError(
                f'the checkpoint is of a training of {done} {unit}, the config wants {last}: set '
                f'train_cfg.max_{unit.replace("iterations", "iters")}, or test it'
            )
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):
                self._stay_inside(runner, hook)
            elif isinstance(hook, SyncBuffersHook):
                # All ranks have loaded equal buffers; their mean could differ by rounding.
                hook.called_in_train = True
        if done == last:
            runner.logger.info(f'all {last} {unit} were trained already: none is left to train')
        if not self.is_pending or runner.val_loop is None:
            return
        loop._decide_current_val_interval()
        if done >= loop.val_begin and (done % loop.val_interval == 0 or done == last):
            runner.logger.info(f'resumed after {done} {unit}, which were not validated yet')
            runner.val_loop.run()

    def before_val_epoch(self, runner: Runner) -> None:
        """Record what is validated, for the checkpoints that follow."""
        self.validated_iter = runner.iter

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record in a checkpoint whether it was validated."""
        meta = checkpoint['meta']
        meta['validated'] = self.validated_iter is not None and self.validated_iter == meta['iter']

    @staticmethod
    def _stay_inside(runner: Runner, hook: CheckpointHook) -> None:
        """Restrict a checkpoint hook to replacing files of its own folder."""

        def inside(path: str | None) -> str | None:
            return path and os.path.join(hook.out_dir, os.path.basename(path))

        hook.last_ckpt = inside(runner.message_hub.runtime_info.get('last_ckpt'))
        if hook.save_best is not None and len(hook.key_indicators) == 1:
            hook.best_ckpt_path = inside(hook.best_ckpt_path)
        elif hook.save_best is not None:
            paths = hook.best_ckpt_path_dict
            paths.update({name: inside(path) for name, path in paths.items()})
