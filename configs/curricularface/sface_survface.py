_base_ = ['../arcface/sface_survface.py']

model = dict(head=dict(loss=dict(_delete_=True, type='CurricularFaceLoss', scale=64.0, margin=0.5)))
