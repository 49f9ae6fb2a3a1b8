# From random weights on WebFace4M (205,990 people) in insightface's RecordIO, as the authors train
# IR-50 on MS1MV2: 26 epochs, rate 0.1, a tenth of it from epochs 12, 20 and 24 on. They take 256
# faces in a step, this config 128 a rank. Their crops, low resolution and color changes are left
# out.
_base_ = ['../arcface/r50_ms1m.py']

rec_root = '{{$WEBFACE4M_ROOT:data/webface4m}}'
train_dataloader = dict(dataset=dict(data_root=rec_root))
val_dataloader = dict(dataset=dict(data_root=rec_root + '/lfw.bin'))
test_dataloader = dict(dataset=dict(data_root=rec_root + '/lfw.bin'))

model = dict(head=dict(loss=dict(_delete_=True, type='AdaFaceLoss', scale=64.0, margin=0.4)))
train_cfg = dict(max_epochs=26)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[12, 20, 24], gamma=0.1),
]
optim_wrapper = dict(optimizer=dict(lr=0.1), paramwise_cfg=dict(rates=dict(backbone=0.1, head=0.1)))
