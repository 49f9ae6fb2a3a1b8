"""One learning rate for each part of the model."""

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import nn

from mmvlr.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartRateConstructor(DefaultOptimWrapperConstructor):
    """Build an optimizer with the rates of the paper's table, one for each part of the model.

    Every parameter that learns must belong to exactly one part, a child of the model such as
    ``backbone``, ``head``, ``attention`` or ``regression``; a part without a rate, or a rate
    without a part, is an error rather than a silent default.

    Example of a config::

        optim_wrapper = dict(
            optimizer=dict(type='Adam', lr=1e-3, weight_decay=1e-4),
            constructor='PartRateConstructor',
            paramwise_cfg=dict(rates=dict(backbone=1e-5, head=1e-3)),
        )

    Rates for parts that the model does not have (``attention`` in an ArcFace model) are allowed
    only if they are None.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Return the optimizer wrapper for ``model``."""
        if hasattr(model, 'module'):
            model = model.module
        rates = dict(self.paramwise_cfg.get('rates', {}))
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(name.split('.')[0], []).append(parameter)
        without_rate = sorted(part for part in groups if rates.get(part) is None)
        without_part = sorted(
            p for p, rate in rates.items() if rate is not None and p not in groups
        )
        if without_rate or without_part:
            raise ValueError(
                f'paramwise_cfg.rates: no rate for the parts {without_rate}; rates for '
                f'{without_part}, which the model does not have. Its parts are {sorted(groups)}.'
            )
        optimizer_cfg = self.optimizer_cfg.copy()
        optimizer_cfg['params'] = [
            dict(params=parameters, lr=rates[part], name=part)
            for part, parameters in groups.items()
        ]
        wrapper_cfg = {'type': 'OptimWrapper', **self.optim_wrapper_cfg}
        wrapper_cfg['optimizer'] = OPTIMIZERS.build(optimizer_cfg)
        print_log(
            'learning rates: ' + ', '.join(f'{part} {rates[part]:g}' for part in groups),
            logger='current',
        )
        return OPTIM_WRAPPERS.build(wrapper_cfg)
