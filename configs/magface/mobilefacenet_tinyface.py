_base_ = ['../arcface/mobilefacenet_tinyface.py']

model = dict(head=dict(loss=dict(_delete_=True, type='MagFaceLoss', scale=64.0)))
