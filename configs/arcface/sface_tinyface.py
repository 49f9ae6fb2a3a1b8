_base_ = [
    '../_base_/models/sface.py',
    '../_base_/models/arcface.py',
    '../_base_/datasets/tinyface.py',
    '../_base_/schedules/tinyface.py',
    '../_base_/default_runtime.py',
]

model = dict(**_base_.network, **_base_.method)
optim_wrapper = dict(paramwise_cfg=dict(rates=dict(backbone=1e-4, head=1e-3)))
