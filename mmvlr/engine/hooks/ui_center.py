"""The hook that measures the unrecognizable identities."""

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
    """Measure the UI set before an epoch: its center u, and mu_UI and sigma_UI of xi_hat.

    Everything is computed in eval mode with the current weights, sharded over the ranks, merged in
    index order in float64 and broadcast from rank 0, so it is identical on every rank. The values
    are buffers of the model: a checkpoint carries them, a resumed run goes on with them.

    Runs in ``before_train_epoch``, after hooks of normal priority (``PrototypeInitHook``) and
    before ``EpochSeedHook``. With a model that has no center yet it also runs before a test, for
    models trained without it: their ERS needs one.

    Args:
        dataloader: Config of the loader of :class:`UIFaces`, or the name of that entry of the
            config.
        interval: Refresh the center every so many epochs.
        diversion_begin: Epoch at which mu_UI and sigma_UI are first measured, which switches the
            index diversion loss on. Before it, xi_hat is only regressed.
        freeze_statistics: Measure mu_UI and sigma_UI once and keep them. Statistics that follow the
            model chase their own tail: the loss raises xi_hat, that of the UI set too, and with it
            the mark it has to reach. False is the paper's literal reading.
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

    def before_train_epoch(self, runner: Runner) -> None:
        """Refresh what is due at this epoch."""
        model = unwrap(runner.model)
        due = runner.epoch % self.interval == 0
        center = not model.has_ui_center or (due and not self.freeze_center)
        statistics = (
            hasattr(model, 'set_ui_statistics')
            and runner.epoch >= self.diversion_begin
            and (not model.has_ui_statistics or (due and not self.freeze_statistics))
        )
        if center or statistics:
            self.measure(runner, center, statistics)

    def before_test(self, runner: Runner) -> None:
        """Set the center of a model that carries none."""
        if not unwrap(runner.model).has_ui_center:
            self.measure(runner, center=True, statistics=False)

    def measure(self, runner: Runner, center: bool, statistics: bool) -> None:
        """Run the model over the UI set and store the values in it."""
        if self.dataloader is None:
            self.dataloader = build_loader(runner.cfg, self.dataloader_cfg, runner.seed)
        model = unwrap(runner.model)
        result = extract_predictions(model, self.dataloader)
        # Of the backbone's embedding, whatever the model's inference embedding is.
        device = model.ui_center.device
        if center:
            embeddings = F.normalize(result['backbone_embedding'].double(), dim=1)
            value = F.normalize(embeddings.mean(0), dim=0).to(device, torch.float32)
            broadcast(value)
            model.set_ui_center(value)
        if statistics:
            xi_hat = result['recognizability'].double()
            values = torch.stack([xi_hat.mean(), xi_hat.std(correction=0)])
            values = values.to(device, torch.float32)
            broadcast(values)
            model.set_ui_statistics(*values)
            print_log(
                f'UI set: mu_UI {values[0]:.4f}, sigma_UI {values[1]:.4f} over {len(xi_hat)} faces',
                logger='current',
            )
