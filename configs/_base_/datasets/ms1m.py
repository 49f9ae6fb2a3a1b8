# insightface's training sets as RecordIO, already aligned to 112 x 112: MS1M-RetinaFace (MS1MV3),
# MS1MV2, WebFace, Glint360K. LFW of the same folder is validated and tested on.
rec_root = __import__('os').environ.get('MS1M_ROOT') or 'data/ms1m'

load = dict(type='LoadFace')
resize = dict(type='ResizeFace', size=(112, 112), interpolation='bicubic')
pack = dict(type='PackFace')
train_pipeline = [load, resize, dict(type='FlipFace', prob=0.5), pack]
test_pipeline = [load, resize, pack]

collate = dict(num_workers=4, persistent_workers=True, collate_fn=dict(type='mmvlr.face_collate'))
# 128 faces on each of 8 GPUs.
train_dataloader = dict(
    batch_size=128,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='RecordIOFaces', data_root=rec_root, pipeline=train_pipeline),
    **collate,
)
val_dataloader = dict(
    batch_size=64,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='LFWBin', data_root=rec_root + '/lfw.bin', pipeline=test_pipeline),
    **collate,
)
val_evaluator = dict(type='VerificationMetric', prefix='lfw')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
