_base_ = ['../arcface/sface_tinyface.py']

# The read-out learns at the rate of the recognition head, as in the paper.
model = dict(type='CRFIQA')
optim_wrapper = dict(paramwise_cfg=dict(rates=dict(regression=1e-3)))
