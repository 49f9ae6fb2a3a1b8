"""The hook that measures the unrecognizable identities."""

import logging

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmvlr.registry import HOOKS

from ..extraction import build_loader, extract_predictions, unwrap


@HOOKS.register_module()
class UICenterHook(Hook):
    """Measure the UI set before an epoch: its center u, and mu_UI and sigma_UI of PRM's output.

    Everything is computed in eval mode with the current weights, sharded over the ranks, merged in
    index order in float64 and broadcast from rank 0, so it is identical on every rank. The values
    are buffers of the model: a checkpoint carries them, and a resumed run continues with them.

    Runs in ``before_train_epoch``, after hooks of normal priority (``PrototypeInitHook``) and
    before ``EpochSeedHook``. It also runs before the test of a model that has no center, as ERS
    needs one. If there is no UI set, a model that is not trained with the center is tested without
    center and ERS.

    Args:
        dataloader: Config of the loader of :class:`UIFaces`, or the name of that entry of the
            config.
        interval: Number of epochs between updates of the center.
        diversion_begin: Epoch at which mu_UI and sigma_UI are first measured, which switches the
            index diversion loss on. Before it, xi_hat is only regressed.
        freeze_statistics: Measure mu_UI and sigma_UI once and keep them. With updated statistics
            the target moves: the loss raises xi_hat, also that of the UI set, and thereby the value
            it has to reach. False is the paper's literal reading.
        freeze_center: Measure the center once and keep it.
    """

    priority = 'BELOW_NORMAL'

    def __init__(
        self,
        dataloader: dict | str,
        interval: int = 1,
        diversion_begin: int = 1,
        freeze_statistics: bool = True,
        freeze_center: bool = False,
    ):
        self.dataloader_cfg = dataloader
        self.dataloader = None
        self.interval = interval
        self.diversion_begin = diversion_begin
        self.freeze_statistics = freeze_statistics
        self.freeze_center = freeze_center
        self.is_missing = False

    def before_train_epoch(self, runner: Runner) -> None:
        """Measure the values that are due at this epoch."""
        model = unwrap(runner.model)
        due = runner.epoch % self.interval == 0
        center = not model.has_ui_center or (due and not self.freeze_center)
        needed = hasattr(model, 'set_ui_statistics')
        statistics = (
            needed
            and runner.epoch >= self.diversion_begin
            and (not model.has_ui_statistics or (due and not self.freeze_statistics))
        )
        if center or statistics:
            self.measure(runner, center, statistics, needed)

    def before_test(self, runner: Runner) -> None:
        """Set the center of a model that has none."""
        if not unwrap(runner.model).has_ui_center:
            self.measure(runner, center=True, statistics=False, needed=False)

    def measure(self, runner: Runner, center: bool, statistics: bool, needed: bool = True) -> None:
        """Run the model over the UI set and store the values in it.

        Raises:
            FileNotFoundError: There is no UI set, and it is ``needed``.
        """
        if self.is_missing:
            return
        if self.dataloader is None:
            try:
                self.dataloader = build_loader(runner.cfg, self.dataloader_cfg, runner.seed)
            except FileNotFoundError as error:
                if needed:
                    raise
                self.is_missing = True
                print_log(
                    f'{error}. Without a UI set there is no ERS',
                    logger='current',
                    level=logging.WARNING,
                )
                return
        model = unwrap(runner.model)
        predict = model.regressed_predictions if statistics else None
        result = extract_predictions(model, self.dataloader, predict, what='measuring the UI set')
        # Of the backbone's embedding, whatever the model's inference embedding is.
        device = model.ui_center.device
        if center:
            embeddings = F.normalize(result['backbone_embedding'].double(), dim=1)
            value = F.normalize(embeddings.mean(0), dim=0).to(device, torch.float32)
            broadcast(value)
            model.set_ui_center(value)
        if statistics:
            regressed = result['regressed'].double()
            values = torch.stack([regressed.mean(), regressed.std(correction=0)])
            values = values.to(device, torch.float32)
            broadcast(values)
            model.set_ui_statistics(*values)
            print_log(
                f'UI set: mu_UI {values[0]:.4f}, sigma_UI {values[1]:.4f} '
                f'over {len(regressed)} faces',
                logger='current',
            )
