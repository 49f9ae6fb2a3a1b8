_base_ = [
    '../_base_/models/sface.py',
    '../_base_/models/riface.py',
    '../_base_/datasets/scface.py',
    '../_base_/schedules/scface.py',
    '../_base_/default_runtime.py',
]

model = dict(**_base_.network, **_base_.method)
optim_wrapper = dict(
    paramwise_cfg=dict(rates=dict(backbone=1e-4, head=1e-3, attention=1e-4, regression=1e-4))
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='RegressionFitHook',
        dataloader='prototype_dataloader',
        degraded_dataloader='degraded_dataloader',
    ),
]
