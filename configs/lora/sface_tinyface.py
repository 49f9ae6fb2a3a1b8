_base_ = ['../arcface/sface_tinyface.py']

model = dict(backbone=dict(adapter=dict(type='LoRA', rank=8)))
optim_wrapper = dict(paramwise_cfg=dict(rates=dict(backbone=None, adapter=1e-3)))
