# ArcFace from random weights (Deng et al., CVPR 2019, section 3.1, as in ms1mv3_r50.py of
# insightface's arcface_torch): SGD, 25 epochs, two of them warm-up, then the rate falls as
# (1 - progress)^2. The rates belong to 1,024 faces in a step.
train_cfg = dict(by_epoch=True, max_epochs=25, val_interval=1)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='PolyLR', power=2, begin=2, end=25, by_epoch=True, convert_to_iter_based=True),
]
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=5e-4),
    constructor='PartRateConstructor',
    paramwise_cfg=dict(rates=dict(backbone=0.2, head=0.2)),
)
