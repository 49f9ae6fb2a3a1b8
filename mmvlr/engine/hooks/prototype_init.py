"""The hook that starts the prototypes at the class means."""

import torch
import torch.nn.functional as F
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmvlr.registry import HOOKS

from ..extraction import build_loader, extract_predictions, unwrap


@HOOKS.register_module()
class PrototypeInitHook(Hook):
    """Set every prototype to the mean direction of its class under the pretrained backbone.

    In fine-tuning on a small VLR set the initial prototypes have the largest measured effect:
    random ones distort the pretrained embedding before they converge.

    Runs once, in ``before_train_epoch`` of epoch 0 at iteration 0, so never in a resumed run.

    Args:
        dataloader: Config of a loader over the training set without augmentation, or the name of
            that entry of the config.
    """

    priority = 'NORMAL'

    def __init__(self, dataloader: dict | str):
        self.dataloader_cfg = dataloader

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the prototypes at the start of training."""
        if runner.iter > 0:
            return
        model = unwrap(runner.model)
        loader = build_loader(runner.cfg, self.dataloader_cfg, runner.seed)
        result = extract_predictions(model, loader, what='measuring the prototypes')
        labels = torch.stack([sample.gt_label for sample in result['samples']]).view(-1)
        embeddings = F.normalize(result['backbone_embedding'].double(), dim=1)
        sums = torch.zeros(model.head.num_classes, embeddings.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels, embeddings)
        missing = int((sums.abs().sum(1) == 0).sum())
        if missing:
            raise ValueError(
                f'PrototypeInitHook: {missing} of {model.head.num_classes} classes have no image '
                'in its loader; it must run over the training set'
            )
        value = sums.to(model.head.weight.device, torch.float32)
        broadcast(value)
        model.head.set_prototypes(value)
        print_log(
            f'prototypes of {model.head.num_classes} classes set to the class means of '
            f'{len(labels)} images',
            logger='current',
        )
