_base_ = ['../arcface/r50_tinyface.py']

model = dict(head=dict(loss=dict(_delete_=True, type='NormFaceLoss', scale=64.0)))
