"""What a config amounts to, without training: the size of its network, its learning rates."""

import warnings
from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmvlr.registry import DATASETS, MODELS, PARAM_SCHEDULERS


def count_flops(config: Config) -> dict[str, int]:
    """Return ``parameters`` and ``flops`` of what embeds a face, as mmengine counts them.

    A multiplication with its addition is one operation. The head of the training is left out.
    """
    with DefaultScope.overwrite_default_scope('mmvlr'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = MODELS.build({**config.model.to_dict(), 'head': None}).eval()
        height, width = model.data_preprocessor.size
        analyzer = FlopAnalyzer(model.backbone, (torch.zeros(1, 3, height, width),))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        flops = int(analyzer.total())
    return dict(parameters=sum(p.numel() for p in model.backbone.parameters()), flops=flops)


def list_rates(config: Config) -> list[dict[str, float]]:
    """Return the learning rate of each part in each epoch, as ``epoch`` and the part's name.

    Raises:
        ValueError: The config trains by iterations.
    """
    epochs = config.train_cfg.get('max_epochs')
    if not epochs:
        raise ValueError('the config trains by iterations (train_cfg.max_iters), not by epochs')
    wrapper = config.optim_wrapper
    rates = (wrapper.get('paramwise_cfg') or {}).get('rates') or {'lr': wrapper.optimizer.lr}
    rates = {part: rate for part, rate in rates.items() if rate is not None}
    groups = [dict(params=[torch.zeros(1)], lr=rate) for rate in rates.values()]
    optimizer = torch.optim.SGD(groups, lr=0)
    settings = config.get('param_scheduler') or []
    settings = [settings] if isinstance(settings, dict) else settings
    by_iteration = any(
        not each.get('by_epoch', True) or each.get('convert_to_iter_based') for each in settings
    )
    steps = _count_steps(config) if by_iteration else 1
    added = dict(optimizer=optimizer, epoch_length=steps)
    with DefaultScope.overwrite_default_scope('mmvlr'):
        schedulers = [PARAM_SCHEDULERS.build(dict(each), default_args=added) for each in settings]
    table: list[dict[str, Any]] = []
    for epoch in range(1, epochs + 1):
        now = [group['lr'] for group in optimizer.param_groups]
        table.append(dict(epoch=epoch, **dict(zip(rates, now, strict=True))))
        for _ in range(steps):
            optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    return table


def _count_steps(config: Config) -> int:
    loader = config.train_dataloader
    with DefaultScope.overwrite_default_scope('mmvlr'):
        images = len(DATASETS.build(loader.dataset))
    whole, rest = divmod(images, loader.batch_size)
    return whole + bool(rest and not loader.get('drop_last'))
