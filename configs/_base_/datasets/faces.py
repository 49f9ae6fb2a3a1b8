# What all data sets share: the paper's augmentation, loaders, the UI set, hooks that need data.
# The file of a data set fills in the data.
ui_root = __import__('os').environ.get('UI_ROOT') or 'data/ui'

load = dict(type='LoadFace')
resize = dict(type='ResizeFace', size=(112, 112), interpolation='bicubic')
pack = dict(type='PackFace')
augmentation = [
    dict(type='FlipFace', prob=0.5),
    dict(type='RotateFace', degrees=10),
    dict(type='RescaleFace', sizes=(64, 100)),
]
train_pipeline = [load, resize, *augmentation, pack]
test_pipeline = [load, resize, pack]
degraded_pipeline = [load, dict(type='DegradeFace'), resize, pack]

collate = dict(num_workers=2, collate_fn=dict(type='mmvlr.face_collate'))
in_order = dict(type='DefaultSampler', shuffle=False)
plain = dict(batch_size=64, sampler=in_order, **collate)

train_dataloader = dict(
    batch_size=64,
    drop_last=True,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
    **collate,
)
# Merged into train_dataloader by the `_batched` configs, for packed data: batches are resized and
# augmented on the device. All other loaders keep transforming one by one.
batched = dict(
    collate_fn=dict(type='mmvlr.native_collate'),
    dataset=dict(pipeline=[load, dict(type='PackNativeFace', transforms=augmentation)]),
)
val_dataloader = dict(
    persistent_workers=True,
    dataset=dict(type='ValidationSubset', fraction=0.2, size=16, pipeline=test_pipeline),
    **plain,
)
val_evaluator = dict(type='ClosedSetMetric', prefix='val', ranks=(1, 5))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline), **plain)

# Loaders of the hooks: the training set without augmentation and degraded, and the UI set.
prototype_dataloader = dict(dataset=dict(pipeline=test_pipeline, test_mode=True), **plain)
degraded_dataloader = dict(dataset=dict(pipeline=degraded_pipeline, test_mode=True), **plain)
ui_dataloader = dict(
    dataset=dict(type='UIFaces', data_root=ui_root, pipeline=test_pipeline), **plain
)

# Nothing of ArcFace is trained with the UI center; ERS, the quality measure to compare with, needs
# it.
custom_hooks = [
    dict(type='PrototypeInitHook', dataloader='prototype_dataloader'),
    dict(type='UICenterHook', dataloader='ui_dataloader'),
]
