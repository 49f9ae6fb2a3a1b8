_base_ = ['../arcface/sface_scface.py']

model = dict(head=dict(loss=dict(_delete_=True, type='SoftmaxLoss')))
