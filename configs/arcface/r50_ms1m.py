# From random weights on MS1MV3 (93,431 people), the prototypes sharded over the GPUs.
_base_ = [
    '../_base_/models/r50.py',
    '../_base_/models/arcface.py',
    '../_base_/datasets/ms1m.py',
    '../_base_/schedules/pretrain.py',
    '../_base_/default_runtime.py',
]

model = dict(**_base_.network, **_base_.method)
model['backbone']['frozen_bn'] = False
model['head'].update(
    type='PartialRecognitionModule',
    # insightface uses all prototypes of MS1M, and 0.2 or 0.3 of those of WebFace42M.
    rate=1.0,
    dropout=0.0,
    loss=dict(type='ArcFaceLoss', scale=64.0, margin=0.5),
)
load_from = None
default_hooks = dict(checkpoint=dict(save_best='lfw/verification_accuracy'))
# The start of the prototypes is random, as is that of the network: no hook for them.
custom_hooks = [dict(type='ShardCheckpointHook')]
