_base_ = [
    '../_base_/models/mobilefacenet.py',
    '../_base_/datasets/scface.py',
    '../_base_/default_runtime.py',
]
# A folder of good faces of whomever, and what the camera does to a face: a preset's name, or the
# file that mmvlr fit-degradation wrote.
good_root = __import__('os').environ.get('GOOD_ROOT') or 'data/good'
degradation = __import__('os').environ.get('DEGRADATION') or 'scface_d1'

model = dict(
    type='FaceRecognizer',
    distillation=[
        dict(type='CosineDistillationLoss', loss_weight=1.0),
        dict(type='RelationalDistillationLoss', loss_weight=1.0),
    ],
    **_base_.network,
)
model['backbone']['adapter'] = dict(type='LoRA', rank=8)

camera = dict(type='VLRDegradation', preset=degradation, prob=0.8)
good = dict(type='UnlabeledFaces', data_root=good_root)
train_dataloader = dict(
    batch_size=32,
    drop_last=False,
    dataset=dict(_delete_=True, **good, pipeline=[_base_.load, camera, _base_.resize, _base_.pack]),
)
teacher_dataloader = dict(
    dataset=dict(**good, test_mode=True, pipeline=_base_.test_pipeline), **_base_.plain
)
# Gain on the far faces of the camera, loss on the near ones.
far, near = (
    dict(
        dataset=dict(**_base_.scface, split='test', distances=d, pipeline=_base_.test_pipeline),
        **_base_.plain,
    )
    for d in ((1, 2), (3,))
)
val_dataloader = dict(_delete_=True, **far)
val_evaluator = dict(_delete_=True, type='SCfaceMetric', prefix='val')
retain_dataloader = near
retain_evaluator = [
    dict(type='ClosedSetMetric', ranks=(1,), prefix='retain'),
    dict(type='GalleryVerificationMetric', fars=(0.01,), prefix='retain'),
]
custom_hooks = [
    dict(type='TeacherHook', checkpoint=_base_.load_from, dataloader='teacher_dataloader')
]
default_hooks = dict(checkpoint=dict(save_best=None))
# Few steps: more than these learn the folder by heart.
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=2)
param_scheduler = dict(type='MultiStepLR', by_epoch=True, milestones=[4], gamma=0.1)
val_cfg = test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=1e-3),
    constructor='PartRateConstructor',
    paramwise_cfg=dict(rates=dict(adapter=1e-3)),
)
