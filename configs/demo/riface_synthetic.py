# The demo: RI-Face from random weights on embedded synthetic faces, a few minutes on two cores.
# Small numbers all over: 32-pixel input, 0.1 M parameters, 120 people. Not a recipe for real faces.
_base_ = ['../_base_/models/riface.py', '../_base_/default_runtime.py']

size = (32, 32)
load = dict(type='LoadFace')
resize = dict(type='ResizeFace', size=size, interpolation='bicubic')
pack = dict(type='PackFace')
train_pipeline = [
    load,
    resize,
    dict(type='FlipFace', prob=0.5),
    dict(type='RotateFace', degrees=5),
    dict(type='RescaleFace', sizes=(16, 24)),
    pack,
]
test_pipeline = [load, resize, pack]

train_set = dict(type='SyntheticFaces', num_people=120, images_per_person=16, split='train')
in_order = dict(type='DefaultSampler', shuffle=False)
# The images are drawn once and kept in memory: workers would cost more than they bring.
loading = dict(num_workers=0, collate_fn=dict(type='mmvlr.face_collate'))
plain = dict(batch_size=256, sampler=in_order, **loading)

train_dataloader = dict(
    batch_size=64,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**train_set, pipeline=train_pipeline),
    **loading,
)
val_dataloader = dict(
    dataset=dict(
        type='ValidationSubset', dataset=train_set, fraction=0.2, size=12, pipeline=test_pipeline
    ),
    **plain,
)
val_evaluator = dict(type='ClosedSetMetric', prefix='val', ranks=(1, 5))
test_dataloader = dict(
    dataset=dict(
        type='SyntheticFaces',
        split='test',
        first_person=120,
        num_people=100,
        images_per_person=6,
        gallery_per_person=2,
        num_distractors=500,
        num_ui=200,
        pipeline=test_pipeline,
    ),
    **plain,
)
test_evaluator = dict(type='ClosedSetMetric', prefix='synthetic')

model = dict(
    **{k: v for k, v in _base_.method.items() if k not in ('head', 'attention', 'attended_weight')},
    backbone=dict(
        type='MobileFaceNet',
        input_size=32,
        embed_dims=64,
        stem_channels=32,
        stages=((64, 32, 2, 1), (96, 48, 2, 2), (128, 64, 2, 2)),
        last_channels=192,
    ),
    head=dict(
        type='RecognitionModule',
        dropout=0.0,
        loss=dict(type='ArcFaceLoss', scale=16.0, margin=0.2),
    ),
    attention=dict(type='PerceptibilityAttention', reduction=16, kernel_size=3),
    data_preprocessor=dict(
        type='FaceDataPreprocessor', size=size, interpolation='bicubic', mean=127.5, std=128.0
    ),
)
load_from = None
optim_wrapper = dict(
    optimizer=dict(type='Adam', lr=2e-3, weight_decay=1e-4),
    constructor='PartRateConstructor',
    paramwise_cfg=dict(rates=dict(backbone=2e-3, head=5e-3, attention=2e-3, regression=2e-3)),
)
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=5)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=2),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=30, T_max=28, eta_min=1e-5),
]
custom_hooks = [
    dict(
        type='UICenterHook',
        dataloader=dict(
            dataset=dict(type='SyntheticUIFaces', num_images=200, pipeline=test_pipeline), **plain
        ),
        interval=5,
        diversion_begin=16,
    ),
    dict(
        type='RegressionFitHook',
        dataloader=dict(dataset=dict(**train_set, pipeline=test_pipeline), **plain),
        degraded_dataloader=dict(
            dataset=dict(**train_set, pipeline=[load, dict(type='DegradeFace'), resize, pack]),
            **plain,
        ),
    ),
]
