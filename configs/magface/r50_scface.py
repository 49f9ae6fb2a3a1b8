_base_ = ['../arcface/r50_scface.py']

model = dict(head=dict(loss=dict(_delete_=True, type='MagFaceLoss', scale=64.0)))
