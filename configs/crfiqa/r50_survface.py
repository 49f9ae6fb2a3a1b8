_base_ = ['../arcface/r50_survface.py']

# The read-out learns at the rate of the recognition head, as in the paper.
model = dict(type='CRFIQA')
optim_wrapper = dict(paramwise_cfg=dict(rates=dict(regression=5e-4)))
