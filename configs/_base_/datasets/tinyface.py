# TinyFace, the paper's augmentation and validation subset, and the UI set.
tinyface_root = '{{$TINYFACE_ROOT:data/tinyface}}'
ui_root = '{{$UI_ROOT:data/ui}}'

load = dict(type='LoadFace')
resize = dict(type='ResizeFace', size=(112, 112), interpolation='bicubic')
pack = dict(type='PackFace')
train_pipeline = [
    load,
    resize,
    dict(type='FlipFace', prob=0.5),
    dict(type='RotateFace', degrees=10),
    dict(type='RescaleFace', sizes=(64, 100)),
    pack,
]
test_pipeline = [load, resize, pack]

train_set = dict(type='TinyFace', data_root=tinyface_root, split='train')
workers = dict(num_workers=2, persistent_workers=True, collate_fn=dict(type='mmvlr.face_collate'))
in_order = dict(type='DefaultSampler', shuffle=False)

train_dataloader = dict(
    batch_size=64,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**train_set, pipeline=train_pipeline),
    **workers,
)
val_dataloader = dict(
    batch_size=64,
    sampler=in_order,
    dataset=dict(
        type='ValidationSubset',
        dataset=train_set,
        fraction=0.2,
        size=16,
        pipeline=test_pipeline,
    ),
    **workers,
)
val_evaluator = dict(type='ClosedSetMetric', prefix='val', ranks=(1, 5))
test_dataloader = dict(
    batch_size=64,
    sampler=in_order,
    dataset=dict(type='TinyFace', data_root=tinyface_root, split='test', pipeline=test_pipeline),
    **workers,
)
test_evaluator = dict(type='TinyFaceMetric')

# Loaders of the hooks: the training set without augmentation, and the UI set.
prototype_dataloader = dict(
    batch_size=64,
    sampler=in_order,
    dataset=dict(**train_set, pipeline=test_pipeline, test_mode=True),
    num_workers=2,
    collate_fn=dict(type='mmvlr.face_collate'),
)
ui_dataloader = dict(
    batch_size=64,
    sampler=in_order,
    dataset=dict(type='UIFaces', data_root=ui_root, pipeline=test_pipeline),
    num_workers=2,
    collate_fn=dict(type='mmvlr.face_collate'),
)

degraded_dataloader = dict(
    batch_size=64,
    sampler=in_order,
    dataset=dict(
        **train_set,
        pipeline=[load, dict(type='DegradeFace'), resize, pack],
        test_mode=True,
    ),
    num_workers=2,
    collate_fn=dict(type='mmvlr.face_collate'),
)

# Hooks that need data. Nothing of ArcFace is trained with the UI centre; ERS, the quality measure
# to compare with, needs it.
custom_hooks = [
    dict(type='PrototypeInitHook', dataloader=prototype_dataloader),
    dict(type='UICenterHook', dataloader=ui_dataloader),
]
