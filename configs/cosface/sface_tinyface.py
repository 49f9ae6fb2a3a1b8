_base_ = ['../arcface/sface_tinyface.py']

model = dict(head=dict(loss=dict(_delete_=True, type='CosFaceLoss', scale=64.0, margin=0.35)))
