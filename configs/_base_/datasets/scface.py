_base_ = './faces.py'

scface = dict(
    type='SCface',
    data_root=__import__('os').environ.get('SCFACE_ROOT') or 'data/scface',
    # The paper's split: 50 subjects train, 80 are probed against all 130 mugshots.
    train_subjects=__import__('os').environ.get('SCFACE_TRAIN_SUBJECTS') or '1-50',
    test_subjects=__import__('os').environ.get('SCFACE_TEST_SUBJECTS') or '51-130',
    gallery_subjects=__import__('os').environ.get('SCFACE_GALLERY_SUBJECTS') or '1-130',
)
train_set = dict(**scface, split='train')

train_dataloader = dict(dataset=train_set)
val_dataloader = dict(dataset=dict(dataset=train_set))
prototype_dataloader = dict(dataset=train_set)
degraded_dataloader = dict(dataset=train_set)
test_dataloader = dict(dataset=dict(**scface, split='test'))
test_evaluator = dict(type='SCfaceMetric')
