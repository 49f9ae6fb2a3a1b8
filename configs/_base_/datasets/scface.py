_base_ = './faces.py'

scface = dict(
    type='SCface',
    data_root='{{$SCFACE_ROOT:data/scface}}',
    # The paper's split: 50 subjects train, 80 are probed against all 130 mugshots.
    train_subjects='{{$SCFACE_TRAIN_SUBJECTS:1-50}}',
    test_subjects='{{$SCFACE_TEST_SUBJECTS:51-130}}',
    gallery_subjects='{{$SCFACE_GALLERY_SUBJECTS:1-130}}',
)
train_set = dict(**scface, split='train')

train_dataloader = dict(dataset=train_set)
val_dataloader = dict(dataset=dict(dataset=train_set))
prototype_dataloader = dict(dataset=train_set)
degraded_dataloader = dict(dataset=train_set)
test_dataloader = dict(dataset=dict(**scface, split='test'))
test_evaluator = dict(type='SCfaceMetric')
