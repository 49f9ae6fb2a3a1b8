# PAM as table 5 trains it: the attended map averaged, a new linear layer, no loss of its own.
_base_ = ['./r50_tinyface.py']

model = dict(attention=dict(projection='pooled'), attended_weight=0.0)
optim_wrapper = dict(paramwise_cfg=dict(rates=dict(attention=1e-3)))
